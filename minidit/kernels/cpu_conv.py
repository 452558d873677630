"""Twins of the convolutional primitives for float32 on a CPU: a few samples at a time, so that the columns stay cached."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.autograd import Vjp, home_of_gradient
from minidit.backend import Array, empty
from minidit.kernels.cpu import constant

COLUMNS = 131072  # elements of the columns of a tile


def pad_image(x: Array, padding: int) -> Array:
    if not padding:
        return x
    B, C, H, W = x.shape
    p, padded = padding, empty(x, (B, C, H + 2 * padding, W + 2 * padding))
    padded[:, :, :p], padded[:, :, -p:], padded[:, :, :, :p], padded[:, :, :, -p:] = 0, 0, 0, 0
    padded[:, :, p:-p, p:-p] = x
    return padded


class Windows:
    """The columns of (A.23) of a padded image, made for a few samples at a time; cheaper to make twice than to keep."""

    def __init__(self, padded: Array, kernel: tuple[int, int], stride: int) -> None:
        B, C, H, W = padded.shape
        kh, kw = kernel
        self.padded = padded
        self.h, self.w = (H - kh) // stride + 1, (W - kw) // stride + 1
        self.K, self.L = C * kh * kw, self.h * self.w
        self.shifts = [
            (i, j, slice(i, i + stride * (self.h - 1) + 1, stride), slice(j, j + stride * (self.w - 1) + 1, stride))
            for i in range(kh)
            for j in range(kw)
        ]
        step = max(1, COLUMNS // (self.K * self.L))
        self.tiles = [slice(n, min(n + step, B)) for n in range(0, B, step)]
        self.scratch = empty(padded, (min(step, B), C, kh, kw, self.h, self.w))

    def gather(self, tile: slice) -> Array:
        """(samples, K, L): the columns of a tile, in the scratch memory."""
        c = self.scratch[: tile.stop - tile.start]
        for i, j, rows, cols in self.shifts:
            c[:, :, i, j] = self.padded[tile, :, rows, cols]
        return c.reshape(len(c), self.K, self.L)

    def scatter(self, tile: slice, columns: Array) -> None:
        """The adjoint: adds the columns of a tile to the padded image."""
        c = columns.reshape(len(columns), *self.scratch.shape[1:])
        for i, j, rows, cols in self.shifts:
            target = self.padded[tile, :, rows, cols]
            np.add(target, c[:, :, i, j], out=target)


def correlate(x: Array, flat: Array, kernel: tuple[int, int], stride: int, padding: int) -> tuple[Array, Windows]:
    """(A.22) without bias for weights (O, K): the image (B, O, h, w) and the windows that it came from."""
    windows = Windows(pad_image(x, padding), kernel, stride)
    y = empty(x, (len(x), len(flat), windows.L))
    for tile in windows.tiles:
        np.matmul(flat, windows.gather(tile), out=y[tile])
    return y.reshape(len(x), len(flat), windows.h, windows.w), windows


def conv2d(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: int = 0) -> tuple[Array, Vjp]:
    O, C, kh, kw = weight.shape
    B, flat = len(x), weight.reshape(O, -1)
    y, windows = correlate(x, flat, (kh, kw), stride, padding)
    if bias is not None:
        np.add(y, bias[:, None, None], out=y)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = y_bar.reshape(B, O, windows.L)
        weight_bar = home_of_gradient(weight)
        total = np.zeros((O, windows.K), np.float32)
        for tile in windows.tiles:
            products = np.matmul(g[tile], windows.gather(tile).swapaxes(1, 2))
            total += products[0] if len(products) == 1 else products.sum(axis=0)
        weight_bar[...] = total.reshape(weight.shape)
        bias_bar = None if bias is None else np.sum(g @ constant(windows.L), axis=0, out=home_of_gradient(bias))
        return lambda: image_bar(g), weight_bar, bias_bar

    def image_bar(g: Array) -> Array:
        H, W, p = x.shape[2], x.shape[3], padding
        if stride == 1 and p < min(kh, kw) and kh == kw:  # a correlation with the mirrored weights: reads instead of adds
            mirrored = np.ascontiguousarray(weight[:, :, ::-1, ::-1].swapaxes(0, 1)).reshape(C, -1)
            return correlate(g.reshape(B, O, windows.h, windows.w), mirrored, (kh, kw), 1, kh - 1 - p)[0]
        bar = empty(x, (B, C, H + 2 * p, W + 2 * p))
        bar[...] = 0
        target = Windows(bar, (kh, kw), stride)
        for tile in target.tiles:
            target.scatter(tile, np.matmul(flat.T, g[tile]))
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
