"""Self-attention on a GPU: the fused kernels of cuda/attention.cu, or products of batched matrices for heads that are wider."""

from __future__ import annotations

import math
import sys
from typing import Any

from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty
from minidit.kernels.cuda import checked_linear, column_sum, dense, kind_of, linear_bars, rows_of, softmax
from minidit.kernels.cuda_blas import PRECISIONS, gemm, precision, product
from minidit.kernels.cuda_launch import NULL, ceil, f32, i32, launch, vector
from minidit.kernels.pieces import home_of_gradient

TALL, WIDE, WIDEST_HEAD = 64, 32, 128  # as in attention.cu


def self_attention(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    if qkv.shape[-1] // 3 // heads > WIDEST_HEAD:
        return attention_products(qkv, heads=heads)
    y, vjp = fused_attention(qkv, None, heads)
    return y, lambda y_bar: vjp(y_bar)[:1]


def fused_attention(qkv: Array, bias: Array | None, heads: int) -> tuple[Array, Vjp]:
    """Self-attention of qkv + bias, and the bars of both."""
    s, (B, N, width) = kind_of(qkv), qkv.shape
    K, D, qkv, add = width // 3 // heads, width // 3, dense(qkv), NULL if bias is None else bias
    if B * heads > 65535 or K > WIDEST_HEAD:
        raise NoTwin(f"{B * heads} heads of {K} numbers")
    y, log_sum = empty(qkv, (B, N, D)), empty(qkv, (B, heads, N), f32)
    pitch = 4 * (ceil(K, 16) * 16 + 8)  # bytes of a row of a tile
    factors = 2 if s == "bf16" else PRECISIONS.index(precision())
    tail, grid = (i32(N), i32(heads), f32(K**-0.5)), (ceil(N, TALL), B * heads)
    variant = {"STORAGE": s, "HEAD": K, "FACTORS": factors}
    v = vector(K, qkv, y)
    launch("attention", "attention", grid, 128, (qkv, add, y, log_sum, *tail), (TALL + 2 * WIDE) * pitch, VEC=v, **variant)

    def vjp(y_bar: Array) -> tuple[Array, Array]:
        bar, out = dense(y_bar), empty(qkv, qkv.shape)
        w, tiles = min(v, vector(K, bar)), (2 * TALL + 2 * WIDE) * pitch + 8 * WIDE
        args = (qkv, add, y, bar, log_sum, out, *tail)
        launch("attention", "attention_backward", (*grid, 2), 128, args, tiles, VEC=w, **variant)
        return out, None if bias is None else column_sum(rows_of(out), home_of_gradient(bias))

    return y, vjp


def projected_attention(x: Array, weight: Array, bias: Array, *, heads: int) -> tuple[Array, Vjp]:
    checked_linear(x, weight, bias)
    if len(weight) // 3 // heads > WIDEST_HEAD:
        raise NoTwin("heads that the kernel does not take")
    rows = rows_of(x)
    qkv = gemm(rows, weight.T, empty(x, (len(rows), len(weight)))).reshape(*x.shape[:-1], len(weight))
    y, attention_vjp = fused_attention(qkv, bias, heads)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar, bias_bar = attention_vjp(y_bar)
        return linear_bars(rows_of(bar), rows, x.shape, weight, bias, bias_bar)

    return y, vjp


def attention_products(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    """The same by products of batched matrices, for heads of any width: the weights P stay in memory."""
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
