"""Arrays on disk, for data sets that are larger than memory: written once, checked at every start, read as they are needed.

    CACHE/key/about.json      the type, shape and SHA-256 of every array, and facts about the set
    CACHE/key/images, …       the numbers of an array and nothing else, mapped into memory read-only
    CACHE/key.building-…      an entry that is being written; it becomes CACHE/key in one stroke, when it is complete
    CACHE/locks/key           held while the entry is written: another process waits and does not write it a second time

The key is a SHA-256 of everything that the arrays depend on. An entry whose files do not agree with its about.json is removed
and written again. What a killed process left behind is removed when the next entry is written. The folder may be deleted at any
time while nothing is running.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidit.data.checks import DataError, fault
from minidit.outgoing import silent

fcntl = importlib.import_module("fcntl") if os.name == "posix" else None  # elsewhere two processes may write one entry twice

VERSION = 1  # of the files of an entry, and of what readers make of pictures
IN_MEMORY = 2**28  # bytes of pixels: smaller sets are not cached
ABOUT = "about.json"
BUILDING = ".building-"
UNFINISHED = re.compile(rf"[0-9a-f]{{64}}{re.escape(BUILDING)}\d+-\d+")  # an entry's key, process and time
Facts = dict[str, Any]


def default_folder() -> Path:
    """The cache folder of this user, shared by all runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minidit" / "data"


