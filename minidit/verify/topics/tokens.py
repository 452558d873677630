"""Topics: writing tokens: who sees whom, the choice of the next one, caches, and the parts of LlamaGen's and VAR's blocks.

What is kept of logits is spelled out, because mistakes enter between temperature, top-k and top-p (M142, M143); attention
through a cache, because they enter between two calls (M144 to M146). The tests hold both to `autoregressive/` and `nn/cache.py`.
"""

from __future__ import annotations

import numpy as np

from minidit import ops
from minidit.autoregressive import choose
from minidit.autoregressive.order import Order
from minidit.backend import Array
from minidit.nn.position import grid_ids
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.layers import dense, entered, normal, silu, softmax

topic = Group("tokens")

# ------------------------------------------------------------------------------------------------ order and likelihood

seen_by = part(lambda R, groups: Order(groups).visible)  # (N, N): may the query of row i see the key of column j


@topic("Q.15", "groups: how many tokens are written together, one group after another", "(N,N) of 0 and 1: row i sees column j",
       lambda: [Probe("1-4-9", ((1, 4, 9),), "all of a scale see each other"),
                Probe("raster", ((1,) * 5,), "one by one")])  # fmt: skip
def token_mask(R: Reference, groups: tuple[int, ...]) -> Array:
    """group(j) ≤ group(i)."""
    return seen_by(R, groups).astype(np.int64)


predicts = part(lambda R, logits, x: (logits, x))  # which logits are compared with which tokens
over_tokens = part(lambda R, nats: nats.mean(axis=1))  # of a sequence (B, N)


def _sentences() -> list[Probe]:
    rng = Philox(321)
    return [Probe("four", (2 * normal(rng, 2, 4, 5), np.array([[0, 4, 1, 3], [2, 2, 0, 1]])), "logits i are those of token i")]


@topic("Q.18", "logits (B,N,K) of the inputs class, x_0, …, x_{N-2}; x (B,N) ints", "(B,) nats per token", _sentences)
def token_nll(R: Reference, logits: Array, x: Array) -> Array:
    """-(1/N) Σ ln softmax(logits_i)[x_i]: the class is the first input, so logits i are those of token i."""
    logits, x = predicts(R, logits, x)
    return over_tokens(R, -np.log(np.take_along_axis(softmax(R, logits), x[..., None], axis=2)[..., 0]))


# ------------------------------------------------------------------------------------------------ the choice of a token


def _logits() -> tuple[Array, Array]:
    rng = Philox(322)
    return 2 * normal(rng, 3, 5), normal(rng, 3, 5)


written_scale = part(lambda R, w: w)  # what the project's scale w is here, where 1 is plainly conditional
towards = part(lambda R, l, l_u, w: np.asarray(choose.guided(l, l_u, w)))


@topic("Q.19", "l, l_u (B,K): logits with and without the condition; w", "(B,K), up to a constant per row", lambda: [
    Probe(f"w{w:g}", (*_logits(), w), "w = 1 is the conditional network") for w in (1.0, 2.5)],
       measure=lambda a: np.asarray(a) - np.mean(a, axis=-1, keepdims=True))  # fmt: skip
def guided_logits(R: Reference, l: Array, l_u: Array, w: float) -> Array:
    """l_u + w (l - l_u)."""
    return towards(R, l, l_u, written_scale(R, w))


risen = part(lambda R, g, G: g / (G - 1) if G > 1 else 1.0)  # how far group g of G is on the way from 1 to w


@topic("Q.20", "w, g, G: group g of 0..G-1", "float", lambda: [
    Probe(f"{g}-of-{G}", (4.0, g, G), why) for g, G, why in
    ((1, 4, "on the way"), (3, 4, "w at the last"), (0, 4, "1 at the first"), (0, 1, "w where there is one group"))])  # fmt: skip
def rising_scale(R: Reference, w: float, g: int, G: int) -> float:
    """1 + (w-1) g/(G-1); w itself where G = 1."""
    return 1 + (w - 1) * risen(R, g, G)


