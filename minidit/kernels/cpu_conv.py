"""Twins of the convolutional primitives for float32 on a CPU: a few samples at a time, so that the columns stay cached.

Pictures keep their shape (B, C, H, W) and lie in memory as (B, H, W, C), channels last: then rows of windows are copied in long
runs, a product writes its output in place, and the tokens of an attention need no copy. Twins accept both orders and return this one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.autograd import Vjp
from minidit.backend import Array, empty
from minidit.kernels.blas import gemm
from minidit.kernels.cpu import constant
from minidit.kernels.pieces import home_of_gradient
from minidit.kernels.windows import Padding, count, lines

COLUMNS = 131072  # elements of the columns of a tile


def channels_last(x: Array) -> Array:
    """(B, C, H, W)  ->  (B, H, W, C), dense; no copy of a picture that lies so in memory."""
    y = x.transpose(0, 2, 3, 1)
    if y.flags.c_contiguous:
        return y
    dense = empty(x, y.shape)
    dense[...] = y
    return dense


def channels_second(y: Array) -> Array:
    """(B, H, W, C)  ->  the same memory as (B, C, H, W)."""
    return y.transpose(0, 3, 1, 2)


class Windows:
    """The columns of (A.23), one row per window, for a few samples at a time; making them twice is cheaper than keeping them.

    The image is kept with its border of zeros, so that kw · C entries of a window lie side by side.
    """

    def __init__(
        self, shape: tuple[int, ...], like: Array, kernel: tuple[int, int], stride: int, padding: Padding
    ) -> None:
        B, C, H, W = shape
        kh, kw = kernel
        s, (p, after) = stride, lines(padding)
        self.kernel, self.stride = kernel, s
        self.h, self.w = count(H, kh, s, padding), count(W, kw, s, padding)
        self.K, self.L = C * kh * kw, self.h * self.w
        self.image = empty(like, (B, p + H + after, p + W + after, C))
        self.inside = channels_second(self.image[:, p : p + H, p : p + W])
        self.image[:, :p], self.image[:, p + H :], self.image[:, :, :p], self.image[:, :, p + W :] = 0, 0, 0, 0
        b, r, c, e = self.image.strides
        shape5 = (B, self.h, self.w, kh, kw * C)
        self.view = np.lib.stride_tricks.as_strided(self.image, shape5, (b, s * r, s * c, r, e))
        step = max(1, min(B, COLUMNS // (self.K * self.L)))
        self.tiles = [slice(n, min(n + step, B)) for n in range(0, B, step)]
        self.scratch = empty(like, (step, *shape5[1:]))

    def rows(self, tile: slice) -> slice:
        """The rows of a tile in a matrix with one row per window of every sample."""
        return slice(tile.start * self.L, tile.stop * self.L)

    def gather(self, tile: slice) -> Array:
        """(samples · L, K): the windows of a tile, in the scratch memory, ordered (row, column, channel)."""
        c = self.scratch[: tile.stop - tile.start]
        c[...] = self.view[tile]
        return c.reshape(-1, self.K)

    def scatter(self, tile: slice, rows: Array) -> None:
        """The adjoint: adds the windows of a tile, (samples · L, K), to the image."""
        s, (kh, kw) = self.stride, self.kernel
        c = rows.reshape(tile.stop - tile.start, self.h, self.w, kh, kw, -1)
        for i in range(kh):
            for j in range(kw):
                target = self.image[tile, i : i + s * (self.h - 1) + 1 : s, j : j + s * (self.w - 1) + 1 : s]
                np.add(target, c[:, :, :, i, j], out=target)


def correlate(
    x: Array, flat: Array, bias: Array, kernel: tuple[int, int], stride: int, padding: Padding
) -> tuple[Array, Windows]:
    """(A.22) for weights (O, K) ordered like the windows: the image (B, O, h, w) and the windows that it came from."""
    windows, O = Windows(x.shape, x, kernel, stride, padding), len(flat)
    windows.inside[...] = x
    y = empty(x, (len(x), windows.h, windows.w, O))
    wide = None if bias is None else np.tile(bias, windows.w)  # of a row of pixels: long inner loops
    for tile in windows.tiles:
        gemm(windows.gather(tile), flat.T, y[tile].reshape(-1, O))
        if bias is not None:
            part = y[tile].reshape(-1, windows.w * O)
            np.add(part, wide, out=part)
    return channels_second(y), windows


def pointwise(x: Array, weight: Array, bias: Array) -> tuple[Array, Vjp]:
    """A 1 × 1 convolution: a linear layer of every pixel."""
    O, C = weight.shape[:2]
    rows, flat, (B, _, H, W) = channels_last(x).reshape(-1, C), weight.reshape(O, C), x.shape
    y = gemm(rows, flat.T, empty(x, (len(rows), O)))
    if bias is not None:
        np.add(y.reshape(-1, W * O), np.tile(bias, W), out=y.reshape(-1, W * O))

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = channels_last(y_bar).reshape(-1, O)
        weight_bar, bias_bar = home_of_gradient(weight), None if bias is None else home_of_gradient(bias)
        gemm(g.T, rows, weight_bar.reshape(O, C))
        if bias is not None:
            np.matmul(constant(len(g)), g, out=bias_bar)
        x_bar = lambda: channels_second(gemm(g, flat, empty(x, (len(g), C))).reshape(B, H, W, C))
        return x_bar, weight_bar, bias_bar

    return channels_second(y.reshape(B, H, W, O)), vjp


def conv2d(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: Padding = 0) -> tuple[Array, Vjp]:
    O, C, kh, kw = weight.shape
    if (kh, kw, stride, lines(padding)) == (1, 1, 1, (0, 0)):
        return pointwise(x, weight, bias)
    flat = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(O, -1)
    y, windows = correlate(x, flat, bias, (kh, kw), stride, padding)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = channels_last(y_bar).reshape(-1, O)
        total, part = np.zeros((O, windows.K), np.float32), np.empty((O, windows.K), np.float32)
        for tile in windows.tiles:
            total += gemm(g[windows.rows(tile)].T, windows.gather(tile), part)
        weight_bar = home_of_gradient(weight)
        weight_bar[...] = total.reshape(O, kh, kw, C).transpose(0, 3, 1, 2)
        bias_bar = None if bias is None else np.matmul(constant(len(g)), g, out=home_of_gradient(bias))
        return lambda: image_bar(g), weight_bar, bias_bar

    def image_bar(g: Array) -> Array:
        if stride == 1 and isinstance(padding, int) and padding < kh == kw:  # a correlation with mirrored weights: reads, not adds
            mirrored = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)).reshape(C, -1)
            picture = channels_second(g.reshape(len(x), windows.h, windows.w, O))
            return correlate(picture, mirrored, None, (kh, kw), 1, kh - 1 - padding)[0]
        target = Windows(x.shape, x, (kh, kw), stride, padding)
        target.image[...] = 0
        for tile in target.tiles:
            rows = target.scratch[: tile.stop - tile.start].reshape(-1, target.K)
            target.scatter(tile, gemm(g[target.rows(tile)], flat, rows))
        return target.inside

    return y, vjp


def upsample_nearest(x: Array, *, factor: int = 2) -> tuple[Array, Vjp]:
    (B, C, H, W), f = x.shape, factor
    y = empty(x, (B, H, f, W, f, C))
    y[...] = x.transpose(0, 2, 3, 1)[:, :, None, :, None]

    def vjp(y_bar: Array) -> tuple[Array]:
        g, x_bar = channels_last(y_bar).reshape(B, H, f, W, f, C), empty(x, (B, H, W, C))
        np.add(g[:, :, 0, :, 0], g[:, :, 0, :, 1] if f > 1 else 0, out=x_bar)
        for i in range(f):
            for j in range(f):
                if i or j > 1:
                    np.add(x_bar, g[:, :, i, :, j], out=x_bar)
        return (channels_second(x_bar),)

    return channels_second(y.reshape(B, f * H, f * W, C)), vjp
