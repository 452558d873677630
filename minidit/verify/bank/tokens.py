"""Mistakes of writing tokens: masks, the choice of a token, caches, blocks of LlamaGen and VAR."""

from __future__ import annotations

import numpy as np

from minidit import ops
from minidit.backend import Array
from minidit.verify.bank.wrap import instead, reordered
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import tokens

VISIBLE = "row i sees column j where group(j) ≤ group(i)"
LIKELIHOOD = "-(1/N) Σ ln softmax(logits_i)[x_i], the class being the first input"
GUIDANCE = "l_u + w (l - l_u), and then the softmax; w = 1 is the conditional network"
RISING = "1 + (w-1) g/(G-1), and w for a single group"
KEPT = "logits/τ; the k largest of these; the smallest set of mass ≥ p of these"
CHOICE = "#{j : F_j ≤ u}"
CACHE = "softmax(q (cached; k)ᵀ/√K + mask) (cached; v), token i of the sequence sees 0 .. i and is turned by i"
PLACES = "angles id θ^(-2j/(K/2)), row, then column; the class is not turned (cos = 1)"
RMS = "x/√(mean x² + ε) w"
SWIGLU = "W₂ (SiLU(W₁ x) ⊙ W₃ x)"
VAR = "(α₁, α₂, γ₁, γ₂, β₁, β₂) = W silu(c) + b"
HEAD = "(γ, β) = W silu(c) + b"
COSINE = "e^min(s, ln 100) cos(q, k), without 1/√K"


def _groups(groups: tuple[int, ...]) -> Array:
    return np.repeat(np.arange(len(groups)), groups)


def _probabilities(R: Reference, l: Array, l_u: Array, w: float) -> Array:
    p, p_u = np.asarray(ops.softmax(l)), np.asarray(ops.softmax(l_u))
    return np.log(np.maximum(p_u + w * (p - p_u), 1e-12))


def _one_more(R: Reference, p: Array, top_p: float) -> Array:
    inside = np.cumsum(p, axis=-1) - p < top_p
    return np.concatenate((inside[:, :1], inside[:, :-1]), axis=1)


def _one_fewer(R: Reference, p: Array, top_p: float) -> Array:
    inside = np.cumsum(p, axis=-1) <= top_p
    inside[:, 0] = True
    return inside


def _nucleus_first(R: Reference, logits: Array, temperature: float, k: int, top_p: float) -> Array:
    kept = tokens.largest(R, logits, k)
    return tokens.tempered(R, tokens.probable(R, kept, tokens.nucleus_of(R, kept, logits), top_p), temperature)


