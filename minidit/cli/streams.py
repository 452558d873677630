"""stdout and stderr that never end a command: closed, full or ASCII only, they lose what cannot be shown, and nothing else.

A command that measures for an hour prints while it works. So a line that cannot be written is dropped and remembered; at the end
the exit status is 1, and one line says why, unless the reader has only seen enough (`| head -1`).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn


class Lenient(io.TextIOBase):
    """A text stream in front of another: what fails is remembered in `failure`, and from then on nothing is written."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.failure, self.quiet = stream, "", False
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:  # encoding, buffer, mode, …
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda: self.stream.flush())

    def isatty(self) -> bool:
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def writable(self) -> bool:
        return True

    def _try(self, work: Any) -> None:
        if self.failure:
            return
        try:
            work()
        except (OSError, ValueError, UnicodeError) as error:
            self.quiet = isinstance(error, BrokenPipeError)
            self.failure = getattr(error, "strerror", None) or str(error)
            with contextlib.suppress(OSError, ValueError):  # so that the interpreter's own flush at the end is silent
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self.stream.fileno())
                os.close(nothing)


@contextlib.contextmanager
def lenient() -> Iterator[tuple[Lenient, Lenient]]:
    """(stdout, stderr) of the block, which cannot fail."""
    _open_closed()
    before = sys.stdout, sys.stderr
    streams = Lenient(before[0] or _nowhere()), Lenient(before[1] or _nowhere())
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Takes the numbers 0, 1 and 2 where they are free: the next file that is opened must not become somebody's stdout."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that programs are ended and temporary files removed."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()
    mine = [n for n in numbers if main and signal.getsignal(n) == signal.SIG_DFL]
    for number in mine:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
