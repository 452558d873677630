"""Twins of the gated residual on a GPU, alone and joined with what stands before and after it in a block.

    y = x + gate ⊙ h                                    gated_residual                one kernel
    y = x + gate ⊙ (h Wᵀ + b)                           linear_residual               a product and one kernel
    y as before, n = LN(y) (1 + scale) + shift          linear_residual_modulate      a product and one kernel
    y = x + gate ⊙ (W₂ gelu(W₁ h + b₁) + b₂)            mlp_residual                  two products and two kernels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty
from minidit.kernels.cuda import Gelu, checked_linear, linear_bars
from minidit.kernels.cuda_blas import gemm
from minidit.kernels.cuda_launch import NULL, WARP, ceil, counters, f32, i32, launch, storage
from minidit.kernels.cuda_normalise import normalised
from minidit.kernels.cuda_rows import by_rows, columns_of, dense, kind_of, rows_of, tiles_of
from minidit.kernels.pieces import home_of_bar, home_of_gradient


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
    v = columns_of(D, x, gate, h, y, *(() if bias is NULL else (bias,)))
    grid, chunk = tiles_of(N, D, v, B, sums=False)
    sizes = (i32(N), i32(D), i32(chunk), i32(stride))
    launch("elementwise", "gated_residual", grid, 256, (x, gate, h, bias, y, *sizes), VEC=v, STORAGE=storage(x))


def residual_adjoint(gate: Array, h: Array, bias: Array | None) -> Callable[[Array], tuple[Array, Array, Array]]:
    """ȳ  ->  (gate̅, h̄, bias̅) of y = x + gate ⊙ (h + bias)."""
    (B, N, D), piece, (gate, stride) = h.shape, gate, by_rows(gate)
    counters(h, (2 * B + 1) * ceil(D, WARP))  # now, while the plain text can still be taken

    def adjoint(y_bar: Array) -> tuple[Array, Array, Array]:
        bar, h_bar, gate_bar = dense(y_bar), empty(h, h.shape), home_of_bar(piece)
        add, bias_bar, sums = (NULL, NULL, NULL) if bias is None else (bias, home_of_gradient(bias), empty(h, (B, D), f32))
        v = columns_of(D, gate, h, bar, h_bar, gate_bar, *(() if bias is None else (add, bias_bar, sums)))
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


def mlp_residual(
    x: Array, gate: Array, h: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array
) -> tuple[Array, Vjp]:
    kind_of(x, gate, h)
    checked_linear(x, weight2, bias2)
    y, inner = empty(x, x.shape), Gelu(h, weight1, bias1)
    a = rows_of(inner.y)
    projected = gemm(a, weight2.T, empty(x, (len(a), len(weight2)))).reshape(x.shape)
    launch_residual(dense(x), gate, projected, bias2, y)
    adjoint = residual_adjoint(gate, projected, bias2)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        nonlocal a, adjoint
        gate_bar, bar, bias_bar = adjoint(y_bar)
        _, *second = linear_bars(rows_of(bar), a, h.shape, weight2, bias2, bias_bar)
        del a, adjoint, inner.y  # their memory is needed below
        return y_bar, gate_bar, *inner.bars(*inner.behind(rows_of(bar), weight2)), *second

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
