"""Twins of the group norm for float32 on a CPU, with and without the SiLU that follows it in convolutional networks.

    d = x - μ,   r = 1/√(mean d² + ε),   z = d a + β,   a = r γ                   μ and r per group, γ and β per channel    (A.17)
    y = z,   or with h = z/2 and s = 1 + tanh h:   y = z σ(z) = h s,   y' = ½ (s + y (2 - s))                               (A.4)
    g = ȳ y';   x̄ = a g - r mean(g γ) - d r² mean(g γ d r)                                                                  (A.14)

Pictures lie in memory as (H, W, B, C), see cpu_conv.py, so that numbers per sample and channel are a row of B · C. Sums over
pixels are products with a vector of ones. Kept are x and its moments, and of SiLU y and s; the rest is made again.
"""

from __future__ import annotations

import numpy as np

from minidit.autograd import Vjp
from minidit.backend import Array, empty
from minidit.kernels.cpu import constant
from minidit.kernels.cpu_conv import as_picture, pixels_first
from minidit.kernels.pieces import home_of_gradient

WHOLE = 1 << 20  # elements that are handled at once; of more, a few samples at a time, in shorter runs


def group_norm(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-6) -> tuple[Array, Vjp]:
    return normalised(x, weight, bias, groups, eps, activated=False)


def group_norm_silu(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-6) -> tuple[Array, Vjp]:
    return normalised(x, weight, bias, groups, eps, activated=True)


class Groups:
    """Sums and means of pictures (P, B, C) over the P pixels and the channels of a group."""

    def __init__(self, shape: tuple[int, ...], groups: int) -> None:
        self.P, self.B, self.C = shape
        self.groups, self.n = groups, self.C // groups * self.P
        step = max(1, min(self.B, WHOLE // (self.C * self.P)))
        self.tiles = [slice(i, min(i + step, self.B)) for i in range(0, self.B, step)]
        self.scratch_shape = (2, self.P, step, self.C)

    def sums(self, x: Array, factor: float = 1.0) -> Array:
        """(P, S, C)  ->  the sums over pixels, times a factor: (S, C)."""
        if x.flags.c_contiguous:
            return np.matmul(constant(self.P, factor), x.reshape(self.P, -1)).reshape(x.shape[1:])
        return np.matmul(constant(self.P, factor), x.transpose(1, 0, 2))

    def means(self, sums: Array) -> Array:
        """Sums over pixels (S, C)  ->  the mean of each group, at every one of its channels: (S, C)."""
        means = np.multiply(sums.reshape(len(sums), self.groups, -1).sum(axis=-1), 1 / self.n)
        return np.repeat(means, self.C // self.groups, axis=1)


def normalised(x: Array, weight: Array, bias: Array, groups: int, eps: float, *, activated: bool) -> tuple[Array, Vjp]:
    B, C, H, W = x.shape
    pixels = pixels_first(x).reshape(H * W, B, C)
    layout, y, half = Groups(pixels.shape, groups), empty(x, pixels.shape), np.float32(0.5 if activated else 1.0)  # z/2, or z
    mean, r, a = np.empty((B, C), np.float32), np.empty((B, C), np.float32), half * weight
    shifts = np.tile(half * bias, (layout.scratch_shape[2], 1))
    kept = empty(x, pixels.shape) if activated else y  # s
    scratch = empty(x, layout.scratch_shape)
    for tile in layout.tiles:
        d, t = scratch[:, :, : tile.stop - tile.start]
        mean[tile] = layout.means(layout.sums(pixels[:, tile]))
        np.subtract(pixels[:, tile], mean[tile], out=d)
        np.multiply(d, d, out=t)
        r[tile] = 1 / np.sqrt(layout.means(layout.sums(t)) + eps)
        np.multiply(d, r[tile] * a, out=d)
        z, s = y[:, tile], kept[:, tile]
        np.add(d, shifts[: d.shape[1]], out=d if activated else z)
        if activated:
            np.tanh(d, out=s)
            np.add(s, 1.0, out=s)
            np.multiply(d, s, out=z)
    del scratch

    def vjp(y_bar: Array) -> tuple[Array, ...]:
        bars, x_bar = pixels_first(y_bar).reshape(pixels.shape), empty(x, pixels.shape)
        scratch = empty(x, layout.scratch_shape)
        bias_terms, weight_terms = np.empty((B, C), np.float32), np.empty((B, C), np.float32)
        for tile in layout.tiles:
            (d, t), g, rt = scratch[:, :, : tile.stop - tile.start], x_bar[:, tile], r[tile]
            if activated:
                slope(y[:, tile], kept[:, tile], g)
                np.multiply(g, bars[:, tile], out=g)  # twice g of (A.14)
            else:
                np.copyto(g, bars[:, tile])
            np.subtract(pixels[:, tile], mean[tile], out=d)
            bias_terms[tile] = layout.sums(g, float(half))
            np.multiply(g, d, out=t)
            weight_terms[tile] = layout.sums(t, float(half)) * rt
            np.multiply(g, rt * a, out=g)
            np.multiply(d, rt * rt * layout.means(weight_terms[tile] * weight), out=d)
            np.subtract(g, d, out=g)
            np.subtract(g, rt * layout.means(bias_terms[tile] * weight), out=g)
        weight_bar = np.sum(weight_terms, axis=0, out=home_of_gradient(weight))
        bias_bar = np.sum(bias_terms, axis=0, out=home_of_gradient(bias))
        return as_picture(x_bar.reshape(H, W, B, C)), weight_bar, bias_bar

    return as_picture(y.reshape(H, W, B, C)), vjp


def slope(y: Array, s: Array, out: Array) -> None:
    """out = s + y (2 - s), twice the slope of SiLU at z where y = silu(z) and s = 1 + tanh z/2."""
    np.subtract(2.0, s, out=out)
    np.multiply(out, y, out=out)
    np.add(out, s, out=out)
