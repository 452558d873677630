"""Mistakes of time laws, shifts and grids in continuous time."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from minidit.backend import Array
from minidit.verify.bank.wrap import arguments, instead, then
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import times

LOGIT = "t = 1/(1 + e^-(m + s Φ⁻¹(u)))"
PARTLY = "t = u/p where u < p, else the law of (u - p)/(1 - p)"
MODE = "t = 1 - u - s (cos²(πu/2) - 1 + u), -1 ≤ s ≤ 2/(π-2)"
SHIFT = "t ← a t/(1 + (a-1) t), once"
MU = "a = e^μ, μ = 1/2 + 0.65 (n - 256)/3840 for n tokens"
CLIP = "a = √(F m/n)"
EVEN = "i/n, i = n..0: n+1 times, from 1 to 0 exactly"
KARRAS = "(high^(1/ρ) + i/(n-1) (low^(1/ρ) - high^(1/ρ)))^ρ, i = 0..n-1, and 0"
RUNG = 1e-3


def _density(t: Array, mean: float, std: float) -> Array:
    normal = np.exp(-((special.logit(t) - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
    return np.asarray(normal / (t * (1 - t)))


def _probit(R: Reference, u: Array, mean: float, std: float) -> Array:
    return np.asarray(special.ndtr(mean + std * special.ndtri(u)))


def _any_scale(R: Reference, scale: float) -> object:
    return lambda u: 1 - u - scale * (np.cos(np.pi / 2 * u) ** 2 - 1 + u)


def _sine(R: Reference, scale: float) -> object:
    times.mode_law.right(R, scale)
    return lambda u: 1 - u - scale * (np.sin(np.pi / 2 * u) ** 2 - 1 + u)


def _by_reciprocal(R: Reference, t: Array, a: float) -> Array:
    return 1 / (1 + (1 / t - 1) / a)  # a Python number 0 cannot be divided by


def _to_lowest_rung(R: Reference, n: int) -> Array:
    return np.append(np.linspace(1.0, RUNG, n), 0.0)


def _lowest_rung_shifted_twice(R: Reference, n: int, a: float) -> Array:
    start = float(times.shifted(R, np.array(RUNG), a))
    return np.append(times.shifted(R, np.linspace(1.0, start, n), a), 0.0)


BANK = [
    Deviation("X161", "LOGIT_NORMAL_IS_PROBIT", "P.13", "t = Φ(m + s Φ⁻¹(u))", LOGIT,
        {times.logit_normal_times: instead(_probit)}),
    Deviation("X162", "LOGIT_MEAN_SIGN", "P.13", "subtracts the mean", LOGIT,
        {times.logit_normal_times: arguments(lambda u, mean, std: (u, -mean, std))}),
    Deviation("X163", "LOGIT_STD_IS_VARIANCE", "P.13", "takes the root of the std", LOGIT,
        {times.logit_normal_times: arguments(lambda u, mean, std: (u, mean, std**0.5))}),
    Deviation("M105", "LOGIT_NORMAL_AS_WEIGHT", "P.13", "multiplies the loss by the density of times that were drawn from it",
        "the law draws the times, and the weight is 1",
        {times.logit_normal_weight: instead(lambda R, t, m, s: _density(t, m, s))}, "diffusers#8528, #8534"),
    Deviation("M105b", "LOGIT_NORMAL_UNDONE", "P.13", "divides the loss by the density of its times: uniform times again",
        "the law draws the times, and the weight is 1",
        {times.logit_normal_weight: instead(lambda R, t, m, s: 1 / _density(t, m, s))}, "class"),
    Deviation("M180", "ENDS_NEVER_TRAINED", "P.26", "every time from the law: none at the ends", PARTLY,
        {times.mixed: instead(lambda R, law, p: law)}, "diffusers#9056"),
    Deviation("X331", "LAW_OF_WHAT_IS_LEFT", "P.26", "the law gets u, of which the lowest part is missing", PARTLY,
        {times.mixed: instead(lambda R, law, p: lambda u: np.where(u < p, u / p, law(u)))}),
    Deviation("M120", "MODE_NOT_MONOTONE", "P.14", "takes any scale: beyond 2/(π-2) times leave 0..1 and turn back", MODE,
        {times.mode_law: instead(_any_scale)}, "diffusers compute_density_for_timestep_sampling"),
    Deviation("X164", "MODE_OF_SINE", "P.14", "sin² for cos²", MODE, {times.mode_law: instead(_sine)}),
    Deviation("X165", "COSMAP_REVERSED", "P.15", "t = 1/(tan(πu/2) + 1)", "t = 1 - 1/(tan(πu/2) + 1)",
        {times.cosmap_times: then(lambda t: 1 - t)}),
    Deviation("X166", "EDM_MEAN_SIGN", "P.16", "ln σ around +1.2", "ln σ = -1.2 + 1.2 Φ⁻¹(u)",
        {times.edm_constants: instead(lambda R: (1.2, 1.2))}),
    Deviation("X167", "EDM_STD_SQUARED", "P.16", "takes 1.2 for the variance of ln σ", "ln σ = -1.2 + 1.2 Φ⁻¹(u)",
        {times.edm_constants: instead(lambda R: (-1.2, 1.2**0.5))}),
    Deviation("M104", "SHIFT_TWICE", "P.17", "shifts times that were shifted already", SHIFT,
        {times.shifted_points: lambda f: lambda R, n, a: times.shifted(R, f(R, n, a), a)},
        "sd3-ref get_sigmas, diffusers#13243"),
    Deviation("M104b", "LOWEST_TIME_SHIFTED_TWICE", "P.18", "shifts the lowest time, and then the grid that ends there", SHIFT,
        {times.shifted_points: instead(_lowest_rung_shifted_twice)},
        "diffusers FlowMatchEulerDiscreteScheduler and FlowMatchHeunDiscreteScheduler (diffusers#13243), sd3-ref"),
    Deviation("X168", "SHIFT_INVERTED", "P.17", "shifts by 1/a: less noise where more was asked for", SHIFT,
        {times.shifted: arguments(lambda t, a: (t, 1 / a))}),
    Deviation("X169", "SHIFT_WITHOUT_DENOMINATOR", "P.17", "min(a t, 1)", SHIFT,
        {times.shifted: instead(lambda R, t, a: np.minimum(a * t, 1.0))}),
    Deviation("M121", "SHIFT_DIVIDES_BY_TIME", "P.17", "1/(1 + (1/t - 1)/a): a Python number 0 ends in ZeroDivisionError", SHIFT,
        {times.shifted: instead(_by_reciprocal)}, "FLUX time_shift, which relies on the infinity of tensors"),
    Deviation("X170", "RESOLUTION_WITHOUT_ROOT", "P.17", "a = m/n", "a = √(m/n)",
        {times.resolution_shift: then(lambda a: a**2)}),
    Deviation("X171", "RESOLUTION_INVERTED", "P.17", "a = √(n/m)", "a = √(m/n)", {times.resolution_shift: then(lambda a: 1 / a)}),
    Deviation("M175", "SHIFT_IS_MU", "P.17", "takes μ for the shift", MU,
        {times.shift_of_mu: instead(lambda R, mu: mu)}, "class"),
    Deviation("M176", "MU_OF_LATENTS", "P.17", "counts latents, of which a token has four", MU,
        {times.mu: arguments(lambda n: (4 * n,))}, "class"),
    Deviation("X327", "MU_HELD_AT_ITS_ENDS", "P.17", "stays at 1.15 beyond 4096 tokens", MU,
        {times.mu: then(lambda mu: min(max(mu, 0.5), 1.15))}),
    Deviation("M177", "FRAMES_IN_WHOLE_CHUNKS", "P.17", "5 (F // 17) frames: 0 below 17, and every time becomes 0", CLIP,
        {times.shift_of_clip: arguments(lambda frames, a, m: (frames // 17 * 5, a, m))}, "Open-Sora#601"),
    Deviation("M178", "MU_OF_A_CLIP", "P.17", "e^μ of all tokens of a clip: the line is far beyond its ends", CLIP,
        {times.shift_of_clip: instead(lambda R, frames, a, m: times.flux_shift(R, frames * m // 4))}, "LTX-2#291"),
    Deviation("X328", "FRAMES_WITHOUT_ROOT", "P.17", "F √(m/n)", CLIP,
        {times.shift_of_clip: instead(lambda R, frames, a, m: frames * a)}),
    Deviation("X329", "FRAMES_NOT_COUNTED", "P.17", "√(m/n), the shift of one frame", CLIP,
        {times.shift_of_clip: instead(lambda R, frames, a, m: a)}),
    Deviation("C21", "USERS_TIMES_SHIFTED", "P.18", "shifts the times that it is given: a convention",
        "the times of the user as they are",
        {times.users_points: instead(lambda R, t, a: times.shifted(R, t, a))},
        "diffusers FlowMatchEulerDiscreteScheduler (set_timesteps with sigmas; #14461)"),
    Deviation("C13", "GRID_TO_LOWEST_RUNG", "P.18", "n times from 1 to 1/1000, then 0: a convention", EVEN,
        {times.points: instead(_to_lowest_rung)}, "diffusers FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler"),
    Deviation("C14", "STEPS_ARE_POINTS", "P.18", "n is the number of times, so one step fewer is taken: a convention", EVEN,
        {times.points: instead(lambda R, n: np.linspace(1.0, 0.0, n))}, "SiT (num_steps of its ODE sampler)"),
    Deviation("X172", "GRID_ENDS_EARLY", "P.18", "stops at 1/n: noise is left in the picture", EVEN,
        {times.points: instead(lambda R, n: np.linspace(1.0, 1 / n, n + 1))}),
    Deviation("X173", "GRID_STARTS_LATE", "P.18", "starts at n/(n+1), though the sample is pure noise", EVEN,
        {times.points: instead(lambda R, n: np.arange(n, -1, -1) / (n + 1))}),
    Deviation("X174", "KARRAS_OVER_N", "P.19", "i/n: the lowest level is not reached", KARRAS,
        {times.spread: instead(lambda R, n: np.arange(n) / n)}),
    Deviation("X175", "KARRAS_WITHOUT_RHO", "P.19", "equal steps of σ", KARRAS,
        {times.exponent: instead(lambda R, rho: (1.0, 1.0))}),
    Deviation("X176", "KARRAS_RHO_INVERTED", "P.19", "raises to ρ first, and to 1/ρ at the end", KARRAS,
        {times.exponent: instead(lambda R, rho: (rho, 1 / rho))}),
    Deviation("X177", "KARRAS_WITHOUT_ZERO", "P.19", "a sampler that ends at the lowest level: its noise stays", KARRAS,
        {times.lowest: instead(lambda R, sigmas: np.append(sigmas, sigmas[-1]))},
        "diffusers EDMEulerScheduler with final_sigmas_type=sigma_min"),
]  # fmt: skip