tempered = part(lambda R, logits, temperature: logits / temperature)
rank_of_edge = part(lambda R, k: k)  # the smallest that stays is the k-th


@part
def largest(R: Reference, logits: Array, k: int) -> Array:
    """The k largest; k = 0: all."""
    k = rank_of_edge(R, k) if 0 < k < logits.shape[-1] else 0
    return np.where(logits < np.sort(logits, axis=-1)[:, -k, None], -np.inf, logits) if k else logits


in_nucleus = part(lambda R, p, top_p: np.cumsum(p, axis=-1) - p < top_p)  # of falling p: the mass before a token is less than p
nucleus_of = part(lambda R, kept, all: kept)  # the logits of which the mass is counted


@part
def probable(R: Reference, logits: Array, counted: Array, top_p: float) -> Array:
    """The smallest set of mass ≥ top_p."""
    falling = np.argsort(-counted, axis=-1, kind="stable")
    inside = in_nucleus(R, np.take_along_axis(np.asarray(ops.softmax(counted)), falling, axis=-1), top_p)
    keep = np.empty_like(inside)
    np.put_along_axis(keep, falling, inside, axis=-1)
    return np.where(keep, logits, -np.inf)


@part
def narrowed(R: Reference, logits: Array, temperature: float, k: int, top_p: float) -> Array:
    """Temperature, then top-k, then top-p of what is left."""
    logits = tempered(R, logits, temperature)
    few = largest(R, logits, k)
    return probable(R, few, nucleus_of(R, few, logits), top_p)


def _kept() -> list[Probe]:
    p = np.log(np.array([[0.4, 0.25, 0.2, 0.1, 0.05], [0.05, 0.1, 0.2, 0.25, 0.4]]))
    return [
        Probe("all", (p, 0.7, 0, 1.0), "temperature alone"), Probe("top-3", (p, 1.0, 3, 1.0), "three stay"),
        Probe("top-p", (p, 1.0, 0, 0.7), "the token that crosses 0.7 stays, and is the last"),
        Probe("both", (p, 1.0, 3, 0.75), "the mass of what top-k left"),
        Probe("warm", (p, 2.0, 0, 0.6), "temperature comes first"),
        Probe("narrow", (p, 1.0, 0, 0.1), "one stays always"),
    ]  # fmt: skip


@topic(
    "Q.21",
    "logits (B,K), temperature, top_k (0: all), top_p",
    "(B,K) probabilities; the smallest set of mass ≥ top_p stays",
    _kept,
)
def kept_probabilities(R: Reference, logits: Array, temperature: float, top_k: int, top_p: float) -> Array:
    """softmax of logits/τ, of these the top_k largest, of these the smallest set of mass ≥ top_p."""
    return np.asarray(ops.softmax(narrowed(R, logits, temperature, top_k, top_p)))


passes = part(lambda R, u, F: u >= F)  # whether u is beyond the cumulative sum F


@topic("Q.22", "p (B,K), u (B,) in [0, 1)", "(B,) ints",
       lambda: [Probe("four", (np.array([[0.0, 0.5, 0.5]] * 4), np.array([0.0, 0.25, 0.5, 0.99])),
                      "a token of probability 0 is never chosen, also for u = 0")])  # fmt: skip
def chosen_token(R: Reference, p: Array, u: Array) -> Array:
    """#{j : F_j ≤ u}, F the cumulative sums of p."""
    return passes(R, u[:, None], np.cumsum(p, axis=-1)).sum(axis=-1)


# ------------------------------------------------------------------------------------------------ attention through a cache

sees = part(lambda R, used, n: np.arange(used + n) <= used + np.arange(n)[:, None])  # (n, used + n), of n new tokens after `used`
places_of = part(lambda R, used, n: np.arange(used, used + n))  # of n new tokens
remembered_keys = part(lambda R, old, new: np.concatenate((old, new)))


