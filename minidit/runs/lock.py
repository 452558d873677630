"""One process at a time works in a run's folder.

The lock is the operating system's (flock; on NFS its byte locks), so it ends with its process, also when that is killed. Its file
names the owner: process, host and time. Where a file system has no locks, the file itself is the lock; if its owner ran on this
host and is gone, the next process takes it over, and for an owner on another host the message says which file to delete.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from minidit.training.loop import RunError

fcntl = importlib.import_module("fcntl") if os.name == "posix" else None
LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder. Raises RunError, with the owner, while another process does."""
    file = _taken(folder)
    _held.add(file)
    try:
        yield
    finally:
        if not file.closed:  # as it is in a process that was forked meanwhile: the lock is not its own
            with contextlib.suppress(OSError):  # before it is released: whoever opened it sees that it is gone, and retries
                (folder / LOCK).unlink()
            _held.discard(file)
            with contextlib.suppress(OSError):  # what goes wrong here must not hide the error of the block
                file.close()


_held: set[BinaryIO] = set()


def _let_go() -> None:
    """In a forked process: the lock ends with the process that took it, not with its children."""
    while _held:
        with contextlib.suppress(OSError):
            _held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _taken(folder: Path) -> BinaryIO:
    path = folder / LOCK
    while True:
        try:
            file = open(path, "ab+", buffering=0)  # noqa: SIM115  open for as long as the lock is held
        except OSError as error:
            advice = "make room there, or mend its permissions, and start again"
            raise RunError(f"{folder}: cannot be written ({error.strerror}): {advice}") from error
        try:
            if fcntl is None:
                raise OSError("this system has no locks")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(file)
            file.close()
            raise RunError(f"{folder} is in use by {_named(owner)}: wait for it, or choose another --out") from None
        except OSError:
            _claim(file, folder)
        if _is(file, path):
            with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
                me = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
                file.truncate(0)
                file.write(json.dumps(me).encode())
            return file
        file.close()


def _is(file: BinaryIO, path: Path) -> bool:
    """Whether the file stands under this path; its last owner may have deleted it after it was opened here."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _claim(file: BinaryIO, folder: Path) -> None:
    """Without locks: the file belongs to the process that it names. Raises RunError unless that is gone."""
    owner = _owner(file)
    if owner and not (owner["host"] == platform.node() and os.name == "posix" and not alive(int(owner["pid"]))):
        file.close()
        raise RunError(f"{folder} is in use by {_named(owner)}; if that process is gone, delete {folder / LOCK}")


def _owner(file: BinaryIO) -> dict[str, str]:
    file.seek(0)
    try:
        owner = json.loads(file.read(1000))
        return {key: str(owner[key]) for key in ("pid", "host", "since")} if int(owner["pid"]) > 0 else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _named(owner: dict[str, str]) -> str:
    return f"process {owner['pid']} on {owner['host']}, since {owner['since']}" if owner else "another process"


def alive(pid: int) -> bool:
    """Whether a process of this number runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True
