"""Layers of convolutional networks that change the size of a picture, and attention among its pixels.

    halve:   y[r, c] = Σ_{i,j} W[i, j] x[2r + i, 2c + j] + b,   i, j = 0 .. 2          zeros below and to the right only     (L.7)
    pixels:  y = x + W_o attention(W_q n, W_k n, W_v n),   n = norm(x), one token per pixel                                  (L.8)

Upwards, pixels become 2 × 2 squares and a convolution follows (A.10).
"""

from __future__ import annotations

from minidit import ops
from minidit.autograd import Value
from minidit.nn.initial import xavier_uniform
from minidit.nn.layers import Conv2d, GroupNorm, Linear
from minidit.nn.module import Init, Module, Parameter


class PixelAttention(Module):
    """x : (B, C, H, W)  ->  the same; every pixel attends to every other."""

    def __init__(self, width: int, groups: int, *, heads: int = 1, eps: float = 1e-6, out: Init = xavier_uniform) -> None:
        self.heads = heads
        self.group_norm = GroupNorm(width, groups, eps=eps)
        self.to_q, self.to_k, self.to_v = Linear(width, width), Linear(width, width), Linear(width, width)
        self.to_out = [Linear(width, width, init=out)]

    def forward(self, x: Value) -> Value:
        B, C, H, W = x.shape
        n = self.group_norm(x).reshape(B, C, H * W).transpose(2, 0, 1)  # (N, B, C), as pictures lie in memory on a CPU
        projections = self.to_q, self.to_k, self.to_v
        weight, bias = (ops.concat(*(getattr(p, name) for p in projections), axis=0) for name in ("weight", "bias"))
        y = ops.self_attention(ops.linear(n, weight, bias).transpose(1, 0, 2), heads=self.heads)
        return x + self.to_out[0](y.transpose(1, 0, 2)).transpose(1, 2, 0).reshape(B, C, H, W)  # (L.8)


class Halve(Module):
    """x : (B, C, H, W), H and W even  ->  (B, C, H/2, W/2). padding : lines of zeros (before, after) on both axes"""

    def __init__(self, width: int, padding: tuple[int, int] = (0, 1)) -> None:
        self.conv = Conv2d(width, width, 3, stride=2)
        self.conv.padding = padding

    def forward(self, x: Value) -> Value:
        return self.conv(x)  # (L.7)


class Double(Module):
    """x : (B, C, H, W)  ->  (B, C, 2H, 2W)"""

    def __init__(self, width: int) -> None:
        self.conv = Conv2d(width, width, 3)

    def forward(self, x: Value) -> Value:
        return self.conv(ops.upsample_nearest(x, factor=2))


def projections_together(parameters: dict[str, Parameter]) -> list[Parameter]:
    """A layout of the flat buffer: the maps to q, k and v of an attention side by side, so that they are one matrix."""
    order: dict[str, Parameter] = {}
    for name, p in parameters.items():
        if name.endswith("to_q.weight"):
            stem = name.removesuffix("q.weight")
            order |= {n: parameters[n] for end in ("weight", "bias") for n in (f"{stem}{letter}.{end}" for letter in "qkv")}
        order.setdefault(name, p)
    return list(order.values())
