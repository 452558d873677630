"""What goes out: files written whole or not at all, and what can be known about a place before the work for it begins.

Data go under another name into the same folder, are flushed to the disk, and are moved into place; then the folder is flushed.
So a crash or a full disk leaves the old file or the new one, never a half. Errors name the file that was meant, the cause and
the way on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from minidit.incoming import short

Data = bytes | Iterable[bytes | memoryview]
MAX_NAME = 255  # bytes of a file's name, on most file systems
ROOM = "free some space, or choose another place"
WAY_ON = {
    errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EFBIG: "choose another place",
    errno.EACCES: "choose a place where you may write", errno.EPERM: "choose a place where you may write",
    errno.EROFS: "choose a place where you may write", errno.EIO: "the disk may be damaged: choose another one",
    errno.EISDIR: "name a file", errno.ENOTDIR: "one of its folders is a file: choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}  # fmt: skip


def silent(*_: object) -> None:
    """Tells nobody: the listener where there is none."""


class WriteError(OSError):
    """A file that could not be written, on one printable line. `errno` is the cause's; the previous file is as it was."""

    def __init__(self, path: str | Path, cause: OSError) -> None:
        way = WAY_ON.get(cause.errno or 0, "")
        reason = cause.strerror or str(cause) or type(cause).__name__
        super().__init__(short(f"{path}: cannot be written: {reason}" + (f" ({way})" if way else "")))
        self.errno, self.cause = cause.errno, cause


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns what the system refuses inside the block into a WriteError about this file or folder."""
    try:
        yield
    except WriteError as inner:  # of a file inside, whose name may be a temporary one
        raise WriteError(path, inner.cause) from inner.cause
    except OSError as cause:
        raise WriteError(path, cause) from cause


def write_atomically(path: str | Path, data: Data) -> Path:
    """Writes the whole file or nothing, making its folder; returns the path. A link is followed, a mode kept.

    A device or a pipe is written to as it is. Raises WriteError, an OSError.
    """
    chunks: Iterable[bytes | memoryview] = [data] if isinstance(data, bytes) else data
    with writing(path):
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            with open(target, "wb") as file:
                file.writelines(chunks)
            return Path(path)
        if mode is not None and stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")  # by this name a run finds what a killed process left
        if len(os.fsencode(temporary.name)) > MAX_NAME:
            temporary = target.with_name(f".{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        flush_folder(target.parent)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """The same for text, as UTF-8; what has no such form (halves of characters) is written as escapes."""
    return write_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def flush_folder(folder: Path) -> None:
    """The entries of a folder reach the disk, where the system can do that."""
    with contextlib.suppress(OSError):  # not on Windows; not every file system
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def check_writable(path: str | Path, size: float = 0) -> None:
    """Raises WriteError unless a file of about `size` bytes can be written, as far as can be known before the work begins."""
    with writing(path):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists() and not target.is_file():
            return
        folder = next(p for p in target.parents if p.exists())
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
            probe.flush()
        free = shutil.disk_usage(folder).free
        if size > free:
            raise OSError(errno.ENOSPC, f"it takes about {size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
