"""Mistakes of paths in continuous time, of what a network answers and hears on them, and of changes of coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.diffusion import level as levels
from minidit.diffusion.level import Level, enter
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import Change, Deviation, Reference
from minidit.verify.topics import embeddings, paths

LINE = "x_t = (1-t) x_0 + t ε, u = ε - x_0, and steps with s - t < 0: all three turn together"
ENDS = "x̂_0 = x_t - t u, ε̂ = x_t + (1-t) u"
TOLD = "1000 t: a sinusoid of period 10000 cannot tell times of 0..1 apart"
SCALINGS = "c_skip = σ_d²/(σ²+σ_d²), c_out = σσ_d/√(σ²+σ_d²), c_in = 1/√(σ²+σ_d²), c_noise = ¼ ln σ"
WEIGHT = "λ = (σ²+σ_d²)/(σσ_d)² = 1/c_out²"


def _pair(x_0: Any, eps: Any) -> Change:
    """Both ends with their own use of (x, u, t)."""

    def changed(R: Reference, x: Array, u: Array, t: Array) -> Any:
        (t,) = (enter(np.asarray(t), like=x),)
        return x_0(x, u, t), eps(x, u, t)

    return instead(changed)


def _half(R: Reference, t: Array) -> Array:
    return np.asarray(t, np.float16).astype(np.float64)


def _as_if_straight(R: Reference, x: Array, u: Array, at: Level) -> Any:
    alpha, sigma = enter(*at, like=x)
    return x - sigma * u, x + alpha * u


BANK = [
    Deviation("C10", "DATA_AT_ONE", "P.9", "counts time from the noise to the data, with u = x_0 - ε: a convention", LINE,
        {paths.clock: instead(lambda R, t: 1 - t), paths.sense: instead(lambda R: -1.0)},
        "Lipman et al. 2023, torchcfm, flow_matching, SiT"),
    Deviation("M101", "PATH_REVERSED", "P.9", "mixes t x_0 + (1-t) ε though t = 1 is the noise everywhere else", LINE,
        {paths.straight_sample: instead(lambda R, x_0, eps, t: levels.mix(eps, x_0, paths.straight(R, t)))},
        "VinAI/LFM#19, Open-Sora#628, Hunyuan3D-2#124"),
    Deviation("M102", "VELOCITY_SIGN", "P.2", "u = x_0 - ε while t = 1 is the noise", LINE,
        {paths.sense: then(lambda sign: -sign)}, "Open-Sora#628, tau-0-vla#7, Hunyuan3D-2#124"),
    Deviation("M103", "TIME_NOT_SCALED", "P.9", "puts t of 0..1 into a sinusoid of period 10000: all its rows are alike", TOLD,
        {embeddings.embedded_unit: instead(lambda R: 1.0)}, "SiT#24, REPA#40, Just-a-DiT PR#9, minRF"),
    Deviation("M103b", "TIME_SCALED_TWICE", "P.9", "multiplies by 1000 a time that was multiplied already", TOLD,
        {embeddings.embedded_unit: instead(lambda R: 1e6)}, "class"),
    Deviation("M103c", "TIME_IN_HALF_PRECISION", "P.9", "keeps t in float16: neighbouring times become one",
        "times are float32 or float64, whatever the network computes in", {embeddings.as_number: instead(_half)}, "class"),
    Deviation("C11", "NETWORK_HEARS_T", "P.9", "hands t itself to the network, which may multiply it: a convention", "1000 t",
        {paths.unit: instead(lambda R: 1.0)}, "torchcfm, flow_matching, SiT, FLUX"),
    Deviation("X101", "X_0_FROM_THE_OTHER_END", "P.3", "x̂_0 = x_t - (1-t) u, ε̂ = x_t + t u: the ends are exchanged", ENDS,
        {paths.pair_from_velocity: _pair(lambda x, u, t: x - (1 - t) * u, lambda x, u, t: x + t * u)}),
    Deviation("X102", "NOISE_FROM_VELOCITY_SIGN", "P.3", "ε̂ = x_t - (1-t) u", ENDS,
        {paths.pair_from_velocity: _pair(lambda x, u, t: x - t * u, lambda x, u, t: x - (1 - t) * u)}),
    Deviation("X103", "VELOCITY_WITHOUT_TIME", "F.1", "v = x_t - x̂_0, without dividing by t", "v = (x_t - x̂_0)/t",
        {paths.velocity_from_x_0: instead(lambda R, x, x_0, t: x - x_0)}),
    Deviation("X104", "VELOCITY_OVER_TIME_TO_NOISE", "F.1", "v = (x_t - x̂_0)/(1-t), the formula of a path with data at t = 1",
        "v = (x_t - x̂_0)/t", {paths.velocity_from_x_0: instead(lambda R, x, x_0, t: (x - x_0) / enter(1 - t, like=x))}),
    Deviation("X105", "SCORE_SIGN", "D.11", "score = ε̂/t", "score = -ε̂/t",
        {paths.score_from_velocity: then(lambda score: -score)}),
    Deviation("X106", "SCORE_IS_VELOCITY", "D.11", "takes -u/t for the score", "score = -ε̂/t, ε̂ = x_t + (1-t) u",
        {paths.score_from_velocity: instead(lambda R, x, u, t: -u / enter(t, like=x))}),
    Deviation("X107", "LEVEL_TAKEN_FOR_STRAIGHT", "P.3", "reads u as if α + σ were 1",
        "x̂_0 = (x_t - σu)/(α+σ), ε̂ = (x_t + αu)/(α+σ)",
        {paths.u_pair: instead(_as_if_straight)}),
    Deviation("C12", "EDM_ANSWER_NEGATED", "P.23", "c_out = -σσ_d/√(σ²+σ_d²): the network answers -F, a convention", SCALINGS,
        {paths.c_out: then(lambda c: -c)}, "diffusers EDMEulerScheduler with v_prediction"),
    Deviation("X108", "C_SKIP_OF_NOISE", "P.23", "c_skip = σ²/(σ²+σ_d²)", SCALINGS,
        {paths.c_skip: instead(lambda R, s, d: s**2 / (s**2 + d**2))}),
    Deviation("X109", "C_OUT_WITHOUT_ROOT", "P.23", "c_out = σσ_d/(σ²+σ_d²)", SCALINGS,
        {paths.c_out: instead(lambda R, s, d: s * d / (s**2 + d**2))}),
    Deviation("X110", "C_IN_OF_UNIT_DATA", "P.23", "c_in = 1/√(σ²+1), whatever σ_d is", SCALINGS,
        {paths.c_in: instead(lambda R, s, d: (s**2 + 1) ** -0.5)}),
    Deviation("X111", "C_NOISE_WITHOUT_QUARTER", "P.23", "c_noise = ln σ", SCALINGS, {paths.log_unit: instead(lambda R: 1.0)}),
    Deviation("M119", "C_NOISE_IS_SIGMA", "P.23", "hands σ itself to the network of EDM", SCALINGS,
        {paths.noise_number: instead(lambda R, s: s)}, "Kinyugo/consistency_models#7"),
    Deviation("C16", "C_NOISE_TIMES_1000", "P.23", "hands 250 ln σ to the network of EDM: a convention", SCALINGS,
        {paths.log_unit: instead(lambda R: 250.0)}, "openai/consistency_models"),
    Deviation("X112", "EDM_WEIGHT_WITHOUT_SQUARE", "P.23", "λ = (σ²+σ_d²)/(σσ_d)", WEIGHT,
        {paths.edm_weight: instead(lambda R, s, d: (s**2 + d**2) / (s * d))}),
    Deviation("X113", "EDM_WEIGHT_INVERTED", "P.23", "λ = c_out²", WEIGHT, {paths.edm_weight: then(lambda weight: 1 / weight)}),
    Deviation("X114", "EDM_WEIGHT_OF_SUM", "P.23", "λ = (σ²+σ_d²)/(σ+σ_d)²", WEIGHT,
        {paths.edm_weight: instead(lambda R, s, d: (s**2 + d**2) / (s + d) ** 2)}),
    Deviation("X115", "STRAIGHT_NOT_RESCALED", "P.11", "takes the time σ/(α+σ) and leaves the sample alone", "x/(α+σ), σ/(α+σ)",
        {paths.to_straight: lambda f: lambda R, x, a, s: (x, f(R, x, a, s)[1])}),
    Deviation("X116", "STRAIGHT_TIME_IS_SIGMA", "P.11", "takes σ for the straight time, whatever α is", "x/(α+σ), σ/(α+σ)",
        {paths.to_straight: lambda f: lambda R, x, a, s: (f(R, x, a, s)[0], paths.clock(R, s))}),
    Deviation("X117", "EXPLODING_NOT_RESCALED", "P.11", "takes the noise σ/α and leaves the sample as it is", "x/α, σ/α",
        {paths.to_exploding: lambda f: lambda R, x, a, s: (x, f(R, x, a, s)[1])}),
    Deviation("X118", "EXPLODING_NOISE_IS_SIGMA", "P.11", "divides the sample by α, and not σ", "x/α, σ/α",
        {paths.to_exploding: lambda f: lambda R, x, a, s: (f(R, x, a, s)[0], s)}),
]  # fmt: skip
