"""Twins of the primitives on a GPU: the kernels of cuda/*.cu between matrix products, for float32 and bfloat16 arrays.

Each function has the signature and the adjoint of the plain text in ops/ and raises NoTwin, before it has launched anything, for
what it does not serve (float64, heads wider than 128): then the plain text runs. Weight gradients are written straight into the
flat gradient buffer. A bar may be `Onto`: the tape hands over the sum so far, and one kernel adds to it.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from minidit.autograd import NoTwin, Onto, Vjp, recording
from minidit.backend import Array, empty
from minidit.kernels.cublaslt import BIAS, BIAS_GRADIENT
from minidit.kernels.cuda_blas import PRECISIONS, gemm, precision, product, with_epilogue
from minidit.kernels.cuda_launch import (
    BLOCKS,
    DEFAULT_SHARED,
    NULL,
    available,
    ceil,
    chunk_of,
    counters,
    f32,
    i32,
    i64,
    kernel,
    launch,
    storage,
    vector,
)
from minidit.kernels.pieces import home_of_bar, home_of_gradient

__all__ = [
    "attention_products", "available", "embedding", "gated_residual", "gemm", "layer_norm", "layer_norm_modulate", "linear",
    "linear_gelu", "self_attention", "silu", "softmax",
]  # fmt: skip

ROWS, WARP = 4, 32  # rows of a block that gives each a warp
TALL, WIDE, WIDEST_HEAD = 64, 32, 128  # as in attention.cu
SCAN = 1 << 28  # comparisons that the gradient of a table may cost


def dense(x: Array) -> Array:
    """x, or a copy in C order."""
    return x if x.flags.c_contiguous else sys.modules["cupy"].ascontiguousarray(x)


def rows_of(x: Array) -> Array:
    return dense(x).reshape(-1, x.shape[-1])


def by_rows(x: Array) -> tuple[Array, int]:
    """(B, D) with dense rows, and how many numbers apart they start: a slice of a modulation stays where it is."""
    if x.strides[-1] != x.itemsize and x.shape[-1] > 1:
        x = dense(x)
    return x, x.strides[0] // x.itemsize


def kind_of(x: Array, *others: Array) -> str:
    """The storage of x. Raises NoTwin unless the others have the same type."""
    if any(o.dtype != x.dtype for o in others) or x.size == 0:
        raise NoTwin("mixed types, or nothing to do")
    return storage(x)


# ------------------------------------------------------------------------------------------------ columns


def tiles_of(rows: int, D: int, v: int, samples: int = 1) -> tuple[tuple[int, int, int], int]:
    """The grid of a kernel of columns, and the rows of a chunk."""
    across = ceil(D, WARP * v)
    chunk = chunk_of(rows, across * samples)
    if samples > 65535:
        raise NoTwin(f"{samples} samples")
    return (across, ceil(rows, chunk), samples), chunk


def scratch_of(x: Array, grid: tuple[int, int, int], D: int) -> tuple[Array, Array]:
    """Memory for the partial sums of a kernel of columns, and its counters."""
    if grid[1] == 1:
        return NULL, NULL
    return empty(x, (grid[2], grid[1], D), f32), counters(x, grid[2] * grid[0])


def column_sum(x: Array, out: Array) -> Array:
    """x : (rows, D)  ->  out : (D,) float32, the sums over the rows."""
    rows, D = x.shape
    v = vector(D, x, out)
    grid, chunk = tiles_of(rows, D, v)
    args = (x, out, *scratch_of(x, grid, D), i32(rows), i32(D), i32(chunk))
    launch("elementwise", "column_sum", grid, 256, args, VEC=v, STORAGE=storage(x))
    return out


# ------------------------------------------------------------------------------------------------ linear layers


def linear_bars(
    g: Array, rows: Array, shape: tuple[int, ...], weight: Array, bias: Array, bias_bar: Array = None
) -> tuple[Any, ...]:
    """(A.12), each product where it is wanted; bias_bar, unless it is there already, by the weights' kernel or after it."""
    x_bar, weight_bar = lambda: product(g, weight).reshape(shape), home_of_gradient(weight)
    if bias is None or bias_bar is not None:
        return x_bar, gemm(g.T, rows, weight_bar), bias_bar
    bias_bar = home_of_gradient(bias)
    if not with_epilogue(g.T, rows, weight_bar, BIAS_GRADIENT, bias_bar):
        gemm(g.T, rows, weight_bar)
        column_sum(g, bias_bar)
    return x_bar, weight_bar, bias_bar


