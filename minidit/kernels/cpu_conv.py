"""Twins of the convolutional primitives for float32 on a CPU: a few samples at a time, so that the columns stay cached."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.autograd import Vjp, home_of_gradient, recording
from minidit.backend import Array, empty
from minidit.kernels.cpu import constant

COLUMNS = 262144  # elements of the columns of a tile


def conv2d(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: int = 0) -> tuple[Array, Vjp]:
    B, C, H, W = x.shape
    O, _, kh, kw = weight.shape
    h, w = (H + 2 * padding - kh) // stride + 1, (W + 2 * padding - kw) // stride + 1
    K, keep = C * kh * kw, recording()
    flat, step = weight.reshape(O, K), max(1, COLUMNS // (K * h * w))
    shifts = [(i, j, slice(i, i + stride * h, stride), slice(j, j + stride * w, stride)) for i in range(kh) for j in range(kw)]
    padded = x
    if padding:
        padded = empty(x, (B, C, H + 2 * padding, W + 2 * padding))
        padded[:, :, :padding], padded[:, :, -padding:] = 0, 0
        padded[:, :, :, :padding], padded[:, :, :, -padding:] = 0, 0
        padded[:, :, padding:-padding, padding:-padding] = x
    columns = empty(x, (B if keep else min(step, B), C, kh, kw, h, w))
    y = empty(x, (B, O, h * w))
    for n in range(0, B, step):
        part = slice(n, min(n + step, B))
        c = columns[part] if keep else columns[: part.stop - n]
        for i, j, rows, cols in shifts:
            c[:, :, i, j] = padded[part, :, rows, cols]
        np.matmul(flat, c.reshape(len(c), K, h * w), out=y[part])
        if bias is not None:
            np.add(y[part], bias[:, None], out=y[part])
    y = y.reshape(B, O, h, w)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = y_bar.reshape(B, O, h * w)
        weight_bar = home_of_gradient(weight)
        products = np.matmul(g, columns.reshape(B, K, h * w).swapaxes(-1, -2))
        np.matmul(constant(B), products.reshape(B, O * K), out=weight_bar.reshape(O * K))
        bias_bar = None if bias is None else np.sum(g @ constant(h * w), axis=0, out=home_of_gradient(bias))
        return lambda: image_bar(g), weight_bar, bias_bar

    def image_bar(g: Array) -> Array:
        bar = empty(x, (B, C, H + 2 * padding, W + 2 * padding))
        bar[...] = 0
        scratch = empty(x, (min(step, B), C, kh, kw, h, w))
        for n in range(0, B, step):
            part = slice(n, min(n + step, B))
            c = scratch[: part.stop - n]
            np.matmul(flat.T, g[part], out=c.reshape(len(c), K, h * w))
            for i, j, rows, cols in shifts:
                target = bar[part, :, rows, cols]
                np.add(target, c[:, :, i, j], out=target)
        return bar[:, :, padding : padding + H, padding : padding + W]

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
        g, t, x_bar = y_bar.reshape(B, C, H * W), empty(x, (B, C, H * W)), empty(x, (B, groups, n))
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
        return x_bar.reshape(x.shape), weight_bar, bias_bar

    return y.reshape(x.shape), vjp
