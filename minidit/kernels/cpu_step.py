"""Twins for float32 on a CPU, without a tape: new tokens of a sequence through a block with a cache of keys and values.

One token of GPT (T.42), one row per sequence:
    n = RMSNorm(x);   (q, k, v) = W_qkv n, q and k turned;   x ← x + W_o softmax(q (cached; k)ᵀ/√K) (cached; v)
    n = RMSNorm(x);   x ← x + W₂ (SiLU(W₁ n) ⊙ W₃ n)
One scale of VAR (T.47, T.48), its tokens at once:
    x ← x + α₁ ⊙ (W_o softmax(q̂ (cached; k̂)ᵀ) (cached; v) + b),   x ← x + α₂ ⊙ MLP(LN(x) ⊙ (1 + γ₂) + β₂)

At one row per sequence a product takes as long as a call of a primitive: here a block is one function instead of seventeen calls
(GPT) or thirty (VAR). What is the same at every step is made once per cache: RMSNorm(x) = (x/√(x·x + Dε)) ⊙ g√D, and g√D is
multiplied into the weights that follow, which are stored transposed, W₁ and W₃ side by side; 1/√K is multiplied into the turn of
the queries.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidit.backend import Array
from minidit.kernels import cpu
from minidit.kernels.cpu_heads import attend, by_head

FEW = 6  # rows


class LlamaWeights(NamedTuple):
    """Of one block, as a single token meets them."""

    qkv: Array  # (D, 3D), of n = x/√(x·x + Dε)
    out: Array  # (D, D)
    up: Array  # (D, 2 inner), W₁ and W₃, of n as well
    down: Array  # (inner, D)


def after_norm(w: Array, g: Array) -> Array:
    """W : (m, D) and the g : (D,) of the RMSNorm before it  ->  (D, m), which takes x/√(x·x + Dε)."""
    return np.ascontiguousarray((w * (g * np.float32(len(g) ** 0.5))).T)


def llama_weights(norms: tuple[Array, Array], qkv: Array, out: Array, mlp: tuple[Array, Array, Array]) -> LlamaWeights:
    """norms : g of both RMSNorms (D,);   qkv : (3D, D), out : (D, D), mlp : W₁, W₃, W₂"""
    up = np.concatenate(mlp[:2])
    right, down = np.ascontiguousarray(out.T), np.ascontiguousarray(mlp[2].T)
    return LlamaWeights(after_norm(qkv, norms[0]), right, after_norm(up, norms[1]), down)


def turned(cos: Array, sin: Array) -> Array:
    """Tables (N, K/2)  ->  cos φ + i sin φ of queries, divided by √K, and of keys : (N, 2, 1, K/2)."""
    turn = (cos + 1j * sin)[:, None, None]
    return np.concatenate((turn * (2 * cos.shape[1]) ** -0.5, turn), axis=1).astype(np.complex64)


def product(x: Array, w: Array) -> Array:
    """x : (B, n), w : (n, m)  ->  (B, m). Of a few rows one after another: a product of matrices would first copy all of W."""
    return np.matmul(x[:, None], w)[:, 0] if len(x) <= FEW else x @ w


def direction(x: Array, eps: float) -> Array:
    """x : (B, D)  ->  x/√(x·x + Dε), fresh memory."""
    r = np.vecdot(x, x)[:, None]
    r += np.float32(x.shape[1] * eps)
    return x / np.sqrt(r, out=r)


def attended(qkv: Array, turn: Array, keys: Array, values: Array) -> Array:
    """qkv : (B, 3D), fresh; turn : (2, 1, K/2), see `turned`; keys, values : (B, heads, M, K), the new token's place is the last
    ->  the heads side by side : (B, D)."""
    B, heads, M, K = keys.shape
    qkv = qkv.reshape(B, 3, heads, K)
    pairs = qkv[:, :2].view(np.complex64)
    np.multiply(pairs, turn, out=pairs)
    keys[:, :, M - 1], values[:, :, M - 1] = qkv[:, 1], qkv[:, 2]
    e = np.matmul(keys, qkv[:, 0, :, :, None])[..., 0]  # (B, heads, M)
    e -= np.maximum.reduce(e, axis=-1, keepdims=True)
    np.exp(e, out=e)
    y = np.matmul(e[:, :, None], values)[:, :, 0]
    y /= np.add.reduce(e, axis=-1, keepdims=True)
    return y.reshape(B, heads * K)


def swiglu(a: Array) -> Array:
    """a : (B, 2 inner), W₁ n and W₃ n  ->  SiLU(W₁ n) ⊙ W₃ n : (B, inner), with SiLU(a) = a/(1 + e^-a). e^-a may be inf."""
    inner = a.shape[1] // 2
    e = np.negative(a[:, :inner])
    np.exp(e, out=e)
    e += np.float32(1)
    np.divide(a[:, :inner], e, out=e)
    e *= a[:, inner:]
    return e


def llama_block(x: Array, w: LlamaWeights, turn: Array, keys: Array, values: Array, eps: float) -> Array:
    """x : (B, D)  ->  (B, D), fresh memory; the rest as in `attended`. Under np.errstate(over="ignore")."""
    x = x + product(attended(product(direction(x, eps), w.qkv), turn, keys, values), w.out)
    x += product(swiglu(product(direction(x, eps), w.up)), w.down)
    return x


# ------------------------------------------------------------------------------------------------ scales


class ScaleWeights(NamedTuple):
    """Of one block: weights and biases, e^min(s, ln 100) √K per head, and what the class says."""

    qkv: tuple[Array, Array]
    out: tuple[Array, Array]
    mlp: tuple[Array, Array, Array, Array]
    length: Array  # (heads, 1) of queries
    class_parts: tuple[Array, ...]  # (B, D) each: α₁, α₂, γ₁, γ₂, β₁, β₂


def scale_block(x: Array, w: ScaleWeights, keys: Array, values: Array, mask: Array | None, eps: float) -> Array:
    """x : (B, n, D)  ->  (B, n, D).   keys, values : (B, heads, M, K), room for the n new tokens at their end; mask : (n, M)"""
    (B, heads, M, K), n = keys.shape, x.shape[1]
    gate1, gate2, scale1, scale2, shift1, shift2 = w.class_parts
    qkv = cpu.linear(cpu.layer_norm_modulate(x, shift1, scale1)[0], *w.qkv)[0].reshape(B, n, 3, heads, K)
    pair = qkv[:, :, :2]
    r = np.vecdot(pair, pair)[..., None]
    r += np.float32(eps)
    np.sqrt(r, out=r)
    r[:, :, 0] /= w.length
    pair /= r
    q, keys[:, :, M - n :], values[:, :, M - n :] = (by_head(qkv[:, :, i]) for i in range(3))
    y, *_ = attend(q, keys, values, None if mask is None else np.broadcast_to(mask, (B, heads, n, M)))
    h, _ = cpu.linear(by_head(y).reshape(B, n, heads * K), *w.out)
    x, _ = cpu.gated_residual(x, gate1, h)
    h, _ = cpu.mlp(cpu.layer_norm_modulate(x, shift2, scale2)[0], *w.mlp)
    return cpu.gated_residual(x, gate2, h)[0]
