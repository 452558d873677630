"""The one device: what it was asked to do, its memory, its streams, and what a capture forbids."""

from __future__ import annotations

import weakref


class Counts:
    """What the device was asked to do so far."""

    def __init__(self, launches=0, syncs=0, uploads=0):
        self.launches, self.syncs, self.uploads = launches, syncs, uploads

    def copy(self):
        return Counts(**vars(self))


COUNTS = Counts()


class Device:
    """The state of the one device: bytes in use, and the stacks of current streams (each knows its capture) and of pools."""

    used = 0
    most_shared = 227 << 10  # bytes of shared memory that a block may ask for, as on sm_90
    shared = None  # the pool of whoever names none
    streams: list = []  # noqa: RUF012
    pools: list = []  # noqa: RUF012

    @classmethod
    def capture(cls):
        return cls.streams[-1].capture if cls.streams else None


class Memory:
    """Bytes of a pool that arrays share; used until the last view is gone. A capture needs a pool of its own."""

    nbytes = 0

    def __init__(self, a):
        pool, nbytes = Device.pools[-1] if Device.pools else None, a.nbytes
        if Device.capture() is not None:
            Device.capture().allocate(pool, a)
        self.nbytes, self.pool = nbytes, weakref.ref(pool or Device.shared)
        Device.used += nbytes
        self.pool().take(nbytes)

    def __del__(self):
        Device.used -= self.nbytes
        if self.nbytes and self.pool() is not None:
            self.pool().take(-self.nbytes)


def forbid_in_capture(what):
    """Raises what CuPy raises when `what` is asked of a stream that is being captured."""
    if Device.capture() is not None:
        raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} is not permitted when the stream is capturing")


def forbid_library_in_capture():
    if Device.capture() is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
