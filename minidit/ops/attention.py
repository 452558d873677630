"""Attention and the gated residual of a DiT block.

    y = softmax(q kᵀ/√K + mask) v                                                                      (A.18)
    v̄ = Pᵀ ȳ,   S̄ = P ⊙ (ȳ vᵀ - Σ(ȳ vᵀ ⊙ P)),   q̄ = S̄ k/√K,   k̄ = S̄ᵀ q/√K                           (A.19)
    qkv packing: the last axis of 3D numbers is (3, heads, K): all queries, all keys, all values         (A.20)
    y = x + gate ⊙ h                                                                                   (A.21)

K is the width of a head, not of the model.
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Onto, Vjp, primitive
from minidit.backend import Array, empty, xp_of
from minidit.kernels import cpu, cpu_heads, cuda_attention, cuda_block
from minidit.ops.elementwise import shape_of, unbroadcast
from minidit.ops.linear import linear, linear_gelu
from minidit.ops.normalise import layer_norm_modulate, softmax


@primitive(cpu=cpu_heads.attention, cuda=cuda_attention.attention)
def attention(q: Array, k: Array, v: Array, mask: Array = None) -> tuple[Array, Vjp]:
    """q : (..., N, K), k, v : (..., M, K), mask : additive, broadcast to (..., N, M), or None  ->  (..., N, K)."""
    scale = q.shape[-1] ** -0.5  # by the width of a head, not of the model
    logits = q @ k.swapaxes(-1, -2) * scale
    p, softmax_vjp = softmax.plain(logits if mask is None else logits + mask)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        (s_bar,) = softmax_vjp(y_bar @ v.swapaxes(-1, -2))  # (A.19)
        q_bar, k_bar = s_bar @ k * scale, s_bar.swapaxes(-1, -2) @ q * scale
        v_bar = p.swapaxes(-1, -2) @ y_bar
        return q_bar, k_bar, v_bar, lambda: unbroadcast(s_bar, shape_of(mask))

    return p @ v, vjp  # (A.18)


@primitive(cpu=cpu_heads.self_attention, cuda=cuda_attention.self_attention)
def self_attention(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    """qkv : (B, N, 3D), rows packed as (3, heads, K)  ->  (B, N, D), the heads side by side."""
    xp = xp_of(qkv)
    B, N, D = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = qkv.reshape(B, N, 3, heads, D // heads).transpose(2, 0, 3, 1, 4)  # (A.20)
    y, attention_vjp = attention.plain(q, k, v)

    def vjp(y_bar: Array) -> tuple[Array]:
        bars = attention_vjp(y_bar.reshape(B, N, heads, D // heads).transpose(0, 2, 1, 3))[:3]
        return (xp.stack(bars).transpose(1, 3, 0, 2, 4).reshape(B, N, 3 * D),)

    return y.transpose(0, 2, 1, 3).reshape(B, N, D), vjp


@primitive(cuda=cuda_attention.projected_attention)
def projected_attention(x: Array, weight: Array, bias: Array, *, heads: int) -> tuple[Array, Vjp]:
    """Self-attention of x Wᵀ + b: x : (B, N, D), weight : (3D, D), bias : (3D,)  ->  (B, N, D)."""
    qkv, linear_vjp = linear.pair(x, weight, bias)
    y, attention_vjp = self_attention.pair(qkv, heads=heads)
    return y, lambda y_bar: linear_vjp(*attention_vjp(y_bar))


@primitive(cpu=cpu.gated_residual, cuda=cuda_block.gated_residual)
def gated_residual(x: Array, gate: Array, h: Array) -> tuple[Array, Vjp]:
    """x, h : (B, N, D), gate : (B, D)  ->  x + gate ⊙ h."""
    g = gate[:, None]
    return x + g * h, lambda y_bar: (y_bar, (y_bar * h).sum(axis=1), y_bar * g)  # (A.21)


@primitive(cuda=cuda_block.linear_residual)
def linear_residual(x: Array, gate: Array, h: Array, weight: Array, bias: Array) -> tuple[Array, Vjp]:
    """x + gate ⊙ (h Wᵀ + b): x : (B, N, D), gate : (B, D), h : (B, N, n), weight : (D, n)  ->  (B, N, D)."""
    a, linear_vjp = linear.pair(h, weight, bias)
    y, residual_vjp = gated_residual.pair(x, gate, a)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        x_bar, gate_bar, a_bar = residual_vjp(y_bar)
        return x_bar, gate_bar, *linear_vjp(a_bar)

    return y, vjp


@primitive(cuda=cuda_block.mlp_residual)
def mlp_residual(
    x: Array, gate: Array, h: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array
) -> tuple[Array, Vjp]:
    """x + gate ⊙ (W₂ gelu(W₁ h + b₁) + b₂): x, h : (B, N, D), gate : (B, D), weight1 : (m, D), weight2 : (D, m)  ->  as x."""
    a, gelu_vjp = linear_gelu.pair(h, weight1, bias1)
    y, residual_vjp = linear_residual.pair(x, gate, a, weight2, bias2)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        x_bar, gate_bar, a_bar, *second = residual_vjp(y_bar)
        return x_bar, gate_bar, *gelu_vjp(a_bar() if callable(a_bar) else a_bar), *second

    return y, vjp


@primitive(cuda=cuda_block.linear_residual_modulate)
def linear_residual_modulate(
    x: Array, gate: Array, h: Array, weight: Array, bias: Array, shift: Array, scale: Array, *, eps: float = 1e-6
) -> tuple[tuple[Array, Array], Vjp]:
    """(y, n): y = x + gate ⊙ (h Wᵀ + b), and its modulated layer norm n, which comes next. shift, scale : (B, D)."""
    return then_modulated(*linear_residual.pair(x, gate, h, weight, bias), shift, scale, eps)


@primitive(cuda=cuda_block.mlp_residual_modulate)
def mlp_residual_modulate(
    x: Array, gate: Array, h: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array, shift: Array, scale: Array,
    *, eps: float = 1e-6,
) -> tuple[tuple[Array, Array], Vjp]:  # fmt: skip
    """(y, n): y = x + gate ⊙ (W₂ gelu(W₁ h + b₁) + b₂), and the modulated layer norm n with which the next block begins."""
    return then_modulated(*mlp_residual.pair(x, gate, h, weight1, bias1, weight2, bias2), shift, scale, eps)


def then_modulated(y: Array, residual_vjp: Vjp, shift: Array, scale: Array, eps: float) -> tuple[tuple[Array, Array], Vjp]:
    """(y, n), and the adjoint of both for what y was made from, shift and scale."""
    n, norm_vjp = layer_norm_modulate.pair(y, shift, scale, eps=eps)

    def vjp(y_bar: Array, n_bar: Array) -> tuple[Any, ...]:
        through, shift_bar, scale_bar = norm_vjp(n_bar)
        total = through(y_bar) if isinstance(through, Onto) else xp_of(y_bar).add(y_bar, through, out=empty(y_bar, y_bar.shape))
        return *residual_vjp(total), shift_bar, scale_bar

    return (y, n), vjp
