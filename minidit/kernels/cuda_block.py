"""Twins of the gated residual on a GPU, alone and joined with what stands before and after it in a block.

    y = x + gate ⊙ h                                    gated_residual                one kernel
    y = x + gate ⊙ (h Wᵀ + b)                           linear_residual               a product and one kernel
    y as before, n = LN(y) (1 + scale) + shift          linear_residual_modulate      a product and one kernel, also backwards
    y = x + gate ⊙ (W₂ gelu(W₁ h + b₁) + b₂)            mlp_residual                  two products and two kernels
    y as before, n = LN(y) (1 + scale) + shift          mlp_residual_modulate         two products and two kernels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty
from minidit.kernels.cuda import Gelu, checked_linear, linear_bars
from minidit.kernels.cuda_blas import gemm
from minidit.kernels.cuda_launch import NULL, WARP, ceil, counters, f32, i32, launch, storage
from minidit.kernels.cuda_normalise import residual_then_norm
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
    rows, projected = projection(x, gate, h, weight, bias)
    y = empty(x, x.shape)
    launch_residual(dense(x), gate, projected, bias, y)
    adjoint = residual_adjoint(gate, projected, bias)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        gate_bar, g, bias_bar = adjoint(y_bar)
        return y_bar, gate_bar, *linear_bars(rows_of(g), rows, h.shape, weight, bias, bias_bar)

    return y, vjp


class MlpBranch:
    """W₂ gelu(W₁ h + b₁), whose bias and gate are added by the kernel that follows."""

    def __init__(self, x: Array, gate: Array, h: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array) -> None:
        kind_of(x, gate, h)
        checked_linear(x, weight2, bias2)
        self.inner, self.shape, self.weight, self.bias = Gelu(h, weight1, bias1), h.shape, weight2, bias2
        self.a: Array = rows_of(self.inner.y)
        self.out = gemm(self.a, weight2.T, empty(x, (len(self.a), len(weight2)))).reshape(x.shape)

    def bars(self, g: Array, bias_bar: Array) -> tuple[Any, ...]:
        """Those of h, W₁, b₁, W₂, b₂. g : the bar of `out`"""
        _, *second = linear_bars(rows_of(g), self.a, self.shape, self.weight, self.bias, bias_bar)
        self.a = self.inner.y = self.out = None  # their memory is needed below
        return *self.inner.bars(*self.inner.behind(rows_of(g), self.weight)), *second


def mlp_residual(
    x: Array, gate: Array, h: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array
) -> tuple[Array, Vjp]:
    branch, y = MlpBranch(x, gate, h, weight1, bias1, weight2, bias2), empty(x, x.shape)
    launch_residual(dense(x), gate, branch.out, bias2, y)
    adjoints = [residual_adjoint(gate, branch.out, bias2)]

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        gate_bar, g, bias_bar = adjoints.pop()(y_bar)
        return y_bar, gate_bar, *branch.bars(g, bias_bar)

    return y, vjp


def mlp_residual_modulate(
    x: Array, gate: Array, h: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array, shift: Array, scale: Array,
    *, eps: float = 1e-6,
) -> tuple[tuple[Array, Array], Vjp]:  # fmt: skip
    branch = MlpBranch(x, gate, h, weight1, bias1, weight2, bias2)
    y, joined = residual_then_norm(x, gate, branch.out, bias2, shift, scale, eps)
    adjoints = [joined]

    def vjp(y_bar: Array, n_bar: Array) -> tuple[Any, ...]:
        x_bar, gate_bar, g, bias_bar, *modulation = adjoints.pop()(y_bar, n_bar)
        return x_bar, gate_bar, *branch.bars(g, bias_bar), *modulation

    return y, vjp


def linear_residual_modulate(
    x: Array, gate: Array, h: Array, weight: Array, bias: Array, shift: Array, scale: Array, *, eps: float = 1e-6
) -> tuple[tuple[Array, Array], Vjp]:
    rows, projected = projection(x, gate, h, weight, bias)
    y, joined = residual_then_norm(x, gate, projected, bias, shift, scale, eps)

    def vjp(y_bar: Array, n_bar: Array) -> tuple[Any, ...]:
        x_bar, gate_bar, g, bias_bar, *modulation = joined(y_bar, n_bar)
        return x_bar, gate_bar, *linear_bars(rows_of(g), rows, h.shape, weight, bias, bias_bar), *modulation

    return y, vjp


def projection(x: Array, gate: Array, h: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """(the rows of h, h Wᵀ in the shape of x)"""
    kind_of(x, gate)
    checked_linear(h, weight, bias)
    if h.dtype != x.dtype:
        raise NoTwin("mixed types")
    rows = rows_of(h)
    return rows, gemm(rows, weight.T, empty(x, (len(rows), len(weight)))).reshape(x.shape)