def _calls() -> list[Probe]:
    rng, N, h, K = Philox(323), 6, 2, 4
    qkv, angle = (normal(rng, N, h, K) for _ in range(3)), 0.7 * np.arange(N)[:, None] * np.array([1.0, 0.1])
    args = (*qkv, np.cos(angle), np.sin(angle))
    return [Probe("3-2-1", (*args, (3, 2, 1)), "a first call of several tokens; several after others; one")]


@topic("N.16", "q, k, v (N,h,K) of all tokens, not turned; cos, sin (N,K/2) by place; calls: tokens per call, their sum N",
       "(N,h,K), as from one call with a causal mask", _calls, tol=5.0, because="a softmax between two products")  # fmt: skip
def cached_attention(
    R: Reference, q: Array, k: Array, v: Array, cos: Array, sin: Array, calls: tuple[int, ...]
) -> Array:  # fmt: skip
    """softmax(q (cached; k)ᵀ/√K + mask) (cached; v): token i sees tokens 0 .. i, turned by their places in the sequence."""
    used, out, keys, values = 0, [], k[:0], v[:0]
    for n in calls:
        new, at = slice(used, used + n), places_of(R, used, n)
        queries, turned = (np.asarray(ops.rope(a[new], cos[at], sin[at])) for a in (q, k))
        keys, values = remembered_keys(R, keys, turned), remembered_keys(R, values, v[new])
        logits = np.einsum("nhd,mhd->hnm", queries, keys) / q.shape[-1] ** 0.5
        logits = np.where(sees(R, used, n)[:, -len(keys) :], logits, -np.inf)
        out.append(np.einsum("hnm,mhd->nhd", softmax(R, logits), values))
        used += n
    return np.concatenate(out)


# ------------------------------------------------------------------------------------------------ LlamaGen's block

turn_of_class = part(lambda R, pairs: (np.ones((1, pairs)), np.zeros((1, pairs))))  # (cos, sin) of the class token
turned_codes = part(lambda R, class_turn, turns: np.concatenate((class_turn, turns[:-1])))  # N tokens: the last code is no input
grid_exponents = part(lambda R, half: np.arange(0, half, 2) / half)  # of θ, for one axis
grid_axes = part(lambda R, row, column: np.concatenate((row, column), axis=1))  # angles: the first half of a head is the row's


@topic("T.43", "h, w: rows and columns of codes; width of a head, theta",
       "(cos, sin) (h·w, width/2): the class, then all codes but the last",
       lambda: [Probe("2-by-3", (2, 3, 8, 10000.0), "the class is not turned; row, then column")])  # fmt: skip
