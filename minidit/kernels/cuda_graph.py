"""A function of arrays on a GPU, recorded once as a CUDA graph and replayed: one launch instead of hundreds.

What a recording freezes are addresses, sizes and the host's numbers. So the function takes no argument, keeps what changes in
arrays that outlive it, writes its results there or returns them, and lets the host wait for nothing. What is kept while the
graph lives: its stream, the arrays it returned, and the memory pool that served it, for what CuPy's shared pool gives to a
recording it gives to others as well, as soon as the array is gone.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from minidit.autograd import kernels_on
from minidit.backend import keepers
from minidit.kernels import cuda_blas, cuda_launch


def obstacle(dtype: Any) -> str:
    """Why nothing that computes in this type can be recorded here, or ""."""
    if not kernels_on():
        return "the kernels are switched off"
    if dtype.name != "float32":
        return f"there are no kernels for {dtype.name}"
    if not all(map(cuda_launch.available, ("philox", "update", "elementwise"))):
        return "the kernels do not compile here"
    if cuda_blas.own() is None:
        return "cuBLAS does not load here"
    return ""


@cache  # once a reason
def explain(what: str, reason: str) -> None:
    """One line for the user: everything works, only slower."""
    logging.getLogger("minidit").warning("%s is not recorded as a CUDA graph: %s", what, reason)


class Captured:
    """f as a graph: the first call runs it, the second records it, and from then on it is replayed, with the same bits.

    What f returns is overwritten by the next call. Where f cannot be recorded it goes on as it was, with a line of explanation.
    """

    def __init__(self, f: Callable[[], Any], what: str) -> None:
        cuda = sys.modules["cupy"].cuda
        self.f, self.what, self.cuda = f, what, cuda
        self.stream, self.pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        self.before, self.after = (cuda.Event(disable_timing=True) for _ in range(2))
        self.graph: Any = None
        self.out: Any = None
        self.calls, self.gave_up = 0, False
        keepers.add(self)

    def __call__(self) -> Any:
        self.calls += 1
        if self.gave_up:
            return self.f()
        outer = self.cuda.get_current_stream()
        self.before.record(outer)  # the two streams take turns: the device waits, the host does not
        self.stream.wait_event(self.before)
        try:
            with self.stream:
                return self._run()
        finally:
            self.after.record(self.stream)
            outer.wait_event(self.after)

    def _run(self) -> Any:
        if self.calls == 1:  # compiles kernels, loads tables, and leaves the pool with all the memory that a recording needs
            with self.cuda.using_allocator(self.pool.malloc):
                return self.f()
        if self.graph is None:
            try:
                self._record()
            except Exception as error:  # of CUDA, of CuPy, or of a law that asked the host: the answer is the same
                explain(self.what, (str(error) or type(error).__name__).splitlines()[0])
                self.gave_up, self.out, self.pool = True, None, None
                return self.f()
        self.graph.launch(self.stream)
        return self.out

    def _record(self) -> None:
        with self.cuda.using_allocator(self.pool.malloc), without_collection():
            self.stream.begin_capture()
            try:
                self.out = self.f()
            except BaseException:
                with suppress(Exception):  # what was recorded so far, or the news that it is not valid
                    self.stream.end_capture()
                raise
            self.graph = self.stream.end_capture()


@contextmanager
def without_collection() -> Iterator[None]:
    """No array, event or pool of somebody else may be freed while a stream records."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
