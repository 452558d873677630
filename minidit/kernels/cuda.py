"""Twins of linear layers, SiLU and embeddings on a GPU: the kernels of cuda/elementwise.cu between matrix products.

Like every twin on a GPU they serve float32 and bfloat16, have the signature and the adjoint of the plain text in ops/, and raise
NoTwin, before they have launched anything, for what they do not serve (float64, for example): then the plain text runs. Gradients
of weights are written straight into the flat gradient buffer. A bar may be `Onto`: it is called with the sum of the bars that
came before it, and one kernel adds to that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.autograd import NoTwin, Onto, Vjp, recording
from minidit.backend import Array, empty
from minidit.kernels.cublaslt import BIAS, BIAS_GRADIENT, GELU_AUX_BIAS, GELU_BIAS, GELU_SLOPE
from minidit.kernels.cuda_blas import fused, gemm, in_turn, product, using_precision
from minidit.kernels.cuda_launch import DEFAULT_SHARED, NULL, available, flat_grid, i32, i64, kernel, launch, storage, vector
from minidit.kernels.cuda_rows import column_sum, columns_of, converted, dense, kind_of, rows_of, scratch_of, tiles_of
from minidit.kernels.cuda_trust import Pairs, drawn, trusted
from minidit.kernels.pieces import home_of_gradient

__all__ = ["available", "cast", "embedding", "linear", "linear_gelu", "silu"]

SCAN = 1 << 28  # comparisons that the gradient of a table may cost


def linear_bars(
    g: Array, rows: Array, shape: tuple[int, ...], weight: Array, bias: Array, bias_bar: Array = None
) -> tuple[Any, ...]:
    """(A.12), W̄ and b̄ written to the flat buffer. bias_bar is given if it has been computed already."""
    x_bar, weight_bar = lambda: product(g, weight).reshape(shape), home_of_gradient(weight)
    if bias is None or bias_bar is not None:
        return x_bar, gemm(g.T, rows, weight_bar), bias_bar
    bias_bar = home_of_gradient(bias)
    plain = in_turn(lambda: gemm(g.T, rows, weight_bar), lambda: column_sum(g, bias_bar))
    fused(g.T, rows, weight_bar, BIAS_GRADIENT, bias_bar, plain)
    return x_bar, weight_bar, bias_bar


def checked_linear(x: Array, weight: Array, bias: Array) -> str:
    """The storage of a linear layer's rows. Weights and biases are float32 or as the rows; a bias is added in float32."""
    if weight.dtype.name not in ("float32", x.dtype.name) or (bias is not None and bias.dtype.name != "float32") or x.size == 0:
        raise NoTwin("mixed types, or nothing to do")
    return storage(x)


def linear(x: Array, weight: Array, bias: Array = None) -> tuple[Array, Vjp]:
    checked_linear(x, weight, bias)
    rows = rows_of(x)
    y = empty(x, (len(rows), len(weight)))
    if bias is None:
        gemm(rows, weight.T, y)
    else:
        biased(rows, weight, bias, y)
    return y.reshape(*x.shape[:-1], len(weight)), lambda y_bar: linear_bars(rows_of(y_bar), rows, x.shape, weight, bias)


def biased(rows: Array, weight: Array, bias: Array, y: Array) -> None:
    """y = rows Wᵀ + bias"""
    fused(rows, weight.T, y, BIAS, bias, in_turn(lambda: gemm(rows, weight.T, y), lambda: add_bias(y, bias)))


