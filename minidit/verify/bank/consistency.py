"""Mistakes of consistency models: boundary, several steps, distance, curricula."""

from __future__ import annotations

import math

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import consistency

BOUNDARY = "c_skip = σ_d²/((t-ε)²+σ_d²), c_out = (t-ε)σ_d/√(t²+σ_d²), and f(x, ε) = x"
STEPS = "x ← f(x, t) + √(s²-ε²) z, and s = ε after the last call"
HUBER = "√(‖x-y‖²+c²) - c of the whole sample, c = 0.00054 √dim"
LEVELS = "N(k) = ⌈√(k/K ((s_1+1)²-s_0²) + s_0²) - 1⌉ + 1"
DOUBLED = "N(k) = min(s_0 2^⌊k/K'⌋, s_1) + 1, K' = ⌊K/(⌊log₂⌊s_1/s_0⌋⌋+1)⌋"
INDEX = "p ∝ erf((ln t_{i+1}-m)/(√2 s)) - erf((ln t_i-m)/(√2 s)), m = -1.1, s = 2"
INPUTS = "x/√(t²+σ_d²), 250 ln t"


def _density(R: Reference, t: Array, mean: float, std: float) -> Array:
    return np.asarray(np.exp(-((np.log(t[:-1]) - mean) ** 2) / (2 * std**2)))


def _elementwise(R: Reference, squares: Array, c: float) -> Array:
    return np.asarray(((squares + c**2) ** 0.5 - c).mean(axis=1))


