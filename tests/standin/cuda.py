"""Streams, captured graphs, devices and memory pools, as far as they can be seen from Python.

During a capture a kernel is not run but recorded: its outputs hold NaN (or the largest integer) until the graph is launched,
and memory that it would write in place stays as it was. A launch runs the recorded kernels into the same memory again, so
host scalars are frozen and device arrays are read anew, as on a GPU. Stricter than CuPy: memory that is asked for in a capture
must come from a pool that nobody else uses and that lives as long as the graph, for what the shared pool gives to a graph it
gives to others as well, as soon as the array is gone. Not imitated: memory freed during a capture is not reused.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from standin.core import poison
from standin.device import COUNTS, forbid_in_capture
from standin.device import Device as State


class Graph:
    """The kernels of a capture, to be launched again and again."""

    def __init__(self):
        self.nodes, self.pools = [], []
        self.held = []  # the memory of its arrays: libraries know it by addresses only

    def allocate(self, pool, a):
        """Memory for this graph from a pool, None for the one that all share."""
        if pool is None:
            raise RuntimeError("memory for a graph from the shared pool: others may get the same memory")
        self.pools.append(weakref.ref(pool))
        self.held.append(a)

    def record(self, f, args, kwargs, into):
        """Keeps the kernel; returns outputs of the right shape that hold nothing yet."""
        before = [a.copy() for a in into]
        result = f(*args, **kwargs)
        for a, b in zip(into, before, strict=True):
            a[...] = b
        if into:
            self.nodes.append((f, args, kwargs, ()))
            return result
        several = isinstance(result, (list, tuple))
        outs = [poison(np.array(r)) for r in (result if several else [result])]
        self.nodes.append((f, args, kwargs, outs))
        return type(result)(outs) if type(result) in (list, tuple) else outs if several else outs[0]

    def launch(self, stream=None):
        forbid_in_capture("the launch of a graph by the stand-in")
        if any(pool() is None for pool in self.pools):
            raise RuntimeError("the memory pool of this graph is gone, and its memory with it")
        COUNTS.launches += 1
        with np.errstate(all="ignore"):
            for f, args, kwargs, outs in self.nodes:
                result = f(*args, **kwargs)
                for out, value in zip(outs, result if isinstance(result, (list, tuple)) else [result], strict=bool(outs)):
                    out[...] = value

    def upload(self, stream=None):
        """Nothing to do: there is no device."""


class Stream:
    """`with stream:` makes it the current one; a capture belongs to its stream."""

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.is_null, self.capture = null, None
        self.ptr = 0 if null else id(self)

    def __enter__(self):
        State.streams.append(self)
        return self

    def __exit__(self, *_):
        State.streams.remove(self)

    def use(self):
        State.streams.append(self)
        return self

    def begin_capture(self, mode=None):
        if self.is_null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.capture is not None:
            raise RuntimeError("cudaErrorIllegalState: the stream is capturing already")
        self.capture = Graph()

    def end_capture(self):
        if self.capture is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not capturing")
        graph, self.capture = self.capture, None
        return graph

    def is_capturing(self):
        return self.capture is not None

    def synchronize(self):
        if self.capture is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: synchronize is not permitted when the stream is capturing")
        COUNTS.syncs += 1

    @property
    def done(self):
        forbid_in_capture("the query of a stream")
        return True

    def record(self, event=None):
        return event or Event()

    def wait_event(self, event):
        """Everything is in order already."""


Stream.null = Stream(null=True)


class Event:
    """A moment in a stream; elapsed times are zero."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.done = True

    def record(self, stream=None):
        """Nothing runs behind the host's back."""

    def synchronize(self):
        forbid_in_capture("synchronize")
        COUNTS.syncs += 1


class Device:
    """The one device, number 0."""

    compute_capability = "90"
    mem_info = (64 << 30, 80 << 30)

    def __init__(self, device=0):
        self.id = int(device)

    def use(self):
        if self.id != 0:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        return self

    __enter__ = use

    def __exit__(self, *_):
        """There is no other device to go back to."""

    def synchronize(self):
        forbid_in_capture("synchronize")
        COUNTS.syncs += 1


class MemoryPool:
    """Counts the bytes of its arrays that are alive, and the most that it ever had: what is freed stays with it."""

    def __init__(self, allocator=None):
        self.limit = self.used = self.total = 0

    def take(self, nbytes):
        self.used += nbytes
        self.total = max(self.total, self.used)

    def used_bytes(self):
        return self.used

    def total_bytes(self):
        return self.total

    def free_bytes(self):
        return self.total - self.used

    def n_free_blocks(self):
        return int(self.total > self.used)

    def free_all_blocks(self, stream=None):
        self.total = self.used

    def set_limit(self, size=None, fraction=None):
        self.limit = size or 0

    def get_limit(self):
        return self.limit

    def malloc(self, size):
        raise NotImplementedError("the stand-in gives no raw memory")


@contextmanager
def using_allocator(allocator=None):
    """Arrays inside belong to the pool whose `malloc` this is."""
    State.pools.append(None if allocator is None else allocator.__self__)
    try:
        yield
    finally:
        State.pools.pop()


POOL = State.shared = MemoryPool()
runtime = SimpleNamespace(
    deviceGetAttribute=lambda attribute, device: {16: 32, 97: State.most_shared}[attribute],  # multiprocessors, shared memory
    getDeviceCount=lambda: 1,
    getDevice=lambda: 0,
    deviceSynchronize=Device().synchronize,
    runtimeGetVersion=lambda: 12090,
    driverGetVersion=lambda: 12090,
    memGetInfo=lambda: Device.mem_info,
    getDeviceProperties=lambda i: {"name": b"stand-in", "totalGlobalMem": Device.mem_info[1], "multiProcessorCount": 1},
)
MEMORY = {"get_default_memory_pool": lambda: POOL, "get_default_pinned_memory_pool": lambda: POOL}
CONTENTS = {
    "Stream": Stream, "Graph": Graph, "Event": Event, "Device": Device, "MemoryPool": MemoryPool, "runtime": runtime,
    "using_allocator": using_allocator, "get_elapsed_time": lambda a, b: 0.0, "is_available": lambda: True,
    "nccl": SimpleNamespace(available=False),  # as in a CuPy without the library; standin/nccl.py is an imitation
    "get_current_stream": lambda: State.streams[-1] if State.streams else Stream.null,
}  # fmt: skip
