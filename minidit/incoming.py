"""What comes from outside: files, names and programs that somebody else made, read within stated budgets.

Every reader promises the same: it opens regular files only, allocates nothing that the file does not hold, stops at a budget of
bytes, objects and seconds, and raises its own error, one printable line: the file, what is wrong, the way on.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import time
import tomllib
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_TEXT = 2**24  # bytes of a text file: a configuration, an index
MAX_DIRECTORY = 2**23  # bytes of a zip file's table of contents: about 100,000 members
MAX_MESSAGE = 2**14  # characters of an error: a damaged name may be long
DEFLATE = 1032  # bytes that one byte can become at most when a zip or gzip file is unpacked
DENSE, EMPTY = 2**25, 256  # no data are so empty that more than DENSE bytes of them unpack from EMPTY times fewer
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack a kilobyte to gigabytes

# no name holds these: control characters, among them the escapes that a terminal obeys; marks that turn the direction of a line;
# or cannot be seen; halves of characters
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


def printable(text: object) -> str:
    """A text that is safe to print on a terminal, on one line: line ends become spaces, other control characters escapes."""
    line = str(text)
    if line.isprintable():
        return line
    escaped = (" " if c in "\t\n\r" else c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return "".join(escaped)


def short(message: object) -> str:
    """A message on one printable line of at most about MAX_MESSAGE characters: its beginning and its end."""
    text = printable(message)
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} … {text[-MAX_MESSAGE // 2 :]}"


class Refusal(ValueError):
    """Something from outside that is not taken. The message is one printable line."""

    def __init__(self, message: object) -> None:
        super().__init__(short(message))


@contextmanager
def reading(path: object, error: type[Refusal], why: str = "cannot be read: ") -> Iterator[None]:
    """Turns whatever a decoder raises inside the block into a reader's own error that names the file."""
    try:
        yield
    except error:
        raise
    except Exception as cause:  # damaged bytes can raise anything
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        if not isinstance(cause, (ValueError, OSError, zipfile.BadZipFile)) and reason != type(cause).__name__:
            reason = f"{type(cause).__name__}, {reason}"
        reason = reason.removeprefix(f"{path}: ")
        raise error(reason if str(path) in reason else f"{path}: {why}{reason}") from cause  # a file of a folder names itself


def regular_file(path: str | Path, error: type[Refusal]) -> int:
    """The size of a regular file in bytes. Raises `error` for everything else: a pipe would wait, a device might never end."""
    try:
        status = os.stat(path)
    except FileNotFoundError as cause:
        raise error(f"{path}: there is no such file") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path}: cannot be read ({getattr(cause, 'strerror', None) or cause})") from cause
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{path}: {KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a file")
    return status.st_size


def read_text(path: str | Path, error: type[Refusal], why: str = "cannot be read: ") -> str:
    """The UTF-8 text of a regular file of at most MAX_TEXT bytes; why: what stands before the reason of an error."""
    size = regular_file(path, error)
    if size > MAX_TEXT:
        raise error(f"{path}: {size} bytes, a text of at most {MAX_TEXT} is read here")
    with reading(path, error, why), open(path, "rb") as file:
        return file.read(size).decode("utf-8")


def read_json(path: str | Path, error: type[Refusal], why: str = "not JSON: ") -> Any:
    """The value of a JSON file whose objects hold each of their keys once."""
    text = read_text(path, error, why)
    with reading(path, error, why):
        return json.loads(text, object_pairs_hook=once)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for a key that stands there twice: other readers may take the other value."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it holds the key {next(k for k in entries if keys.count(k) > 1)!r} twice")
    return entries


def read_toml(path: str | Path, error: type[Refusal]) -> dict[str, Any]:
    """The tables of a TOML file, whose whole numbers have 64 bits."""
    text = read_text(path, error, "not TOML: ")
    with reading(path, error, "not TOML: "):
        tables = tomllib.loads(text)
        todo: list[Any] = [tables]
        while todo:
            value = todo.pop()
            todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            if isinstance(value, int) and value.bit_length() > 64:
                raise ValueError("it holds a whole number of more than 64 bits")
        return tables


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether unpacking would make more of next to nothing than data ever are."""
    return unpacked > DENSE and unpacked > EMPTY * packed


class _Frugal(io.FileIO):
    """A file that refuses to read more than `most` bytes at one time."""

    most: int | None = MAX_DIRECTORY

    def read(self, n: int | None = -1, /) -> bytes:
        if self.most is not None and n is not None and n > self.most:
            raise ValueError(f"its table of contents takes {n} bytes, at most {self.most} are read")
        return super().read(-1 if n is None else n) or b""


@contextmanager
def opened_zip(path: str | Path, error: type[Refusal], packings: Collection[int] = PACKINGS) -> Iterator[zipfile.ZipFile]:
    """A zip file whose table of contents is within its budget and whose members claim no more than they can hold."""
    size = regular_file(path, error)
    with reading(path, error, "refused, not a readable zip file: "), _Frugal(path) as file, zipfile.ZipFile(file) as archive:
        file.most = None
        for member in archive.infolist():
            if member.compress_type not in packings:
                raise error(f"{path}: {member.filename} is packed in another way than stored or deflated")
            if member.compress_size > size or member.file_size > DEFLATE * member.compress_size:
                raise error(f"{path}: {member.filename} claims {member.file_size} bytes, more than the file can hold")
            if is_bomb(member.file_size, member.compress_size):
                sizes = f"{member.compress_size} bytes to {member.file_size}"
                raise error(f"{path}: {member.filename} unpacks {sizes}: no data are that empty")
        yield archive


class Budget:
    """Objects and seconds that reading one input may take. `spend` raises ValueError where either is used up."""

    def __init__(self, objects: int, seconds: float) -> None:
        self.left, self.most, self.seconds = objects, objects, seconds
        self.end = time.monotonic() + seconds

    def spend(self, objects: int = 1) -> None:
        before, self.left = self.left, self.left - objects
        if self.left < 0:
            raise ValueError(f"it takes more than {self.most} steps to read")
        if before >> 10 != self.left >> 10 and time.monotonic() > self.end:
            raise ValueError(f"it takes more than {self.seconds:g} s to read")
