"""Mistakes of steps, conversions, guidance and ranges (C2, C4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.verify.bank.wrap import given, instead, then
from minidit.verify.core.reference import Deviation

CORE = "(x_t - β/√(1-ᾱ_t) ε̂)/√α, α = ᾱ_t/ᾱ_s"
PAIR_OF_V = "x_0 = √ᾱ x_t - √(1-ᾱ) v, ε = √(1-ᾱ) x_t + √ᾱ v, v = √ᾱ ε - √(1-ᾱ) x_0"
SIGMA = "σ = η √((1-ᾱ_s)/(1-ᾱ_t)) √(1-ᾱ_t/ᾱ_s)"


def mean_of(form: Any) -> Any:
    """A mean with its own use of (x, ε, β, ᾱ_t, α)."""

    def changed(R: Any, x_t: Any, eps: Any, alpha_bar: Any, t: int, s: int) -> Any:
        a_t, a_s = float(alpha_bar[t]), R.alpha_below(alpha_bar, t, s)
        return form(x_t, eps, 1 - a_t / a_s, a_t, a_t / a_s)

    return instead(changed)


def _full_chain_posterior(R: Any, x_t: Any, eps: Any, alpha_bar: Any, t: int, s: int) -> Any:
    """ᾱ_s of the kept rung beside β_t and α_t of the full ladder."""
    return R.posterior_mean(R.x_0_of_eps(x_t, eps, float(alpha_bar[t])), x_t, t, s, alpha_bar)


def _mixed_weights(R: Any, alpha_bar: Any, t: int, a_t: float, a_s: float) -> tuple[float, float]:
    beta = 1 - alpha_bar[t] / np.append(1.0, alpha_bar)[t]
    return a_s**0.5 * beta / (1 - a_t), (1 - beta) ** 0.5 * (1 - a_s) / (1 - a_t)


def _core_full_chain(R: Any, x_t: Any, eps: Any, alpha_bar: Any, t: int, s: int) -> Any:
    alpha = alpha_bar[t] / np.append(1.0, alpha_bar)[t]
    return (x_t - (1 - alpha) / (1 - alpha_bar[t]) ** 0.5 * eps) / alpha**0.5


def _clipped_mean(R: Any, x_t: Any, eps: Any, alpha_bar: Any, t: int, s: int) -> Any:
    x_0 = np.clip(R.x_0_of_eps(x_t, eps, float(alpha_bar[t])), -1, 1)
    return R.posterior_mean(x_0, x_t, t, s, alpha_bar)


def _arrival_level(R: Any, alpha_bar: Any, t: int, s: int) -> float:
    return float(R.std_of_log(R.log_small_variance(alpha_bar, t, s)))


def _by_way_of_eps(R: Any, x_t: Any, v: Any, a_t: float) -> Any:
    eps = R.pair_of_v(x_t, v, a_t)[1]
    return R.x_0_of_eps(x_t, eps, a_t), eps


def _three(original: Any) -> Any:
    return lambda R, u, c, w: np.concatenate([original(R, u[:, :3], c[:, :3], w), c[:, 3:]], axis=1)


def _batch_quantile(R: Any, x_0: Any, p: float, most: float) -> Any:
    return np.clip(np.quantile(abs(x_0), p), 1.0, most).reshape(1, 1, 1, 1) * np.ones((len(x_0), 1, 1, 1))


def _swapped_levels(R: Any, x_0: Any, eps: Any, a: Any) -> Any:
    return (1 - a) ** 0.5 * eps - a**0.5 * x_0


BANK = [
    Deviation(
        "M03b", "POSTERIOR_OF_TWO_LADDERS", "D.8",
        wrong="mixes β_t, α_t of the training ladder with ᾱ_s of the kept rung in the posterior",
        right="c_1 = √ᾱ_s β/(1-ᾱ_t), c_2 = √α (1-ᾱ_s)/(1-ᾱ_t), α = ᾱ_t/ᾱ_s, β = 1-α",
        seen="diffusers PR#3006, PR#2076",
        patches={"posterior_weights": instead(_mixed_weights), "ddpm_mean": instead(_full_chain_posterior),
                 "jump_beta": instead(lambda R, alpha_bar, t, a_s: 1 - alpha_bar[t] / np.append(1.0, alpha_bar)[t])},
    ),
    Deviation(
        "M03c", "CORE_FORMULA_OF_FULL_CHAIN", "D.9",
        wrong="takes α_t, β_t of the training ladder in the mean of a step that skips rungs",
        right=CORE,
        seen="diffusers PR#3006, PR#2076",
        patches={"ddpm_mean": instead(_core_full_chain)},
    ),
    Deviation(
        "M21", "NOISE_AT_LAST_STEP", "D.17",
        wrong="adds fresh noise in the step into the data",
        right="x_s = mean + [s > 0] σ z",
        seen="labml p_sample, TeaPearce#10",
        patches={"noise_mask": instead(lambda R, s, t=None: 1.0)},
    ),
    Deviation(
        "M21b", "NOISE_UNLESS_T_IS_0", "D.17",
        wrong="leaves the noise out at t = 0 only: a list that ends higher adds it to the finished picture",
        right="no noise in the step into the data, whatever t it comes from: multiply by [s > 0]",
        seen="diffusers DDPMScheduler (trailing spacing, steps_offset), where the variance does not vanish",
        patches={"noise_mask": instead(lambda R, s, t=None: float(s >= 0 if t is None else t > 0))},
    ),
    Deviation(
        "M22", "VARIANCE_AS_STD", "D.17",
        wrong="multiplies the noise by σ²",
        right="σ = √variance",
        seen="ImgX-DiffSeg#7",
        patches={"std_of_log": instead(lambda R, log_variance: np.exp(log_variance))},
    ),
    Deviation(
        "M24", "LOGVAR_TREATED_AS_VAR", "D.19",
        wrong="takes the root of ln σ²: not a number",
        right="σ = exp(½ ln σ²)",
        seen="diffusers 0.42.1 (fixed_large_log), diffusers#14569",
        patches={"large_std": instead(lambda R, alpha_bar, t, s: float(np.log(R.large_variance(alpha_bar, t, s)) ** 0.5))},
    ),
    Deviation(
        "M25", "LOGVAR_FLOOR_AT_T0", "D.21",
        wrong="puts ln 1e-20 = -46.05 where β̃ = 0",
        right="entry 0 is ln β̃ of t = 1 (-9.8167 for the linear ladder)",
        seen="diffusers 0.42.1, lucidrains",
        patches={"log_at_data": instead(lambda R, alpha_bar, t: float(np.log(1e-20)))},
    ),
    Deviation(
        "M26", "LEARNED_RANGE_LINEAR", "D.22",
        wrong="interpolates the variances, not their logarithms",
        right="σ² = exp(f ln β + (1-f) ln β̃)",
        seen="diffusers PR#2090",
        patches={"between": instead(lambda R, f, low, high: f * np.exp(high) + (1 - f) * np.exp(low))},
    ),
    Deviation(
        "M26b", "LEARNED_RANGE_NO_EXP", "D.22",
        wrong="uses the interpolated logarithm as the variance",
        right="σ² = exp(f ln β + (1-f) ln β̃)",
        seen="diffusers PR#2090",
        patches={"between": instead(lambda R, f, low, high: f * high + (1 - f) * low)},
    ),
    Deviation(
        "M27", "LEARNED_RANGE_FRAC", "D.22",
        wrong="uses v itself as the fraction",
        right="f = (v+1)/2",
        seen="improved-diffusion#7",
        patches={"learned_fraction": instead(lambda R, v: v)},
    ),
    Deviation(
        "M27b", "LEARNED_RANGE_SWAPPED", "D.22",
        wrong="swaps the ends: v = -1 gives β",
        right="v = -1 gives β̃, v = 1 gives β",
        seen="diffusers PR#132",
        patches={"learned_fraction": instead(lambda R, v: (1 - v) / 2)},
    ),
    Deviation(
        "M29", "LEARNED_SIGMA_DISCARDED", "D.22",
        wrong="drops the variance channels and uses the small variance",
        right="σ² from the second half of the channels",
        seen="diffusers DiTPipeline",
        patches={"learned_std": instead(lambda R, v, alpha_bar, t, s: _arrival_level(R, alpha_bar, t, s))},
    ),
    Deviation(
        "M30", "EPS_MEAN_FORMULA", "D.9",
        wrong="(x_t - β/(1-ᾱ_t) ε̂)/α: two roots are missing",
        right=CORE,
        seen="a widely copied dev.to tutorial",
        patches={"ddpm_mean": mean_of(lambda x, eps, beta, a, alpha: (x - beta / (1 - a) * eps) / alpha)},
    ),
    Deviation(
        "M30b", "EPS_MEAN_WITHOUT_OUTER_ROOT", "D.9",
        wrong="divides by α",
        right=CORE,
        seen="class",
        patches={"ddpm_mean": mean_of(lambda x, eps, beta, a, alpha: (x - beta / (1 - a) ** 0.5 * eps) / alpha)},
    ),
    Deviation(
        "M30c", "EPS_MEAN_WITHOUT_INNER_ROOT", "D.9",
        wrong="β/(1-ᾱ_t) ε̂",
        right=CORE,
        seen="class",
        patches={"ddpm_mean": mean_of(lambda x, eps, beta, a, alpha: (x - beta / (1 - a) * eps) / alpha**0.5)},
    ),
    Deviation(
        "M31", "CLIP_NOT_REDERIVED", "D.33",
        wrong="keeps ε̂ beside a clipped x̂_0: the pair no longer gives x_t",
        right="ε̂ = (x_t - √ᾱ_t x̂_0)/√(1-ᾱ_t) after clipping",
        seen="diffusers (use_clipped_model_output=False), lucidrains PR#84, improved-diffusion#110",
        patches={"eps_after": instead(lambda R, x_t, x_0, eps, a_t: eps)},
    ),
    Deviation(
        "M32", "CLIP_MISSING", "D.31",
        wrong="does not clip x̂_0 of pixels",
        right="x̂_0 in [-1, 1] before the posterior's mean",
        seen="Ho#5, lucidrains#47, #65",
        patches={"pixel_range": instead(lambda R, x_0: x_0)},
    ),
    Deviation(
        "M32b", "CLIP_ON_LATENTS", "D.31",
        wrong="clips x̂_0 to [-1, 1] though no range was asked for: latents are wider",
        right="x̂_0 as it is",
        seen="diffusers (clip_sample=True by default), MONAI PR#495",
        patches={"latent_range": instead(lambda R, x_0: np.clip(x_0, -1, 1)), "ddpm_mean": instead(_clipped_mean)},
    ),
    Deviation(
        "M33", "DYN_THRESHOLD_NOOP", "D.32",
        wrong="limits q to 1: dynamic is static",
        right="q = clip(quantile, 1, most), most > 1",
        seen="diffusers (sample_max_value=1 by default)",
        patches={"saturation": given(lambda x_0, p, most: (x_0, p, 1.0))},
    ),
    Deviation(
        "M33b", "DYN_THRESHOLD_OF_BATCH", "D.32",
        wrong="takes one quantile for the whole batch",
        right="the quantile of each sample",
        seen="diffusers PR#1349",
        patches={"saturation": instead(_batch_quantile)},
    ),
    Deviation(
        "M33c", "DYN_THRESHOLD_IN_HALF", "D.32",
        wrong="takes the quantile in float16, which torch refuses and NumPy rounds",
        right="the quantile in float32 at least",
        seen="diffusers PR#1349",
        patches={"saturation": then(lambda q: q.astype(np.float16).astype(np.float64))},
    ),
    Deviation(
        "M34", "DDIM_SIGMA_FORM", "D.6",
        wrong="σ = η √(1-ᾱ_t)",
        right=SIGMA,
        seen="class",
        patches={"ddim_sigma": instead(lambda R, a_t, a_s, eta: eta * (1 - a_t) ** 0.5)},
    ),
    Deviation(
        "M34b", "DDIM_SIGMA_RATIO_INVERTED", "D.6",
        wrong="1-ᾱ_s/ᾱ_t, negative and hidden by a clamp: no noise at all",
        right=SIGMA,
        seen="CoursIA PR#16158",
        patches={"ddim_sigma": instead(lambda R, a_t, a_s, eta: eta * max((1 - a_s) / (1 - a_t) * (1 - a_s / a_t), 0.0) ** 0.5)},
    ),
    Deviation(
        "M34c", "DDIM_SIGMA_LARGE", "D.6",
        wrong="σ = η √(1-ᾱ_t/ᾱ_s), the paper's σ̂: at η = 1 not the posterior's",
        right=SIGMA,
        seen="DDIM paper's large variant",
        patches={"ddim_sigma": instead(lambda R, a_t, a_s, eta: eta * (1 - a_t / a_s) ** 0.5)},
    ),
    Deviation(
        "M34d", "DDIM_SIGMA_LEVELS_INVERTED", "D.6",
        wrong="(1-ᾱ_t)/(1-ᾱ_s): the levels are exchanged",
        right=SIGMA,
        seen="class",
        patches={"ddim_sigma": instead(
            lambda R, a_t, a_s, eta: eta * ((1 - a_t) / (1 - a_s) * (1 - a_t / a_s)) ** 0.5 if a_s < 1 else 0.0)},
    ),
    Deviation(
        "M36", "DDIM_INVERSE_LEVELS", "D.23",
        wrong="asks the network at t while x is at s",
        right="ε̂(x_s, s), then from ᾱ_s to ᾱ_t",
        seen="diffusers DDIMInverseScheduler, diffusers#10695, #5703, #4654",
        patches={"told_climbing": instead(lambda R, s, t, timesteps: t)},
    ),
    Deviation(
        "M36b", "DDIM_INVERSE_STARTS_NOISY", "D.23",
        wrong="takes the data for the lowest rung: the first step is missing",
        right="from the data, ᾱ = 1, up to the lowest rung first",
        seen="openai ddim_reverse_sample_loop, DragDiffusion#31",
        patches={"climb_pairs": then(lambda pairs: pairs[1:])},
    ),
    Deviation(
        "M36c", "DDIM_INVERSE_WRONG_PAIR", "D.23",
        wrong="forms x̂_0 with ᾱ of the rung it goes to",
        right="x̂_0 = (x_s - √(1-ᾱ_s) ε̂)/√ᾱ_s",
        seen="diffusers PR#5145, PR#5832",
        patches={"level_of_pair": instead(lambda R, a_s, a_t: a_t)},
    ),
    Deviation(
        "M37", "V_SIGN", "D.10",
        wrong="v = √(1-ᾱ) x_0 - √ᾱ ε: the sign is reversed",
        right=PAIR_OF_V,
        seen="MasaCtrl#34; class",
        patches={"v_of": then(lambda v: -v), "pair_of_v": given(lambda x_t, v, a: (x_t, -v, a))},
    ),
    Deviation(
        "M37b", "EPS_SIGN", "D.4",
        wrong="adds the noise: (x_t + √(1-ᾱ) ε̂)/√ᾱ",
        right="x̂_0 = (x_t - √(1-ᾱ) ε̂)/√ᾱ",
        seen="class",
        patches={"x_0_of_eps": given(lambda x_t, eps, a: (x_t, -eps, a))},
    ),
    Deviation(
        "M37c", "V_COEFFICIENTS_SWAPPED", "D.10",
        wrong="v = √(1-ᾱ) ε - √ᾱ x_0",
        right=PAIR_OF_V,
        seen="class",
        patches={"v_of": instead(_swapped_levels)},
    ),
    Deviation(
        "M37d", "V_READ_AS_EPS", "D.10",
        wrong="reads the output of a v network as ε",
        right=PAIR_OF_V,
        seen="MasaCtrl#34",
        patches={"pair_of_v": instead(lambda R, x_t, v, a: (R.x_0_of_eps(x_t, v, a), v))},
    ),
    Deviation(
        "M37e", "SCORE_SIGN", "D.11",
        wrong="score = +ε̂/√(1-ᾱ)",
        right="∇ log q(x_t) = -ε̂/√(1-ᾱ)",
        seen="class",
        patches={"score_from_eps": then(lambda s: -s), "eps_from_score": then(lambda e: -e)},
    ),
    Deviation(
        "M18", "ZTSNR_WITH_EPS", "D.16",
        wrong="goes by way of ε̂ where ᾱ_T = 0: 0/0",
        right="x̂_0 = √ᾱ x_t - √(1-ᾱ) v straight from v",
        seen="diffusers#3851, #5103, BELM#8",
        patches={"zero_snr_pair": instead(_by_way_of_eps)},
    ),
    Deviation(
        "M40", "OBJECTIVE_IGNORED", "D.5",
        wrong="reads the output as ε whatever the objective",
        right="x̂_0 and ε̂ by what the network was trained to say",
        seen="lucidrains LearnedGaussianDiffusion",
        patches={"pair_of": instead(lambda R, out, x_t, a_t, objective: (R.x_0_of_eps(x_t, out, a_t), out))},
    ),
    Deviation(
        "M84", "CFG_ORDER", "G.1",
        wrong="takes the two branches for each other: w becomes 1-w",
        right="ε_∅ + w (ε_c - ε_∅)",
        seen="Stable Diffusion and DiT lay their batches the opposite way, diffusers#5882",
        patches={"combined": given(lambda u, c, w: (c, u, w))},
    ),
    Deviation(
        "M84b", "CFG_BATCH_LAYOUT", "G.1",
        wrong="splits the doubled batch in the other order",
        right="[cond; uncond] in DiT, [uncond; cond] in Stable Diffusion",
        seen="Stable Diffusion and DiT lay their batches the opposite way",
        patches={"halves": then(lambda pair: (pair[1], pair[0]))},
    ),
    Deviation(
        "M85", "CFG_CONVENTION", "G.2",
        wrong="takes w for ω: (1+w) ε_c - w ε_∅",
        right="w = 1+ω: w = 1 and ω = 0 are conditional",
        seen="lucidrains#155, #207, dreamfusion#32, CompVis#796",
        patches={"guide": instead(lambda R, u, c, w: R.combined(u, c, 1 + w)),
                 "guide_cond_first": instead(lambda R, out, w: R.combined(*R.halves(out, True), 1 + w)),
                 "guide_uncond_first": instead(lambda R, out, w: R.combined(*R.halves(out, False), 1 + w))},
    ),
    Deviation(
        "M85b", "CFG_OMEGA_AS_W", "G.2",
        wrong="takes ω for w: ε_∅ + ω (ε_c - ε_∅)",
        right="w = 1+ω: w = 1 and ω = 0 are conditional",
        seen="lucidrains#155, #207",
        patches={"guide_omega": instead(lambda R, u, c, omega: R.combined(u, c, omega))},
    ),
    Deviation(
        "M85c", "CFG_SIGN", "G.1",
        wrong="w ε_c + (w-1) ε_∅: the sign of ε_∅",
        right="w ε_c - (w-1) ε_∅",
        seen="labml (docstring)",
        patches={"combined": instead(lambda R, u, c, w: w * c + (w - 1) * u)},
    ),
    Deviation(
        "M86", "CFG_CHANNELS_3", "G.5",
        wrong="guides the first three channels only, the fourth latent channel stays conditional",
        right="all channels of ε̂",
        seen="DiT#41, PR#12, SiT, PixArt, Open-Sora#188, TinyFusion#4",
        patches={"combined": _three},
    ),
]  # fmt: skip
