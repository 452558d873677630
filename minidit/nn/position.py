"""Places and times as sines and cosines.

    ω_i = 10000^(-i/(D/4)),  i = 0 .. D/4-1;   p(s) = [sin s ω | cos s ω]      one coordinate in D/2 channels      (N.6)
    pos[r·w + c] = [p(c) | p(r)]                the first half of the channels is the column, the second the row   (N.7)
    f_i = 10000^(-i/(d/2)),  i = 0 .. d/2-1;    emb(t) = [cos t f | sin t f]    time: cosine first                (N.8)
    f_i = 10000^(-i/(d/2 - shift)),  shift = 1: the frequencies of DDPM, and of diffusers' DiT                    (N.10)
    emb(t) = [sin t f | cos t f]                the order of DDPM                                                 (N.11)
    φ_j = id · θ^(-2j/d),  j = 0 .. d/2-1,      per axis of the place, d numbers of every head: angles of RoPE    (N.12)

‖pos[n]‖² = D/2 and ‖emb(t)‖² = d/2 for every place and time, and pos[m]·pos[n] depends only on the difference of the places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minidit.backend import Array, xp_of


def sincos_2d(width: int, h: int, w: int, unit: float = 1.0) -> Array:
    """The fixed position table of an h × w grid: (h·w, width) float64, row by row. Raises ValueError unless width % 4 == 0.

    unit : the distance of two neighbours; with less than 1, a larger grid has the coordinates of a smaller one
    """
    if width % 4:
        raise ValueError(f"a 2-D position embedding needs a width divisible by 4, got {width}")
    omega = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    r, c = (unit * i for i in np.divmod(np.arange(h * w), w))

    def p(s: Array) -> Array:
        return np.concatenate((np.sin(s[:, None] * omega), np.cos(s[:, None] * omega)), axis=1)  # (N.6)

    return np.concatenate((p(c), p(r)), axis=1)  # (N.7)


def centre(table: Array, rows: int, columns: int, h: int, w: int) -> Array:
    """The middle h × w places of a table of rows × columns places, (1, rows · columns, D)  ->  (1, h · w, D)."""
    top, left = (rows - h) // 2, (columns - w) // 2
    return table.reshape(1, rows, columns, -1)[:, top : top + h, left : left + w].reshape(1, h * w, -1)


def grid_ids(*sizes: int) -> NDArray[np.int64]:
    """The place of every token of a grid, the last axis fastest: (N, axes) ints."""
    return np.stack(np.unravel_index(np.arange(math.prod(sizes)), sizes), axis=1)


def rotary(ids: Array, widths: Sequence[int], theta: float = 10000.0) -> tuple[Array, Array]:
    """(cos, sin) of the angles of RoPE: (N, Σ widths / 2) float64 each, for `ops.rope`. At id 0 nothing is turned.

    Raises ValueError unless there is one even width per axis.

    ids : (N, axes), the place of every token on every axis.   widths : even; the numbers of a head that belong to each axis
    """
    if len(widths) != ids.shape[1] or any(d % 2 for d in widths):
        raise ValueError(f"{ids.shape[1]} axes of places need as many even widths, got {tuple(widths)}")
    pairs = zip(ids.T, widths, strict=True)
    angles = np.concatenate([i[:, None] * theta ** (-np.arange(0, d, 2) / d) for i, d in pairs], axis=1)  # (N.12)
    return np.cos(angles), np.sin(angles)


def sincos_1d(width: int, n: int) -> Array:
    """The places 0 .. n-1 of a line: (n, width) float64. Raises ValueError unless width is even."""
    if width % 2:
        raise ValueError(f"a 1-D position embedding needs an even width, got {width}")
    angle = np.arange(n)[:, None] * 10000.0 ** (-np.arange(width // 2) / (width // 2))
    return np.concatenate((np.sin(angle), np.cos(angle)), axis=1)  # (T.32)


def timestep_embedding(
    t: Array, width: int, dtype: DTypeLike = np.float32, *, shift: int = 0, sine_first: bool = False
) -> Array:
    """t : (B,) as Schedule.time gives it  ->  (B, width). In float64 until the end: a float32 angle at t = 999 is off by 3e-5.

    shift: 0, or 1 for weights that were trained with the frequencies of (N.10). sine_first: the order of (N.11).
    """
    xp = xp_of(t)
    half = width // 2
    f = xp.exp(-math.log(10000.0) * xp.arange(half, dtype=xp.float64) / (half - shift))  # (N.10); shift is 0 in (N.8)
    angle = t.astype(xp.float64)[:, None] * f
    halves = (xp.sin, xp.cos) if sine_first else (xp.cos, xp.sin)  # (N.11), or (N.8)
    return xp.concatenate([half(angle) for half in halves], axis=1).astype(dtype)
