"""Self-attention on a GPU: fused kernels, or batched matrix products for wider heads.

cuda/attention.cu serves every storage and precision; in bfloat16, cuda_attention_bf16.py goes first. Queries, keys and values
that are not packed, with or without a mask, are matrix products in float32.
"""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from typing import Any

from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty
from minidit.kernels import cuda_attention_bf16
from minidit.kernels.cpu_heads import summed_to
from minidit.kernels.cublaslt import BIAS
from minidit.kernels.cuda import add_bias, checked_linear, linear_bars
from minidit.kernels.cuda_attention_bf16 import WIDEST_HEAD, PackedBf16, most_shared
from minidit.kernels.cuda_blas import PRECISIONS, fused, gemm, precision, product
from minidit.kernels.cuda_launch import NULL, ceil, f32, i32, launch, storage, vector
from minidit.kernels.cuda_normalise import softmax
from minidit.kernels.cuda_rows import column_sum, dense, kind_of, rows_of
from minidit.kernels.cudnn_attention import Attention, route
from minidit.kernels.pieces import home_of_gradient

TALL, WIDE = 64, 32  # as in attention.cu


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
        self.backward_bytes = (2 * TALL + 2 * WIDE) * self.pitch + 8 * WIDE
        if self.backward_bytes > most_shared():
            raise NoTwin(f"heads of {self.K} need {self.backward_bytes} bytes of shared memory; this device has {most_shared()}")
        self.tail, self.grid = (i32(N), i32(heads), f32(self.K**-0.5)), (ceil(N, TALL), B * heads)
        self.variant = {"STORAGE": s, "HEAD": self.K, "FACTORS": 2 if s == "bf16" else PRECISIONS.index(precision())}

    def vector(self, *arrays: Array) -> int:
        return vector(self.K, *(x for x in arrays if x is not NULL))

    def forward(self, qkv: Array, add: Array, y: Array, log_sum: Array) -> None:
        tiles, v = (TALL + 2 * WIDE) * self.pitch, self.vector(qkv, add, y)
        launch("attention", "attention", self.grid, 128, (qkv, add, y, log_sum, *self.tail), tiles, VEC=v, **self.variant)

    def backward(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array) -> None:
        args, v = (qkv, add, y, bar, log_sum, out, *self.tail), self.vector(qkv, add, y, bar)
        grid = (*self.grid, 2)
        launch("attention", "attention_backward", grid, 128, args, self.backward_bytes, VEC=v, **self.variant)


def tiles_of(qkv: Array, add: Array, heads: int) -> Attention:
    """The package's kernels that serve these arrays: those of tiles in float32, which an H200 ran, where the others disagree."""
    if PackedBf16.serves(qkv, add, heads) and (faster := PackedBf16(qkv, heads)).agree(qkv, add):
        return faster
    return Tiles(qkv, heads)


def fused_attention(qkv: Array, bias: Array | None, heads: int) -> tuple[Array, Vjp]:
    """Self-attention of qkv + bias, and the bars of both. With a bias, qkv may be overwritten."""
    kind_of(qkv)
    (B, N, width), qkv, add = qkv.shape, dense(qkv), NULL if bias is None else bias
    if B * heads > 65535 or width // 3 // heads > WIDEST_HEAD:
        raise NoTwin(f"{B * heads} heads of {width // 3 // heads} numbers")
    y, log_sum, way = (
        empty(qkv, (B, N, width // 3)),
        empty(qkv, (B, heads, N), f32),
        route(tiles_of(qkv, add, heads), qkv, add, heads),
    )
    way.forward(qkv, add, y, log_sum)

    def vjp(y_bar: Array) -> tuple[Array, Array]:
        out, args = empty(qkv, qkv.shape), (qkv, add, y, dense(y_bar), log_sum)
        if bias is None:
            way.backward(*args, out)
            return out, None
        if isinstance(way, PackedBf16):
            rows = way.backward_summed(*args, out)
        else:
            way.backward(*args, out)
            rows = rows_of(out)
        keys = (width // 3, 2 * (width // 3))  # their bias adds one number to all logits of a row, which the softmax does not see
        return out, column_sum(rows, home_of_gradient(bias), keys)

    return y, vjp


def projected_attention(x: Array, weight: Array, bias: Array, *, heads: int) -> tuple[Array, Vjp]:
    checked_linear(x, weight, bias)
    if len(weight) // 3 // heads > WIDEST_HEAD:
        raise NoTwin(f"heads wider than {WIDEST_HEAD}")
    rows = rows_of(x)
    qkv = empty(x, (len(rows), len(weight)))
    plain = lambda: gemm(rows, weight.T, qkv)  # the kernels of attention add the bias
    has_bias = fused(rows, weight.T, qkv, BIAS, bias, plain, later=lambda: add_bias(qkv, bias))
    y, attention_vjp = fused_attention(qkv.reshape(*x.shape[:-1], len(weight)), None if has_bias else bias, heads)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar, bias_bar = attention_vjp(y_bar)
        return linear_bars(rows_of(bar), rows, x.shape, weight, bias, bias_bar)

    return y, vjp


def attention(q: Array, k: Array, v: Array, mask: Array = None) -> tuple[Array, Vjp]:
    with suppress(NoTwin):
        return cuda_attention_bf16.attention(q, k, v, mask)
    if q.dtype.name != "float32":
        raise NoTwin(f"heads of {q.shape[-1]} numbers in {q.dtype}")
    if q.ndim != 4 or k.shape[:2] != q.shape[:2] or v.shape[:3] != k.shape[:3] or not q.size * k.size:
        raise NoTwin("shapes that are broadcast, or no heads")
    (B, heads, N, K), M = q.shape, k.shape[2]

    def stacked(x: Array) -> Array:
        return dense(x).reshape(B * heads, *x.shape[2:])

    def four(x: Array) -> Array:
        return x.reshape(B, heads, *x.shape[1:])

    q, k, v, scale = stacked(q), stacked(k), stacked(v), math.sqrt(1 / K)
    logits = product(q, k.swapaxes(1, 2))
    logits *= scale
    if mask is not None:
        logits = (four(logits) + mask).reshape(B * heads, N, M)
    p, softmax_vjp = softmax(logits)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar = stacked(y_bar)
        (s_bar,) = softmax_vjp(product(bar, v.swapaxes(1, 2)))
        scaled = s_bar * scale
        bars = product(scaled, k), product(scaled.swapaxes(1, 2), q), product(p.swapaxes(1, 2), bar)
        return *map(four, bars), None if mask is None else lambda: summed_to(four(s_bar), mask.shape)

    return four(product(p, v)), vjp


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
