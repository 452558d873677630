"""Matrix products.

    y = a b                 ->   ā = ȳ bᵀ,   b̄ = aᵀ ȳ                                                   (A.11)
    y = x Wᵀ + b            ->   x̄ = ȳ W,   W̄ = ȳᵀ x,   b̄ = Σ ȳ        over all leading axes           (A.12)
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Vjp, primitive
from minidit.backend import Array
from minidit.kernels import cpu, cuda
from minidit.ops.elementwise import gelu_parts, unbroadcast


@primitive
def matmul(a: Array, b: Array) -> tuple[Array, Vjp]:
    """a : (..., n, k), b : (..., k, m)  ->  (..., n, m); leading axes broadcast; a vector a is one row, a vector b one column."""
    rows, columns = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = y_bar[..., None] if b.ndim == 1 else y_bar
        g = g[..., None, :] if a.ndim == 1 else g
        a_bar = lambda: unbroadcast(g @ columns.swapaxes(-1, -2), rows.shape).reshape(a.shape)
        b_bar = lambda: unbroadcast(rows.swapaxes(-1, -2) @ g, columns.shape).reshape(b.shape)
        return a_bar, b_bar  # (A.11)

    return a @ b, vjp


@primitive(cpu=cpu.linear, cuda=cuda.linear)
def linear(x: Array, weight: Array, bias: Array = None) -> tuple[Array, Vjp]:
    """x : (..., n), weight : (m, n), bias : (m,) or None  ->  (..., m)."""
    rows = x.reshape(-1, x.shape[-1])  # two axes: the shape that every BLAS is fast at
    y = rows @ weight.T
    y = y if bias is None else y + bias

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = y_bar.reshape(-1, weight.shape[0])
        return lambda: (g @ weight).reshape(x.shape), g.T @ rows, g.sum(axis=0)  # (A.12)

    return y.reshape(*x.shape[:-1], weight.shape[0]), vjp


@primitive(cuda=cuda.linear_gelu)
def linear_gelu(x: Array, weight: Array, bias: Array) -> tuple[Array, Vjp]:
    """gelu(x Wᵀ + b), the first half of a Transformer's feed-forward layer. Shapes as in `linear`; the tanh form of GELU."""
    a, linear_vjp = linear.plain(x, weight, bias)
    y, slope = gelu_parts(a)  # kept instead of a: the adjoint is then one product
    return y, lambda y_bar: linear_vjp(y_bar * slope)


@primitive(cpu=cpu.mlp)
def mlp(x: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array) -> tuple[Array, Vjp]:
    """W₂ gelu(W₁ x + b₁) + b₂, a Transformer's feed-forward layer.

    x : (..., n), weight1 : (m, n), bias1 : (m,), weight2 : (k, m), bias2 : (k,)  ->  (..., k).
    """
    h, gelu_vjp = linear_gelu.pair(x, weight1, bias1)
    y, linear_vjp = linear.pair(h, weight2, bias2)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        h_bar, *second = linear_vjp(y_bar)
        return (*gelu_vjp(h_bar()), *second)

    return y, vjp
