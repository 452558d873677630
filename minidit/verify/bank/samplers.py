"""Mistakes of steps, conversions, guidance and ranges (C2, C4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import arguments, instead, then
from minidit.verify.core.reference import Change, Deviation, Form, Reference
from minidit.verify.topics import chains, conversions, ddim, ddpm, guidance, posterior, timesteps

CORE = "(x_t - β/√(1-ᾱ_t) ε̂)/√α, α = ᾱ_t/ᾱ_s"
PAIR_OF_V = "x_0 = √ᾱ x_t - √(1-ᾱ) v, ε = √(1-ᾱ) x_t + √ᾱ v, v = √ᾱ ε - √(1-ᾱ) x_0"
SIGMA = "σ = η √((1-ᾱ_s)/(1-ᾱ_t)) √(1-ᾱ_t/ᾱ_s)"


def mean_of(form: Form) -> Change:
    """A mean with its own use of (x, ε, β, ᾱ_t, α)."""

    def changed(R: Reference, x_t: Array, eps: Array, alpha_bar: Array, t: int, s: int) -> Any:
        a_t, a_s = float(alpha_bar[t]), posterior.alpha_below(R, alpha_bar, t, s)
        return form(x_t, eps, 1 - a_t / a_s, a_t, a_t / a_s)

    return instead(changed)


def _full_chain_posterior(R: Reference, x_t: Array, eps: Array, alpha_bar: Array, t: int, s: int) -> Array:
    """ᾱ_s of the kept rung beside β_t and α_t of the full ladder."""
    return posterior.posterior_mean(R, conversions.x_0_of_eps(R, x_t, eps, float(alpha_bar[t])), x_t, t, s, alpha_bar)


def _mixed_weights(R: Reference, alpha_bar: Array, t: int, a_t: float, a_s: float) -> tuple[float, float]:
    beta = 1 - alpha_bar[t] / np.append(1.0, alpha_bar)[t]
    return a_s**0.5 * beta / (1 - a_t), (1 - beta) ** 0.5 * (1 - a_s) / (1 - a_t)


def _core_full_chain(R: Reference, x_t: Array, eps: Array, alpha_bar: Array, t: int, s: int) -> Array:
    alpha = alpha_bar[t] / np.append(1.0, alpha_bar)[t]
    return (x_t - (1 - alpha) / (1 - alpha_bar[t]) ** 0.5 * eps) / alpha**0.5


def _clipped_mean(R: Reference, x_t: Array, eps: Array, alpha_bar: Array, t: int, s: int) -> Array:
    x_0 = np.clip(conversions.x_0_of_eps(R, x_t, eps, float(alpha_bar[t])), -1, 1)
    return posterior.posterior_mean(R, x_0, x_t, t, s, alpha_bar)


def _by_way_of_eps(R: Reference, x_t: Array, v: Array, a_t: float) -> Array:
    eps = conversions.pair_of_v(R, x_t, v, a_t)[1]
    return conversions.x_0_of_eps(R, x_t, eps, a_t), eps


BANK = [
    Deviation("M03b", "POSTERIOR_OF_TWO_LADDERS", "D.8",
        "mixes β_t, α_t of the training ladder with ᾱ_s of the kept rung in the posterior",
        "c_1 = √ᾱ_s β/(1-ᾱ_t), c_2 = √α (1-ᾱ_s)/(1-ᾱ_t), α = ᾱ_t/ᾱ_s, β = 1-α",
        {posterior.posterior_weights: instead(_mixed_weights), ddpm.ddpm_mean: instead(_full_chain_posterior),
        timesteps.jump_beta: instead(lambda R, alpha_bar, t, a_s: 1 - alpha_bar[t] / np.append(1.0, alpha_bar)[t])},
        "diffusers PR#3006, PR#2076"),
    Deviation("M03c", "CORE_FORMULA_OF_FULL_CHAIN", "D.9",
        "takes α_t, β_t of the training ladder in the mean of a step that skips rungs", CORE,
        {ddpm.ddpm_mean: instead(_core_full_chain)}, "diffusers PR#3006, PR#2076"),
    Deviation("M21", "NOISE_AT_LAST_STEP", "D.17", "adds fresh noise in the step into the data", "x_s = mean + [s > 0] σ z",
        {ddpm.noise_mask: instead(lambda R, s, t=None: 1.0)}, "labml p_sample, TeaPearce#10"),
    Deviation("M21b", "NOISE_UNLESS_T_IS_0", "D.17",
        "leaves the noise out at t = 0 only: a list that ends higher adds it to the finished picture",
        "no noise in the step into the data, whatever t it comes from: multiply by [s > 0]",
        {ddpm.noise_mask: instead(lambda R, s, t=None: float(s >= 0 if t is None else t > 0))},
        "diffusers DDPMScheduler (trailing spacing, steps_offset), where the variance does not vanish"),
    Deviation("M22", "VARIANCE_AS_STD", "D.17", "multiplies the noise by σ²", "σ = √variance",
        {ddpm.std_of_log: instead(lambda R, log_variance: np.exp(log_variance))}, "ImgX-DiffSeg#7"),
    Deviation("M24", "LOGVAR_TREATED_AS_VAR", "D.19", "takes the root of ln σ²: not a number", "σ = exp(½ ln σ²)",
        {ddpm.large_std: instead(lambda R, alpha_bar, t, s: float(np.log(posterior.large_variance(R, alpha_bar, t, s)) ** 0.5))},
        "diffusers 0.42.1 (fixed_large_log), diffusers#14569"),
    Deviation("M25", "LOGVAR_FLOOR_AT_T0", "D.21", "puts ln 1e-20 = -46.05 where β̃ = 0",
        "entry 0 is ln β̃ of t = 1 (-9.8167 for the linear ladder)",
        {posterior.log_at_data: instead(lambda R, alpha_bar, t: float(np.log(1e-20)))}, "diffusers 0.42.1, lucidrains"),
    Deviation("M26", "LEARNED_RANGE_LINEAR", "D.22", "interpolates the variances, not their logarithms",
        "σ² = exp(f ln β + (1-f) ln β̃)",
        {posterior.between: instead(lambda R, f, low, high: f * np.exp(high) + (1 - f) * np.exp(low))}, "diffusers PR#2090"),
    Deviation("M26b", "LEARNED_RANGE_NO_EXP", "D.22", "uses the interpolated logarithm as the variance",
        "σ² = exp(f ln β + (1-f) ln β̃)", {posterior.between: instead(lambda R, f, low, high: f * high + (1 - f) * low)},
        "diffusers PR#2090"),
    Deviation("M27", "LEARNED_RANGE_FRAC", "D.22", "uses v itself as the fraction", "f = (v+1)/2",
        {posterior.learned_fraction: instead(lambda R, v: v)}, "improved-diffusion#7"),
    Deviation("M27b", "LEARNED_RANGE_SWAPPED", "D.22", "swaps the ends: v = -1 gives β", "v = -1 gives β̃, v = 1 gives β",
        {posterior.learned_fraction: instead(lambda R, v: (1 - v) / 2)}, "diffusers PR#132"),
    Deviation("M29", "LEARNED_SIGMA_DISCARDED", "D.22", "drops the variance channels and uses the small variance",
        "σ² from the second half of the channels",
        {ddpm.learned_std: instead(lambda R, v, alpha_bar, t, s:
            float(ddpm.std_of_log(R, posterior.log_small_variance(R, alpha_bar, t, s))))},
        "diffusers DiTPipeline"),
    Deviation("M30", "EPS_MEAN_FORMULA", "D.9", "(x_t - β/(1-ᾱ_t) ε̂)/α: two roots are missing", CORE,
        {ddpm.ddpm_mean: mean_of(lambda x, eps, beta, a, alpha: (x - beta / (1 - a) * eps) / alpha)},
        "a widely copied dev.to tutorial"),
    Deviation("M30b", "EPS_MEAN_WITHOUT_OUTER_ROOT", "D.9", "divides by α", CORE,
        {ddpm.ddpm_mean: mean_of(lambda x, eps, beta, a, alpha: (x - beta / (1 - a) ** 0.5 * eps) / alpha)}, "class"),
    Deviation("M30c", "EPS_MEAN_WITHOUT_INNER_ROOT", "D.9", "β/(1-ᾱ_t) ε̂", CORE,
        {ddpm.ddpm_mean: mean_of(lambda x, eps, beta, a, alpha: (x - beta / (1 - a) * eps) / alpha**0.5)}, "class"),
    Deviation("M31", "CLIP_NOT_REDERIVED", "D.33", "keeps ε̂ beside a clipped x̂_0: the pair no longer gives x_t",
        "ε̂ = (x_t - √ᾱ_t x̂_0)/√(1-ᾱ_t) after clipping", {ddim.eps_after: instead(lambda R, x_t, x_0, eps, a_t: eps)},
        "diffusers (use_clipped_model_output=False), lucidrains PR#84, improved-diffusion#110"),
    Deviation("M32", "CLIP_MISSING", "D.31", "does not clip x̂_0 of pixels", "x̂_0 in [-1, 1] before the posterior's mean",
        {ddpm.pixel_range: instead(lambda R, x_0: x_0)}, "Ho#5, lucidrains#47, #65"),
    Deviation("M32b", "CLIP_ON_LATENTS", "D.31", "clips x̂_0 to [-1, 1] though no range was asked for: latents are wider",
        "x̂_0 as it is", {ddpm.latent_range: instead(lambda R, x_0: np.clip(x_0, -1, 1)), ddpm.ddpm_mean: instead(_clipped_mean)},
        "diffusers (clip_sample=True by default), MONAI PR#495"),
    Deviation("M33", "DYN_THRESHOLD_NOOP", "D.32", "limits q to 1: dynamic is static", "q = clip(quantile, 1, most), most > 1",
        {guidance.saturation: arguments(lambda x_0, p, most: (x_0, p, 1.0))}, "diffusers (sample_max_value=1 by default)"),
    Deviation("M33b", "DYN_THRESHOLD_OF_BATCH", "D.32", "takes one quantile for the whole batch", "the quantile of each sample",
        {guidance.saturation: instead(lambda R, x_0, p, most:
            np.clip(np.quantile(abs(x_0), p), 1.0, most).reshape(1, 1, 1, 1) * np.ones((len(x_0), 1, 1, 1)))},
        "diffusers PR#1349"),
    Deviation("M33c", "DYN_THRESHOLD_IN_HALF", "D.32", "takes the quantile in float16, which torch refuses and NumPy rounds",
        "the quantile in float32 at least", {guidance.saturation: then(lambda q: q.astype(np.float16).astype(np.float64))},
        "diffusers PR#1349"),
    Deviation("M34", "DDIM_SIGMA_FORM", "D.6", "σ = η √(1-ᾱ_t)", SIGMA,
        {ddim.ddim_sigma: instead(lambda R, a_t, a_s, eta: eta * (1 - a_t) ** 0.5)}, "class"),
    Deviation("M34b", "DDIM_SIGMA_RATIO_INVERTED", "D.6", "1-ᾱ_s/ᾱ_t, negative and hidden by a clamp: no noise at all", SIGMA,
        {ddim.ddim_sigma: instead(lambda R, a_t, a_s, eta: eta * max((1 - a_s) / (1 - a_t) * (1 - a_s / a_t), 0.0) ** 0.5)},
        "CoursIA PR#16158"),
    Deviation("M34c", "DDIM_SIGMA_LARGE", "D.6", "σ = η √(1-ᾱ_t/ᾱ_s), the paper's σ̂: at η = 1 not the posterior's", SIGMA,
        {ddim.ddim_sigma: instead(lambda R, a_t, a_s, eta: eta * (1 - a_t / a_s) ** 0.5)}, "DDIM paper's large variant"),
    Deviation("M34d", "DDIM_SIGMA_LEVELS_INVERTED", "D.6", "(1-ᾱ_t)/(1-ᾱ_s): the levels are exchanged", SIGMA,
        {ddim.ddim_sigma: instead(lambda R, a_t, a_s, eta:
            eta * ((1 - a_t) / (1 - a_s) * (1 - a_t / a_s)) ** 0.5 if a_s < 1 else 0.0)}, "class"),
    Deviation("M36", "DDIM_INVERSE_LEVELS", "D.23", "asks the network at t while x is at s", "ε̂(x_s, s), then from ᾱ_s to ᾱ_t",
        {chains.climbing_time: instead(lambda R, s, t, timesteps: t)},
        "diffusers DDIMInverseScheduler, diffusers#10695, #5703, #4654"),
    Deviation("M36b", "DDIM_INVERSE_STARTS_NOISY", "D.23", "takes the data for the lowest rung: the first step is missing",
        "from the data, ᾱ = 1, up to the lowest rung first", {chains.climb_pairs: then(lambda pairs: pairs[1:])},
        "openai ddim_reverse_sample_loop, DragDiffusion#31"),
    Deviation("M36c", "DDIM_INVERSE_WRONG_PAIR", "D.23", "forms x̂_0 with ᾱ of the rung it goes to",
        "x̂_0 = (x_s - √(1-ᾱ_s) ε̂)/√ᾱ_s", {ddim.level_of_pair: instead(lambda R, a_s, a_t: a_t)}, "diffusers PR#5145, PR#5832"),
    Deviation("M37", "V_SIGN", "D.10", "v = √(1-ᾱ) x_0 - √ᾱ ε: the sign is reversed", PAIR_OF_V,
        {conversions.v_of: then(lambda v: -v), conversions.pair_of_v: arguments(lambda x_t, v, a: (x_t, -v, a))},
        "MasaCtrl#34; class"),
    Deviation("M37b", "EPS_SIGN", "D.4", "adds the noise: (x_t + √(1-ᾱ) ε̂)/√ᾱ", "x̂_0 = (x_t - √(1-ᾱ) ε̂)/√ᾱ",
        {conversions.x_0_of_eps: arguments(lambda x_t, eps, a: (x_t, -eps, a))}, "class"),
    Deviation("M37c", "V_COEFFICIENTS_SWAPPED", "D.10", "v = √(1-ᾱ) ε - √ᾱ x_0", PAIR_OF_V,
        {conversions.v_of: instead(lambda R, x_0, eps, a: (1 - a) ** 0.5 * eps - a**0.5 * x_0)}, "class"),
    Deviation("M37d", "V_READ_AS_EPS", "D.10", "reads the output of a v network as ε", PAIR_OF_V,
        {conversions.pair_of_v: instead(lambda R, x_t, v, a: (conversions.x_0_of_eps(R, x_t, v, a), v))}, "MasaCtrl#34"),
    Deviation("M37e", "SCORE_SIGN", "D.11", "score = +ε̂/√(1-ᾱ)", "∇ log q(x_t) = -ε̂/√(1-ᾱ)",
        {conversions.score_from_eps: then(lambda s: -s), conversions.eps_from_score: then(lambda e: -e)}, "class"),
    Deviation("M18", "ZTSNR_WITH_EPS", "D.16", "goes by way of ε̂ where ᾱ_T = 0: 0/0", "x̂_0 = √ᾱ x_t - √(1-ᾱ) v straight from v",
        {ddim.zero_snr_pair: instead(_by_way_of_eps)}, "diffusers#3851, #5103, BELM#8"),
    Deviation("M40", "OBJECTIVE_IGNORED", "D.5", "reads the output as ε whatever the objective",
        "x̂_0 and ε̂ by what the network was trained to say",
        {ddpm.pair_of: instead(lambda R, out, x_t, a_t, objective: (conversions.x_0_of_eps(R, x_t, out, a_t), out))},
        "lucidrains LearnedGaussianDiffusion"),
    Deviation("M84", "CFG_ORDER", "G.1", "takes the two branches for each other: w becomes 1-w", "ε_∅ + w (ε_c - ε_∅)",
        {guidance.combined: arguments(lambda u, c, w: (c, u, w))},
        "Stable Diffusion and DiT lay their batches the opposite way, diffusers#5882"),
    Deviation("M84b", "CFG_BATCH_LAYOUT", "G.1", "splits the doubled batch in the other order",
        "[cond; uncond] in DiT, [uncond; cond] in Stable Diffusion", {guidance.halves: then(lambda pair: (pair[1], pair[0]))},
        "Stable Diffusion and DiT lay their batches the opposite way"),
    Deviation("M85", "CFG_CONVENTION", "G.2", "takes w for ω: (1+w) ε_c - w ε_∅", "w = 1+ω: w = 1 and ω = 0 are conditional",
        {guidance.guide: instead(lambda R, u, c, w: guidance.combined(R, u, c, 1 + w)),
        guidance.guide_cond_first: instead(lambda R, out, w: guidance.combined(R, *guidance.halves(R, out, True), 1 + w)),
        guidance.guide_uncond_first: instead(lambda R, out, w: guidance.combined(R, *guidance.halves(R, out, False), 1 + w))},
        "lucidrains#155, #207, dreamfusion#32, CompVis#796"),
    Deviation("M85b", "CFG_OMEGA_AS_W", "G.2", "takes ω for w: ε_∅ + ω (ε_c - ε_∅)", "w = 1+ω: w = 1 and ω = 0 are conditional",
        {guidance.guide_omega: instead(lambda R, u, c, omega: guidance.combined(R, u, c, omega))}, "lucidrains#155, #207"),
    Deviation("M85c", "CFG_SIGN", "G.1", "w ε_c + (w-1) ε_∅: the sign of ε_∅", "w ε_c - (w-1) ε_∅",
        {guidance.combined: instead(lambda R, u, c, w: w * c + (w - 1) * u)}, "labml (docstring)"),
    Deviation("M86", "CFG_CHANNELS_3", "G.5", "guides the first three channels only, the fourth latent channel stays conditional",
        "all channels of ε̂", {guidance.combined: lambda original:
            lambda R, u, c, w: np.concatenate([original(R, u[:, :3], c[:, :3], w), c[:, 3:]], axis=1)},
        "DiT#41, PR#12, SiT, PixArt, Open-Sora#188, TinyFusion#4"),
]  # fmt: skip
