"""Self-attention on a GPU: the fused kernels of cuda/attention.cu, or batched matrix products for wider heads."""

from __future__ import annotations

import math
import sys
from typing import Any

from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty
from minidit.kernels.cuda import checked_linear, linear_bars
from minidit.kernels.cuda_blas import PRECISIONS, gemm, precision, product
from minidit.kernels.cuda_launch import NULL, ceil, f32, i32, launch, storage, vector
from minidit.kernels.cuda_normalise import softmax
from minidit.kernels.cuda_rows import column_sum, dense, kind_of, rows_of
from minidit.kernels.cudnn_attention import route
from minidit.kernels.pieces import home_of_gradient

TALL, WIDE, WIDEST_HEAD = 64, 32, 128  # as in attention.cu


def self_attention(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    if qkv.shape[-1] // 3 // heads > WIDEST_HEAD:
        return attention_products(qkv, heads=heads)
    y, vjp = fused_attention(qkv, None, heads)
    return y, lambda y_bar: vjp(y_bar)[:1]


class Tiles:
    """The package's kernels for one shape."""

    def __init__(self, qkv: Array, heads: int) -> None:
        s, (B, N, width) = storage(qkv), qkv.shape
        self.K = width // 3 // heads
        self.pitch = 4 * (ceil(self.K, 16) * 16 + 8)  # bytes of a row of a tile
        self.tail, self.grid = (i32(N), i32(heads), f32(self.K**-0.5)), (ceil(N, TALL), B * heads)
        self.variant = {"STORAGE": s, "HEAD": self.K, "FACTORS": 2 if s == "bf16" else PRECISIONS.index(precision())}

    def forward(self, qkv: Array, add: Array, y: Array, log_sum: Array) -> None:
        tiles, v = (TALL + 2 * WIDE) * self.pitch, vector(self.K, *(x for x in (qkv, add, y) if x is not NULL))
        launch("attention", "attention", self.grid, 128, (qkv, add, y, log_sum, *self.tail), tiles, VEC=v, **self.variant)

    def backward(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array) -> None:
        tiles, v = (
            (2 * TALL + 2 * WIDE) * self.pitch + 8 * WIDE,
            vector(self.K, *(x for x in (qkv, add, y, bar) if x is not NULL)),
        )
        args = (qkv, add, y, bar, log_sum, out, *self.tail)
        launch("attention", "attention_backward", (*self.grid, 2), 128, args, tiles, VEC=v, **self.variant)


def fused_attention(qkv: Array, bias: Array | None, heads: int) -> tuple[Array, Vjp]:
    """Self-attention of qkv + bias, and the bars of both. With a bias, qkv may be overwritten."""
    kind_of(qkv)
    (B, N, width), qkv, add = qkv.shape, dense(qkv), NULL if bias is None else bias
    if B * heads > 65535 or width // 3 // heads > WIDEST_HEAD:
        raise NoTwin(f"{B * heads} heads of {width // 3 // heads} numbers")
    y, log_sum, way = empty(qkv, (B, N, width // 3)), empty(qkv, (B, heads, N), f32), route(Tiles(qkv, heads), qkv, add, heads)
    way.forward(qkv, add, y, log_sum)

    def vjp(y_bar: Array) -> tuple[Array, Array]:
        out = empty(qkv, qkv.shape)
        way.backward(qkv, add, y, dense(y_bar), log_sum, out)
        return out, None if bias is None else column_sum(rows_of(out), home_of_gradient(bias))

    return y, vjp


def projected_attention(x: Array, weight: Array, bias: Array, *, heads: int) -> tuple[Array, Vjp]:
    checked_linear(x, weight, bias)
    if len(weight) // 3 // heads > WIDEST_HEAD:
        raise NoTwin(f"heads wider than {WIDEST_HEAD}")
    rows = rows_of(x)
    qkv = gemm(rows, weight.T, empty(x, (len(rows), len(weight)))).reshape(*x.shape[:-1], len(weight))
    y, attention_vjp = fused_attention(qkv, bias, heads)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar, bias_bar = attention_vjp(y_bar)
        return linear_bars(rows_of(bar), rows, x.shape, weight, bias, bias_bar)

    return y, vjp


def attention_products(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    """The same by batched matrix products, for heads of any width: the weights P are kept."""
    kind_of(qkv)
    B, N, width = qkv.shape
    K, D, cupy = width // 3 // heads, width // 3, sys.modules["cupy"]
    q, k, v = dense(qkv.reshape(B, N, 3, heads, K).transpose(2, 0, 3, 1, 4)).reshape(3, B * heads, N, K)
    scale = math.sqrt(1 / K)
    logits = product(q, k.swapaxes(1, 2))
    logits *= scale
    p, softmax_vjp = softmax(logits)

    def packed(x: Array) -> Array:
        return dense(x.reshape(B, heads, N, K).transpose(0, 2, 1, 3)).reshape(B, N, D)

    def vjp(y_bar: Array) -> tuple[Array]:
        bar = dense(y_bar.reshape(B, N, heads, K).transpose(0, 2, 1, 3)).reshape(B * heads, N, K)
        (s_bar,) = softmax_vjp(product(bar, v.swapaxes(1, 2)))
        s_bar *= scale
        bars = [product(s_bar, k), product(s_bar.swapaxes(1, 2), q), product(p.swapaxes(1, 2), bar)]
        return (cupy.concatenate([packed(x) for x in bars], axis=-1),)

    return packed(product(p, v)), vjp