def in_words(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 1e9:.2f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"


def key_of(*parts: object) -> str:
    """A key: the SHA-256 of values that JSON can write, and of the version of the format."""
    return hashlib.sha256(json.dumps([VERSION, *parts], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """The arrays of a key, read-only memory maps, and the facts that were kept with them."""

    key: str
    arrays: dict[str, NDArray[Any]]
    facts: Facts
    digests: dict[str, str]  # SHA-256 of each array


class Writer:
    """Writes the arrays of an entry, block after block along their first axis."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.about = folder, dict[str, dict[str, Any]]()
        self.files: dict[str, Any] = {}
        self.hashes: dict[str, Any] = {}

    def append(self, name: str, block: NDArray[Any]) -> None:
        """Adds rows to an array. All blocks of an array have one dtype and one shape after the first axis."""
        block = np.ascontiguousarray(block)
        if name not in self.files:
            self.files[name] = open(self.folder / name, "wb")  # noqa: SIM115 (closed by `close`)
            self.hashes[name] = hashlib.sha256()
            self.about[name] = {"dtype": block.dtype.str, "shape": [0, *block.shape[1:]]}
        entry = self.about[name]
        assert [entry["dtype"], *entry["shape"][1:]] == [block.dtype.str, *block.shape[1:]]
        entry["shape"][0] += len(block)
        self.files[name].write(block.data if block.size else b"")
        self.hashes[name].update(block.data if block.size else b"")

    def rewrite(self, name: str, change: Callable[[NDArray[Any]], NDArray[Any]], rows: int) -> None:
        """Replaces an array by `change` of its blocks of rows."""
        self.files.pop(name).close()
        old, entry = self.folder / f"{name}.old", self.about.pop(name)
        (self.folder / name).rename(old)
        array: NDArray[Any] = np.memmap(old, entry["dtype"], "r", shape=tuple(entry["shape"]))
        for k in range(0, len(array), rows):
            self.append(name, change(np.asarray(array[k : k + rows])))
        del array
        old.unlink()

    def close(self, key: str, facts: Facts) -> None:
        """Completes the files."""
        for name, file in self.files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self.about[name]["sha256"] = self.hashes[name].hexdigest()
        self.files = {}
        (self.folder / ABOUT).write_text(json.dumps({"key": key, "arrays": self.about, "facts": facts}))

    def abandon(self) -> None:
        """Closes the files of an entry that will not be completed."""
        for file in self.files.values():
            with contextlib.suppress(OSError):
                file.close()


@dataclass(frozen=True)
class Cache:
    """A folder of entries.

    least : bytes of pixels; a set of fewer stays in memory    tell : a line for people    progress : (what, done, total)
    """

    folder: Path = field(default_factory=default_folder)
    least: int = IN_MEMORY
    tell: Callable[[str], None] = silent
    progress: Callable[[str, int, int], None] = silent

    def find(self, key: str) -> Entry | None:
        """The entry of a key if it is there and every one of its files is what was written."""
        entry = self._opened(key)
        return entry if isinstance(entry, Entry) else None

    def entry(self, key: str, what: str, size: int, fill: Callable[[Writer], Facts]) -> Entry:
        """The entry of a key, written by `fill` if it is not there or damaged.

        what : a name for messages    size : of the entry in bytes, at most
        Raises DataError if the disk has too little room, or fails.
        """
        if entry := self.find(key):
            return entry
        try:
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
            with self._locked(key, what) as alone:
                now = self._opened(key)
                if isinstance(now, Entry):
                    return now
                if now:
                    self.tell(f"{self.folder / key}: {now}: it is written again")
                    shutil.rmtree(self.folder / key, ignore_errors=True)
                self._sweep(key if alone else "")
                self._write(key, what, size, fill)
        except OSError as error:
            hint = "name another folder with --cache DIR, or --cache off"
            raise fault(self.folder, f"the cache cannot be written ({error.strerror or error}): {hint}") from error
        result = self._opened(key)
        if not isinstance(result, Entry):
            why = result or "is gone"
            raise fault(self.folder / key, f"{why} right after it was written: name another folder with --cache DIR")
        return result

    def check_room(self, what: str, size: int) -> None:
        """Raises DataError if so many bytes have no room on the disk of the cache."""
        place = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        if size > free:
            need = f"needs {in_words(size)}, and {in_words(free)} are free"
            raise fault(self.folder, f"the cache of {what} {need}: free {in_words(size - free)}, name another folder with "
                                     "--cache DIR, or take a smaller --size")  # fmt: skip

    def similar(self, outline: str) -> Iterator[tuple[str, Facts]]:
        """(key, facts) of the entries whose facts have this outline."""
        try:
            entries = sorted(self.folder.glob(f"*/{ABOUT}"))
        except OSError:  # a folder that may not be looked into
            return
        for path in entries:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                about = json.loads(path.read_text())
                if about["facts"].get("outline") == outline and path.parent.name == about["key"]:
                    yield about["key"], about["facts"]

    def adopt(self, old: str, key: str) -> None:
        """Gives an entry another key. Raises OSError."""
        about = json.loads((self.folder / old / ABOUT).read_text()) | {"key": key}
        temporary = self.folder / old / f"{ABOUT}.{os.getpid()}"
        temporary.write_text(json.dumps(about))
        temporary.replace(self.folder / old / ABOUT)
        (self.folder / old).rename(self.folder / key)

    # ------------------------------------------------------------------------------------------------ inside

    def _opened(self, key: str) -> Entry | str:
        """The entry, or what is wrong with it; "" if there is none."""
        folder = self.folder / key
        try:
            if not folder.exists():
                return ""
        except OSError:  # a folder that may not be looked into
            return ""
        try:
            about = json.loads((folder / ABOUT).read_text())
            if about["key"] != key:
                return "it holds the entry of another key"
            arrays = {}
            for name, a in about["arrays"].items():
                path, shape, dtype = folder / name, tuple(a["shape"]), np.dtype(a["dtype"])
                if dtype.hasobject or path.name != name:
                    return f"{name} is not an array of numbers"
                if path.stat().st_size != int(np.prod(shape, dtype=object)) * dtype.itemsize:
                    return f"{name} has not the size of its shape"
                with open(path, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != a["sha256"]:
                        return f"the checksum of {name} differs"
                arrays[name] = np.memmap(path, dtype, "r", shape=shape) if np.prod(shape) else np.zeros(shape, dtype)
            return Entry(key, arrays, dict(about["facts"]), {name: a["sha256"] for name, a in about["arrays"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"it cannot be read ({error})"

    def _write(self, key: str, what: str, size: int, fill: Callable[[Writer], Facts]) -> None:
        self.check_room(what, size)
        self.tell(f"{what}: up to {in_words(size)} are written to {self.folder}, once (--cache DIR: elsewhere; off: memory)")
        building = self.folder / f"{key}{BUILDING}{os.getpid()}-{time.time_ns()}"
        building.mkdir()
        writer = Writer(building)
        try:
            writer.close(key, fill(writer))
            with contextlib.suppress(OSError):  # without locks another process may have been faster
                building.rename(self.folder / key)
        finally:
            writer.abandon()
            shutil.rmtree(building, ignore_errors=True)

    def _sweep(self, mine: str) -> None:
        """Removes what killed processes left: entries under construction whose lock nobody holds.   mine : the key locked here"""
        for left in self.folder.glob(f"*{BUILDING}*"):
            key = left.name.partition(BUILDING)[0]
            if not UNFINISHED.fullmatch(left.name):  # the folder may be somebody's own
                continue
            if key == mine:
                shutil.rmtree(left, ignore_errors=True)
            elif fcntl is not None:
                with contextlib.suppress(OSError), open(self.folder / "locks" / key, "ab") as file:  # OSError: it is in use
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _locked(self, key: str, what: str) -> Iterator[bool]:
        """One process at a time writes an entry; the lock ends with its process. False where there are no locks."""
        with open(self.folder / "locks" / key, "ab") as file:
            alone = fcntl is not None
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self.tell(f"{what}: another process writes its cache: waiting")
                    fcntl.flock(file, fcntl.LOCK_EX)
                except OSError:
                    alone = False
            yield alone


def named(text: str) -> Cache | None:
    """The cache that a configuration names: "" the default folder, "off" none, else a folder. Raises DataError for a file."""
    if text == "off":
        return None
    folder = Path(text).expanduser() if text else default_folder()
    with contextlib.suppress(OSError):  # somebody else's home: an error only for a set that needs the cache
        if folder.is_file():
            raise DataError(f"{folder}: a file, not a folder: name another one with --cache DIR")
    return Cache(folder)
