"""Topics: several streams meet: rotary places, QK-norm, joint attention.

Mistakes change an order, a half or a place in the middle of them (M151 to M156), so they are put together from small parts.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.layers import normal, softmax

topic = Group("streams")

# ------------------------------------------------------------------------------------------------ rotary places

pair_of = part(lambda R, x: (x[..., ::2], x[..., 1::2]))  # the two numbers that are turned together
paired = part(lambda R, even, odd: np.stack((even, odd), axis=-1).reshape(*even.shape[:-1], -1))
turn_sign = part(lambda R, sin: sin)


def _turns() -> list[Probe]:
    rng = Philox(341)
    angle = normal(rng, 3, 2)
    return [Probe("two-heads", (normal(rng, 3, 2, 4), np.cos(angle), np.sin(angle)), "neighbours are turned, not halves")]


@topic("A.30", "x (N,h,K), cos, sin (N,K/2)", "(N,h,K)", _turns)
def rope(R: Reference, x: Array, cos: Array, sin: Array) -> Array:
    """(x_2j cos - x_2j+1 sin, x_2j sin + x_2j+1 cos)."""
    (even, odd), c, s = pair_of(R, x), cos[:, None], turn_sign(R, sin[:, None])
    return paired(R, even * c - odd * s, even * s + odd * c)


axis_exponents = part(lambda R, d, whole: np.arange(0, d, 2) / d)  # of θ, for an axis with d of all numbers of a head
axis_order = part(lambda R, angles: angles)  # one array per axis of the place


@topic("N.12", "ids (N,axes) ints: the place of every token; widths: numbers of a head for each axis; theta",
       "(cos, sin) (N, Σ widths/2)",
       lambda: [Probe("three-axes", (np.array([[0, 0, 0], [0, 1, 2], [1, 3, 1]]), (2, 4, 6), 1e4), "every axis")])  # fmt: skip
def rope_angles(R: Reference, ids: Array, widths: tuple[int, ...], theta: float) -> tuple[Array, Array]:
    """id θ^(-2j/d) per axis, one axis after another."""
    whole = sum(widths)
    angles = axis_order(R, [i[:, None] * theta ** -axis_exponents(R, d, whole) for i, d in zip(ids.T, widths, strict=True)])
    together = np.concatenate(angles, axis=1)
    return np.cos(together), np.sin(together)


word_places = part(lambda R, words: np.zeros((words, 3), np.int64))
picture_places = part(lambda R, r, c: np.stack((0 * r, r, c), axis=1))


@topic("T.27", "words, h, w", "(words + h·w, 3) ints: the places of words, then of patches",
       lambda: [Probe("2-words", (2, 2, 3), "words stand at (0, 0, 0); rows before columns")])  # fmt: skip
def stream_places(R: Reference, words: int, h: int, w: int) -> Array:
    """(0, 0, 0) for words, (0, row, column) for patches."""
    return np.concatenate((word_places(R, words), picture_places(R, *np.divmod(np.arange(h * w), w))))


# ------------------------------------------------------------------------------------------------ queries and keys

normed_over = part(lambda R, heads: 1)  # how many heads share one mean of squares
stream_eps = part(lambda R: 1e-6)  # of QK-norm
gains = part(lambda R, w_q, w_k: (w_q, w_k))


@part
def normed_heads(R: Reference, x: Array, weight: Array) -> Array:
    """x/√(mean x² + ε) w over the K numbers of a head."""
    N, heads, K = x.shape
    together = x.reshape(N, -1, normed_over(R, heads) * K)
    r = np.sqrt((together**2).mean(axis=-1, keepdims=True) + stream_eps(R))
    return (together / r).reshape(x.shape) * weight


@part
def prepared(R: Reference, x: Array, weight: Array, cos: Array, sin: Array) -> Array:
    """Normalised, then turned."""
    return rope(R, normed_heads(R, x, weight), cos, sin)


def _queries() -> list[Probe]:
    rng = Philox(342)
    w, angle = 1 + normal(rng, 2, 4, std=0.4), normal(rng, 3, 2)
    q, k = normal(rng, 3, 2, 4), normal(rng, 3, 2, 4)
    turn = np.cos(angle), np.sin(angle)
    return [Probe("unit", (q, 3 * k, *w, *turn), "before the turn, head by head"),
            Probe("small", (2e-3 * q, k, *w, *turn), "ε beside a small mean of squares")]  # fmt: skip


@topic("A.29", "q, k (N,h,K), w_q, w_k (K,), cos, sin (N,K/2)", "(q, k), each (N,h,K)", _queries, tol=3.0,
       because="a norm and a turn")  # fmt: skip
def queries_and_keys(R: Reference, q: Array, k: Array, w_q: Array, w_k: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """RoPE(RMSNorm(q)), RoPE(RMSNorm(k)), each with gains of its own."""
    w_q, w_k = gains(R, w_q, w_k)
    return prepared(R, q, w_q, cos, sin), prepared(R, k, w_k, cos, sin)


# ------------------------------------------------------------------------------------------------ joint attention

together = part(lambda R, context, x: np.concatenate((context, x)))  # the sequence of one attention
apart = part(lambda R, y, words: (y[:words], y[words:]))  # what each stream gets
stream_scale = part(lambda R, K: K**-0.5)
keys_of = part(lambda R, all, own: all)  # whose keys and values a stream sees


def _joint() -> list[Probe]:
    rng = Philox(343)
    context, x = [normal(rng, 2, 2, 4) for _ in range(3)], [normal(rng, 3, 2, 4) for _ in range(3)]
    places = np.array([[0.0], [0.4], [1.1], [2.0], [0.7]]) * np.array([1.0, 0.3])
    return [Probe("2-and-3", (*context, *x, np.cos(places), np.sin(places)), "two streams of unlike length, words first")]


@topic("N.14", "q_c, k_c, v_c (M,h,K) of the context, q, k, v (N,h,K) of the picture; cos, sin (M+N,K/2), the words' first",
       "(context (M,h,K), picture (N,h,K))", _joint, tol=5.0, because="a softmax between two products")  # fmt: skip
def joint_attention(
    R: Reference, q_c: Array, k_c: Array, v_c: Array, q: Array, k: Array, v: Array, cos: Array, sin: Array
) -> tuple[Array, Array]:  # fmt: skip
    """(y_c; y) = softmax(RoPE(q_c; q) RoPE(k_c; k)ᵀ/√K) (v_c; v)."""
    words, K = len(q_c), q.shape[-1]
    queries, keys = (rope(R, together(R, a, b), cos, sin) for a, b in ((q_c, q), (k_c, k)))
    logits = np.einsum("nhd,mhd->hnm", queries, keys) * stream_scale(R, K)
    own = np.arange(len(queries)) < words
    seen = keys_of(R, np.ones(logits.shape[1:], bool), own[:, None] == own)
    y = np.einsum("hnm,mhd->nhd", softmax(R, np.where(seen, logits, -np.inf)), together(R, v_c, v))
    return apart(R, y, words)
