"""Twins of the group norm for float32 on a CPU, with and without the SiLU that follows it in convolutional networks.

    d = x - μ,   r = 1/√(mean d² + ε),   z = d a + β,   a = r γ                   μ and r per group, γ and β per channel     (A.17)
    y = z,   or with h = z/2 and τ = tanh h:   y = z σ(z) = h (1 + τ),   y' = ½ (1 + τ) (1 + h (1 - τ))                      (A.4)
    g = ȳ y';   x̄ = a g - r mean(g γ) - d r² mean(g γ d r)                                                                   (A.14)

Channels lie last in memory (see cpu_conv.py), and a row of a picture, W · C numbers, is handled as one: numbers per channel are
repeated W times for that. Sums over rows are products with a vector of ones. Kept are x and its moments; the rest is made again,
in the cache.
"""

from __future__ import annotations

import numpy as np

from minidit.autograd import Vjp
from minidit.backend import Array, empty
from minidit.kernels.cpu import TILE, constant
from minidit.kernels.cpu_conv import channels_last, channels_second
from minidit.kernels.pieces import home_of_gradient


def group_norm(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-6) -> tuple[Array, Vjp]:
    return normalised(x, weight, bias, groups, eps, activated=False)


def group_norm_silu(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-6) -> tuple[Array, Vjp]:
    return normalised(x, weight, bias, groups, eps, activated=True)


class Groups:
    """Sums and means of pictures (S, H, W · C) over pixels and the channels of a group."""

    def __init__(self, shape: tuple[int, ...], groups: int) -> None:
        self.B, self.C, self.H, self.W = shape
        self.groups, self.n = groups, self.C // groups * self.H * self.W
        step = max(1, TILE // (self.C * self.H * self.W))
        self.tiles = [slice(i, min(i + step, self.B)) for i in range(0, self.B, step)]
        self.step, self.shape = min(step, self.B), (self.B, self.H, self.W * self.C)

    def wide(self, v: Array) -> Array:
        """(S, 1, C) or (C,)  ->  the same numbers for each pixel of a row: (S or 1, 1, W · C)."""
        v = v.reshape(-1, 1, 1, self.C)
        return np.broadcast_to(v, (len(v), 1, self.W, self.C)).reshape(len(v), 1, -1)

    def sums(self, rows: Array, factor: float = 1.0) -> Array:
        """(S, H, W · C)  ->  the sums over pixels, times a factor: (S, 1, C)."""
        columns = np.matmul(constant(self.H, factor)[None, None], rows)
        return columns.reshape(len(rows), self.W, self.C).sum(axis=1, keepdims=True)

    def means(self, sums: Array) -> Array:
        """Sums over pixels (S, 1, C)  ->  the mean of each group, at every one of its channels: (S, 1, C)."""
        means = np.multiply(sums.reshape(len(sums), self.groups, -1).sum(axis=-1), 1 / self.n)
        return np.repeat(means, self.C // self.groups, axis=1)[:, None]


def normalised(
    x: Array, weight: Array, bias: Array, groups: int, eps: float, *, activated: bool
) -> tuple[Array, Vjp]:
    B, C, H, W = x.shape
    layout, half = Groups(x.shape, groups), 0.5 if activated else 1.0  # h, or z itself
    rows, y = channels_last(x).reshape(layout.shape), empty(x, layout.shape)
    mean, r, shift = np.empty((B, 1, C), np.float32), np.empty((B, 1, C), np.float32), layout.wide(bias * np.float32(half))
    scratch = empty(x, (3, layout.step, *layout.shape[1:]))
    for tile in layout.tiles:
        z, t = y[tile], scratch[0, : tile.stop - tile.start]
        mean[tile] = layout.means(layout.sums(rows[tile]))
        np.subtract(rows[tile], layout.wide(mean[tile]), out=z)
        np.multiply(z, z, out=t)
        r[tile] = 1 / np.sqrt(layout.means(layout.sums(t)) + eps)
        np.multiply(z, layout.wide(r[tile] * (half * weight)), out=z)
        np.add(z, shift, out=z)
        if activated:
            np.tanh(z, out=t)
            np.add(t, 1.0, out=t)
            np.multiply(z, t, out=z)
    del scratch

    def vjp(y_bar: Array) -> tuple[Array, ...]:
        bars, x_bar = channels_last(y_bar).reshape(layout.shape), empty(x, layout.shape)
        scratch = empty(x, (3, layout.step, *layout.shape[1:]))
        bias_terms, weight_terms = np.empty((B, 1, C), np.float32), np.empty((B, 1, C), np.float32)
        for tile in layout.tiles:
            (d, s, t), g, rt = scratch[:, : tile.stop - tile.start], x_bar[tile], r[tile]
            np.subtract(rows[tile], layout.wide(mean[tile]), out=d)
            if activated:
                np.multiply(d, layout.wide(rt * (half * weight)), out=t)
                np.add(t, shift, out=t)
                slope(t, s, g)
                np.multiply(g, bars[tile], out=g)  # twice g of (A.14)
            else:
                np.copyto(g, bars[tile])
            bias_terms[tile] = layout.sums(g, half)
            np.multiply(g, d, out=t)
            weight_terms[tile] = layout.sums(t, half) * rt
            np.multiply(g, layout.wide(rt * (half * weight)), out=g)
            np.multiply(d, layout.wide(rt * rt * layout.means(weight_terms[tile] * weight)), out=d)
            np.subtract(g, d, out=g)
            np.subtract(g, layout.wide(rt * layout.means(bias_terms[tile] * weight)), out=g)
        weight_bar = np.sum(weight_terms, axis=(0, 1), out=home_of_gradient(weight))
        bias_bar = np.sum(bias_terms, axis=(0, 1), out=home_of_gradient(bias))
        return channels_second(x_bar.reshape(B, H, W, C)), weight_bar, bias_bar

    return channels_second(y.reshape(B, H, W, C)), vjp


def slope(h: Array, s: Array, out: Array) -> None:
    """out = (1 + τ)(1 + h (1 - τ)), twice the slope of SiLU at z = 2h; s : scratch memory."""
    np.tanh(h, out=s)
    np.add(s, 1.0, out=s)
    np.subtract(2.0, s, out=out)
    np.multiply(out, h, out=out)
    np.add(out, 1.0, out=out)
    np.multiply(out, s, out=out)
