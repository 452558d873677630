"""Runs the command `minidit`; at one chosen change of a folder it is killed, gets a signal, or the change fails.

    python -m benchmarks.faulty.driver '{"folder": "runs/x", "trace": "t", "at": 12, "do": "kill"}' train --data …

A change is a call that makes, writes, flushes, moves or deletes something in the folder, or an update of a training. The trace
has one line per change, written before it is made; so its number of lines is the number of the change at which the process died.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FULL = {"open", "write", "fsync", "mkdir", "close"}  # what fails on a full disk; moving and deleting need no room


class Changes:
    """Counts the changes of a folder, and acts at the chosen one."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.folder, self.at, self.do = str(Path(plan["folder"]).absolute()), plan.get("at", 0), plan.get("do", "")
        self.errno, self.numbers, self.count = plan.get("errno", 0), plan.get("number", []), 0
        self.pid = os.getpid()
        self.trace = os.open(plan["trace"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def inside(self, path: Any) -> bool:
        return isinstance(path, (str, Path)) and str(Path(path).absolute()).startswith(self.folder)

    def happens(self, kind: str, what: Any, half: Callable[[], None] = lambda: None) -> OSError | None:
        """Notes a change; returns the error with which it has to fail. half : makes a part of it. Workers are left alone."""
        if os.getpid() != self.pid:
            return None
        self.count += 1
        name = re.sub(r"\.\d+\.tmp", ".tmp", os.path.relpath(what, self.folder)) if kind != "update" else what
        acts = bool(self.at) and (self.count == self.at or (self.count > self.at and self.do == "full"))
        fails = acts and ((self.do == "fail" and kind != "update") or (self.do == "full" and kind in FULL))
        os.write(self.trace, f"{'failed ' if fails else ''}{kind} {name}\n".encode())
        if not acts:
            return None
        if self.do in ("kill", "kill group"):
            half()
            os.kill(os.getpid() if self.do == "kill" else 0, signal.SIGKILL)
        elif self.do == "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.do == "fork":
            outlive()
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.do == "signal":
            for number in self.numbers:
                signal.raise_signal(number)
        elif fails:
            half()
            return OSError(self.errno, os.strerror(self.errno), *([] if kind in ("write", "fsync", "close") else [str(what)]))
        return None


def outlive() -> None:
    """A child of this process, in a session of its own, that outlives it for a while."""
    if not os.fork():
        os.setsid()
        os.closerange(0, 3)  # nobody waits for its output
        time.sleep(30)
        os._exit(0)


class File:
    """A file that is written; each write, and its end, is a change."""

    def __init__(self, file: Any, path: Any, changes: Changes) -> None:
        self.file, self.path, self.changes = file, path, changes

    def write(self, data: Any) -> int:
        def half() -> None:
            part = data if isinstance(data, str) else memoryview(data).cast("B")
            self.file.write(part[: len(part) // 2])
            self.file.flush()

        if error := self.changes.happens("write", self.path, half):
            raise error
        return int(self.file.write(data))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def close(self) -> None:
        failed = None if self.file.closed else self.changes.happens("close", self.path)
        self.file.close()
        if failed:
            raise failed

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def watch(changes: Changes) -> None:
    """Lets every change of the folder pass by `changes`."""
    opened, flushed, files = io.open, os.fsync, dict[int, Any]()

    def open_(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not changes.inside(path) or not set(mode) & set("wax+"):
            return opened(path, mode, *args, **options)
        if error := changes.happens("open", path):
            raise error
        file = opened(path, mode, *args, **options)
        files[file.fileno()] = path
        return File(file, path, changes)

    def fsync(fd: int) -> None:
        if fd in files and (error := changes.happens("fsync", files[fd])):
            raise error
        flushed(fd)

    builtins.open = io.open = open_
    os.fsync = fsync
    for name in ("replace", "rename", "unlink", "mkdir", "rmdir"):
        setattr(os, name, watched(getattr(os, name), name, changes))


def watched(function: Callable[..., Any], name: str, changes: Changes) -> Callable[..., Any]:
    """A function of paths whose calls are changes."""

    def call(path: Any, *args: Any, **options: Any) -> Any:
        what = args[0] if name in ("replace", "rename") else path
        if changes.inside(what) and (error := changes.happens(name, what)):
            raise error
        return function(path, *args, **options)

    return call


def main() -> int:
    plan, words = json.loads(sys.argv[1]), sys.argv[2:]
    plan["errno"] = getattr(errno, plan.get("errno", ""), 0)
    changes = Changes(plan)

    from minidit.cli import main as command
    from minidit.runs.phases import Run

    record = Run.record

    def counted(self: Any, phase: Any, loop: Any, numbers: Any, *more: Any) -> Any:
        changes.happens("update", f"{phase.name} {numbers['step']}")
        return record(self, phase, loop, numbers, *more)

    Run.record = counted  # type: ignore[method-assign]
    watch(changes)
    return command(words)


if __name__ == "__main__":
    sys.exit(main())