BANK = [
    Deviation("M106", "ROOT_OF_T_MINUS_EPS", "S.1", "c_out = (t-ε)σ_d/√((t-ε)²+σ_d²)", BOUNDARY,
        {consistency.under_root: instead(lambda R, t, end: t - end)}, "class"),
    Deviation("M107", "BOUNDARY_OF_EDM", "S.1", "EDM's scalings, without ε: f(x, ε) is not x", BOUNDARY,
        {consistency.apart: instead(lambda R, t, end: t), consistency.end_of_c_out: instead(lambda R, t, end: t)},
        "class"),
    Deviation("M107b", "C_OUT_NOT_ZERO_AT_END", "S.1", "c_out = tσ_d/√(t²+σ_d²): the network is heard at the boundary", BOUNDARY,
        {consistency.end_of_c_out: instead(lambda R, t, end: t)}, "class"),
    Deviation("M107c", "C_SKIP_NOT_ONE_AT_END", "S.1", "c_skip = σ_d²/(t²+σ_d²)", BOUNDARY,
        {consistency.apart: instead(lambda R, t, end: t)}, "class"),
    Deviation("M108", "CLIP_HIDES_BOUNDARY", "S.1", "clips f to [-1, 1]: the boundary holds for data in the range only", BOUNDARY,
        {consistency.in_range: instead(lambda R, x: np.clip(x, -1, 1))},
        "diffusers CMStochasticIterativeScheduler (clip_denoised, the default), openai/consistency_models"),
    Deviation("M109", "NETWORK_HEARS_NOISE", "P.10", "hands σ itself to the network: 0.002 and 80 on one linear scale", INPUTS,
        {consistency.number: instead(lambda R, t: t)}, "Kinyugo/consistency_models#7"),
    Deviation("C15", "QUARTER_OF_LOG", "P.10", "hands ¼ ln t to the network: a convention", INPUTS,
        {consistency.number: instead(lambda R, t: 0.25 * np.log(t))}, "EDM"),
    Deviation("X181", "INPUT_NOT_SCALED", "P.10", "hands x itself to the network, up to 80 standard deviations", INPUTS,
        {consistency.scaled: instead(lambda R, t, d: np.ones_like(t))}),
    Deviation("X182", "INPUT_DIVIDED_BY_NOISE", "P.10", "x/t: without σ_d", INPUTS,
        {consistency.scaled: instead(lambda R, t, d: 1 / t)}),
    Deviation("M110", "RESULT_RETURNED_NOISED", "S.2", "adds noise after the last call too", STEPS,
        {consistency.goes_on_from: instead(lambda R, times, k, end: float(times[min(k + 1, len(times) - 1)]))},
        "openai/consistency_models#7 (ts that does not end at the last index)"),
    Deviation("X183", "NOISE_OF_S", "S.2", "adds s z, as if the answer were clean data", STEPS,
        {consistency.noise_left: instead(lambda R, s, end: s)}),
    Deviation("X184", "NOISE_OF_DIFFERENCE", "S.2", "adds (s-ε) z", STEPS,
        {consistency.noise_left: instead(lambda R, s, end: s - end)}),
    Deviation("M112", "HUBER_ELEMENTWISE", "S.3", "takes the distance entry by entry, with the c of a whole sample", HUBER,
        {consistency.distance: instead(_elementwise)}, "Kinyugo/consistency_models#17"),
    Deviation("M112b", "HUBER_OF_MEAN", "S.3", "the mean of the squares for their sum", HUBER,
        {consistency.distance: instead(lambda R, squares, c: consistency.huber_root(R, squares.mean(axis=1), c))}, "class"),
    Deviation("X185", "HUBER_WITHOUT_C", "S.3", "does not subtract c: not 0 for equal samples", HUBER,
        {consistency.huber_root: instead(lambda R, squared, c: (squared + c**2) ** 0.5)}),
    Deviation("X186", "HUBER_C_NOT_SQUARED", "S.3", "√(‖x-y‖²+c) - c", HUBER,
        {consistency.huber_root: instead(lambda R, squared, c: (squared + c) ** 0.5 - c)}),
    Deviation("X187", "HUBER_CONSTANT_WITHOUT_ROOT", "S.3", "c = 0.00054 dim", HUBER,
        {consistency.huber_constant: instead(lambda R, dim: 0.00054 * dim)}),
    Deviation("M114", "TWO_NOISES", "S.14", "draws other noise for the neighbour: the two lie on no common line",
        "x_0 + t_i z and x_0 + t_{i+1} z, the same z", {consistency.second_noise: instead(lambda R, z: z[1])}, "class"),
    Deviation("X188", "WEIGHT_IS_DISTANCE", "S.16", "λ = t_{i+1} - t_i", "λ = 1/(t_{i+1} - t_i)",
        {consistency.ict_weights: then(lambda weight: 1 / weight)}),
    Deviation("X189", "WEIGHT_OF_TIME", "S.16", "λ = 1/t_{i+1}", "λ = 1/(t_{i+1} - t_i)",
        {consistency.ict_weights: instead(lambda R, t: 1 / t[1:])}),
    Deviation("M111", "DECAY_OF_N_MINUS_ONE", "S.4", "μ(k) = exp(s_0 ln μ_0/(N(k)-1)): 0.81 for 0.9 at the start",
        "μ(k) = exp(s_0 ln μ_0/N(k))", {consistency.levels_of_decay: instead(lambda R, N: N - 1)}, "openai/consistency_models"),
    Deviation("X190", "LEVELS_ROUNDED_DOWN", "S.4", "⌊…⌋ for ⌈…⌉", LEVELS,
        {consistency.whole: instead(lambda R, levels: math.floor(levels))}),
    Deviation("X191", "LEVELS_WITHOUT_ONE", "S.4", "s_1² for (s_1+1)²: the last grid is one time short", LEVELS,
        {consistency.most: instead(lambda R, s_1: s_1)}),
    Deviation("X192", "INTERVALS_FOR_TIMES", "S.4", "N(k) - 1, the number of intervals, for the number of times", LEVELS,
        {consistency.extra: instead(lambda R: 0)}),
    Deviation("X193", "DOUBLED_WITHOUT_CAP", "S.5", "goes on doubling beyond s_1", DOUBLED,
        {consistency.capped: instead(lambda R, levels, s_1: levels)}),
    Deviation("X194", "STAGE_TOO_LONG", "S.5", "K' = ⌊K/log₂(s_1/s_0)⌋: the last doubling never comes", DOUBLED,
        {consistency.stage: instead(lambda R, K, s_0, s_1: int(K // math.log2(s_1 / s_0)))}),
    Deviation("C17", "GRID_COUNTED_DOWN", "P.19", "counts times from high to low: a convention", "t_1 = ε < … < t_N",
        {consistency.rising: instead(lambda R, t: t[::-1].copy())}, "openai/consistency_models, diffusers, EDM"),
    Deviation("M113", "INDEX_MEAN_SIGN", "S.6", "m = +1.1", INDEX,
        {consistency.ict_constants: instead(lambda R: (1.1, 2.0))}, "Kinyugo/consistency_models#5 (README)"),
    Deviation("X195", "INDEX_BY_DENSITY", "S.6", "takes the density at t_i for the mass of its interval", INDEX,
        {consistency.masses: instead(_density)}),
    Deviation("X196", "INDEX_WITHOUT_ROOT_OF_2", "S.6", "erf((ln t-m)/s): a law of another width", INDEX,
        {consistency.ict_constants: instead(lambda R: (-1.1, 2.0**0.5))}),
]  # fmt: skip