def prefix_turns(R: Reference, h: int, w: int, width: int, theta: float) -> tuple[Array, Array]:
    """Angles id θ^(-2j/(width/2)), half of a head by the row and half by the column; the class is not turned."""
    row, column = (i[:, None] * theta ** -grid_exponents(R, width // 2) for i in grid_ids(h, w).T)
    angles, first = grid_axes(R, row, column), turn_of_class(R, width // 2)
    return turned_codes(R, first[0], np.cos(angles)), turned_codes(R, first[1], np.sin(angles))


rms_root = part(lambda R, square, eps: np.sqrt(square + eps))
rms_gain = part(lambda R, weight: weight)
rms_of = part(lambda R, x: x)  # what is squared and divided


def _rms() -> list[Probe]:
    rng = Philox(324)
    x, w = 0.5 + normal(rng, 3, 6), 1 + normal(rng, 6, std=0.3)
    return [Probe("unit", (x, w, 1e-5), "the mean stays"), Probe("small", (3e-3 * x, w, 1e-5), "ε under the root")]


@topic("A.29", "x (N,D), weight (D,), eps", "(N,D)", _rms)
def rms_norm(R: Reference, x: Array, weight: Array, eps: float) -> Array:
    """x/√(mean x² + ε) w."""
    x = rms_of(R, x)
    return x / rms_root(R, (x**2).mean(axis=-1, keepdims=True), eps) * rms_gain(R, weight)


gate_of = part(lambda R, one, three: (one, three))  # which of the two products is activated
swish = part(lambda R, x: silu(R, x))


def _feeds() -> list[Probe]:
    rng = Philox(325)
    return [Probe("4-6", (normal(rng, 3, 4), 2 * dense(rng, 6, 4), 2 * dense(rng, 6, 4), dense(rng, 4, 6)), "which is the gate")]


@topic("T.42", "x (N,D), w1, w3 (I,D), w2 (D,I)", "(N,D)", _feeds, tol=3.0, because="three products")
def swiglu(R: Reference, x: Array, w1: Array, w3: Array, w2: Array) -> Array:
    """W₂ (SiLU(W₁ x) ⊙ W₃ x)."""
    gate, up = gate_of(R, x @ w1.T, x @ w3.T)
    return (swish(R, gate) * up) @ w2.T


# ------------------------------------------------------------------------------------------------ VAR's block

var_order = part(lambda R, parts: parts)  # six parts of W silu(c) + b as α₁, α₂, γ₁, γ₂, β₁, β₂
head_order = part(lambda R, parts: parts)  # two parts as γ, β
var_condition = part(lambda R, c: silu(R, c))


def _conditions(parts: int) -> list[Probe]:
    rng, D = Philox(326 + parts), 4
    x, c, a = normal(rng, 2, 3, D), normal(rng, 2, D), normal(rng, 2, 3, D)
    weights = dense(rng, parts * D, D), normal(rng, parts * D, std=0.3)
    return [Probe("two-samples", (x, c, *weights, *((a,) if parts == 6 else ())), "which part is which")]


@topic("T.47", "x (B,N,D), c (B,D), weight (6D,D), bias (6D,), a (B,N,D): what attention or MLP give",
       "(input of attention, x after it, input of the MLP, x after it), each (B,N,D), all from this x",
       lambda: _conditions(6))  # fmt: skip
def var_modulation(R: Reference, x: Array, c: Array, weight: Array, bias: Array, a: Array) -> tuple[Array, ...]:
    """LN(x)(1+γ₁)+β₁, x+α₁a, LN(x)(1+γ₂)+β₂, x+α₂a, with (α₁, α₂, γ₁, γ₂, β₁, β₂) = W silu(c) + b."""
    parts = np.split(var_condition(R, c) @ weight.T + bias, 6, axis=1)
    gate1, gate2, scale1, scale2, shift1, shift2 = var_order(R, parts)
    one, two = entered(R, x, shift1, scale1), entered(R, x, shift2, scale2)
    return one, x + gate1[:, None] * a, two, x + gate2[:, None] * a


@topic("T.49", "x (B,N,D), c (B,D), weight (2D,D), bias (2D,)", "(B,N,D)", lambda: _conditions(2))
def var_head(R: Reference, x: Array, c: Array, weight: Array, bias: Array) -> Array:
    """LN(x)(1+γ)+β, (γ, β) = W silu(c) + b: the scale comes first."""
    scale, shift = head_order(R, np.split(var_condition(R, c) @ weight.T + bias, 2, axis=1))
    return entered(R, x, shift, scale)


bounded_scale = part(lambda R, s: np.exp(np.minimum(s, np.log(100))))
cosine_factor = part(lambda R, K: 1.0)  # besides the trained scale


def _cosines() -> list[Probe]:
    rng = Philox(329)
    return [Probe("two-heads", (normal(rng, 2, 3, 4), normal(rng, 2, 3, 4), np.array([np.log(4), 6.0])), "e^s is at most 100")]


@topic("T.48", "q, k (h,N,K), s (h,)", "(h,N,N) logits", _cosines)
def cosine_logits(R: Reference, q: Array, k: Array, s: Array) -> Array:
    """e^min(s, ln 100) cos(q, k), without 1/√K."""
    q, k = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (q, k))
    return bounded_scale(R, s)[:, None, None] * cosine_factor(R, q.shape[-1]) * (q @ k.swapaxes(1, 2))