def checked_linear(x: Array, weight: Array, bias: Array) -> str:
    """The storage of a linear layer's rows. Weights and biases are float32 or as the rows; a bias is added in float32."""
    if weight.dtype.name not in ("float32", x.dtype.name) or (bias is not None and bias.dtype.name != "float32") or x.size == 0:
        raise NoTwin("mixed types, or nothing to do")
    return storage(x)


def linear(x: Array, weight: Array, bias: Array = None) -> tuple[Array, Vjp]:
    s, rows, m = checked_linear(x, weight, bias), rows_of(x), len(weight)
    y = empty(x, (len(rows), m))
    if bias is None:
        gemm(rows, weight.T, y)
    elif not with_epilogue(rows, weight.T, y, BIAS, bias):
        gemm(rows, weight.T, y)
        v = vector(m, y, bias)
        grid, chunk = tiles_of(len(rows), m, v)
        launch("elementwise", "add_bias", grid, 256, (y, bias, i32(len(rows)), i32(m), i32(chunk)), VEC=v, STORAGE=s)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        return linear_bars(rows_of(y_bar), rows, x.shape, weight, bias)

    return y.reshape(*x.shape[:-1], m), vjp


def linear_gelu(x: Array, weight: Array, bias: Array) -> tuple[Array, Vjp]:
    s, rows, m, keep = checked_linear(x, weight, bias), rows_of(x), len(weight), recording()
    slope = gemm(rows, weight.T, empty(x, (len(rows), m)))  # x Wᵀ at first
    y = empty(x, slope.shape) if keep else slope
    v = vector(m, y, slope, bias)
    grid, chunk = tiles_of(len(rows), m, v)
    args = (slope, bias, y, i32(len(rows)), i32(m), i32(chunk), i32(keep))
    launch("elementwise", "bias_gelu", grid, 256, args, VEC=v, STORAGE=s)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        y_bar, g, bias_bar = rows_of(y_bar), empty(slope, slope.shape), home_of_gradient(bias)
        w = min(v, vector(m, y_bar, bias_bar))
        grid, chunk = tiles_of(len(rows), m, w)
        args = (y_bar, slope, g, bias_bar, *scratch_of(slope, grid, m), i32(len(rows)), i32(m), i32(chunk))
        launch("elementwise", "gelu_backward", grid, 256, args, VEC=w, STORAGE=s)
        return linear_bars(g, rows, x.shape, weight, bias, bias_bar)

    return y.reshape(*x.shape[:-1], m), vjp


# ------------------------------------------------------------------------------------------------ normalisation


def softmax(x: Array, *, axis: int = -1) -> tuple[Array, Vjp]:
    if axis not in (-1, x.ndim - 1) or x.ndim == 0:
        raise NoTwin("a softmax over another axis than the last")
    s, rows = kind_of(x), rows_of(x)
    y, D = empty(x, rows.shape), x.shape[-1]
    grid, sizes = (ceil(len(rows), ROWS),), (i32(len(rows)), i32(D))
    launch("normalise", "softmax", grid, 128, (rows, y, *sizes), VEC=vector(D, rows, y), STORAGE=s)

    def vjp(y_bar: Array) -> tuple[Array]:
        bar, x_bar = rows_of(y_bar), empty(y, y.shape)
        launch("normalise", "softmax_backward", grid, 128, (y, bar, x_bar, *sizes), VEC=vector(D, y, bar, x_bar), STORAGE=s)
        return (x_bar.reshape(x.shape),)

    return y.reshape(x.shape), vjp


