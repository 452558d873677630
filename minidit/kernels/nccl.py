"""Arrays from GPU to GPU, one GPU per rank: NCCL, through CuPy. The host does not wait, and a CUDA graph may record it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from minidit.backend import Array, cupy_or_reason

Id = tuple[int, ...]


class Nccl:
    """The ranks 0, 1, …, count - 1, of which this process is `me`. All of them must be made at the same time."""

    def __init__(self, count: int, me: int, same: Callable[[Id], Id]) -> None:
        """same(thing) -> rank 0's thing. Raises ValueError if NCCL does not load."""
        cupy, reason = cupy_or_reason()
        nccl: Any = None if cupy is None else cupy.cuda.nccl
        if not hasattr(nccl, "NcclCommunicator"):
            raise ValueError(f"several GPUs need NCCL, which CuPy does not find: pip install nvidia-nccl-cu12 (or cu13) {reason}")
        self.nccl, self.count, self.me = nccl, count, me
        self.comm = nccl.NcclCommunicator(count, same(nccl.get_unique_id()), me)

    def swap(self, send: Array, out: Sequence[slice], into: Array, places: Sequence[slice]) -> None:
        """send[out[r]] goes to rank r, and what rank r sends here arrives in into[places[r]]. Flat arrays."""
        cupy = sys.modules["cupy"]
        kind = {"float32": self.nccl.NCCL_FLOAT32, "float64": self.nccl.NCCL_FLOAT64}[send.dtype.name]
        stream = cupy.cuda.get_current_stream().ptr
        mine, place = send[out[self.me]], into[places[self.me]]
        if mine.size and mine.data.ptr != place.data.ptr:
            place[...] = mine
        self.nccl.groupStart()  # what is called in a group happens at once, in any order
        for peer in range(self.count):
            if peer != self.me:
                for call, part in ((self.comm.send, send[out[peer]]), (self.comm.recv, into[places[peer]])):
                    if part.size:
                        call(part.data.ptr, part.size, kind, peer, stream)
        self.nccl.groupEnd()
