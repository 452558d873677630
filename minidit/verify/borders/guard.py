"""Runs one program and leaves nothing of it behind. A script of its own: `python guard.py NEWS LEASH FOLDER PROGRAM WORDS…`

    NEWS     a pipe: the number of the error, if the program cannot be started
    LEASH    a pipe: one byte on it ends the program; its end means that the kit itself is gone, and FOLDER is removed, too

The guard ends as the program ended, and before that ends every process that the program started: on Linux also those that left
its process group, because orphans become the guard's children (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import shutil
import signal
import sys
import time

SUBREAPER = 36  # of prctl
PATIENCE = 5.0  # seconds until every killed process is gone


def main(news: int, leash: int, folder: str, words: list[str]) -> int:
    """Starts the program, waits for its end or for a word on the leash; returns its exit status."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    for word in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(word, signal.SIG_IGN)
    for pipe in (news, leash):  # the program gets neither
        os.set_inheritable(pipe, False)
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        usual = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD]
        program = os.posix_spawnp(words[0], words, os.environ, setsigdef=usual)
    except (OSError, ValueError) as error:
        os.write(news, str(getattr(error, "errno", None) or 22).encode())
        return 127
    os.close(news)
    nothing = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1, 2):  # the other side must see it when the program closes them
        os.dup2(nothing, pipe)
    status, kit_is_gone = waited(program, leash, awake)
    end_all()
    if kit_is_gone:
        shutil.rmtree(folder, ignore_errors=True)
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)


def waited(program: int, leash: int, awake: int) -> tuple[int, bool]:
    """(how the program ended, whether the kit is gone). A program that is still there when the leash speaks is killed."""
    while True:
        ready, _, _ = select.select([leash, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            with contextlib.suppress(ChildProcessError):
                while True:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                    if pid == program:
                        return status, False
                    if not pid:
                        break
        if leash in ready:
            word = os.read(leash, 1)
            with contextlib.suppress(ProcessLookupError):
                os.kill(program, signal.SIGKILL)
            return os.waitpid(program, 0)[1], not word


def end_all() -> None:
    """Kills everything below this process until nothing is left."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for pid in below(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def below(ancestor: int) -> list[int]:
    """The processes that descend from one, as Linux lists them; elsewhere none."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    out, todo = [], [ancestor]
    while todo:
        found = children.get(todo.pop(), [])
        out += found
        todo += found
    return out


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