def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    y, vjp = normalised(rows_of(x)[None], bias[None], weight[None], 0.0, eps)

    def parameters_vjp(y_bar: Array) -> tuple[Any, ...]:
        x_bar, shift_bar, scale_bar = vjp(y_bar.reshape(y.shape))
        return Onto(lambda so_far=None: x_bar(so_far).reshape(x.shape)), lambda: scale_bar()[0], lambda: shift_bar()[0]

    return y.reshape(x.shape), parameters_vjp


def layer_norm_modulate(x: Array, shift: Array, scale: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    return normalised(dense(x), shift, scale, 1.0, eps)


def normalised(x: Array, shift: Array, scale: Array, one: float, eps: float) -> tuple[Array, Vjp]:
    """x̂ (one + scale) + shift: x : (B, N, D), shift, scale : (B, D)."""
    s, (B, N, D), pieces = kind_of(x, shift, scale), x.shape, (shift, scale)
    (scale, scale_stride), (shift, shift_stride) = by_rows(scale), by_rows(shift)
    shared = 4 * ROWS * 2 * D
    if shared > 160 << 10 or B > 65535:
        raise NoTwin(f"rows of {D} numbers, {B} samples")
    y, mean, inverse = empty(x, x.shape), empty(x, (B * N,), f32), empty(x, (B * N,), f32)
    v = vector(D, x, scale, shift, y)
    sizes = (i32(B * N), i32(N), i32(D), i32(scale_stride), i32(shift_stride), f32(one), f32(eps))
    args = (x, scale, shift, y, mean, inverse, *sizes)
    launch("normalise", "layer_norm", (ceil(B * N, ROWS),), 128, args, VEC=v, STORAGE=s)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar, chunk = dense(y_bar), chunk_of(N, B)
        chunks, bars = ceil(N, chunk), list[Array]()

        def run(so_far: Array = None) -> Array:
            """One kernel makes all three bars; the tape asks for that of x first, and with the sum so far."""
            if not bars:
                out, shift_bar, scale_bar = empty(x, x.shape), *map(home_of_bar, pieces)
                strides = (i32(b.strides[0] // b.itemsize) for b in (scale_bar, shift_bar))
                scratch = (NULL, NULL) if chunks == 1 else (empty(x, (B, chunks, 2, D), f32), counters(x, B))
                onto = NULL if so_far is None else dense(so_far)
                arrays = (x, scale, mean, inverse, bar, onto, out, scale_bar, shift_bar, *scratch)
                sizes = (i32(N), i32(D), i32(chunk), i32(scale_stride), *strides, f32(one))
                w = min(v, vector(D, bar, *(() if so_far is None else (onto,))))
                launch("normalise", "layer_norm_backward", (chunks, B), 128, arrays + sizes, shared, VEC=w, STORAGE=s)
                bars.extend((out, shift_bar, scale_bar))
            return bars[0]

        return Onto(run), lambda: (run(), bars[1])[1], lambda: (run(), bars[2])[1]

    return y, vjp


# ------------------------------------------------------------------------------------------------ elementwise


def silu(x: Array) -> tuple[Array, Vjp]:
    s, x = kind_of(x), dense(x)
    y, n = empty(x, x.shape), x.size
    v = vector(n, x.ravel(), y.ravel())
    grid = (min(4 * BLOCKS, ceil(n, 256 * v)),)
    launch("elementwise", "silu", grid, 256, (x, y, i64(n)), VEC=v, STORAGE=s)

    def vjp(y_bar: Array) -> tuple[Any]:
        def x_bar(so_far: Array = None) -> Array:
            bar, out, onto = dense(y_bar), empty(x, x.shape), NULL if so_far is None else dense(so_far)
            w = min(v, *(vector(n, a.ravel()) for a in (bar, onto) if a is not NULL))
            launch("elementwise", "silu_backward", grid, 256, (x, bar, onto, out, i64(n)), VEC=w, STORAGE=s)
            return out

        return (Onto(x_bar),)

    return y, vjp


def gated_residual(x: Array, gate: Array, h: Array) -> tuple[Array, Vjp]:
    s, (B, N, D), piece = kind_of(x, gate, h), x.shape, gate
    x, h, (gate, stride) = dense(x), dense(h), by_rows(gate)
    y = empty(x, x.shape)
    v = vector(D, x, gate, h, y)
    grid, chunk = tiles_of(N, D, v, B)
    args = (x, gate, h, y, i32(N), i32(D), i32(chunk), i32(stride))
    launch("elementwise", "gated_residual", grid, 256, args, VEC=v, STORAGE=s)

    def vjp(y_bar: Array) -> tuple[Array, ...]:
        bar, h_bar, gate_bar = dense(y_bar), empty(h, h.shape), home_of_bar(piece)
        w = min(v, vector(D, bar, gate_bar))
        grid, chunk = tiles_of(N, D, w, B)
        args = (gate, h, bar, gate_bar, h_bar, *scratch_of(h, grid, D))
        sizes = (i32(N), i32(D), i32(chunk), i32(stride), i32(gate_bar.strides[0] // gate_bar.itemsize))
        launch("elementwise", "gated_residual_backward", grid, 256, args + sizes, VEC=w, STORAGE=s)
        return y_bar, gate_bar, h_bar

    return y, vjp


def embedding(table: Array, *, index: Array) -> tuple[Array, Vjp]:
    (K, D), n = table.shape, index.size
    s = kind_of(table)
    if n * K > SCAN or 4 * n > DEFAULT_SHARED or index.dtype.kind != "i" or n == 0:
        raise NoTwin(f"{n} rows of a table of {K}")
    kernel("elementwise", "embedding_backward", {"STORAGE": s})  # now, while the plain text can still be taken

    def vjp(y_bar: Array) -> tuple[Array]:
        bar, out, i = rows_of(y_bar), home_of_gradient(table), dense(index.astype("int64", copy=False))
        args = (i, bar, out, i32(n), i32(K), i32(D))
        launch("elementwise", "embedding_backward", (K,), 128, args, 4 * n, STORAGE=s)
        return (out,)

    return table[index], vjp


# ------------------------------------------------------------------------------------------------ attention


def self_attention(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    s, (B, N, width) = kind_of(qkv), qkv.shape
    K, D, qkv = width // 3 // heads, width // 3, dense(qkv)
    if K > WIDEST_HEAD:
        return attention_products(qkv, heads=heads)
    if B * heads > 65535:
        raise NoTwin(f"{B * heads} heads")
    y, log_sum = empty(qkv, (B, N, D)), empty(qkv, (B, heads, N), f32)
    pitch = 4 * (ceil(K, 16) * 16 + 8)  # bytes of a row of a tile
    factors = 2 if s == "bf16" else PRECISIONS.index(precision())
    tail, grid = (i32(N), i32(heads), f32(K**-0.5)), (ceil(N, TALL), B * heads)
    variant = {"STORAGE": s, "HEAD": K, "FACTORS": factors}
    v = vector(K, qkv, y)
    launch("attention", "attention", grid, 128, (qkv, y, log_sum, *tail), (TALL + 2 * WIDE) * pitch, VEC=v, **variant)

    def vjp(y_bar: Array) -> tuple[Array]:
        bar, out, delta = dense(y_bar), empty(qkv, qkv.shape), empty(qkv, log_sum.shape, f32)
        w, tiles = min(v, vector(K, bar)), (2 * TALL + 2 * WIDE) * pitch
        args = (qkv, y, bar, log_sum, delta, out, *tail)
        launch("attention", "attention_backward_q", grid, 128, args, tiles, VEC=w, **variant)
        rest = (qkv, bar, log_sum, delta, out, *tail)
        launch("attention", "attention_backward_kv", grid, 128, rest, tiles + 8 * WIDE, VEC=w, **variant)
        return (out,)

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
