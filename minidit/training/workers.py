"""Workers that run one function in parallel: forked processes that share the flat buffers, threads, or just the caller.

`workers.run(stage, n)` calls body(i, stage, n) for every shard i and returns when all are done. Shard 0 is the caller's own.
The kind of workers changes only the time, never the result: a shard owns its tape, its arena and its gradient buffer.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import pickle
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from weakref import WeakSet

from threadpoolctl import threadpool_limits

from minidit.backend import Array
from minidit.training.ranks import Ranks, ranks

Body = Callable[[int, int, int], None]
END = -1  # the stage that makes a worker exit
PR_SET_PDEATHSIG = 1  # of prctl: the signal that a process gets when its parent ends
STOPS = [getattr(signal, f"SIG{name}") for name in ("INT", "TERM", "HUP", "USR1") if hasattr(signal, f"SIG{name}")]
LEAVE = 1.0  # seconds that a worker has to exit


def cores() -> int:
    """The number of processors that this process may use; of all ranks together, if there are several, and at least one each."""
    return ranks().cores


def kind_of_workers(shards: int, device: str) -> str:
    """"serial", "process" or "thread". Forks only where that is safe: no GPU context, no other Python thread, no MPI."""
    if shards <= 1 or device != "cpu":
        return "serial"
    if hasattr(os, "fork") and threading.active_count() == 1 and "cupy" not in sys.modules and ranks().alone:
        return "process"
    return "thread"


class Workers:
    """`with Workers(shards, body, kind) as workers:`; every shard uses one BLAS thread. Errors of a shard are raised by run.

    limited : whether BLAS uses one thread; None: if there are several shards
    """

    def __init__(self, shards: int, body: Body, kind: str, *, limited: bool | None = None) -> None:
        self.shards, self.body, self.kind = shards, body, kind
        self.limited = shards > 1 if limited is None else limited
        self.threads: list[threading.Thread] = []
        self.pipes: list[tuple[int, int]] = []
        self.pids: list[int] = []

    def __enter__(self) -> Workers:
        self.limits = threadpool_limits(1) if self.limited else contextlib.nullcontext()
        self.limits.__enter__()
        if self.kind == "process":
            _open.add(self)
            try:
                for i in range(1, self.shards):
                    self._fork(i)
            except OSError:  # no more processes are allowed: threads compute the same numbers
                self.__exit__()
                self.kind = "thread"
                self.limits = threadpool_limits(1)
                self.limits.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        _open.discard(self)
        for into, out in self.pipes:  # an explicit END, because a process forked later may hold the pipe open
            with contextlib.suppress(OSError):
                os.write(into, struct.pack("<qq", END, 0))
            os.close(into)
            os.close(out)
        for pid in self.pids:
            _ended(pid)
        self.pipes, self.pids = [], []
        self.limits.__exit__(None, None, None)

    def run(self, stage: int, n: int = 0) -> None:
        if self.kind == "process":
            self._run_processes(stage, n)
        elif self.kind == "thread" and self.shards > 1:
            self._run_threads(stage, n)
        else:
            for i in range(self.shards):
                self.body(i, stage, n)

    def _run_threads(self, stage: int, n: int) -> None:
        errors: list[BaseException] = []

        def guarded(i: int) -> None:
            try:
                self.body(i, stage, n)
            except BaseException as error:
                errors.append(error)

        rest = [
            threading.Thread(target=contextvars.copy_context().run, args=(guarded, i), daemon=True) for i in range(1, self.shards)
        ]
        for thread in rest:
            thread.start()
        guarded(0)
        if errors and not isinstance(errors[0], Exception):  # Ctrl-C does not wait for the others
            raise errors[0]
        for thread in rest:
            thread.join()
        if errors:
            raise errors[0]

    def _run_processes(self, stage: int, n: int) -> None:
        for into, _ in self.pipes:
            with contextlib.suppress(BrokenPipeError):  # the worker is gone: reported below, as a missing answer
                os.write(into, struct.pack("<qq", stage, n))
        error = None
        try:
            self.body(0, stage, n)
        except Exception as failure:  # not Ctrl-C, which does not wait for the others
            error = failure
        answers = [_receive(out) for _, out in self.pipes]
        if error is not None:
            raise error
        for answer in answers:
            if answer is None:
                raise RuntimeError("a worker process died (out of memory, or killed from outside)")
            if answer:
                raise pickle.loads(answer)  # an exception that our own child process sent through our own pipe

    def _fork(self, i: int) -> None:
        command_out, command_in = os.pipe()
        answer_out, answer_in = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():  # Python 3.12 counts the threads of BLAS, which survives a fork
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            os.close(command_out)
            os.close(answer_in)
            self.pipes.append((command_in, answer_out))
            self.pids.append(pid)
            return
        try:  # the child: serve until the pipe closes, and never return into the caller's stack
            for number in STOPS:  # sent to the whole group: the caller decides
                signal.signal(number, signal.SIG_IGN)
            _die_with_parent()
            os.close(command_in)
            os.close(answer_out)
            for other in list(_open):  # the pipes of all loops of this process must not stay open here
                for into, out in other.pipes:
                    os.close(into)
                    os.close(out)
            self._serve(i, command_out, answer_in)
        finally:
            os._exit(0)

    def _serve(self, i: int, commands: int, answers: int) -> None:
        while len(command := os.read(commands, 16)) == 16:
            stage, n = struct.unpack("<qq", command)
            if stage == END:
                return
            try:
                self.body(i, stage, n)
                answer = b""
            except BaseException as error:
                answer = _pickled(error)
            os.write(answers, struct.pack("<q", len(answer)) + answer)


_open: WeakSet[Workers] = WeakSet()  # the instances with worker processes


def _die_with_parent() -> None:
    """A worker whose caller was killed ends at once, in the middle of its work (on Linux; elsewhere when its pipe closes)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _ended(pid: int) -> None:
    """Waits for a worker to exit, and kills it after LEAVE seconds."""
    end = time.monotonic() + LEAVE
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _pickled(error: BaseException) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # an exception that cannot be pickled is sent as text
        data = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return data if len(data) < 60000 else pickle.dumps(RuntimeError(f"{type(error).__name__}: {str(error)[:2000]}"))


