"""Twin for float32 on a CPU, without a tape: one new token of a sequence through a block with a cache of keys and values.

    n = RMSNorm(x);   (q, k, v) = W_qkv n, q and k turned;   x ← x + W_o softmax(q (cached; k)ᵀ/√K) (cached; v)
    n = RMSNorm(x);   x ← x + W₂ (SiLU(W₁ n) ⊙ W₃ n)

At one row per sequence a product takes as long as a call of a primitive: here is one function instead of seventeen. Nothing but
its x is written twice, and the block's own memory is used again, product by product.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x : (B, D)  ->  fresh memory."""
    r = np.vecdot(x, x)[:, None]
    r *= np.float32(1 / x.shape[1])
    r += np.float32(eps)
    n = x / np.sqrt(r, out=r)
    n *= weight
    return n


def attended(qkv: Array, turn: Array, keys: Array, values: Array) -> Array:
    """qkv : (B, 3D), fresh; turn : (K/2,) cos φ + i sin φ; keys, values : (B, heads, M, K), room for the new token at their end
    ->  the heads side by side : (B, D)."""
    B, heads, M, K = keys.shape
    qkv = qkv.reshape(B, 3, heads, K)
    pairs = qkv[:, :2].view(np.complex64)
    np.multiply(pairs, turn, out=pairs)
    keys[:, :, M - 1], values[:, :, M - 1] = qkv[:, 1], qkv[:, 2]
    q = qkv[:, 0]
    q *= np.float32(K**-0.5)
    e = np.matmul(keys, q[..., None])[..., 0]  # (B, heads, M)
    e -= e.max(axis=-1, keepdims=True)
    np.exp(e, out=e)
    y = np.matmul(e[:, :, None], values)[:, :, 0]
    y /= e.sum(axis=-1, keepdims=True)
    return y.reshape(B, heads * K)


def swiglu(n: Array, w1: Array, w3: Array) -> Array:
    """SiLU(W₁ n) ⊙ W₃ n, with SiLU(a) = a/(1 + e^-a)."""
    a = n @ w1.T
    e = np.negative(a)
    with np.errstate(over="ignore"):  # e^-a = inf where SiLU is 0
        np.exp(e, out=e)
    e += np.float32(1)
    a /= e
    a *= n @ w3.T
    return a


def llama_block(
    x: Array, norms: tuple[Array, Array], attention: tuple[Array, Array], mlp: tuple[Array, Array, Array], turn: Array,
    keys: Array, values: Array, eps: float,
) -> Array:  # fmt: skip
    """x : (B, 1, D)  ->  (B, 1, D).   attention : W_qkv, W_o;   mlp : W₁, W₃, W₂;   the rest as in `attended`"""
    rows = x.reshape(-1, x.shape[-1])
    heads = attended(rms_norm(rows, norms[0], eps) @ attention[0].T, turn, keys, values)
    rows = rows + heads @ attention[1].T
    rows += swiglu(rms_norm(rows, norms[1], eps), mlp[0], mlp[1]) @ mlp[2].T
    return rows.reshape(x.shape)
