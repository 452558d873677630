"""Kernels that no GPU has run since they were written are asked, before their first use, whether they agree with NumPy.

Once per device and kind, outside of recordings, on a few numbers. A kernel that disagrees, or fails, is not used: one warning
says so, and what was there before it runs (another kernel, or the plain text). A wrong number is never handed on.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minidit.autograd import NoTwin
from minidit.backend import Array, to_host
from minidit.kernels.cuda_launch import Bounded

AGREE = {"bf16": 2.0**-5, "float": 2.0**-12}  # of the largest number: a few roundings
Pairs = Iterable[tuple[Array, "np.ndarray[Any, Any]"]]

_agrees = Bounded()
refused: list[str] = []  # what every warning said


def agrees(what: str, storage: str, kind: tuple[Any, ...], trial: Callable[[], Pairs]) -> bool:
    """Whether every pair (on the device, expected) of the trial agrees. False, for now, while a stream is captured.

    The trial may call the twin that asks: it is trusted meanwhile.
    """
    cupy = sys.modules["cupy"]
    key = (getattr(cupy, "RawModule", None), cupy.cuda.runtime.getDevice(), what, storage, *kind)  # asked of this compiler
    if key not in _agrees:
        if cupy.cuda.get_current_stream().is_capturing():  # an answer that the host reads is no part of a graph
            return False
        _agrees[key] = True
        try:
            off = max(_off(a, b) for a, b in trial())
            reason = "" if off <= AGREE[storage] else f"it differs by {off:.1e} of the largest number"
        except NoTwin:  # the kernel does not serve this kind
            _agrees[key], reason = False, ""
        except Exception as error:  # whatever fails, the older way does the work, and the warning gives the reason
            reason = f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
        if reason:
            _agrees[key] = False
            refused.append(f"the kernel of {what} is not used: {reason}")
            warnings.warn(refused[-1], RuntimeWarning, stacklevel=3)
    return bool(_agrees[key])


def trusted(what: str, storage: str, kind: tuple[Any, ...], trial: Callable[[], Pairs]) -> None:
    """Raises NoTwin where the kernel does not agree."""
    if not agrees(what, storage, kind, trial):
        raise NoTwin(f"the kernel of {what} is not trusted here")


def _off(a: Array, b: np.ndarray[Any, Any]) -> float:
    """The largest difference, as a share of the largest number, or of 1 where all are small; NaN counts as infinite."""
    x = to_host(a).astype(np.float64)
    off = float(np.abs(x - b).max() / max(float(np.abs(b).max()), 1.0))
    return off if off == off else np.inf


def drawn(like: Array, *shape: int, seed: int = 0, dtype: Any = None) -> tuple[Array, np.ndarray[Any, Any]]:
    """Normal numbers on the device, of the type of `like` or another, and the same in float64."""
    on_host = np.random.default_rng((seed, *shape)).standard_normal(shape).astype(like.dtype if dtype is None else dtype)
    return sys.modules["cupy"].asarray(on_host), on_host.astype(np.float64)
