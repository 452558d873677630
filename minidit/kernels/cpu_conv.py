"""Twins of the convolutional primitives for float32 on a CPU: a few samples at a time, so that the columns stay cached."""

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


def rows_of(x: Array) -> Array:
    """(n, O, L)  ->  (n L, O): one row per pixel."""
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(-1, x.shape[1])


class Windows:
    """The columns of (A.23), one row per window, for a few samples at a time; making them twice is cheaper than keeping them.

    The image is kept with the channels last and its border of zeros, so that kw · C entries of a window lie side by side.
    """

    def __init__(self, shape: tuple[int, ...], like: Array, kernel: tuple[int, int], stride: int, padding: Padding) -> None:
        B, C, H, W = shape
        kh, kw = kernel
        s, (p, after) = stride, lines(padding)
        self.kernel, self.stride = kernel, s
        self.h, self.w = count(H, kh, s, padding), count(W, kw, s, padding)
        self.K, self.L = C * kh * kw, self.h * self.w
        self.image = empty(like, (B, p + H + after, p + W + after, C))
        self.inside = self.image[:, p : p + H, p : p + W].transpose(0, 3, 1, 2)
        self.image[:, :p], self.image[:, p + H :], self.image[:, :, :p], self.image[:, :, p + W :] = 0, 0, 0, 0
        b, r, c, e = self.image.strides
        shape5 = (B, self.h, self.w, kh, kw * C)
        self.view = np.lib.stride_tricks.as_strided(self.image, shape5, (b, s * r, s * c, r, e))
        step = max(1, min(B, COLUMNS // (self.K * self.L)))
        self.tiles = [slice(n, min(n + step, B)) for n in range(0, B, step)]
        self.scratch = empty(like, (step, *shape5[1:]))

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


def correlate(x: Array, flat: Array, bias: Array, kernel: tuple[int, int], stride: int, padding: Padding) -> tuple[Array, Windows]:
    """(A.22) for weights (O, K) ordered like the windows: the image (B, O, h, w) and the windows that it came from."""
    windows, O = Windows(x.shape, x, kernel, stride, padding), len(flat)
    windows.inside[...] = x
    y = empty(x, (len(x), O, windows.L))
    product = empty(x, (len(windows.scratch) * windows.L, O))
    for tile in windows.tiles:
        rows = windows.gather(tile)
        p = gemm(rows, flat.T, product[: len(rows)])
        if bias is not None:
            np.add(p, bias, out=p)
        y[tile] = p.reshape(-1, windows.L, O).swapaxes(1, 2)
    return y.reshape(len(x), O, windows.h, windows.w), windows


def conv2d(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: Padding = 0) -> tuple[Array, Vjp]:
    O, C, kh, kw = weight.shape
    B, flat = len(x), np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(O, -1)
    y, windows = correlate(x, flat, bias, (kh, kw), stride, padding)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = y_bar.reshape(B, O, windows.L)
        total, part = np.zeros((O, windows.K), np.float32), np.empty((O, windows.K), np.float32)
        for tile in windows.tiles:
            total += gemm(rows_of(g[tile]).T, windows.gather(tile), part)
        weight_bar = home_of_gradient(weight)
        weight_bar[...] = total.reshape(O, kh, kw, C).transpose(0, 3, 1, 2)
        bias_bar = None if bias is None else np.sum(g @ constant(windows.L), axis=0, out=home_of_gradient(bias))
        return lambda: image_bar(g), weight_bar, bias_bar

    def image_bar(g: Array) -> Array:
        if stride == 1 and isinstance(padding, int) and padding < kh == kw:  # a correlation with mirrored weights: reads, not adds
            mirrored = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)).reshape(C, -1)
            return correlate(g.reshape(B, O, windows.h, windows.w), mirrored, None, (kh, kw), 1, kh - 1 - padding)[0]
        target = Windows(x.shape, x, (kh, kw), stride, padding)
        target.image[...] = 0
        for tile in target.tiles:
            rows = target.scratch[: tile.stop - tile.start].reshape(-1, target.K)
            target.scatter(tile, gemm(rows_of(g[tile]), flat, rows))
        return target.inside

    return y, vjp


def group_norm(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-6) -> tuple[Array, Vjp]:
    B, C, H, W = x.shape
    n = C // groups * H * W
    flat = x.reshape(B, groups, n)
    x_hat, y = empty(x, (B, groups, n)), empty(x, (B, C, H * W))
    np.subtract(flat, np.matmul(flat, constant(n, 1 / n))[..., None], out=x_hat)
    r = 1 / np.sqrt(np.vecdot(x_hat, x_hat) * (1 / n) + eps)
    np.multiply(x_hat, r[..., None], out=x_hat)
    channels = x_hat.reshape(B, C, H * W)
    np.multiply(channels, weight[:, None], out=y)
    np.add(y, bias[:, None], out=y)

    def vjp(y_bar: Array) -> tuple[Array, ...]:
        g, t, x_bar = y_bar.reshape(B, C, H * W), empty(y_bar, (B, C, H * W)), empty(y_bar, (B, groups, n))
        one = constant(H * W)
        bias_terms, weight_terms = g @ one, np.multiply(g, channels, out=t) @ one  # (B, C) each
        weight_bar = np.sum(weight_terms, axis=0, out=home_of_gradient(weight))
        bias_bar = np.sum(bias_terms, axis=0, out=home_of_gradient(bias))
        m1 = (bias_terms * weight).reshape(B, groups, -1).sum(axis=-1, keepdims=True) * (1 / n)
        m2 = (weight_terms * weight).reshape(B, groups, -1).sum(axis=-1, keepdims=True) * (1 / n)
        np.multiply(g, weight[:, None], out=x_bar.reshape(B, C, H * W))
        u = np.multiply(x_hat, m2, out=t.reshape(B, groups, n))
        np.subtract(x_bar, u, out=x_bar)
        np.subtract(x_bar, m1, out=x_bar)
        np.multiply(x_bar, r[..., None], out=x_bar)
        return x_bar.reshape(B, C, H, W), weight_bar, bias_bar

    return y.reshape(x.shape), vjp
