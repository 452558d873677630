"""Reductions over any axes.

    y = Σ_axis x   ->   x̄ = ȳ stretched back over the axis          (A.7)
    y = (1/n) Σ x  ->   x̄ = ȳ / n stretched back                    (A.8)
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, xp_of


def _stretch(y_bar: Array, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Array:
    if axis is not None and not keepdims:
        axes = (axis,) if isinstance(axis, int) else axis
        expanded = tuple(1 if i in {a % len(shape) for a in axes} else n for i, n in enumerate(shape))
        y_bar = y_bar.reshape(expanded)
    return xp_of(y_bar).broadcast_to(y_bar, shape)


@primitive
def sum(x: Array, *, axis: Any = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """Σ over the axis (int, tuple or None for all)."""
    shape = x.shape
    return xp_of(x).asarray(x.sum(axis=axis, keepdims=keepdims)), lambda y_bar: (_stretch(y_bar, shape, axis, keepdims),)  # (A.7)


@primitive
def mean(x: Array, *, axis: Any = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """The mean over the axis (int, tuple or None for all)."""
    shape = x.shape
    y = xp_of(x).asarray(x.mean(axis=axis, keepdims=keepdims))
    n = x.size / max(1, y.size)
    return y, lambda y_bar: (_stretch(y_bar / n, shape, axis, keepdims),)  # (A.8)
