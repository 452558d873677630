"""Mistakes of quantisation: codes, their gradients, pyramids of codes."""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import instead
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import codes

NEAREST = "argmin_k ‖z - e_k‖²"
LOSS = "mean (e - sg z)² + β mean (sg e - z)²: β weighs the commitment of z"
THROUGH = "ẑ = e + (z - sg z): the gradient of ẑ is that of z, and the codes get none"
SPHERE = "vectors and codes over their lengths, to choose and to decode"
PERPLEXITY = "exp(-Σ p ln p)"
MEANS = "n ← γ n + (1-γ) count, s ← γ s + (1-γ) Σ z, e = s/n"
FSQ = "round(f(z)), f shifted by half a level where L is even; i = Σ (q_d + ⌊L_d/2⌋) Π_{j<d} L_j"
AREA = "the mean of the places ⌊iH/p⌋ .. ⌈(i+1)H/p⌉-1"
CUBIC = "cubic convolution with a = -3/4, corners not aligned"
SHARED = "the φ whose tick is nearest to k/(K-1); of 4 the ticks are spread from 1/12 to 11/12"
PYRAMID = "r ← r - φ(U e),  f̂ ← f̂ + φ(U e),  φ(h) = ½ h + ½ conv(h)"
SEEN = "A_{k+1} f̂_k: the sum of all scales before"


def _cosine(R: Reference, z: Array, table: Array) -> Array:
    return np.asarray((z @ (table / np.linalg.norm(table, axis=1, keepdims=True)).T).argmax(axis=1))


def _not_moved(R: Reference, z: Array, levels: tuple[int, ...]) -> Array:
    return np.asarray(np.rint(np.tanh(z) * np.array([(L - 1) * (1 + 1e-3) / 2 for L in levels])))


