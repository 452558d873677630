"""Twins of the convolutional primitives for float32 on a CPU.

A bias is handed on as `wide`, one number per sample and channel: long inner loops.

Pictures keep their shape (B, C, H, W) and lie in memory as (H, W, B, C), pixels first: sums of neighbouring pixels then work on
runs of B · C numbers, and the rows of every product lie side by side. Twins accept any order and return this one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from minidit.autograd import Vjp
from minidit.backend import Array, empty
from minidit.kernels import cpu_winograd as winograd
from minidit.kernels import pieces
from minidit.kernels.blas import gemm
from minidit.kernels.cpu import constant
from minidit.kernels.pieces import home_of_gradient
from minidit.kernels.windows import Padding, count, lines

COLUMNS = 131072  # elements of the columns of a tile


def pixels_first(x: Array) -> Array:
    """(B, C, H, W)  ->  (H, W, B, C), dense; no copy of a picture that lies so in memory."""
    y = x.transpose(2, 3, 0, 1)
    if y.flags.c_contiguous:
        return y
    dense = empty(x, y.shape)
    dense[...] = y
    return dense


def as_picture(y: Array) -> Array:
    """(H, W, B, C)  ->  the same memory as (B, C, H, W)."""
    return y.transpose(2, 3, 0, 1)


class Windows:
    """The columns of (A.23), one row per window, for a few rows of pixels at a time; making them twice is cheaper than keeping
    them.

    The image is kept with its border of zeros and the channels last, so that kw · C entries of a window lie side by side.
    """

    def __init__(self, shape: tuple[int, ...], like: Array, kernel: tuple[int, int], stride: int, padding: Padding) -> None:
        (H, W, B, C), (kh, kw) = shape, kernel
        s, (p, after) = stride, lines(padding)
        self.kernel, self.stride, self.B = kernel, s, B
        self.h, self.w = count(H, kh, s, padding), count(W, kw, s, padding)
        self.K = C * kh * kw
        self.image = empty(like, (B, p + H + after, p + W + after, C))
        self.image[:, :p], self.image[:, p + H :], self.image[:, :, :p], self.image[:, :, p + W :] = 0, 0, 0, 0
        self.inside = self.image[:, p : p + H, p : p + W].transpose(1, 2, 0, 3)  # as (H, W, B, C)
        b, r, c, e = self.image.strides
        shape5 = (self.h, self.w, B, kh, kw * C)
        self.view = np.lib.stride_tricks.as_strided(self.image, shape5, (s * r, s * c, b, r, e))
        step = max(1, min(self.h, COLUMNS // (self.K * self.w * B)))
        self.tiles = [slice(n, min(n + step, self.h)) for n in range(0, self.h, step)]

    def gather(self, tile: slice) -> Array:
        """(pixels · B, K): the windows of a few rows, ordered (row, column, channel)."""
        c = empty(self.image, self.view[tile].shape)
        c[...] = self.view[tile]
        return c.reshape(-1, self.K)

    def scatter(self, tile: slice, rows: Array) -> None:
        """The adjoint: adds the windows of a few rows, (pixels · B, K), to the image."""
        s, (kh, kw), n = self.stride, self.kernel, tile.stop - tile.start
        c, first = rows.reshape(n, self.w, self.B, kh, kw, -1), s * tile.start
        for i in range(kh):
            for j in range(kw):
                target = self.image[:, first + i : first + i + s * (n - 1) + 1 : s, j : j + s * (self.w - 1) + 1 : s]
                np.add(target, c[:, :, :, i, j].transpose(2, 0, 1, 3), out=target)


def correlate(
    x: Array, flat: Array, wide: Array, kernel: tuple[int, int], stride: int, padding: Padding
) -> tuple[Array, Windows]:
    """(A.22) for x : (H, W, B, C) and weights (O, K) ordered like the windows: (h, w, B, O), and the windows."""
    windows, O = Windows(x.shape, x, kernel, stride, padding), len(flat)
    windows.inside[...] = x
    y = empty(x, (windows.h, windows.w, windows.B, O))
    for tile in windows.tiles:
        gemm(windows.gather(tile), flat.T, y[tile].reshape(-1, O))
        if wide is not None:
            part = y[tile].reshape(-1, windows.B * O)
            np.add(part, wide, out=part)
    return y, windows


def pointwise(x: Array, weight: Array, wide: Array) -> tuple[Array, Vjp]:
    """A 1 × 1 convolution of x, (H, W, B, C): a linear layer of every pixel."""
    (O, C), shape = weight.shape[:2], x.shape
    rows, flat = x.reshape(-1, C), weight.reshape(O, C)
    y = gemm(rows, flat.T, empty(x, (len(rows), O)))
    if wide is not None:
        pixels = y.reshape(-1, shape[2] * O)
        np.add(pixels, wide, out=pixels)

    def vjp(g: Array) -> tuple[Any, Array]:
        weight_bar = home_of_gradient(weight)
        gemm(g.reshape(-1, O).T, rows, weight_bar.reshape(O, C))
        return lambda: gemm(g.reshape(-1, O), flat, empty(x, rows.shape)).reshape(shape), weight_bar

    return y.reshape(*shape[:3], O), vjp


def general(x: Array, weight: Array, wide: Array, stride: int, padding: Padding) -> tuple[Array, Vjp]:
    """Any convolution of x, (H, W, B, C), by (A.23)."""
    O, C, kh, kw = weight.shape
    flat = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(O, -1)
    y, windows = correlate(x, flat, wide, (kh, kw), stride, padding)

    def vjp(g: Array) -> tuple[Any, Array]:
        total, part = np.zeros((O, windows.K), np.float32), np.empty((O, windows.K), np.float32)
        for tile in windows.tiles:
            total += gemm(g[tile].reshape(-1, O).T, windows.gather(tile), part)
        weight_bar = home_of_gradient(weight)
        weight_bar[...] = total.reshape(O, kh, kw, C).transpose(0, 3, 1, 2)
        return lambda: image_bar(g), weight_bar

    def image_bar(g: Array) -> Array:
        if stride == 1 and isinstance(padding, int) and padding < kh == kw:  # with mirrored weights: no adding up
            mirrored = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)).reshape(C, -1)
            return correlate(g, mirrored, None, (kh, kw), 1, kh - 1 - padding)[0]
        target = Windows(x.shape, x, (kh, kw), stride, padding)
        target.image[...] = 0
        for tile in target.tiles:
            bars = g[tile].reshape(-1, O)
            target.scatter(tile, gemm(bars, flat, empty(g, (len(bars), target.K))))
        x_bar = empty(x, x.shape)
        x_bar[...] = target.inside
        return x_bar

    return y, vjp


def conv2d(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: Padding = 0) -> tuple[Array, Vjp]:
    kernel, pixels = list(weight.shape[2:]), pixels_first(x)
    wide = None if bias is None else np.tile(bias, len(x)) if bias.ndim == 1 else np.ascontiguousarray(bias).reshape(-1)
    if kernel == [1, 1] and stride == 1 and lines(padding) == (0, 0):
        y, inner_vjp = pointwise(pixels, weight, wide)
    elif winograd.fits(pixels, weight, stride, padding):
        y, inner_vjp = winograd.conv2d(pixels, weight, wide)
    else:
        y, inner_vjp = general(pixels, weight, wide, stride, padding)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = pixels_first(y_bar)
        x_bar, weight_bar = inner_vjp(g)
        return lambda: as_picture(x_bar()), weight_bar, None if bias is None else summed(g, bias)

    return as_picture(y), vjp


def summed(g: Array, bias: Array) -> Array:
    """b̄ from ȳ, (h, w, B, O): for a bias (O,) over pixels and samples, for one (B, O) over pixels."""
    rows, bias_bar = g.reshape(-1, bias.size), home_of_gradient(bias)
    np.matmul(constant(len(rows)), rows, out=bias_bar.reshape(-1))
    return bias_bar


def concat(*xs: Array, axis: int = -1) -> tuple[Array, Vjp]:
    """Pictures along their channels; other arrays as in pieces.py."""
    if axis != 1 or xs[0].ndim != 4:
        return pieces.concat(*xs, axis=axis)
    parts = [pixels_first(x) for x in xs]
    ends = np.cumsum([0, *(p.shape[3] for p in parts)])
    y = empty(xs[0], (*parts[0].shape[:3], int(ends[-1])))
    places = [slice(*pair) for pair in pairwise(ends)]
    for part, place in zip(parts, places, strict=True):
        y[..., place] = part
    return as_picture(y), lambda y_bar: tuple(y_bar[:, place] for place in places)


def upsample_nearest(x: Array, *, factor: int = 2) -> tuple[Array, Vjp]:
    (B, C, H, W), f = x.shape, factor
    y = empty(x, (H, f, W, f, B, C))
    y[...] = x.transpose(2, 3, 0, 1)[:, None, :, None]

    def vjp(y_bar: Array) -> tuple[Array]:
        g, x_bar = pixels_first(y_bar).reshape(H, f, W, f, B, C), empty(x, (H, W, B, C))
        x_bar[...] = g[:, 0, :, 0]
        for i in range(f):
            for j in range(f):
                if i or j:
                    np.add(x_bar, g[:, i, :, j], out=x_bar)
        return (as_picture(x_bar),)

    return as_picture(y.reshape(f * H, f * W, B, C)), vjp