def add_bias(y: Array, bias: Array, *, all_thirds: bool = True) -> None:
    """y += bias, row by row; or only to the first and the last third of the columns."""
    n, m = y.shape
    D, apart, parts = (m, 0, 1) if all_thirds else (m // 3, 2 * (m // 3), 2)
    v = columns_of(D, *(x[..., k * apart : k * apart + D] for x in (y, bias) for k in range(parts)))
    grid, chunk = tiles_of(n, D, v, parts, sums=False)
    sizes = (i32(n), i32(D), i32(m), i32(apart), i32(chunk))
    launch("elementwise", "add_bias", grid, 256, (y, bias, *sizes), VEC=v, STORAGE=storage(y))


def linear_gelu(x: Array, weight: Array, bias: Array) -> tuple[Array, Vjp]:
    inner = Gelu(x, weight, bias)
    return inner.y, lambda y_bar: inner.bars(*inner.times_slope(rows_of(y_bar)))


def gelu_trial(like: Array, width: int) -> Pairs:
    """A layer of 40 rows with GELU, forward and backward, beside (A.5) and (A.12) in float64; its products are float32 under any
    policy, so that one answer holds for all."""
    (x, X), (w, W), (bar, Y) = (drawn(like, *shape, seed=i) for i, shape in enumerate(((40, 8), (width, 8), (40, width))))
    bias, b = drawn(like, width, seed=3, dtype=np.float32)
    with using_precision("float32"):
        inner = Gelu(x, w, bias, keep=True)
        x_bar, w_bar, b_bar = inner.bars(*inner.times_slope(bar))
        answers = inner.y, x_bar(), w_bar, b_bar
    c, a = 0.7978845608028654, X @ W.T + b
    tanh = np.tanh(c * (a + 0.044715 * a**3))
    slope = (1 + tanh) / 2 + a * (1 - tanh**2) / 2 * c * (1 + 3 * 0.044715 * a**2)
    expected = a * (1 + tanh) / 2, Y * slope @ W, (Y * slope).T @ X, (Y * slope).sum(axis=0)
    return zip(answers, expected, strict=True)


class Gelu:
    """y = gelu(x Wᵀ + b), and what its adjoint needs."""

    def __init__(self, x: Array, weight: Array, bias: Array, keep: bool | None = None) -> None:
        """keep : whether the adjoint will be asked for; None: while a tape records"""
        self.s, self.shape, self.weight, self.bias = checked_linear(x, weight, bias), x.shape, weight, bias
        width = len(weight)
        trusted("GELU", self.s, (width,), lambda: gelu_trial(x, width))
        self.rows, m, keep = rows_of(x), len(weight), recording() if keep is None else keep
        a, y = (empty(x, (len(self.rows), m)) for _ in range(2))  # the input of GELU: its slope is computed again from it
        self.v = v = columns_of(m, a, bias)

        def plain() -> None:
            gemm(self.rows, weight.T, a)
            grid, chunk = tiles_of(len(a), m, v, sums=False)
            launch("elementwise", "bias_gelu", grid, 256, (a, bias, y, i32(len(a)), i32(m), i32(chunk)), VEC=v, STORAGE=self.s)

        epilogue, aux = (GELU_AUX_BIAS, a) if keep else (GELU_BIAS, None)
        self.has_bias = fused(self.rows, weight.T, y, epilogue, bias, plain, aux)  # whether a is x Wᵀ + b, or x Wᵀ
        self.a, self.y = a, y.reshape(*x.shape[:-1], m)

    def times_slope(self, y_bar: Array, g: Array = None) -> tuple[Array, Array]:
        """(g, b̄): g = ȳ ⊙ gelu'(x Wᵀ + b), row by row."""
        a, bias_bar = self.a, home_of_gradient(self.bias)
        (n, m), g = a.shape, empty(a, a.shape) if g is None else g
        w = min(self.v, columns_of(m, y_bar, bias_bar))
        grid, chunk = tiles_of(n, m, w)
        bias = NULL if self.has_bias else self.bias
        args = (y_bar, a, bias, g, bias_bar, *scratch_of(a, grid, m), i32(n), i32(m), i32(chunk))
        launch("elementwise", "gelu_backward", grid, 256, args, VEC=w, STORAGE=self.s)
        return g, bias_bar

    def behind(self, bar: Array, weight: Array) -> tuple[Array, Array | None]:
        """(g, b̄ or None where it is still to be summed) for ȳ = bar W₂, with W₂ : (k, m) of the layer that follows."""
        if not self.has_bias:
            return self.times_slope(product(bar, weight))
        g, bias_bar = empty(self.a, self.a.shape), home_of_gradient(self.bias)
        plain, rest = (lambda: self.times_slope(product(bar, weight), g)), (lambda: column_sum(g, bias_bar))
        return g, None if fused(bar, weight, g, GELU_SLOPE, None, plain, self.a, rest=rest) else bias_bar

    def bars(self, g: Array, bias_bar: Array | None) -> tuple[Any, ...]:
        """Those of x, W and b."""
        return linear_bars(g, self.rows, self.shape, self.weight, self.bias, bias_bar)


def silu(x: Array) -> tuple[Array, Vjp]:
    s, x = kind_of(x), dense(x)
    y, n = empty(x, x.shape), x.size
    v = vector(n, x.ravel(), y.ravel())
    grid = flat_grid(n, v)
    launch("elementwise", "silu", grid, 256, (x, y, i64(n)), VEC=v, STORAGE=s)

    def vjp(y_bar: Array) -> tuple[Any]:
        def x_bar(so_far: Array = None) -> Array:
            bar, out, onto = dense(y_bar), empty(x, x.shape), NULL if so_far is None else dense(so_far)
            w = min(v, *(vector(n, a.ravel()) for a in (bar, onto) if a is not NULL))
            launch("elementwise", "silu_backward", grid, 256, (x, bar, onto, out, i64(n)), VEC=w, STORAGE=s)
            return out

        return (Onto(x_bar),)

    return y, vjp


def cast(x: Array, *, dtype: Any) -> tuple[Array, Vjp]:
    y, old = converted(x, dtype), x.dtype
    return y, lambda y_bar: (lambda: converted(y_bar, old) if y_bar.dtype == y.dtype else y_bar.astype(old, copy=False),)


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
