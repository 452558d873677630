"""Twins of the primitives on a GPU: the kernels of cuda/*.cu between matrix products, for float32 and bfloat16 arrays.

Each function has the signature and the adjoint of the plain text in ops/ and raises NoTwin, before it has launched anything, for
what it does not serve (float64, heads wider than 128): then the plain text runs. Weight gradients are written straight into the
flat gradient buffer. A bar may be `Onto`: the tape hands over the sum so far, and one kernel adds to it.
"""

from __future__ import annotations

import sys
from typing import Any

from minidit.autograd import NoTwin, Onto, Vjp, recording
from minidit.backend import Array, empty
from minidit.kernels.cublaslt import BIAS, BIAS_GRADIENT
from minidit.kernels.cuda_blas import gemm, product, with_epilogue
from minidit.kernels.cuda_launch import (
    BLOCKS,
    DEFAULT_SHARED,
    NULL,
    WARP,
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
    "available", "embedding", "gated_residual", "gemm", "layer_norm", "layer_norm_modulate", "linear", "linear_gelu",
    "linear_residual", "linear_residual_modulate", "silu", "softmax",
]  # fmt: skip

ROWS = 4  # of a block that gives each a warp
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


def normalised(x: Array, shift: Array, scale: Array, one: float, eps: float, added: tuple[Any, ...] = ()) -> tuple[Array, Vjp]:
    """x̂ (one + scale) + shift: x : (B, N, D), shift, scale : (B, D).

    added : (gate, h, bias, x_out), and x is first x_out = x + gate ⊙ (h + bias)
    """
    gate, h, bias, x_out = added or 4 * (NULL,)
    arrays = [a for a in (gate, h, x_out) if a is not NULL]
    s, (B, N, D), pieces = kind_of(x, shift, scale, *arrays), x.shape, (shift, scale)
    (scale, scale_stride), (shift, shift_stride) = by_rows(scale), by_rows(shift)
    gate, gate_stride = by_rows(gate) if added else (gate, 0)
    shared = 4 * ROWS * 2 * D
    if shared > 160 << 10 or B > 65535:
        raise NoTwin(f"rows of {D} numbers, {B} samples")
    y, mean, inverse = empty(x, x.shape), empty(x, (B * N,), f32), empty(x, (B * N,), f32)
    v = vector(D, x, scale, shift, y, *((gate, h, bias, x_out) if added else ()))
    sizes = (*map(i32, (B * N, N, D, gate_stride, scale_stride, shift_stride)), f32(one), f32(eps))
    args = (x, gate, h, bias, x_out, scale, shift, y, mean, inverse, *sizes)
    launch("normalise", "layer_norm", (ceil(B * N, ROWS),), 128, args, VEC=v, STORAGE=s)
    x = x_out if added else x

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
    kind_of(x, gate, h)
    y = empty(x, x.shape)
    launch_residual(dense(x), gate, dense(h), NULL, y)
    adjoint = residual_adjoint(gate, dense(h), None)

    def vjp(y_bar: Array) -> tuple[Array, ...]:
        gate_bar, h_bar, _ = adjoint(y_bar)
        return y_bar, gate_bar, h_bar

    return y, vjp


def launch_residual(x: Array, gate: Array, h: Array, bias: Array, y: Array) -> None:
    """y = x + gate ⊙ (h + bias)"""
    (B, N, D), (gate, stride) = x.shape, by_rows(gate)
    v = vector(D, x, gate, h, y, *(() if bias is NULL else (bias,)))
    grid, chunk = tiles_of(N, D, v, B)
    sizes = (i32(N), i32(D), i32(chunk), i32(stride))
    launch("elementwise", "gated_residual", grid, 256, (x, gate, h, bias, y, *sizes), VEC=v, STORAGE=storage(x))


def residual_adjoint(gate: Array, h: Array, bias: Array | None) -> Any:
    """ȳ  ->  (gate̅, h̄, bias̅) of y = x + gate ⊙ (h + bias)."""
    (B, N, D), piece, (gate, stride) = h.shape, gate, by_rows(gate)
    counters(h, (2 * B + 1) * ceil(D, WARP))  # now, while the plain text can still be taken

    def adjoint(y_bar: Array) -> tuple[Array, Array, Array]:
        bar, h_bar, gate_bar = dense(y_bar), empty(h, h.shape), home_of_bar(piece)
        add, bias_bar, sums = (NULL, NULL, NULL) if bias is None else (bias, home_of_gradient(bias), empty(h, (B, D), f32))
        v = vector(D, gate, h, bar, h_bar, gate_bar, *(() if bias is None else (add, bias_bar, sums)))
        grid, chunk = tiles_of(N, D, v, B)
        partial = NULL if grid[1] == 1 else empty(h, (2, B, grid[1], D), f32)
        args = (gate, h, add, bar, gate_bar, h_bar, bias_bar, sums, partial, counters(h, (2 * B + 1) * grid[0]))
        sizes = (i32(N), i32(D), i32(chunk), i32(stride), i32(gate_bar.strides[0] // gate_bar.itemsize))
        launch("elementwise", "gated_residual_backward", grid, 256, args + sizes, VEC=v, STORAGE=storage(h))
        return gate_bar, h_bar, bias_bar

    return adjoint


def linear_residual(x: Array, gate: Array, h: Array, weight: Array, bias: Array) -> tuple[Array, Vjp]:
    y = empty(x, x.shape)
    projected, vjp = projection(x, gate, h, weight, bias)
    launch_residual(dense(x), gate, projected, bias, y)
    return y, vjp


def linear_residual_modulate(
    x: Array, gate: Array, h: Array, weight: Array, bias: Array, shift: Array, scale: Array, *, eps: float = 1e-6
) -> tuple[tuple[Array, Array], Vjp]:
    y = empty(x, x.shape)
    projected, residual_vjp = projection(x, gate, h, weight, bias)
    n, norm_vjp = normalised(dense(x), shift, scale, 1.0, eps, (gate, projected, bias, y))

    def vjp(y_bar: Array, n_bar: Array) -> tuple[Any, ...]:
        total, shift_bar, scale_bar = norm_vjp(n_bar)
        return *residual_vjp(total(y_bar)), shift_bar, scale_bar

    return (y, n), vjp


def projection(x: Array, gate: Array, h: Array, weight: Array, bias: Array) -> tuple[Array, Vjp]:
    """h Wᵀ in the shape of x, and the adjoint of x + gate ⊙ (h Wᵀ + bias), where that is added up elsewhere."""
    kind_of(x, gate)
    checked_linear(h, weight, bias)
    if h.dtype != x.dtype:
        raise NoTwin("mixed types")
    rows = rows_of(h)
    projected = gemm(rows, weight.T, empty(x, (len(rows), len(weight)))).reshape(x.shape)
    adjoint = residual_adjoint(gate, projected, bias)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        gate_bar, g, bias_bar = adjoint(y_bar)
        return y_bar, gate_bar, *linear_bars(rows_of(g), rows, h.shape, weight, bias, bias_bar)

    return projected, vjp


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
