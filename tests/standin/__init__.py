"""A strict stand-in for CuPy on a machine with no GPU: it refuses what CuPy refuses, and computes with NumPy.

    COUNTS.launches    kernels started          COUNTS.uploads    copies from the host to the device
    COUNTS.syncs       moments at which the host waited for the device

What it is strict about: no silent conversion in either direction, no mixed operands, device scalars stay on the device,
only names and keywords that CuPy has (`names.py`), uninitialised memory is NaN, and the rules of a stream capture.
CUDA C runs inside `with standin.kernels():` (`raw.py`, needs g++); elsewhere RawModule is absent.
Where it differs from CuPy it is the stricter of the two: NumPy arrays as indices, ufunc methods (`add.at`, `add.reduce`),
`cupy.random` and `cupy.fft` are refused.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager

from standin.core import ndarray
from standin.device import COUNTS, Counts
from standin.modules import build
from standin.raw import kernels

__all__ = ["COUNTS", "Counts", "counting", "install", "kernels", "ndarray", "real_cupy"]


def real_cupy():
    """The installed CuPy if it can reach a GPU, else None."""
    try:
        import cupy

        if cupy.is_available() and float((cupy.ones(2) + 1).sum()) == 4.0:
            return cupy
    except Exception:  # no package, no driver, no CUDA libraries: the same answer
        pass
    return None


def install():
    """Puts the real CuPy, or else the stand-in, behind the name `cupy`; returns the module."""
    module = sys.modules.get("cupy")
    if getattr(module, "__standin__", False):
        return module
    real = real_cupy()
    if real is not None:
        return real
    for name in [n for n in sys.modules if n.partition(".")[0] in ("cupy", "cupyx")]:
        del sys.modules[name]  # a CuPy that was imported but has no GPU
    sys.modules.update(build())
    return sys.modules["cupy"]


@contextmanager
def counting():
    """`with counting() as n:` what the body cost: n.launches, n.syncs, n.uploads (complete after the body)."""
    before, spent = COUNTS.copy(), Counts()
    try:
        yield spent
    finally:
        for name in vars(spent):
            setattr(spent, name, getattr(COUNTS, name) - getattr(before, name))
