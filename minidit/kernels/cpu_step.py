"""Twins for float32 on a CPU, without a tape: new tokens of a sequence through a block with a cache of keys and values.

One token of GPT (T.42), one row per sequence:
    n = RMSNorm(x);   (q, k, v) = W_qkv n, q and k turned;   x ← x + W_o softmax(q (cached; k)ᵀ/√K) (cached; v)
    n = RMSNorm(x);   x ← x + W₂ (SiLU(W₁ n) ⊙ W₃ n)
One scale of VAR (T.47, T.48), its tokens at once:
    x ← x + α₁ ⊙ (W_o softmax(q̂ (cached; k̂)ᵀ) (cached; v) + b),   x ← x + α₂ ⊙ MLP(LN(x) ⊙ (1 + γ₂) + β₂)

A product of one row per sequence takes no longer than the call of a function, so a block makes as few calls as possible. What
is the same at every step is made once per cache: memory and its views. RMSNorm(x) = (x/√(x·x + Dε)) ⊙ g√D; g√D is multiplied into
the weights that follow, which are stored transposed; 1/√K is multiplied into the turn of the queries. SiLU(a) = a/(1 + e^-a)
needs -a, so the signs of W₁ and W₃ are changed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import add, divide, exp, matmul, multiply, sqrt, vecdot, vecmat  # looked up in `np`, they take 2 % of a step

from minidit.backend import Arena, Array
from minidit.kernels import cpu
from minidit.kernels.cpu import SAFE, constant
from minidit.kernels.cpu_heads import attend, by_head

MOST = 1 << 28  # bytes of earlier sequences that are kept for later ones


class LlamaWeights(NamedTuple):
    """Of one block, as a single token meets them."""

    qkv: Array  # (D, 3D), of n = x/√(x·x + Dε)
    out: Array  # (D, D)
    up: Array  # (2 inner, D), -W₁ and -W₃, of n as well, a view of its transposed
    down: Array  # (inner, D)


class Reused(threading.local):
    """One arena per thread. A sequence uses the memory of an earlier one again: fresh memory costs a page fault per 4 KiB."""

    def __init__(self) -> None:
        self.arena = Arena()


reused = Reused()


def memory(*shape: int) -> Array:
    """Uninitialised numbers, float32."""
    if reused.arena.nbytes > MOST:  # batches of many different sizes; arrays in use keep their buffers
        reused.arena = Arena()
    return reused.arena.empty(shape, np.dtype(np.float32))


def after_norm(w: Array, g: Array, out: Array | None = None, sign: int = 1) -> Array:
    """W : (m, D) and the g : (D,) of the RMSNorm before it  ->  (D, m), which takes x/√(x·x + Dε)."""
    return multiply(w.T, (g * np.float32(sign * len(g) ** 0.5))[:, None], out=memory(*w.T.shape) if out is None else out)


def transposed(w: Array) -> Array:
    """W : (m, n)  ->  its transpose, rows in one piece : (n, m)."""
    out = memory(*w.T.shape)
    out[...] = w.T
    return out


def llama_weights(norms: tuple[Array, Array], qkv: Array, out: Array, mlp: tuple[Array, Array, Array]) -> LlamaWeights:
    """norms : g of both RMSNorms (D,);   qkv : (3D, D), out : (D, D), mlp : W₁, W₃, W₂"""
    inner = len(mlp[0])
    up = memory(len(out), 2 * inner)
    after_norm(mlp[0], norms[1], up[:, :inner], -1)
    after_norm(mlp[1], norms[1], up[:, inner:], -1)
    return LlamaWeights(after_norm(qkv, norms[0]), transposed(out), up.T, transposed(mlp[2]))


def turned(cos: Array, sin: Array, heads: int) -> Array:
    """Tables (N, K/2)  ->  the factors of all pairs of (q, k, v) : (N, 3D/2): (cos φ + i sin φ)/√K, cos φ + i sin φ, 1."""
    turn = np.tile(cos + 1j * sin, heads)
    return np.concatenate((turn * (2 * cos.shape[1]) ** -0.5, turn, np.ones_like(turn)), axis=1).astype(np.complex64)


class Scratch:
    """The memory of one token of B sequences in a block, and its views: a view takes as long to make as a small product."""

    def __init__(self, B: int, heads: int, D: int, inner: int, blocks: int, eps: float) -> None:
        K = D // heads
        self.n, self.qkv, self.y = (np.empty((B, width), np.float32) for width in (D, 3 * D, D))
        self.norm, self.eps, self.one = np.empty((B, 1), np.float32), np.full(B, D * eps, np.float32), np.array(1, np.float32)
        self.norms, self.columns, self.pairs = self.norm[:, 0], self.n.T, self.qkv.view(np.complex64)
        self.turn = np.empty_like(self.pairs)  # see `turned`, once per sequence: then it is one long product
        parts = self.qkv.reshape(B, 3, heads, K).swapaxes(0, 1)
        self.q, self.kv, self.heads = parts[0, ..., None], parts[1:], self.y.reshape(B, heads, K)
        self.flat_sums = np.empty(blocks * B * heads, np.float32)  # Σ e^logits
        self.sums = [(r, r.reshape(B, heads, 1)) for r in self.flat_sums.reshape(blocks, B * heads)]
        h, self.a = np.empty((2, inner * B), np.float32), np.empty(inner * B, np.float32)
        self.gate, self.value = h
        self.up, self.down = h.reshape(2 * inner, B), self.a.reshape(inner, B).T


def direction(x: Array, s: Scratch) -> Array:
    """x : (B, D)  ->  x/√(x·x + Dε)."""
    r = s.norms
    vecdot(x, x, r)
    add(r, s.eps, r)
    sqrt(r, r)
    return divide(x, s.norm, s.n)


def attended(cached: Array, s: Scratch, layer: int, *, shifted: bool) -> Array:
    """s.qkv, s.turn; cached : (2, B, heads, M, K), keys and values, the new token's place is the last
    ->  the heads side by side : (B, D). Without the shift e^logits may be inf."""
    multiply(s.pairs, s.turn, s.pairs)
    cached[:, :, :, -1] = s.kv
    logits = matmul(cached[0], s.q)  # (B, heads, M, 1)
    e = logits.reshape(-1, logits.shape[2])  # (B heads, M)
    if shifted:
        e -= np.maximum.reduce(e, axis=-1, keepdims=True)
    exp(e, e)
    flat, sums = s.sums[layer]
    e.dot(constant(e.shape[1]), flat)
    vecmat(logits[..., 0], cached[1], s.heads)
    divide(s.heads, sums, s.heads)
    return s.y


def swiglu(up: Array, s: Scratch) -> Array:
    """s.n : (B, D)  ->  SiLU(W₁ n) ⊙ W₃ n : (B, inner). One column per sequence: then each half lies in one piece."""
    up.dot(s.columns, s.up)
    gate, e = s.gate, s.a
    exp(gate, e)
    add(e, s.one, e)
    divide(gate, e, e)
    multiply(e, s.value, e)
    return s.down


def llama_block(x: Array, w: LlamaWeights, cached: Array, s: Scratch, layer: int, *, shifted: bool) -> None:
    """x : (B, D), which is changed; the rest as in `attended`."""
    direction(x, s).dot(w.qkv, s.qkv)
    add(x, attended(cached, s, layer, shifted=shifted).dot(w.out, s.n), x)
    direction(x, s)
    add(x, swiglu(w.up, s).dot(w.down, s.n), x)


def llama_blocks(x: Array, blocks: Sequence[LlamaWeights], turn: Array, cached: Array, s: Scratch) -> Array:
    """x : (B, D)  ->  its direction after all blocks : (B, D).   turn : a row of `turned`   cached : (layers, …), see `attended`

    The shift of the softmax takes longer than its exponentials. So it is left out first; where a sum is then too large or too
    small for float32, the blocks are run again with it.
    """
    s.turn[...] = turn
    for shifted in (False, True):
        h = x.copy()
        with np.errstate(over="ignore", invalid="ignore"):  # SiLU(a) is 0 where e^-a is inf
            for layer, w in enumerate(blocks):
                llama_block(h, w, cached[layer], s, layer, shifted=shifted)
        sums = s.flat_sums
        if sums[sums.argmin()] > 1 / SAFE and sums[sums.argmax()] < SAFE:  # a NaN counts as both
            break
    return direction(h, s)


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
