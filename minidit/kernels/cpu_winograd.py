"""A 3 × 3 convolution on a CPU in 4/9 of the products (Winograd 1980; Lavin and Gray 2016): height and width are even.

    V = Bᵀ d B        of every 4 × 4 tile d of the padded picture, tiles 2 apart     Bᵀ = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]
    U = G w Gᵀ        of every 3 × 3 kernel w                                        G  = [1 0 0; ½ ½ ½; ½ -½ ½; 0 0 1]
    y = Aᵀ (V U) A    its 2 × 2 outputs; V U is 16 matrix products over channels     Aᵀ = [1 1 1 0; 0 1 -1 -1]              (A.28)
    M̄ = A ȳ Aᵀ,   Ū = Vᵀ M̄,   w̄ = Gᵀ Ū G;      x̄ is the convolution of ȳ with the mirrored kernels, whose U is U with its
    first and last row and column exchanged

Pictures lie in memory as (H, W, B, C): the transforms, sums of neighbouring pixels, work on runs of B · C numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minidit.autograd import Vjp
from minidit.backend import Array, empty
from minidit.kernels.blas import gemms
from minidit.kernels.pieces import home_of_gradient

STRIP = 1 << 20  # elements of V that are made at once, whole rows of tiles
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
GG = np.kron(G, G)  # (16, 9): w -> G w Gᵀ on kernels of nine numbers in a row
MIRRORED = np.arange(16).reshape(4, 4)[[3, 1, 2, 0]][:, [3, 1, 2, 0]].ravel()


def fits(kernel: list[int], stride: int, padding: object, shape: tuple[int, ...]) -> bool:
    """Whether a convolution of a picture (H, W, B, C) can be computed so."""
    return kernel == [3, 3] and stride == 1 and padding == 1 and shape[0] % 2 == shape[1] % 2 == 0


def conv2d(x: Array, weight: Array, wide: Array) -> tuple[Array, Vjp]:
    """x : (H, W, B, C), weight : (O, C, 3, 3), wide : (B O,) or None  ->  (H, W, B, O). The adjoint takes and returns this order.

    V, four numbers for each of x, is made again for the adjoint: keeping it was not faster.
    """
    O, C = weight.shape[:2]
    u = (GG @ weight.reshape(O * C, 9).T).reshape(16, O, C)

    def vjp(y_bar: Array) -> tuple[Any, Array]:
        weight_bar = home_of_gradient(weight)
        np.matmul(kernel_bars(x, y_bar).reshape(16, O * C).T, GG, out=weight_bar.reshape(O * C, 9))
        return lambda: correlate(y_bar, u[MIRRORED], None), weight_bar

    return correlate(x, u.swapaxes(1, 2), wide), vjp  # (A.28)


def tiles(x: Array) -> Iterator[tuple[slice, Array]]:
    """(rows of tiles, their V), a strip at a time: V is (16, tiles · B, C); the next may overwrite it."""
    H, W, B, C = x.shape
    step = max(1, min(H // 2, STRIP // (8 * W * B * C)))
    rows, v = empty(x, (4, step, W + 2, B, C)), empty(x, (4, 4, step, W // 2, B, C))
    rows[:, :, 0], rows[:, :, -1] = 0, 0  # the border
    for first in range(0, H // 2, step):
        strip = slice(first, min(first + step, H // 2))
        n = strip.stop - first
        part = v.reshape(-1)[: 4 * n * 2 * W * B * C].reshape(4, 4, n, W // 2, B, C)
        row_differences(x, strip, rows[:, :n, 1:-1])
        differences([rows[:, :n, k : W + k : 2] for k in range(4)], part.swapaxes(0, 1))
        yield strip, part.reshape(16, -1, C)


def correlate(x: Array, u: Array, wide: Array) -> Array:
    """x : (H, W, B, C), u : (16, C, O), wide : the bias, (B O,), or None  ->  (H, W, B, O)."""
    (H, W, B, _), O = x.shape, u.shape[2]
    y = empty(x, (H, W, B, O))
    for strip, v in tiles(x):
        n = strip.stop - strip.start
        m, halves = empty(x, (16, v.shape[1], O)), empty(x, (3, 4, n, W // 2, B, O))
        gemms(v, u, m)
        if wide is not None:  # the entry (1, 1) of Aᵀ m A is added to all four outputs
            centre = m[5].reshape(-1, B * O)
            np.add(centre, wide, out=centre)
        sums(m.reshape(4, 4, n, W // 2, B, O), halves[:2], halves[2])
        sums(halves[:2].swapaxes(0, 1), squares(y, strip).swapaxes(0, 1), halves[2, :2])
    return y


def kernel_bars(x: Array, y_bar: Array) -> Array:
    """Ū, (16, O, C), from x : (H, W, B, C) and ȳ : (H, W, B, O)."""
    (_, W, B, C), O = x.shape, y_bar.shape[3]
    total, part = np.zeros((16, O, C), np.float32), np.empty((16, O, C), np.float32)
    for strip, v in tiles(x):
        n = strip.stop - strip.start
        rows, m_bar = empty(y_bar, (4, 2, n, W // 2, B, O)), empty(y_bar, (4, 4, n, W // 2, B, O))
        spread(squares(y_bar, strip), rows)
        spread(rows.swapaxes(0, 1), m_bar.swapaxes(0, 1))
        gemms(m_bar.reshape(16, -1, O).swapaxes(1, 2), v, part)
        np.add(total, part, out=total)
    return total


def squares(y: Array, strip: slice) -> Array:
    """The rows of a strip of y, (H, W, B, O), as (2, 2, rows of tiles, tiles of a row, B, O)."""
    part = y[2 * strip.start : 2 * strip.stop]
    return part.reshape(len(part) // 2, 2, y.shape[1] // 2, 2, *y.shape[2:]).transpose(1, 3, 0, 2, 4, 5)


def differences(d: Sequence[Array], out: Array) -> None:
    """out = Bᵀ d, along the first axis."""
    np.subtract(d[0], d[2], out=out[0])
    np.add(d[1], d[2], out=out[1])
    np.subtract(d[2], d[1], out=out[2])
    np.subtract(d[1], d[3], out=out[3])


def row_differences(x: Array, strip: slice, out: Array) -> None:
    """`differences` along the rows of a picture, for a strip of its tiles; above and below it are zeros."""
    even, odd, last = x[2 * strip.start : 2 * strip.stop : 2], x[2 * strip.start + 1 : 2 * strip.stop : 2], len(out[0]) - 1
    np.add(even, odd, out=out[1])
    np.subtract(odd, even, out=out[2])
    np.subtract(odd[:-1], odd[1:], out=out[0, 1:])
    np.subtract(even[:-1], even[1:], out=out[3, :-1])
    if strip.start:
        np.subtract(x[2 * strip.start - 1], odd[0], out=out[0, 0])
    else:
        np.negative(odd[0], out=out[0, 0])
    if 2 * strip.stop < len(x):
        np.subtract(even[-1], x[2 * strip.stop], out=out[3, last])
    else:
        np.copyto(out[3, last], even[-1])


def sums(m: Array, out: Array, scratch: Array) -> None:
    """out = Aᵀ m, along the first axis: (4, …)  ->  (2, …)."""
    np.add(m[1], m[2], out=scratch)
    np.add(m[0], scratch, out=out[0])
    np.subtract(m[1], m[2], out=scratch)
    np.subtract(scratch, m[3], out=out[1])


def spread(y: Array, out: Array) -> None:
    """out = A y, along the first axis, the adjoint of `sums`: (2, …)  ->  (4, …)."""
    np.copyto(out[0], y[0])
    np.add(y[0], y[1], out=out[1])
    np.subtract(y[0], y[1], out=out[2])
    np.negative(y[1], out=out[3])
