"""Twins for float32 on a CPU: attention, and what happens to its queries and keys before.

No array of logits but e^logits, which the adjoint needs, and one tile. q, k, v and their bars are views that BLAS takes as they
are: parts of packed rows (A.20), or arrays of their own.

RoPE is one complex product: (x_2j + i x_2j+1)(cos φ + i sin φ).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidit.autograd import NoTwin, Vjp, recording
from minidit.backend import Array, empty
from minidit.kernels import cpu
from minidit.kernels.cpu import SAFE, constant

Backward = Callable[[Array, Array, Array, Array], None]


def by_head(x: Array) -> Array:
    """(B, N, heads, K) as (B, heads, N, K), or back."""
    return x.transpose(0, 2, 1, 3)


def attend(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Backward, Callable[[Array], Array]]:
    """(y, its adjoint, which writes the bars of q, k and v, the bar of the mask): y : (B, heads, N, V), heads side by side."""
    (B, heads, N, K), (M, V), keep = q.shape, v.shape[2:], recording()
    scale = np.float32(K**-0.5)
    o = empty(q, (B, N, heads, V))
    out = by_head(o)
    h_step, b_step = max(1, min(heads, cpu.SCORES // (N * M))), max(1, min(B, cpu.SCORES // (N * M * heads)))
    tiles = [(slice(b, b + b_step), slice(h, h + h_step)) for b in range(0, B, b_step) for h in range(0, heads, h_step)]
    e_all = empty(q, (B, heads, N, M) if keep else (b_step, h_step, N, M))  # e^logits; divided by the row sums at the end
    inverse, one = np.empty((B, heads, N, 1), np.float32), constant(M)
    for tile in tiles:
        qs, kt, r = q[tile] * scale, k[tile].swapaxes(-1, -2), inverse[tile]
        e = e_all[tile] if keep else e_all[: len(qs), : qs.shape[1]]  # without a tape every tile uses the same memory
        logits(qs, kt, mask, tile, e)
        with np.errstate(over="ignore"):
            np.exp(e, out=e)
            np.matmul(e, one, out=r[..., 0])
        if not (r.min() > 1 / SAFE and r.max() < SAFE):  # the shift of the plain text, only where a row needs it
            logits(qs, kt, mask, tile, e)
            np.subtract(e, e.max(axis=-1, keepdims=True), out=e)
            np.exp(e, out=e)
            np.matmul(e, one, out=r[..., 0])
        np.reciprocal(r, out=r)
        np.matmul(e, v[tile], out=out[tile])
        np.multiply(out[tile], r, out=out[tile])

    def backward(g: Array, q_bar: Array, k_bar: Array, v_bar: Array) -> None:
        assert keep  # without a tape the exponentials of all but the last tile are gone
        correction = np.vecdot(by_head(g), o).transpose(0, 2, 1)[..., None] * inverse  # Σ (ȳ vᵀ ⊙ P) = ȳ·y, row by row
        scratch, vt = empty(q, (b_step, h_step, N, M)), v.swapaxes(-1, -2)
        for tile in tiles:
            gi, e = g[tile] * inverse[tile], e_all[tile]
            s_bar = scratch[: e.shape[0], : e.shape[1]]
            np.matmul(gi, vt[tile], out=s_bar)
            np.subtract(s_bar, correction[tile], out=s_bar)
            np.multiply(s_bar, e, out=s_bar)
            np.matmul(e.swapaxes(-1, -2), gi, out=v_bar[tile])
            np.matmul(s_bar, k[tile], out=q_bar[tile])
            np.matmul(s_bar.swapaxes(-1, -2), q[tile], out=k_bar[tile])

    def logits_bar(g: Array) -> Array:
        correction = np.vecdot(g, out)[..., None]
        return e_all * inverse * (np.matmul(g, v.swapaxes(-1, -2)) - correction)

    return out, backward, logits_bar


def logits(qs: Array, kt: Array, mask: Array | None, tile: tuple[slice, slice], e: Array) -> None:
    """e = q kᵀ/√K + mask of a tile."""
    np.matmul(qs, kt, out=e)
    if mask is not None:
        np.add(e, mask[tile], out=e)


def attention(q: Array, k: Array, v: Array, mask: Array = None) -> tuple[Array, Vjp]:
    if q.ndim != 4 or k.shape[:2] != q.shape[:2] or v.shape[:3] != k.shape[:3] or not q.size * k.size:
        raise NoTwin("shapes that are broadcast, or no heads")
    (B, heads, N, K), (M, V) = q.shape, v.shape[2:]
    add = None if mask is None else np.broadcast_to(mask, (B, heads, N, M))
    y, backward, logits_bar = attend(q, k, v, add)
    scale = np.float32(K**-0.5)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        q_bar, k_bar, v_bar = (by_head(empty(q, (B, n, heads, width))) for n, width in ((N, K), (M, K), (M, V)))
        backward(y_bar, q_bar, k_bar, v_bar)
        np.multiply(q_bar, scale, out=q_bar)
        np.multiply(k_bar, scale, out=k_bar)
        return q_bar, k_bar, v_bar, None if mask is None else lambda: summed_to(logits_bar(y_bar), mask.shape)

    return y, vjp


def summed_to(bar: Array, shape: tuple[int, ...]) -> Array:
    """The sum of a bar over the axes along which an array of this shape was stretched (A.3)."""
    lead = (1,) * (bar.ndim - len(shape)) + shape
    over = tuple(i for i, n in enumerate(lead) if n == 1 and bar.shape[i] != 1)
    return bar.sum(axis=over, keepdims=True).reshape(shape)


def self_attention(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    B, N, D = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    parts = qkv.reshape(B, N, 3, heads, D // heads).transpose(2, 0, 3, 1, 4)
    y, backward, _ = attend(parts[0], parts[1], parts[2], None)

    def vjp(y_bar: Array) -> tuple[Array]:
        bar = empty(qkv, (B, N, 3, heads, D // heads))
        bars = bar.transpose(2, 0, 3, 1, 4)
        backward(by_head(y_bar.reshape(B, N, heads, D // heads)), bars[0], bars[1], bars[2])
        np.multiply(bar[:, :, :2], np.float32((D // heads) ** -0.5), out=bar[:, :, :2])
        return (bar.reshape(B, N, 3 * D),)

    return by_head(y).reshape(B, N, D), vjp


def in_heads(qkv: Array, heads: int) -> Array:
    """(B, N, 3D)  ->  (B, N, 3, heads, K)"""
    return qkv.reshape(*qkv.shape[:2], 3, heads, qkv.shape[-1] // 3 // heads)


def rotations(cos: Array, sin: Array) -> Array:
    """cos φ + i sin φ of every token and pair, for all heads of q and k: (N, 1, 1, K/2)."""
    return (cos + np.complex64(1j) * sin)[:, None, None]


def qk_norm(
    qkv: Array, q_weight: Array, k_weight: Array, cos: Array = None, sin: Array = None, *, heads: int, eps: float = 1e-6
) -> tuple[Array, Vjp]:
    B, N, width = qkv.shape
    K = width // 3 // heads
    x, y, shape = in_heads(qkv, heads), empty(qkv, (B, N, 3, heads, K)), (2, heads, K)
    weights, ones = np.stack((q_weight, k_weight)), constant(2 * K).reshape(2, K)
    r = np.zeros((B, N, 2, heads, 2), np.float32)  # those of queries in the first column, those of keys in the second
    turn = None if cos is None else np.tile(rotations(cos, sin), (1, 2, heads, 1))
    several, some = max(1, cpu.TILE // (N * width)), min(N, max(1, cpu.TILE // width))
    tiles = [(slice(b, b + several), slice(n, n + some)) for b in range(0, B, several) for n in range(0, N, some)]
    scratch = empty(qkv, (min(B, several), some, *shape))
    for tile in tiles:
        part, out, ri = x[tile][:, :, :2], y[tile], r[tile]
        factors = scratch[: len(part), : part.shape[1]]
        m = 1 / np.sqrt(np.vecdot(part, part) / K + np.float32(eps))
        ri[:, :, 0, :, 0], ri[:, :, 1, :, 1] = m[:, :, 0], m[:, :, 1]
        np.matmul(ri.reshape(-1, 2), weights, out=factors.reshape(-1, K))  # r γ; a product is a third of a broadcast's time
        np.multiply(part, factors, out=out[:, :, :2])
        if turn is not None:
            pairs = out[:, :, :2].view(np.complex64)
            np.multiply(pairs, turn[tile[1]], out=pairs)
        out[:, :, 2] = x[tile][:, :, 2]
    del scratch

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        y_bar = y_bar if y_bar.flags.c_contiguous else np.ascontiguousarray(y_bar)
        g, bar, sums = in_heads(y_bar, heads), empty(qkv, x.shape), np.zeros((2, K), np.float32)
        scratch = empty(qkv, (3, min(B, several), some, *shape))
        back = None if turn is None else turn.conj()
        for tile in tiles:
            part, gi, ri, out = x[tile][:, :, :2], g[tile][:, :, :2], r[tile].reshape(-1, 2), bar[tile][:, :, :2]
            t, turned, factors = scratch[:, : len(part), : part.shape[1]]
            if back is not None:
                np.multiply(gi.view(np.complex64), back[tile[1]], out=turned.view(np.complex64))
                gi = turned
            np.multiply(gi, part, out=t)
            rows = t.reshape(-1, K)
            np.add(sums, np.matmul(ri.T, rows), out=sums)  # Σ ȳ x̂
            c = np.matmul(rows, weights.T)
            np.multiply(c, ri * ri * ri / K, out=c)  # r³ mean(ȳ γ x), and 0 in the column that is not a row's own
            np.matmul(ri, weights, out=factors.reshape(-1, K))
            np.multiply(gi, factors, out=out)
            np.matmul(c, ones, out=factors.reshape(-1, K))
            np.multiply(part, factors, out=t)
            np.subtract(out, t, out=out)
            bar[tile][:, :, 2] = g[tile][:, :, 2]
        return bar.reshape(qkv.shape), sums[0], sums[1], None, None

    return y.reshape(qkv.shape), vjp


def qk_rope(qkv: Array, cos: Array, sin: Array, *, heads: int) -> tuple[Array, Vjp]:
    K = qkv.shape[-1] // 3 // heads
    turn = rotations(cos, sin)

    def turned(packed: Array, by: Array) -> Array:
        packed = packed if packed.flags.c_contiguous else np.ascontiguousarray(packed)
        x = packed.reshape(*qkv.shape[:2], 3, heads, K)
        y = empty(packed, x.shape)
        np.multiply(x[:, :, :2].view(np.complex64), by, out=y[:, :, :2].view(np.complex64))
        y[:, :, 2] = x[:, :, 2]
        return y.reshape(qkv.shape)

    return turned(qkv, turn), lambda y_bar: (turned(y_bar, turn.conj()), None, None)
