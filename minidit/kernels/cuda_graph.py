"""A function of arrays on a GPU, recorded once as a CUDA graph and replayed: one launch instead of hundreds.

A recording fixes addresses, sizes and every number that came from the host. So the function takes no argument, reads what
changes between calls from arrays that outlive it, returns its results or writes them to such arrays, and never makes the host
wait. Its temporary arrays come from a memory pool of its own: CuPy's shared pool would hand their memory to other code as soon as
the recording is over, while the graph still writes to those addresses.
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
from minidit.backend import pool_owners
from minidit.kernels import cuda_blas, cuda_launch


def obstacle(dtype: Any) -> str:
    """The reason why computations of this type cannot be recorded here, or ""."""
    if not kernels_on():
        return "the kernels are switched off"
    if dtype.name != "float32":
        return f"there are no kernels for {dtype.name}"
    if not all(map(cuda_launch.available, ("philox", "update", "elementwise"))):
        return "the kernels do not compile here"
    if cuda_blas.handle() is None:
        return "cuBLAS does not load here"
    return ""


@cache  # once per reason
def explain(what: str, reason: str) -> None:
    """Warns that everything works, only slower."""
    logging.getLogger("minidit").warning("%s is not recorded as a CUDA graph: %s", what, reason)


class Captured:
    """f as a graph: the first call runs it, the second records it, and from then on it is replayed, with the same bits.

    The next call overwrites what f returned. If f cannot be recorded, every call runs f itself, and one warning says why.
    """

    def __init__(self, f: Callable[[], Any], what: str) -> None:
        cuda = sys.modules["cupy"].cuda
        self.f, self.what, self.cuda = f, what, cuda
        self.stream, self.pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        self.before, self.after = (cuda.Event(disable_timing=True) for _ in range(2))
        self.graph: Any = None
        self.out: Any = None
        self.calls, self.gave_up = 0, ""  # the reason why f is not recorded
        pool_owners.add(self)

    def __call__(self) -> Any:
        self.calls += 1
        if self.gave_up:
            return self.f()
        outer = self.cuda.get_current_stream()
        self.before.record(outer)  # each stream waits for the other on the device; the host does not wait
        self.stream.wait_event(self.before)
        try:
            with self.stream:
                return self._run()
        finally:
            self.after.record(self.stream)
            outer.wait_event(self.after)

    def _run(self) -> Any:
        if self.calls == 1:  # compiles kernels, copies tables, and fills the pool with all the memory that a recording needs
            with self.cuda.using_allocator(self.pool.malloc):
                return self.f()
        if self.graph is None:
            try:
                self._record()
            except Exception as error:  # of CUDA, of CuPy, or of a law that reads a value on the host
                self.gave_up = (str(error) or type(error).__name__).splitlines()[0]
                explain(self.what, self.gave_up)
                self.out, self.pool = None, None
                return self.f()
        self.graph.launch(self.stream)
        return self.out

    def _record(self) -> None:
        with self.cuda.using_allocator(self.pool.malloc), without_collection():
            self.stream.begin_capture()
            try:
                self.out = self.f()
            except BaseException:
                with suppress(Exception):  # drops what was recorded so far; it may raise because that is not valid
                    self.stream.end_capture()
                raise
            self.graph = self.stream.end_capture()


@contextmanager
def without_collection() -> Iterator[None]:
    """Switches the garbage collector off: freeing an unrelated array, event or pool would break a recording."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
