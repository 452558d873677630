"""Twins for float32 on a CPU, without a tape: new tokens of a sequence through a block with a cache of keys and values.

One token of GPT (T.42), one row per sequence:
    n = RMSNorm(x);   (q, k, v) = W_qkv n, q and k turned;   x ← x + W_o softmax(q (cached; k)ᵀ/√K) (cached; v)
    n = RMSNorm(x);   x ← x + W₂ (SiLU(W₁ n) ⊙ W₃ n)
One scale of VAR (T.47, T.48), its tokens at once:
    x ← x + α₁ ⊙ (W_o softmax(q̂ (cached; k̂)ᵀ) (cached; v) + b),   x ← x + α₂ ⊙ MLP(LN(x) ⊙ (1 + γ₂) + β₂)

With one row per sequence a product is as quick as the call of a primitive, so a block makes as few calls as possible. What is
the same at every step is made once per cache: memory and its views. RMSNorm(x) = (x/√(x·x + Dε)) ⊙ g√D; g√D is multiplied into
the weights that follow, which are stored transposed; 1/√K is multiplied into the turn of the queries. SiLU(a) = a/(1 + e^-a)
needs -a, so the signs of W₁ and W₂ are changed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minidit.backend import Arena, Array
from minidit.kernels import cpu
from minidit.kernels.cpu import SAFE, constant
from minidit.kernels.cpu_heads import attend, by_head

FEW = range(2, 8)  # rows of a product that are multiplied one after another
MOST = 1 << 28  # bytes of earlier sequences that are kept for later ones


class LlamaWeights(NamedTuple):
    """Of one block, as a single token meets them."""

    qkv: Array  # (D, 3D), of n = x/√(x·x + Dε)
    out: Array  # (D, D)
    up: Array  # (2 inner, D), -W₁ and W₃, of n as well, a view of its transposed
    down: Array  # (inner, D), -W₂


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


def after_norm(w: Array, g: Array) -> Array:
    """W : (m, D) and the g : (D,) of the RMSNorm before it  ->  (D, m), which takes x/√(x·x + Dε)."""
    return np.multiply(w.T, (g * np.float32(len(g) ** 0.5))[:, None], out=memory(*w.T.shape))


def llama_weights(norms: tuple[Array, Array], qkv: Array, out: Array, mlp: tuple[Array, Array, Array]) -> LlamaWeights:
    """norms : g of both RMSNorms (D,);   qkv : (3D, D), out : (D, D), mlp : W₁, W₃, W₂"""
    up = memory(len(out), 2 * len(mlp[0]))
    for half, w, sign in zip(np.split(up, 2, axis=1), mlp[:2], (-1, 1), strict=True):
        np.multiply(w.T, (norms[1] * np.float32(sign * len(out) ** 0.5))[:, None], out=half)
    right, down = memory(*out.T.shape), np.negative(mlp[2].T, out=memory(*mlp[2].T.shape))
    right[...] = out.T
    return LlamaWeights(after_norm(qkv, norms[0]), right, up.T, down)


def turned(cos: Array, sin: Array, heads: int) -> Array:
    """Tables (N, K/2)  ->  the factors of all pairs of (q, k, v) : (N, 3D/2): (cos φ + i sin φ)/√K, cos φ + i sin φ, 1."""
    turn = np.tile(cos + 1j * sin, heads)
    return np.concatenate((turn * (2 * cos.shape[1]) ** -0.5, turn, np.ones_like(turn)), axis=1).astype(np.complex64)


def product(x: Array, w: Array, out: Array | None = None) -> Array:
    """x : (B, n), w : (n, m)  ->  (B, m), row by row: of a few rows a product of matrices would first copy all of W."""
    return np.matmul(x[:, None], w, out=None if out is None else out[:, None])[:, 0]


class Scratch:
    """The memory of one token of B sequences in a block, and its views: a view takes as long to make as a small product."""

    def __init__(self, B: int, heads: int, D: int, inner: int, blocks: int, eps: float) -> None:
        self.few, K = B in FEW, D // heads
        self.product = product if self.few else np.dot
        self.n, self.qkv, self.y = (np.empty((B, width), np.float32) for width in (D, 3 * D, D))
        self.norm, self.eps, self.one = np.empty((B, 1), np.float32), np.full(B, D * eps, np.float32), np.ones(1, np.float32)
        self.norms, self.columns, self.pairs = self.norm[:, 0], self.n.T, self.qkv.view(np.complex64)
        self.turn = np.empty_like(self.pairs)  # see `turned`, once per sequence: then it is one long product
        parts = self.qkv.reshape(B, 3, heads, K).swapaxes(0, 1)
        self.q, self.kv, self.heads = parts[0, ..., None], parts[1:], self.y.reshape(B, heads, K)
        self.outcome = self.heads[:, :, None]
        self.flat_sums = np.empty(blocks * B * heads, np.float32)  # Σ e^logits
        self.sums = [(r, r[..., 0]) for r in self.flat_sums.reshape(blocks, B, heads, 1)]
        h, self.a = np.empty((2, inner * B), np.float32), np.empty(inner * B, np.float32)
        self.gate, self.value = h
        self.up = h.reshape(2, B, 1, inner) if self.few else h.reshape(2 * inner, B)
        self.down = self.a.reshape(B, inner) if self.few else self.a.reshape(inner, B).T


def direction(x: Array, s: Scratch) -> Array:
    """x : (B, D)  ->  x/√(x·x + Dε)."""
    r = np.vecdot(x, x, s.norms)
    np.add(r, s.eps, r)
    np.sqrt(r, r)
    return np.divide(x, s.norm, s.n)


def attended(cached: Array, s: Scratch, layer: int, *, shifted: bool) -> Array:
    """s.qkv, s.turn; cached : (2, B, heads, M, K), keys and values, the new token's place is the last
    ->  the heads side by side : (B, D). Without the shift e^logits may be inf."""
    np.multiply(s.pairs, s.turn, s.pairs)
    cached[:, :, :, -1] = s.kv
    keys, values = cached
    e = np.matmul(keys, s.q)[..., 0]  # (B, heads, M)
    if shifted:
        e -= np.maximum.reduce(e, axis=-1, keepdims=True)
    np.exp(e, e)
    sums, flat = s.sums[layer]
    np.matmul(e, constant(e.shape[-1]), flat)
    np.matmul(e[:, :, None], values, s.outcome)
    np.divide(s.heads, sums, s.heads)
    return s.y


def swiglu(up: Array, s: Scratch) -> Array:
    """s.n : (B, D)  ->  -SiLU(W₁ n) ⊙ W₃ n : (B, inner). Both halves lie in one piece: one column per sequence, or few rows."""
    if s.few:
        np.matmul(s.n[:, None], up.reshape(2, 1, -1, up.shape[1]).swapaxes(2, 3), s.up)
    else:
        np.dot(up, s.columns, s.up)
    e = np.exp(s.gate, s.a)
    np.add(e, s.one, e)
    np.divide(s.gate, e, e)
    np.multiply(e, s.value, e)
    return s.down


def llama_block(x: Array, w: LlamaWeights, cached: Array, s: Scratch, layer: int, *, shifted: bool) -> None:
    """x : (B, D), which is changed; the rest as in `attended`."""
    s.product(direction(x, s), w.qkv, s.qkv)
    x += s.product(attended(cached, s, layer, shifted=shifted), w.out, s.n)
    direction(x, s)
    x += s.product(swiglu(w.up, s), w.down, s.n)


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
        if np.minimum.reduce(s.flat_sums) > 1 / SAFE and np.maximum.reduce(s.flat_sums) < SAFE:
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