def _picked(R: Reference, p: int, H: int) -> Array:
    m = np.zeros((p, H))
    m[np.arange(p), np.arange(p) * H // p] = 1
    return m


def _apart(R: Reference, p: int, H: int) -> Array:
    """Parts that do not overlap."""
    m, ends = np.zeros((p, H)), np.arange(p + 1) * H // p
    for i in range(p):
        m[i, ends[i] : ends[i + 1]] = 1 / (ends[i + 1] - ends[i])
    return m


def _linear(R: Reference, H: int, p: int) -> Array:
    x = np.clip((np.arange(H) + 0.5) * p / H - 0.5, 0, p - 1)
    return np.maximum(0, 1 - np.abs(x[:, None] - np.arange(p)))


def _repeated(R: Reference, H: int, p: int) -> Array:
    return (np.arange(H)[:, None] * p // H == np.arange(p)).astype(np.float64)


BANK = [
    Deviation("X240", "CODE_OF_LARGEST_PRODUCT", "Q.1", "argmax_k z·e_k: long codes win", NEAREST,
        {codes.closest: instead(lambda R, z, table: np.asarray((z @ table.T).argmax(axis=1)))}),
    Deviation("X241", "CODE_OF_SMALLEST_ANGLE", "Q.1", "argmax_k cos(z, e_k), without l2-normalised codes", NEAREST,
        {codes.closest: instead(_cosine)}),
    Deviation("M130", "BETA_ON_CODES", "Q.3", "weighs the codes' way to the vectors by β, and the commitment by 1", LOSS,
        {codes.weight_of_codes: instead(lambda R, beta: beta), codes.weight_of_commitment: instead(lambda R, beta: 1.0)},
        "diffusers VectorQuantizer (legacy=True, the default), taming-transformers#46, #57"),
    Deviation("M131", "CODEBOOK_LOSS_AFTER_STRAIGHT_THROUGH", "Q.3",
        "takes the loss of codes from ẑ after the straight-through: the codebook never learns, yet pictures get better", LOSS,
        {codes.stopped: instead(lambda R, g, a, b: ((b - a) * g, 0 * g))}, "Olaf-World#8, jax-vqvae-gpt#2, #3"),
    Deviation("X242", "NO_STOP_GRADIENT_IN_LOSS", "Q.3", "(1 + β) mean (e - z)², both sides learn from both terms", LOSS,
        {codes.stopped: instead(lambda R, g, a, b: ((a + b) * g, -(a + b) * g))}),
    Deviation("X244", "LOSS_SUMMED_OVER_CHANNELS", "Q.3", "sums the squares of a vector, and averages over vectors", LOSS,
        {codes.averaged: instead(lambda R, numbers, width: numbers / width)}),
    Deviation("X245", "COMMITMENT_FORGOTTEN", "Q.3", "mean (e - sg z)² alone", LOSS,
        {codes.weight_of_commitment: instead(lambda R, beta: 0.0)}),
    Deviation("X246", "BETA_ON_BOTH", "Q.3", "β times both terms", LOSS, {codes.weight_of_codes: instead(lambda R, beta: beta)}),
    Deviation("M132", "STRAIGHT_THROUGH_WITHOUT_DETACH", "Q.2",
        "z + (e - z) without a stop-gradient: the encoder hears nothing of the decoder", THROUGH,
        {codes.passed_on: instead(lambda R, y_bar: (0 * y_bar, y_bar))}, "class"),
    Deviation("X247", "STRAIGHT_THROUGH_TO_BOTH", "Q.2", "e + z - sg z with an e that learns, too", THROUGH,
        {codes.passed_on: instead(lambda R, y_bar: (y_bar, y_bar))}),
    Deviation("X248", "VECTOR_FOR_CODE", "Q.2", "hands on z: nothing is quantised", THROUGH,
        {codes.given_for: instead(lambda R, z, code: z)}),
    Deviation("X249", "ONLY_VECTORS_ON_SPHERE", "Q.4", "normalises the vectors, and takes the codes as they are", SPHERE,
        {codes.unit_codes: instead(lambda R, table: table)}),
    Deviation("X250", "DECODES_LONG_CODES", "Q.4", "chooses on the sphere, and decodes from codes of any length", SPHERE,
        {codes.decoded_from: instead(lambda R, unit, table: table)}),
    Deviation("X251", "PERPLEXITY_OF_BITS", "Q.5", "e to the entropy in bits", PERPLEXITY,
        {codes.of_entropy: instead(lambda R, H: float(np.exp(H / np.log(2))))}),
    Deviation("X252", "PERPLEXITY_TO_BASE_TWO", "Q.5", "2 to the entropy in nats", PERPLEXITY,
        {codes.of_entropy: instead(lambda R, H: float(2**H))}),
    Deviation("X253", "ZERO_TIMES_LOG_ZERO", "Q.5", "0 ln 0 is NaN as soon as a code is unused", PERPLEXITY,
        {codes.surprise: instead(lambda R, p: np.log(p, where=p > 0, out=np.full_like(p, -np.inf)))}),
    Deviation("X285", "CODES_DECAY_EXCHANGED", "Q.6", "(1-γ) n + γ count", MEANS,
        {codes.kept_share: instead(lambda R, decay: 1 - decay)}),
    Deviation("X286", "CODES_OVER_NEW_COUNTS", "Q.6", "s over the counts of the batch alone, at least 1", MEANS,
        {codes.divided_by: instead(lambda R, running, counted: np.maximum(counted, 1))}),
    Deviation("X254", "EVEN_LEVELS_NOT_MOVED", "Q.8", "rounds tanh without the half level: one whole number too many", FSQ,
        {codes.in_levels: instead(_not_moved)}),
    Deviation("X255", "LAST_DIGIT_FIRST", "Q.8", "the last channel has the value 1 in the number", FSQ,
        {codes.place_values: instead(lambda R, levels: np.cumprod([1, *levels[:0:-1]])[::-1])}),
    Deviation("X256", "AREA_PICKS_ONE", "Q.11", "takes the first place of every part", AREA,
        {codes.shrunk_by: instead(_picked)}),
    Deviation("X257", "AREAS_DO_NOT_OVERLAP", "Q.11", "ends a part at ⌊(i+1)H/p⌋", AREA, {codes.shrunk_by: instead(_apart)}),
    Deviation("M133", "BICUBIC_OF_PILLOW", "Q.12", "a = -1/2", CUBIC, {codes.cubic_a: instead(lambda R: -0.5)},
        "Pillow and JAX, where PyTorch's weights are used"),
    Deviation("X258", "STRETCHED_LINEARLY", "Q.12", "interpolates linearly", CUBIC, {codes.stretched_by: instead(_linear)}),
    Deviation("X259", "STRETCHED_BY_REPEATING", "Q.12", "repeats places", CUBIC, {codes.stretched_by: instead(_repeated)}),
    Deviation("M134", "PHI_BY_EQUAL_SHARES", "Q.13", "φ number ⌊kn/K⌋: scales are cut into equal shares", SHARED,
        {codes.phi_number: instead(lambda R, k, K, n: k * n // K)}, "class"),
    Deviation("M134b", "PHI_OF_ONE_SCALE_DIVIDES_BY_ZERO", "Q.13", "k/(K-1) for K = 1", SHARED,
        {codes.phi_place: instead(lambda R, k, K: k / (K - 1))}, "VAR 78b9539"),
    Deviation("X260", "PHI_TICKS_IN_THE_MIDDLE", "Q.13", "ticks at the middles of n parts, also for n = 4", SHARED,
        {codes.phi_ticks: instead(lambda R, n: np.linspace(1 / 2 / n, 1 - 1 / 2 / n, n))}),
    Deviation("M135", "REST_DOES_NOT_TELESCOPE", "Q.9", "f - h_k: forgets what the scales before the last one drew", PYRAMID,
        {codes.still_left: instead(lambda R, f, rest, h, drawn: f - h)}, "class"),
    Deviation("M135b", "REST_BEFORE_PHI", "Q.9", "subtracts U e, and adds φ(U e): f̂ and what is left are not f", PYRAMID,
        {codes.still_left: instead(lambda R, f, rest, h, drawn: rest - drawn)}, "class"),
    Deviation("X261", "PHI_IS_THE_CONVOLUTION", "Q.9", "φ(h) = ½ conv(h)", PYRAMID,
        {codes.own_share: instead(lambda R, h: 0 * h)}),
    Deviation("M136", "SHOWS_LAST_SCALE_ONLY", "Q.10", "A U e of the scale before, not the sum", SEEN,
        {codes.shown_of: instead(lambda R, whole, h: h)}, "class"),
    Deviation("M136b", "SHOWS_THE_SCALE_ITSELF", "Q.10", "f̂_{k+1} before scale k+1: the answer is in the input", SEEN,
        {codes.of_scale: instead(lambda R, seen, k: seen[k + 1])}, "class"),
]  # fmt: skip
