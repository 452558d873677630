"""Vectors become numbers of codes, and gradients pass where no derivative is.

    i = argmin_k ‖z - e_k‖²                                 the nearest code                                            (Q.1)
    ẑ = e_i + (z - sg z)                                    the value is the code; the gradient goes to z               (Q.2)
    mean (e_i - sg z)² + β mean (sg e_i - z)²               codes follow vectors; vectors, more slowly, their codes     (Q.3)
    z/‖z‖,  e/‖e‖                                           on the sphere ‖z-e‖² = 2 - 2 cos                            (Q.4)
    exp(-Σ_k p_k ln p_k)                                    perplexity: p_k is the share of code k                      (Q.5)
    n_k ← γ n_k + (1-γ) count_k,  s_k ← γ s_k + (1-γ) Σ z,  e_k = s_k/n_k       codes as running means                  (Q.6)
    e_k ← mean of the vectors nearest to e_k                one round of k-means                                        (Q.7)
    q_d = round(f(z_d)),  i = Σ_d (q_d + ⌊L_d/2⌋) Π_{j<d} L_j      FSQ: no codebook, L_d whole numbers per channel      (Q.8)

sg is the stop-gradient. Vectors have their channels last: z : (..., d); a codebook is (K, d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minidit import ops
from minidit.autograd import Value, value
from minidit.backend import Array, scatter_add, xp_of


def nearest(z: Array, codes: Array) -> Array:
    """z : (..., d), codes : (K, d)  ->  the number of the nearest code : (...) int64, the lowest of equals."""
    z, codes = value(z), value(codes)
    distance = (codes * codes).sum(axis=1) - 2 * (z @ codes.T)  # ‖z‖² is the same for all codes
    return distance.argmin(axis=-1).astype("int64")  # (Q.1)


def straight_through(z: Value, code: Array) -> Value:
    """The code in value, z in gradient. z, code : one shape."""
    return value(code) + (z - value(z))  # (Q.2)  z - z is exactly 0


def codebook_loss(z: Value, code: Value, beta: float = 0.25) -> Value:
    """z, code : (B, ..., d)  ->  (B,). β weighs the vectors' way to their codes (commitment), not the codes' way to them."""
    return ops.mse(code, value(z)) + beta * ops.mse(z, value(code))  # (Q.3)


def on_sphere(z: Value, eps: float = 1e-12) -> Value:
    """z : (..., d)  ->  z/‖z‖; a vector shorter than eps keeps its direction and is not blown up."""
    square = ops.sum(z * z, axis=-1, keepdims=True)
    return z / (square + eps**2) ** 0.5  # (Q.4)


def counts(index: Array, K: int) -> Array:
    """index : (...) ints in 0..K-1  ->  (K,) int64, how often every code is used."""
    return xp_of(index).bincount(index.reshape(-1), minlength=K)


def perplexity(used: Array) -> float:
    """used : (K,) counts  ->  the number of codes that would be as many if all were used equally: 1 to K."""
    p = np.asarray(used, np.float64)
    p = p[p > 0] / p.sum()
    return math.exp(-float((p * np.log(p)).sum()))  # (Q.5)


def running_means(n: Array, s: Array, z: Array, index: Array, decay: float) -> tuple[Array, Array]:
    """(n, s) : (K,), (K, d), the running counts and sums, after the vectors z : (N, d) with codes index : (N,)."""
    count, total = xp_of(n).zeros_like(n), xp_of(s).zeros_like(s)
    scatter_add(count, index, xp_of(n).ones(index.shape, n.dtype))
    scatter_add(total, index, z)
    return decay * n + (1 - decay) * count, decay * s + (1 - decay) * total  # (Q.6)


def k_means_round(z: Array, codes: Array) -> Array:
    """One round of k-means on z : (N, d) from codes : (K, d). A code without vectors stays where it is."""
    index, xp = nearest(z, codes), xp_of(z)
    n, s = running_means(xp.zeros(len(codes), z.dtype), xp.zeros_like(codes), z, index, 0.0)
    return xp.where(n[:, None] > 0, s / xp.maximum(n, 1)[:, None], codes)  # (Q.7)


# ------------------------------------------------------------------------------------------------ without a codebook


def bounded(z: Value, levels: Sequence[int], margin: float = 1e-3) -> Value:
    """z : (..., D)  ->  f(z), so that rounding channel d gives one of L_d whole numbers, -⌊L/2⌋ to ⌈L/2⌉ - 1.

    f is tanh, as wide as the levels; where L is even it is moved by half a level, so that f(0) = 0 stays.
    """
    half = np.array([(L - 1) * (1 + margin) / 2 for L in levels])
    offset = np.array([0.5 if L % 2 == 0 else 0.0 for L in levels])
    like = value(z)
    half, offset, start = (xp_of(like).asarray(a, like.dtype) for a in (half, offset, np.arctanh(offset / half)))
    return ops.tanh(z + start) * half - offset  # (Q.8)


def rounded(z: Value, levels: Sequence[int]) -> Value:
    """z : (..., D)  ->  whole numbers in value, f(z) in gradient, scaled to [-1, 1]."""
    f = bounded(z, levels)
    half = xp_of(value(z)).asarray([L // 2 for L in levels], value(z).dtype)
    return straight_through(f, xp_of(value(f)).rint(value(f))) / half  # (Q.8)


def number_of(q: Array, levels: Sequence[int]) -> Array:
    """q : (..., D), what `rounded` gives  ->  one number per vector : (...) int64 in 0..ΠL-1."""
    half, weight = np.array([L // 2 for L in levels]), np.cumprod([1, *levels[:-1]])
    xp = xp_of(q)
    digits = xp.rint(q * xp.asarray(half, q.dtype)).astype("int64") + xp.asarray(half)
    return (digits * xp.asarray(weight)).sum(axis=-1)  # (Q.8)


def vector_of(index: Array, levels: Sequence[int], dtype: object = np.float32) -> Array:
    """The inverse of `number_of`: index : (...)  ->  (..., D)."""
    half, weight = np.array([L // 2 for L in levels]), np.cumprod([1, *levels[:-1]])
    xp = xp_of(index)
    digits = index[..., None] // xp.asarray(weight) % xp.asarray(list(levels))
    return ((digits - xp.asarray(half)) / xp.asarray(half)).astype(dtype)  # (Q.8)