BANK = [
    Deviation("M137", "SCALES_MASKED_BY_TOKEN", "Q.15", "a causal mask by token, though a scale is written at once", VISIBLE,
        {tokens.seen_by: instead(lambda R, g: np.tril(np.ones((sum(g), sum(g)), bool)))}, "class"),
    Deviation("M137b", "MASK_WITHOUT_OWN_GROUP", "Q.15", "group(j) < group(i): a token does not see its own scale, nor itself",
        VISIBLE, {tokens.seen_by: instead(lambda R, g: _groups(g)[:, None] > _groups(g))}, "class"),
    Deviation("X262", "MASK_TRANSPOSED", "Q.15", "group(j) ≥ group(i): the past sees the future", VISIBLE,
        {tokens.seen_by: instead(lambda R, g: _groups(g)[:, None] <= _groups(g))}),
    Deviation("X263", "MASK_OF_OWN_GROUP", "Q.15", "group(j) = group(i): nothing that was written before is seen", VISIBLE,
        {tokens.seen_by: instead(lambda R, g: _groups(g)[:, None] == _groups(g))}),
    Deviation("M138", "SHIFTED_ONCE_MORE", "Q.18",
        "compares logits i with token i+1, as of sequences without a class in front", LIKELIHOOD,
        {tokens.predicts: instead(lambda R, logits, x: (logits[:, :-1], x[:, 1:]))}, "class"),
    Deviation("M138b", "LIKELIHOOD_OF_WHAT_IS_SEEN", "Q.18", "compares logits i with token i-1, which is their input", LIKELIHOOD,
        {tokens.predicts: instead(lambda R, logits, x: (logits[:, 1:], x[:, :-1]))}, "class"),
    Deviation("X264", "LIKELIHOOD_SUMMED", "Q.18", "the sum over tokens", LIKELIHOOD,
        {tokens.over_tokens: instead(lambda R, nats: nats.sum(axis=1))}),
    Deviation("C18", "SCALE_BEYOND_ONE", "Q.19", "l_u + (1 + w)(l - l_u): 0 is the conditional network, a convention", GUIDANCE,
        {tokens.written_scale: instead(lambda R, w: 1 + w)}, "VAR 78b9539"),
    Deviation("M139", "PROBABILITIES_GUIDED", "Q.19", "p_u + w (p - p_u): negative where it matters, and cut off", GUIDANCE,
        {tokens.towards: instead(_probabilities)}, "class"),
    Deviation("X266", "LOGITS_EXCHANGED", "Q.19", "l + w (l_u - l)", GUIDANCE,
        {tokens.towards: instead(lambda R, l, l_u, w: l + w * (l_u - l))}),
    Deviation("M140", "ONE_GROUP_DIVIDES_BY_ZERO", "Q.20", "g/(G-1) for G = 1", RISING,
        {tokens.risen: instead(lambda R, g, G: g / (G - 1))}, "VAR 78b9539"),
    Deviation("X267", "NEVER_RISES_TO_W", "Q.20", "1 + (w-1) g/G", RISING, {tokens.risen: instead(lambda R, g, G: g / G)}),
    Deviation("X268", "RISES_BY_ONE_GROUP_MORE", "Q.20", "1 + (w-1) (g+1)/G", RISING,
        {tokens.risen: instead(lambda R, g, G: (g + 1) / G)}),
    Deviation("M142", "TOP_P_DROPS_THE_CROSSING", "Q.21", "keeps tokens up to the mass p: the set is too small", KEPT,
        {tokens.in_nucleus: instead(_one_fewer)}, "class"),
    Deviation("M142b", "TOP_P_KEEPS_ONE_MORE", "Q.21", "keeps the token behind the one that crosses p", KEPT,
        {tokens.in_nucleus: instead(_one_more)}, "class"),
    Deviation("M143", "TEMPERATURE_AFTER_TOP_P", "Q.21", "counts the mass at temperature 1, and divides afterwards", KEPT,
        {tokens.narrowed: instead(_nucleus_first)}, "class"),
    Deviation("X269", "TOP_K_KEEPS_ONE_MORE", "Q.21", "the (k+1)-th stays", KEPT,
        {tokens.rank_of_edge: instead(lambda R, k: k + 1)}),
    Deviation("X270", "TEMPERATURE_MULTIPLIES", "Q.21", "τ logits", KEPT,
        {tokens.tempered: instead(lambda R, logits, temperature: logits * temperature)}),
    Deviation("X271", "TOP_P_OF_ALL", "Q.21", "counts the mass of all tokens, also those that top-k dropped", KEPT,
        {tokens.nucleus_of: instead(lambda R, kept, all: all)}),
    Deviation("X272", "CHOOSES_THE_IMPOSSIBLE", "Q.22", "#{j : F_j < u}: for u = 0 a first token of probability 0", CHOICE,
        {tokens.passes: instead(lambda R, u, F: u > F)}),
    Deviation("M144", "FIRST_CALL_WITHOUT_MASK", "N.16", "no mask in a call of several tokens: the cache is poisoned", CACHE,
        {tokens.sees: instead(lambda R, used, n: np.ones((n, used + n), bool))}, "TinyLLM#17"),
    Deviation("M145", "MASK_FROM_THE_TOP_LEFT", "N.16", "new token i sees keys 0 .. i, as if nothing were cached", CACHE,
        {tokens.sees: instead(lambda R, used, n: np.arange(used + n) <= np.arange(n)[:, None])},
        "lag-llama#81, meta-llama/llama#899 (is_causal with fewer queries than keys)"),
    Deviation("M146", "PLACES_START_AGAIN", "N.16", "every call turns its tokens by the places 0, 1, …", CACHE,
        {tokens.places_of: instead(lambda R, used, n: np.arange(n))}, "class"),
    Deviation("M146b", "PLACES_ONE_LATE", "N.16", "after the first call, places one too far back: the new length less one", CACHE,
        {tokens.places_of: instead(lambda R, used, n: np.maximum(np.arange(used, used + n) - (used > 0), 0))}, "class"),
    Deviation("X273", "CACHE_OVERWRITTEN", "N.16", "keeps the keys of the last call only", CACHE,
        {tokens.remembered_keys: instead(lambda R, old, new: new)}),
    Deviation("M147", "ZEROED_PREFIX", "T.43", "cos = sin = 0 for the class: its key is 0, and all see it with logit 0",
        PLACES, {tokens.turn_of_class: instead(lambda R, pairs: (np.zeros((1, pairs)), np.zeros((1, pairs))))},
        "LlamaGen ce98ec4"),
    Deviation("M148", "CODES_ONE_PLACE_LATE", "T.43", "the class takes the place of the first code, every code the next one's",
        PLACES, {tokens.turned_codes: instead(lambda R, first, turns: turns)}, "class"),
    Deviation("M148b", "EXPONENT_OF_THE_WHOLE_HEAD", "T.43", "θ^(-2j/K) for each axis", PLACES,
        {tokens.grid_exponents: instead(lambda R, half: np.arange(0, half, 2) / (2 * half))}, "class"),
    Deviation("X274", "COLUMN_TURNS_FIRST", "T.43", "the first half of a head by the column", PLACES,
        {tokens.grid_axes: instead(lambda R, row, column: np.concatenate((column, row), axis=1))}),
    Deviation("X275", "RMS_WITHOUT_MEAN", "A.29", "subtracts the mean first", RMS,
        {tokens.rms_of: instead(lambda R, x: x - x.mean(axis=-1, keepdims=True))}),
    Deviation("X276", "RMS_EPS_OUTSIDE", "A.29", "ε behind the root", RMS,
        {tokens.rms_root: instead(lambda R, square, eps: np.sqrt(square) + eps)}),
    Deviation("X277", "RMS_GAIN_PLUS_ONE", "A.29", "1 + w: a convention of other models' files", RMS,
        {tokens.rms_gain: instead(lambda R, weight: 1 + weight)}, "Gemma"),
    Deviation("X278", "SWIGLU_GATES_EXCHANGED", "T.42", "activates W₃ x", SWIGLU,
        {tokens.gate_of: instead(lambda R, one, three: (three, one))}),
    Deviation("X279", "GEGLU_FOR_SWIGLU", "T.42", "gelu instead of SiLU", SWIGLU,
        {tokens.swish: instead(lambda R, x: ops.gelu(x))}),
    Deviation("M149", "VAR_ORDER_OF_DIT", "T.46", "(β₁, γ₁, α₁, β₂, γ₂, α₂), a DiT's order", VAR,
        {tokens.var_order: reordered(2, 5, 1, 4, 0, 3)}, "class"),
    Deviation("M149b", "VAR_HEAD_ORDER_OF_DIT", "T.49", "(β, γ): a DiT's shift comes first", HEAD,
        {tokens.head_order: reordered(1, 0)}, "class"),
    Deviation("X280", "VAR_CONDITION_WITHOUT_SILU", "T.46", "W c + b", VAR, {tokens.var_condition: instead(lambda R, c: c)}),
    Deviation("M150", "COSINE_OVER_ROOT_K", "T.48", "divides by √K as well", COSINE,
        {tokens.cosine_factor: instead(lambda R, K: K**-0.5)}, "class"),
    Deviation("X281", "COSINE_SCALE_UNBOUNDED", "T.48", "e^s, however large", COSINE,
        {tokens.bounded_scale: instead(lambda R, s: np.exp(s))}),
    Deviation("X282", "COSINE_SCALE_WITHOUT_EXP", "T.48", "s itself, at most 100", COSINE,
        {tokens.bounded_scale: instead(lambda R, s: np.minimum(s, 100.0))}),
]  # fmt: skip
