"""Twins of the convolutional primitives for float32 on a CPU: a few samples at a time, so that the columns stay cached."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidit.autograd import Vjp, home_of_gradient
from minidit.backend import Array, empty
from minidit.kernels.blas import gemm
from minidit.kernels.cpu import constant

COLUMNS = 262144  # elements of the columns of a tile


def pad_image(x: Array, padding: int) -> Array:
    if not padding:
        return x
    B, C, H, W = x.shape
    p, padded = padding, empty(x, (B, C, H + 2 * padding, W + 2 * padding))
    padded[:, :, :p], padded[:, :, -p:], padded[:, :, :, :p], padded[:, :, :, -p:] = 0, 0, 0, 0
    padded[:, :, p:-p, p:-p] = x
    return padded


def channels_first(x: Array) -> Array:
    """(n, O, L)  ->  (O, n L): the samples side by side, so that one long matrix product serves them all."""
    return np.ascontiguousarray(x.swapaxes(0, 1)).reshape(x.shape[1], -1)


class Windows:
    """The columns of (A.23) of a padded image, made for a few samples at a time; cheaper to make twice than to keep."""

    def __init__(self, padded: Array, kernel: tuple[int, int], stride: int) -> None:
        B, C, H, W = padded.shape
        kh, kw = kernel
        self.image = padded.swapaxes(0, 1)
        self.h, self.w = (H - kh) // stride + 1, (W - kw) // stride + 1
        self.K, self.L = C * kh * kw, self.h * self.w
        self.shifts = [
            (i, j, slice(i, i + stride * (self.h - 1) + 1, stride), slice(j, j + stride * (self.w - 1) + 1, stride))
            for i in range(kh)
            for j in range(kw)
        ]
        step = max(1, min(B, COLUMNS // (self.K * self.L)))
        self.tiles = [slice(n, min(n + step, B)) for n in range(0, B, step)]
        self.shape = (C, kh, kw, step, self.h, self.w)
        self.scratch = empty(padded, (self.K * step * self.L,))

    def columns(self, tile: slice) -> Array:
        """Memory for the columns of a tile: (C, kh, kw, samples, h, w)."""
        shape = (*self.shape[:3], tile.stop - tile.start, self.h, self.w)
        return self.scratch[: math.prod(shape)].reshape(shape)

    def gather(self, tile: slice) -> Array:
        """(K, samples · L): the columns of a tile, in the scratch memory."""
        c = self.columns(tile)
        for i, j, rows, cols in self.shifts:
            c[:, i, j] = self.image[:, tile, rows, cols]
        return c.reshape(self.K, -1)

    def scatter(self, tile: slice, columns: Array) -> None:
        """The adjoint: adds the columns of a tile to the padded image."""
        for i, j, rows, cols in self.shifts:
            target = self.image[:, tile, rows, cols]
            np.add(target, columns[:, i, j], out=target)


def correlate(x: Array, flat: Array, bias: Array, kernel: tuple[int, int], stride: int, padding: int) -> tuple[Array, Windows]:
    """(A.22) for weights (O, K): the image (B, O, h, w) and the windows that it came from."""
    windows, O = Windows(pad_image(x, padding), kernel, stride), len(flat)
    y = empty(x, (len(x), O, windows.L))
    product = empty(x, (O * windows.shape[3] * windows.L,))
    for tile in windows.tiles:
        n = tile.stop - tile.start
        p = gemm(flat, windows.gather(tile), product[: O * n * windows.L].reshape(O, n * windows.L))
        if bias is not None:
            np.add(p, bias[:, None], out=p)
        y[tile] = p.reshape(O, n, windows.L).swapaxes(0, 1)
    return y.reshape(len(x), O, windows.h, windows.w), windows


def conv2d(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: int = 0) -> tuple[Array, Vjp]:
    O, C, kh, kw = weight.shape
    B, flat = len(x), weight.reshape(O, -1)
    y, windows = correlate(x, flat, bias, (kh, kw), stride, padding)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = y_bar.reshape(B, O, windows.L)
        total, part = np.zeros((O, windows.K), np.float32), np.empty((O, windows.K), np.float32)
        for tile in windows.tiles:
            total += gemm(channels_first(g[tile]), windows.gather(tile).T, part)
        weight_bar = home_of_gradient(weight)
        weight_bar[...] = total.reshape(weight.shape)
        bias_bar = None if bias is None else np.sum(g @ constant(windows.L), axis=0, out=home_of_gradient(bias))
        return lambda: image_bar(g), weight_bar, bias_bar

    def image_bar(g: Array) -> Array:
        H, W, p = x.shape[2], x.shape[3], padding
        if stride == 1 and p < min(kh, kw) and kh == kw:  # a correlation with the mirrored weights: reads instead of adds
            mirrored = np.ascontiguousarray(weight[:, :, ::-1, ::-1].swapaxes(0, 1)).reshape(C, -1)
            return correlate(g.reshape(B, O, windows.h, windows.w), mirrored, None, (kh, kw), 1, kh - 1 - p)[0]
        bar = empty(x, (B, C, H + 2 * p, W + 2 * p))
        bar[...] = 0
        target = Windows(bar, (kh, kw), stride)
        for tile in target.tiles:
            c = target.columns(tile)
            gemm(flat.T, channels_first(g[tile]), c.reshape(target.K, -1))
            target.scatter(tile, c)
        return bar[:, :, p : p + H, p : p + W]

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