def _receive(pipe: int) -> bytes | None:
    header = os.read(pipe, 8)
    if len(header) < 8:
        return None
    size = struct.unpack("<q", header)[0]
    data = b""
    while len(data) < size:
        piece = os.read(pipe, size - len(data))
        if not piece:
            return None
        data += piece
    return data


def over_shards(
    n: int, body: Callable[[slice, int], None], device: str, shards: int = 0, into: Sequence[Array] = (), rows: int = 1,
    *, alone: bool = False,
) -> None:  # fmt: skip
    """body(part, i) for contiguous parts of range(n), in parallel on the CPU and on all ranks.

    into : the `flat_buffer`s, of n · rows rows or a few less, that the parts fill; in the end every rank has them complete.
    alone : whether this rank does all of it, for work that the others do not take part in
    """
    team = Ranks() if alone else ranks()
    shards = min(shards or cores(), max(1, n)) if device == "cpu" else team.count
    held = [shard_of(shards, team.count, r) for r in range(team.count)]
    first, here = held[team.me].start, held[team.me].stop - held[team.me].start

    def one(i: int, stage: int, step: int) -> None:
        body(shard_of(n, shards, first + i), first + i)

    with Workers(here, one, kind_of_workers(here, device), limited=shards > 1) as workers:
        workers.run(0)
    for array in into:
        ends = [min(len(array), rows * (n * h.stop // shards)) for h in held]
        team.gather(array, [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)])


def shard_of(total: int, shards: int, i: int) -> slice:
    """The i-th of `shards` contiguous parts of range(total), as equal as can be."""
    return slice(total * i // shards, total * (i + 1) // shards)
