"""An imitation of NCCL between ranks that are processes of MPI: send and recv in groups, on the memory of the stand-in.

As strict as the library: a transfer outside a group, to oneself, or of no elements is refused, and what is sent must be as long
as what is received there. In a capture the exchange is recorded and happens at every launch of the graph.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from standin.core import launch
from standin.device import Device

NCCL_FLOAT32, NCCL_FLOAT64 = 7, 8
TYPES = {NCCL_FLOAT32: np.float32, NCCL_FLOAT64: np.float64}
_group: list = []  # of the open groups: the transfers asked for


def memory(pointer, count, kind):
    """The flat array at an address."""
    dtype = np.dtype(TYPES[kind])
    return np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(pointer), dtype)


class NcclCommunicator:
    """The ranks of MPI, each of which says who it is and knows the id of rank 0."""

    calls = 0  # exchanges so far, of all communicators

    def __init__(self, ndev, commId, rank):
        from mpi4py import MPI

        self.comm = MPI.COMM_WORLD
        assert (ndev, rank) == (self.comm.size, self.comm.rank) and set(self.comm.allgather(commId)) == {commId}

    def _ask(self, what, pointer, count, kind, peer, stream):
        assert _group, "outside a group two ranks may wait for each other for ever"
        assert peer != self.comm.rank and count > 0
        assert stream == (Device.streams[-1].ptr if Device.streams else 0), "not the current stream"
        _group[-1].append((self, what, memory(pointer, count, kind), peer))

    def send(self, sendbuf, count, datatype, peer, stream):
        self._ask("send", sendbuf, count, datatype, peer, stream)

    def recv(self, recvbuf, count, datatype, peer, stream):
        self._ask("recv", recvbuf, count, datatype, peer, stream)


def groupStart():
    _group.append([])


def groupEnd():
    asked = _group.pop()

    def exchange():
        NcclCommunicator.calls += 1
        start = {"send": lambda c, a, peer: c.Isend(a.copy(), peer), "recv": lambda c, a, peer: c.Irecv(a, peer)}
        requests = [(start[what](one.comm, a, peer), what, a) for one, what, a, peer in asked]
        from mpi4py import MPI

        for request, what, a in requests:
            status = MPI.Status()
            request.Wait(status)
            assert what == "send" or status.Get_count(MPI.BYTE) == a.nbytes

    launch(exchange, into=tuple(a for _, what, a, _ in asked if what == "recv"))


def get_unique_id():
    import os

    return tuple(os.urandom(128))


@contextmanager
def imitated_nccl():
    """`with imitated_nccl():` the stand-in's GPUs are connected."""
    import cupy

    names = ("NcclCommunicator", "groupStart", "groupEnd", "get_unique_id", "NCCL_FLOAT32", "NCCL_FLOAT64")
    before = cupy.cuda.nccl
    cupy.cuda.nccl = SimpleNamespace(**{name: globals()[name] for name in names})
    try:
        yield
    finally:
        cupy.cuda.nccl = before
