"""Elementwise primitives with broadcasting.

    y = a ∘ b   ->   ā = unbroadcast(ȳ · ∂y/∂a)             an axis that was stretched is summed        (A.3)
    silu(x) = x σ(x),  σ(x) = 1 / (1 + e⁻ˣ)                  silu' = σ (1 + x (1 - σ))                   (A.4)
    gelu(x) = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))       the tanh form, which DiT uses               (A.5)
    gelu_erf(x) = ½ x (1 + erf(x/√2))                        the exact form                              (A.6)
"""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import DTypeLike

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, special_of, xp_of
from minidit.kernels import cuda


def shape_of(x: Any) -> tuple[int, ...] | None:
    """The shape of an array; None for a Python number or an argument that was left out."""
    return getattr(x, "shape", None)


def unbroadcast(bar: Array, shape: tuple[int, ...] | None) -> Array:
    """Sums ȳ over the axes along which an array of this shape was stretched (A.3)."""
    if shape is None or bar.shape == shape:
        return None if shape is None else bar
    bar = bar.sum(axis=tuple(range(bar.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and bar.shape[i] != 1)
    return bar.sum(axis=stretched, keepdims=True) if stretched else bar


@primitive
def add(a: Array, b: Array) -> tuple[Array, Vjp]:
    """a + b, broadcast."""
    shape_a, shape_b = shape_of(a), shape_of(b)  # the shapes, not the arrays: a sum keeps nothing alive
    return a + b, lambda y_bar: (lambda: unbroadcast(y_bar, shape_a), lambda: unbroadcast(y_bar, shape_b))


@primitive
def sub(a: Array, b: Array) -> tuple[Array, Vjp]:
    """a - b, broadcast."""
    shape_a, shape_b = shape_of(a), shape_of(b)
    return a - b, lambda y_bar: (unbroadcast(y_bar, shape_a), lambda: unbroadcast(-y_bar, shape_b))


@primitive
def mul(a: Array, b: Array) -> tuple[Array, Vjp]:
    """a ⊙ b, broadcast."""
    shape_a, shape_b = shape_of(a), shape_of(b)
    for_a, for_b = b if shape_a is not None else None, a if shape_b is not None else None  # 2 x keeps no x alive

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        a_bar = None if shape_a is None else lambda: unbroadcast(y_bar * for_a, shape_a)
        return a_bar, None if shape_b is None else lambda: unbroadcast(y_bar * for_b, shape_b)

    return a * b, vjp


@primitive
def div(a: Array, b: Array) -> tuple[Array, Vjp]:
    """a / b, broadcast."""
    y, shape_a = a / b, shape_of(a)
    return y, lambda y_bar: (lambda: unbroadcast(y_bar / b, shape_a), lambda: unbroadcast(-y_bar * y / b, shape_of(b)))


@primitive
def neg(x: Array) -> tuple[Array, Vjp]:
    """-x"""
    return -x, lambda y_bar: (-y_bar,)


@primitive
def power(x: Array, *, p: float) -> tuple[Array, Vjp]:
    """xᵖ for a constant p; x > 0 unless p is a whole number."""

    def vjp(y_bar: Array) -> tuple[Array]:
        return (y_bar * (p * x ** (p - 1)) if p else 0 * y_bar,)  # x⁰ is 1 everywhere, and 0 · 0⁻¹ would be nan

    return x**p, vjp


@primitive
def exp(x: Array) -> tuple[Array, Vjp]:
    """eˣ"""
    y = xp_of(x).exp(x)
    return y, lambda y_bar: (y_bar * y,)


@primitive
def log(x: Array) -> tuple[Array, Vjp]:
    """ln x, x > 0."""
    return xp_of(x).log(x), lambda y_bar: (y_bar / x,)


@primitive
def sqrt(x: Array) -> tuple[Array, Vjp]:
    """√x, x > 0."""
    y = xp_of(x).sqrt(x)
    return y, lambda y_bar: (0.5 * y_bar / y,)


@primitive
def tanh(x: Array) -> tuple[Array, Vjp]:
    """tanh x"""
    y = xp_of(x).tanh(x)
    return y, lambda y_bar: (y_bar * (1 - y * y),)


def logistic(x: Array) -> Array:
    """σ(x) on arrays, through tanh: no overflow for any x."""
    return 0.5 * (1 + xp_of(x).tanh(0.5 * x))


@primitive
def sigmoid(x: Array) -> tuple[Array, Vjp]:
    """σ(x) = 1 / (1 + e⁻ˣ)"""
    y = logistic(x)
    return y, lambda y_bar: (y_bar * (y * (1 - y)),)


@primitive(cuda=cuda.silu)
def silu(x: Array) -> tuple[Array, Vjp]:
    """x σ(x), also called swish."""
    s = logistic(x)
    return x * s, lambda y_bar: (y_bar * (s * (1 + x * (1 - s))),)  # (A.4)


C = math.sqrt(2 / math.pi)


def gelu_parts(x: Array) -> tuple[Array, Array]:
    """(gelu(x), gelu'(x)), the tanh form: with Φ = ½ (1 + tanh u), gelu = xΦ and gelu' = Φ + 2xΦ(1-Φ) u' (A.5)."""
    phi = 0.5 * (1 + xp_of(x).tanh(C * (x + 0.044715 * (x * x * x))))
    y = x * phi
    return y, phi + 2 * y * (1 - phi) * (C * (1 + 3 * 0.044715 * (x * x)))


@primitive
def gelu(x: Array) -> tuple[Array, Vjp]:
    """½ x (1 + tanh(√(2/π)(x + 0.044715 x³))): within 4.8e-4 of the exact form."""
    y, slope = gelu_parts(x)  # (A.5)
    return y, lambda y_bar: (y_bar * slope,)


@primitive
def gelu_erf(x: Array) -> tuple[Array, Vjp]:
    """x Φ(x) with the normal distribution function Φ."""
    xp = xp_of(x)
    phi = 0.5 * special_of(x).erfc(x * -math.sqrt(0.5))  # not 1 + erf: that cancels where x is far below 0
    return x * phi, lambda y_bar: (y_bar * (phi + x * xp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))),)  # (A.6)


@primitive
def clip(x: Array, *, low: float, high: float) -> tuple[Array, Vjp]:
    """x limited to [low, high]; the gradient passes inside and stops outside."""
    return xp_of(x).clip(x, low, high), lambda y_bar: (y_bar * ((x >= low) & (x <= high)),)


@primitive(cuda=cuda.cast)
def cast(x: Array, *, dtype: DTypeLike) -> tuple[Array, Vjp]:
    """x rounded to another type; the gradient is rounded back to the type of x."""
    old = x.dtype
    return x.astype(dtype), lambda y_bar: (y_bar.astype(old, copy=False),)
