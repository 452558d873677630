"""Primitives that move numbers without changing them: their adjoints move them back.

    y = P x  with P a selection of entries   ->   x̄ = Pᵀ ȳ                                               (A.9)
    patchify: token n = r·(W/p) + c holds the p × p patch at row r, column c, flat in the order (C, p, p)   (T.1)
    unpatchify: a token of p·p·C numbers is flat in the order (p, p, C): not the inverse layout of T.1      (T.2)
"""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, empty, scatter_add, xp_of
from minidit.kernels import cpu_conv, pieces
from minidit.ops.elementwise import unbroadcast


@primitive
def reshape(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Vjp]:
    """The same numbers in another shape; one entry may be -1."""
    old = x.shape
    return x.reshape(shape), lambda y_bar: (y_bar.reshape(old),)


@primitive
def transpose(x: Array, *, axes: tuple[int, ...]) -> tuple[Array, Vjp]:
    """y_{i_axes[0], i_axes[1], …} = x_{i_0, i_1, …}"""
    back = tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))
    return x.transpose(axes), lambda y_bar: (y_bar.transpose(back),)


@primitive(cpu=cpu_conv.concat, cuda=pieces.concat)
def concat(*xs: Array, axis: int = -1) -> tuple[Array, Vjp]:
    """The arrays one after the other along the axis."""
    xp = xp_of(*xs)
    ends: list[int] = []
    for x in xs[:-1]:
        ends.append((ends[-1] if ends else 0) + x.shape[axis])
    return xp.concatenate(xs, axis=axis), lambda y_bar: tuple(xp.split(y_bar, ends, axis=axis))


@primitive(cuda=pieces.split)
def split(x: Array, *, parts: int | tuple[int, ...], axis: int = -1) -> tuple[tuple[Array, ...], Vjp]:
    """`parts` equal pieces along the axis, or pieces of these lengths."""
    xp, cuts = xp_of(x), parts if isinstance(parts, int) else list(itertools.accumulate(parts))[:-1]
    return tuple(xp.split(x, cuts, axis=axis)), lambda *bars: (xp.concatenate(bars, axis=axis),)


@primitive
def getitem(x: Array, *, index: Any) -> tuple[Array, Vjp]:
    """x[index] for slices, ints and integer arrays; entries that are taken twice get both gradients."""
    xp, shape, dtype = xp_of(x), x.shape, x.dtype
    entries = index if isinstance(index, tuple) else (index,)
    simple = all(isinstance(i, (int, slice)) or i is None or i is Ellipsis for i in entries)

    def vjp(y_bar: Array) -> tuple[Array]:
        x_bar = xp.zeros(shape, dtype)
        if simple:
            x_bar[index] = y_bar
        else:
            scatter_add(x_bar, index, y_bar)  # (A.9)
        return (x_bar,)

    return xp.asarray(x[index]), vjp


@primitive
def broadcast_to(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Vjp]:
    """x stretched to the shape."""
    old = x.shape
    return xp_of(x).broadcast_to(x, shape), lambda y_bar: (unbroadcast(y_bar, old),)


def moved(x: Array, grid: tuple[int, ...], axes: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """x seen as `grid`, its axes permuted, written out in one copy as `shape`."""
    view = x.reshape(grid).transpose(axes)
    y = empty(x, view.shape)
    y[...] = view
    return y.reshape(shape)


@primitive
def patchify(x: Array, *, patch_size: int) -> tuple[Array, Vjp]:
    """x : (B, C, H, W)  ->  tokens : (B, (H/p)(W/p), C p p), row by row."""
    B, C, H, W = x.shape
    p = patch_size
    h, w = H // p, W // p

    def vjp(y_bar: Array) -> tuple[Any]:
        return (lambda: moved(y_bar, (B, h, w, C, p, p), (0, 3, 1, 4, 2, 5), (B, C, H, W)),)

    return moved(x, (B, C, h, p, w, p), (0, 2, 4, 1, 3, 5), (B, h * w, C * p * p)), vjp  # (T.1)


@primitive
def unpatchify(x: Array, *, patch_size: int, size: tuple[int, int]) -> tuple[Array, Vjp]:
    """tokens : (B, (H/p)(W/p), p p C)  ->  (B, C, H, W) with size = (H, W)."""
    B, N, P = x.shape
    p = patch_size
    H, W = size
    h, w, C = H // p, W // p, P // (p * p)

    def vjp(y_bar: Array) -> tuple[Array]:
        return (moved(y_bar, (B, C, h, p, w, p), (0, 2, 4, 3, 5, 1), (B, N, P)),)

    return moved(x, (B, h, w, p, p, C), (0, 5, 1, 3, 2, 4), (B, C, H, W)), vjp  # (T.2)


@primitive(cpu=cpu_conv.upsample_nearest)
def upsample_nearest(x: Array, *, factor: int = 2) -> tuple[Array, Vjp]:
    """x : (B, C, H, W)  ->  (B, C, fH, fW): every pixel becomes an f × f square; the adjoint sums each square (A.10)."""
    B, C, H, W = x.shape
    f = factor
    y = empty(x, (B, C, H, f, W, f))
    y[...] = x[:, :, :, None, :, None]

    def vjp(y_bar: Array) -> tuple[Array]:
        rows = y_bar.reshape(B, C, H, f, W, f).sum(axis=3)
        return (functools.reduce(operator.add, (rows[..., j] for j in range(f))),)  # (A.10)

    return y.reshape(B, C, f * H, f * W), vjp
