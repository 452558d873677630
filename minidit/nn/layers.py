"""Layers: an operation and the parameters it needs. The equations are in ops/."""

from __future__ import annotations

from typing import Any

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array
from minidit.nn.initial import lecun_normal, normal, ones, xavier_uniform, zeros
from minidit.nn.module import Init, Module, Parameter


class Linear(Module):
    """x : (..., n)  ->  (..., m)"""

    def __init__(self, n: int, m: int, *, bias: bool = True, init: Init = xavier_uniform) -> None:
        self.weight = Parameter((m, n), init)
        self.bias = Parameter((m,), zeros) if bias else None

    def forward(self, x: Value) -> Value:
        return ops.linear(x, self.weight) if self.bias is None else ops.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """x : (B, C, H, W)  ->  (B, O, H', W')"""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1, init: Init = lecun_normal) -> None:
        self.weight = Parameter((out, channels, kernel, kernel), init)
        self.bias = Parameter((out,), zeros)
        self.stride = stride
        self.padding: int | tuple[int, int] = kernel // 2

    def forward(self, x: Value, more: Value | None = None) -> Value:
        """more : (B, O), added to the bias of each sample."""
        bias = self.bias if more is None else self.bias + more
        return ops.conv2d(x, self.weight, bias, stride=self.stride, padding=self.padding)


class LayerNorm(Module):
    """x : (..., D)  ->  the same, standardised over D, then scaled and shifted by trained vectors."""

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        self.weight, self.bias, self.eps = Parameter((width,), ones), Parameter((width,), zeros), eps

    def forward(self, x: Value) -> Value:
        return ops.layer_norm(x, self.weight, self.bias, eps=self.eps)


class RMSNorm(Module):
    """x : (..., D)  ->  the same, divided by the root of its mean square, then scaled by a trained vector."""

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        self.weight, self.eps = Parameter((width,), ones), eps

    def forward(self, x: Value) -> Value:
        return ops.rms_norm(x, self.weight, eps=self.eps)


class GroupNorm(Module):
    """x : (B, C, H, W)  ->  the same, standardised over the pixels and channels of each group."""

    def __init__(self, channels: int, groups: int, *, eps: float = 1e-6) -> None:
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be cut into {groups} equal groups")
        self.weight, self.bias = Parameter((channels,), ones), Parameter((channels,), zeros)
        self.groups, self.eps = groups, eps

    def forward(self, x: Value) -> Value:
        return ops.group_norm(x, self.weight, self.bias, groups=self.groups, eps=self.eps)

    def silu(self, x: Value) -> Value:
        """silu(norm(x)), in one primitive."""
        return ops.group_norm_silu(x, self.weight, self.bias, groups=self.groups, eps=self.eps)


class Embedding(Module):
    """index : ints (...)  ->  (..., D), N(0, 0.02²) at the start unless `init` is another."""

    def __init__(self, rows: int, width: int, init: Init | None = None) -> None:
        self.weight = Parameter((rows, width), init or normal(0.02))

    def forward(self, index: Array) -> Value:
        return ops.embedding(self.weight, index=index)


class SiLU(Module):
    """x σ(x)"""

    def forward(self, x: Value) -> Value:
        return ops.silu(x)


class Sequential(Module):
    """Layers one after the other; their names are "0", "1", …"""

    def __init__(self, *layers: Module) -> None:
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)
        self.depth = len(layers)

    def __getitem__(self, i: int) -> Any:
        return getattr(self, str(i))

    def forward(self, x: Value) -> Value:
        for i in range(self.depth):
            x = self[i](x)
        return x
