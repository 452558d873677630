"""Several processes, one training: the ranks of `mpiexec -n 4 minidit …`. This is the only file that imports mpi4py.

    shards of rank r      shard_of(shards, ranks, r): consecutive pieces of the batch, as workers have them
    rank 0                writes every file, prints, and shows progress
    every rank            has the same weights after every update; one that fails ends them all

What a rank computes is tied to global indices, so the number of ranks changes the time and nothing else. Arrays travel by MPI,
or by NCCL where they live on GPUs. A process that was started alone never imports mpi4py.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import socket
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from minidit.backend import Array, home_of
from minidit.nn.device import Nccl
from minidit.training.launch import ALONE, LONG, Launch, give_way, launch

T = TypeVar("T")


class Ranks:
    """The ranks of a job, seen from one. same, all_of, agree, wait, gather, share and swap are called by all together."""

    def __init__(self, place: Launch = ALONE, mpi: Any = None) -> None:
        self.count, self.me, self.local = place
        self.first, self.alone = self.me == 0, mpi is None
        self.mpi, self.comm = mpi, None if mpi is None else mpi.COMM_WORLD
        self._nccl: Nccl | None = None
        self.cores = len(affinity())
        if self.comm is not None:
            here = {(socket.gethostname(), core) for core in affinity()}
            self.cores = max(self.count, len(set().union(*self.comm.allgather(here))))
            threadpool_limits(max(1, self.cores // self.count))

    def same(self, thing: T) -> T:
        """Rank 0's thing."""
        if self.comm is not None:
            thing = self.comm.bcast(thing)
        return thing

    def all_of(self, thing: T) -> list[T]:
        """Every rank's thing, by its number."""
        return [thing] if self.comm is None else list(self.comm.allgather(thing))

    def agree(self, flag: bool) -> bool:
        """Whether the flag of any rank is set."""
        return any(self.all_of(flag))

    def wait(self) -> None:
        """Returns when every rank is here."""
        if self.comm is not None:
            self.comm.barrier()

    # ------------------------------------------------------------------------------------------------ arrays

    def swap(self, send: Array, out: Sequence[slice], into: Array, places: Sequence[slice]) -> None:
        """send[out[r]] goes to rank r, and what rank r sends here arrives in into[places[r]]. Flat arrays."""
        if home_of(send) != "numpy":
            self.nccl().swap(send, out, into, places)
        elif self.comm is not None:
            self.comm.Alltoallv([send, _counts(out)], [into, _counts(places)])

    def gather(self, array: Array, parts: Sequence[slice]) -> None:
        """Every rank has filled array[parts[its number]], rows of axis 0; then every rank has all of them."""
        if self.comm is None:
            return
        row = math.prod(array.shape[1:])
        flat, spans = array.reshape(-1), [slice(p.start * row, p.stop * row) for p in parts]
        if home_of(flat) != "numpy":
            self.nccl().swap(flat, [spans[self.me]] * self.count, flat, spans)
        else:
            self.comm.Allgatherv(self.mpi.IN_PLACE, [flat, _counts(spans)])

    def share(self, array: Array) -> None:
        """Copies rank 0's array, one axis or more, into that of every rank."""
        self.gather(array, [slice(0, len(array)), *[slice(len(array), len(array))] * (self.count - 1)])

    def nccl(self) -> Nccl:
        """The same ranks in NCCL, each with a GPU of its own."""
        if self._nccl is None:
            self._nccl = Nccl(self.count, self.me, self.same)
        return self._nccl

    # ------------------------------------------------------------------------------------------------ the end

    def leave(self, code: int) -> None:
        """Ends every rank with this exit code: nobody waits for one that failed. Returns if this process is alone."""
        if self.comm is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            self.comm.Abort(code)

    def hook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """The sys.excepthook of a script under mpiexec."""
        give_way()
        sys.__excepthook__(kind, error, trace)
        self.leave(1)


@functools.cache
def ranks() -> Ranks:
    """The ranks of this job; the first call under an MPI launcher starts MPI.

    Raises RuntimeError if mpi4py is missing there, or belongs to another MPI than the launcher.
    """
    place = launch()
    if place == ALONE:
        return Ranks()
    started = f"{place.size} processes were started by an MPI launcher"
    try:
        importlib.import_module("mpi4py").rc.thread_level = "funneled"  # threads of this process leave MPI alone
        mpi = importlib.import_module("mpi4py.MPI")
    except ImportError as error:
        reason = str(error).splitlines()[0]
        give_way(LONG)
        raise RuntimeError(f"{started}: they need mpi4py, pip install 'minidit[mpi]' ({reason})") from None
    size, version = mpi.COMM_WORLD.Get_size(), mpi.Get_library_version().splitlines()[0].strip("\0 ")
    if size != place.size:
        give_way(LONG)
        raise RuntimeError(f"{started}, but mpi4py connects {size}: it uses {version}, and the launcher belongs to another MPI")
    team = Ranks(place, mpi)
    sys.excepthook = team.hook
    return team


def end(code: int) -> None:
    """Ends all ranks with this exit code, if MPI was started here."""
    if ranks.cache_info().currsize:
        ranks().leave(code)


def affinity() -> set[int]:
    """The processors that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _counts(parts: Sequence[slice]) -> tuple[list[int], list[int]]:
    """(lengths, starts)."""
    return [p.stop - p.start for p in parts], [p.start for p in parts]
