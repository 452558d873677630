"""Queries and keys on their way into attention: taken out of packed rows, normalised, turned by their places.

    (q, k, v) = qkv                                           packed as (3, heads, K), see (A.20)
    q̂ = q / √(mean q² + ε) ⊙ γ_q,   k̂ likewise                QK-norm: over the K numbers of each head                (A.29)
    (y_2j, y_2j+1) = R(φ_j) (x_2j, x_2j+1),   R(φ) = (cos φ  -sin φ; sin φ  cos φ)        RoPE: pairs of neighbours    (A.30)

With (A.29) no logit exceeds √K max|γ_q| max|γ_k|. R(φ)ᵀ R(ψ) = R(ψ - φ): with (A.30) a logit knows the difference of two places.
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, empty, xp_of
from minidit.kernels import cpu_heads
from minidit.ops.normalise import rms_norm


def parts_of(qkv: Array, heads: int) -> Array:
    """(B, N, 3D)  ->  (B, N, 3, heads, K)"""
    B, N, width = qkv.shape
    return qkv.reshape(B, N, 3, heads, width // 3 // heads)


@primitive
def unpacked(qkv: Array, *, heads: int) -> tuple[tuple[Array, ...], Vjp]:
    """qkv : (B, N, 3D)  ->  q, k, v : (B, heads, N, K) each, views (A.20)."""
    shape, parts = qkv.shape, parts_of(qkv, heads).transpose(2, 0, 3, 1, 4)

    def vjp(*bars: Array) -> tuple[Array]:
        packed = empty(bars[0], shape)
        for part, bar in zip(parts_of(packed, heads).transpose(2, 0, 3, 1, 4), bars, strict=True):
            part[...] = bar
        return (packed,)

    return (parts[0], parts[1], parts[2]), vjp


def rotated(x: Array, cos: Array, sin: Array) -> Array:
    """R(φ) on all pairs: cos, sin broadcast to (..., K/2)."""
    y = empty(x, x.shape)
    even, odd = x[..., ::2], x[..., 1::2]
    y[..., ::2], y[..., 1::2] = even * cos - odd * sin, even * sin + odd * cos
    return y


@primitive
def rope(x: Array, cos: Array, sin: Array) -> tuple[Array, Vjp]:
    """x : (..., N, heads, K), cos, sin : (N, K/2) of the angles, see `nn.position.rotary`  ->  as x. The tables are constant."""
    c, s = cos[:, None], sin[:, None]  # one angle for all heads of a token
    return rotated(x, c, s), lambda y_bar: (lambda: rotated(y_bar, c, -s), None, None)  # (A.30), R(φ)ᵀ = R(-φ)


@primitive(cpu=cpu_heads.qk_norm)
def qk_norm(
    qkv: Array, q_weight: Array, k_weight: Array, cos: Array = None, sin: Array = None, *, heads: int, eps: float = 1e-6
) -> tuple[Array, Vjp]:
    """qkv : (B, N, 3D), weights : (K,)  ->  the same, every head of q and k normalised, v as it is.

    cos, sin : (N, K/2), by which they are turned afterwards, as by `qk_rope`, or None
    """
    x = parts_of(qkv, heads)
    pairs = [rms_norm.pair(x[:, :, i], weight, eps=eps) for i, weight in enumerate((q_weight, k_weight))]  # (A.29)
    y = xp_of(qkv).stack([pairs[0][0], pairs[1][0], x[:, :, 2]], axis=2).reshape(qkv.shape)
    y, turn_vjp = (y, None) if cos is None else qk_rope.plain(y, cos, sin, heads=heads)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = parts_of(y_bar if turn_vjp is None else turn_vjp(y_bar)[0], heads)
        (q_bar, q_weight_bar), (k_bar, k_weight_bar) = (pairs[i][1](g[:, :, i]) for i in range(2))
        bars = xp_of(y_bar).stack([q_bar, k_bar, g[:, :, 2]], axis=2)
        return bars.reshape(y_bar.shape), q_weight_bar, k_weight_bar, None, None

    return y, vjp


@primitive(cpu=cpu_heads.qk_rope)
def qk_rope(qkv: Array, cos: Array, sin: Array, *, heads: int) -> tuple[Array, Vjp]:
    """qkv : (B, N, 3D), cos, sin : (N, K/2)  ->  the same, every head of q and k turned (A.30), v as it is."""
    c, s = cos[:, None, None], sin[:, None, None]

    def turned(packed: Array, sine: Array) -> Array:
        x = parts_of(packed, heads)
        y = empty(packed, x.shape)
        y[:, :, :2], y[:, :, 2] = rotated(x[:, :, :2], c, sine), x[:, :, 2]  # (A.30)
        return y.reshape(packed.shape)

    return turned(qkv, s), lambda y_bar: (turned(y_bar, -s), None, None)
