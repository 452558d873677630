"""A 3 × 3 convolution in 36 products per 4 × 4 outputs instead of 144 (Toom, Cook, Winograd; Lavin, Gray 2016), for float32.

    V = Bᵀ d B        of every 6 × 6 tile d, four apart, of the padded picture                                             (A.28)
    U = G w Gᵀ        of every 3 × 3 kernel w
    y = Aᵀ (V U) A    its 4 × 4 outputs; V U is 36 matrix products over channels
    M̄ = A ȳ Aᵀ,   Ū = Vᵀ M̄,   w̄ = Gᵀ Ū G,   d̄ = B (M̄ Uᵀ) Bᵀ, added up where tiles overlap

A, B, G evaluate and interpolate polynomials at the points 0, ±3/4, ±3/2 and ∞, which lose less to rounding than 0, ±1, ±2.

Pictures lie in memory as (H, W, B, C): a transform along an axis is a matrix product whose rows are runs of B · C numbers. Pixels
of the border are zero: their columns of B, and the rows of A of outputs beyond the picture, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from minidit.autograd import Vjp
from minidit.backend import Array, empty
from minidit.kernels.blas import gemms
from minidit.kernels.pieces import home_of_gradient

TILE, POINTS = 4, (0.0, 0.75, -0.75, 1.5, -1.5)
ROWS = 32  # of a matrix of V, one for each tile and sample: more tiles are taken together until it has so many
STRIP = 1 << 20  # elements of V that are made at once, at most, if it is more than one tile


def matrices() -> tuple[Array, Array, Array]:
    """Aᵀ (4, 6), Bᵀ (6, 6) and G (6, 3) of (A.28): y = Aᵀ (G w ⊙ Bᵀ d) for y_i = Σ_j w_j d_{i+j}."""
    p = np.array(POINTS)
    others = [np.delete(p, k) for k in range(len(p))]
    a = np.concatenate([np.vander(p, TILE, increasing=True), np.eye(TILE)[-1:]])  # ∞ takes the leading coefficient
    scales = [[np.prod(p[k] - o)] for k, o in enumerate(others)]
    g = np.concatenate([np.vander(p, 3, increasing=True) / scales, np.eye(3)[-1:]])
    b = [np.append(np.poly(o)[::-1], 0) for o in others] + [np.poly(p)[::-1]]
    return a.T.astype(np.float32), np.array(b, np.float32), g.astype(np.float32)


AT, BT, G = matrices()
GG = np.kron(G, G)  # (36, 9): w -> G w Gᵀ on kernels of nine numbers in a row


class Reach(NamedTuple):
    """Some neighbouring tiles along an axis: the pixels that they read and write, and the transforms between the two."""

    read: slice
    write: slice
    into: Array  # (6 n, pixels read): Bᵀ of each tile
    back: Array  # (pixels written, 6 n): Aᵀ of each tile


@cache
def reach(size: int, first: int, n: int) -> Reach:
    """The tiles first to first + n - 1 along an axis of so many pixels."""
    begin, end = TILE * first, TILE * (first + n)
    into, back = np.zeros((6, n, TILE * n + 2), np.float32), np.zeros((TILE * n, 6, n), np.float32)
    for k in range(n):
        into[:, k, TILE * k : TILE * k + 6] = BT
        back[TILE * k : TILE * (k + 1), :, k] = AT
    low, high, last = max(begin - 1, 0), min(end + 1, size), min(end, size)
    inside = slice(low - begin + 1, high - begin + 1)
    return Reach(
        slice(low, high),
        slice(begin, last),
        np.ascontiguousarray(into.reshape(6 * n, -1)[:, inside]),
        np.ascontiguousarray(back.reshape(TILE * n, -1)[: last - begin]),
    )


def fits(x: Array, weight: Array, stride: int, padding: object) -> bool:
    """Whether the convolution of x, (H, W, B, C), is computed so. With a single channel the transforms cost too much."""
    sizes = weight.shape[2:] == (3, 3) and min(x.shape[:2]) > 2 and min(weight.shape[:2]) > 1
    return sizes and stride == 1 and padding == 1


def conv2d(x: Array, weight: Array, wide: Array) -> tuple[Array, Vjp]:
    """x : (H, W, B, C), weight : (O, C, 3, 3), wide : (B O,) or None  ->  (H, W, B, O). The adjoint takes and returns this order.

    V, more than twice as many numbers as x, is made again for the adjoint: keeping it was not faster.
    """
    (H, W, B, C), O = x.shape, len(weight)
    u = (GG @ weight.reshape(O * C, 9).T).reshape(36, O, C)
    y, places = empty(x, (H, W, B, O)), list(patches(x.shape))
    for rows, columns in places:
        v = tiles(x, rows, columns)
        m = gemms(v, u.swapaxes(1, 2), empty(x, (36, v.shape[1], O)))
        part = untiled(m, rows.back, columns.back, y[rows.write, columns.write])
        if wide is not None:
            np.add(part, wide.reshape(B, O), out=part)

    def vjp(y_bar: Array) -> tuple[Any, Array]:
        weight_bar, total, part = home_of_gradient(weight), np.zeros((36, O, C), np.float32), np.empty((36, O, C), np.float32)
        for rows, columns in places:
            m_bar = tiles_bar(y_bar, rows, columns)
            total += gemms(m_bar.swapaxes(1, 2), tiles(x, rows, columns), part)
        np.matmul(total.reshape(36, O * C).T, GG, out=weight_bar.reshape(O * C, 9))
        return lambda: image_bar(y_bar, u, places), weight_bar

    return y, vjp  # (A.28)


def image_bar(y_bar: Array, u: Array, places: list[tuple[Reach, Reach]]) -> Array:
    """x̄, (H, W, B, C), from ȳ : (H, W, B, O) and u : (36, O, C)."""
    H, W, B, _ = y_bar.shape
    x_bar = empty(y_bar, (H, W, B, u.shape[2]))
    if len(places) > 1:
        x_bar[...] = 0
    for rows, columns in places:
        m_bar = tiles_bar(y_bar, rows, columns)
        v_bar, target = gemms(m_bar, u, empty(y_bar, (*m_bar.shape[:2], u.shape[2]))), x_bar[rows.read, columns.read]
        if len(places) == 1:
            untiled(v_bar, rows.into.T, columns.into.T, target)
        else:
            np.add(target, untiled(v_bar, rows.into.T, columns.into.T, empty(y_bar, target.shape)), out=target)
    return x_bar


def patches(shape: tuple[int, ...]) -> Iterator[tuple[Reach, Reach]]:
    """The rows and columns of the tiles that are made at once: some tiles of one row."""
    H, W, B, C = shape
    across, n = -(-W // TILE), max(1, min(max(2, ROWS // B), STRIP // (36 * B * C)))
    for row in range(-(-H // TILE)):
        for first in range(0, across, n):
            yield reach(H, row, 1), reach(W, first, min(n, across - first))


def tiles(x: Array, rows: Reach, columns: Reach) -> Array:
    """V of some tiles: (36, tiles · B, C)."""
    return transformed(x[rows.read, columns.read], rows.into, columns.into)


def tiles_bar(y_bar: Array, rows: Reach, columns: Reach) -> Array:
    """M̄ of some tiles: (36, tiles · B, O)."""
    return transformed(y_bar[rows.write, columns.write], rows.back.T, columns.back.T)


def transformed(x: Array, rows: Array, columns: Array) -> Array:
    """x : a part (h, w, B, C) of a picture, transformed by `rows` (6, h) and `columns` (6 n, w)  ->  (36, n · B, C)."""
    h, w, B, C = x.shape
    half, v = empty(x, (6, w, B * C)), empty(x, (6, len(columns), B * C))
    np.matmul(rows, x.reshape(h, -1), out=half.reshape(6, -1))
    np.matmul(columns, half, out=v)
    return v.reshape(36, -1, C)


def untiled(v: Array, rows: Array, columns: Array, out: Array) -> Array:
    """v : (36, n · B, C), with `rows` (h, 6) and `columns` (w, 6 n)  ->  out, a part (h, w, B, C) of a picture."""
    h, w, B, C = out.shape
    half = np.matmul(columns, v.reshape(6, -1, B * C), out=empty(v, (6, w, B * C)))
    np.matmul(rows, half.reshape(6, -1), out=out.reshape(h, -1))
    return out
