"""Mistakes of losses and weights (C2), the bound (C3), and the numbers of pictures (C4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.diffusion.likelihood import tanh_cdf
from minidit.random import Philox
from minidit.verify.bank.wrap import instead
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import conversions, likelihood, losses

BIN = "half a bin is 1/255: the 256 levels of [-1, 1] are 2/255 apart"


def _uniform(R: Reference, shape: Any) -> Array:
    return Philox(65).uniform(shape, dtype=np.float64)


def _plus_one_first(R: Reference, alpha_bar: Array, gamma: float) -> Array:
    more = losses.snr(R, alpha_bar) + 1
    return np.minimum(more, gamma) / more


BANK = [
    Deviation("M38", "LAMBDA_WITHOUT_T", "D.36", "λ = 0.001 on one term of the bound: the variance learns T times too slowly",
        "λ T L_vb: one term is 1/T of the bound on average", {losses.bound_factor: instead(lambda R, T: 1e-3)},
        "lucidrains LearnedGaussianDiffusion, improved-diffusion#17, #114, #147, #153"),
    Deviation("M39", "VLB_MEAN_LEAK", "D.36", "lets the bound's gradient into ε̂",
        "ε̂ is a constant in the bound: its gradient trains the variance alone", {losses.leak: instead(lambda R: 1.0)}, "DiT#55"),
    Deviation("M41", "NOISE_DISTRIBUTION", "R.3", "draws noise uniformly from [0, 1)", "standard normal",
        {losses.noise: instead(_uniform)}, "acids-ircam#8, flow_matching#7"),
    Deviation("M41b", "NOISE_UNIFORM_SYMMETRIC", "R.3", "draws noise uniformly from [-1, 1)", "standard normal",
        {losses.noise: instead(lambda R, shape: 2 * _uniform(R, shape) - 1)}, "class"),
    Deviation("M42", "LOSS_TARGET", "D.34", "compares an ε network with x_0, and the other way round",
        "‖ε - ε̂‖² for ε, ‖x_0 - x̂_0‖² for x_0", {losses.target_of: instead(lambda R, x_0, eps, a, objective:
            {"eps": x_0, "x_0": eps}.get(objective, conversions.v_of(R, x_0, eps, a)))}, "tqch#2, DALLE2-pytorch PR#16"),
    Deviation("M42b", "LOSS_TARGET_SCALED", "D.34", "compares with √(1-ᾱ) ε, the noise as it was added",
        "‖ε - ε̂‖², ε of unit variance", {losses.target_of: instead(lambda R, x_0, eps, a, objective:
            (1 - a) ** 0.5 * eps if objective == "eps" else {"x_0": x_0}.get(objective, conversions.v_of(R, x_0, eps, a)))},
        "DALLE2-pytorch PR#16"),
    Deviation("M42c", "LOSS_TARGET_ALWAYS_EPS", "D.34", "compares with ε whatever the objective", "the target of the objective",
        {losses.target_of: instead(lambda R, x_0, eps, a, objective: eps)}, "class"),
    Deviation("M43", "MINSNR_V", "D.35", "min(SNR+1, γ)/(SNR+1)", "min(SNR, γ)/(SNR+1)",
        {losses.min_snr_v: instead(_plus_one_first)}, "diffusers#5654, #9451, kohya#673"),
    Deviation("M44", "MINSNR_DIV0", "D.35", "divides by SNR = 0 where ᾱ_T = 0: not a number", "min(SNR,γ)/SNR = 1 where SNR ≤ γ",
        {losses.min_snr_eps: instead(lambda R, alpha_bar, gamma:
            np.minimum(losses.snr(R, alpha_bar), gamma) / losses.snr(R, alpha_bar))}, "Min-SNR#2, PR#4, SimpleTuner#187"),
    Deviation("M45", "IMPORTANCE_WEIGHT_MISSING", "D.37", "draws t from p without a weight", "1/(T p_t)",
        {losses.importance_weights: instead(lambda R, p, t: np.ones(len(t)))}, "rlcode/per#3"),
    Deviation("M45b", "IMPORTANCE_WEIGHT_WITHOUT_T", "D.37", "weights by 1/p_t: T times the loss", "1/(T p_t)",
        {losses.importance_weights: instead(lambda R, p, t: 1 / p[t])}, "class"),
    Deviation("M48", "BIN_WIDTH", "K.4", "half a bin of 1/127.5: bins overlap, probabilities add up to 2", BIN,
        {likelihood.half_bin: instead(lambda R: 1 / 127.5)}, "class"),
    Deviation("M48b", "BIN_WIDTH_256", "K.4", "half a bin of 1/256", BIN, {likelihood.half_bin: instead(lambda R: 1 / 256)},
        "score_sde#51"),
    Deviation("M48c", "BIN_OF_UNIT_RANGE", "K.4", "half a bin of 1/510, that of data in [0, 1]", BIN,
        {likelihood.half_bin: instead(lambda R: 1 / 510)}, "score_sde#51"),
    Deviation("M49", "LOGVAR_AS_LOGSCALE", "K.4", "uses ln σ² as ln σ", "ln σ = ½ ln σ²",
        {likelihood.log_scale: instead(lambda R, log_variance: log_variance)}, "class"),
    Deviation("M50", "DECODER_ON_LATENTS", "K.6", "scores latents as if they were grey levels in [-1, 1]",
        "½ (ln 2π + λ + (x-μ)² e^-λ)",
        {likelihood.latent_nll: instead(lambda R, x, mean, log_variance: likelihood.discretised_nll(R, x, mean, log_variance))},
        "dit-official (DiT#52)"),
    Deviation("M51", "KL_REDUCTION", "K.7", "sums over the dimensions: bits per picture", "mean over dimensions, divided by ln 2",
        {likelihood.over_dimensions: instead(lambda R, nats: nats.sum(axis=tuple(range(1, nats.ndim))))},
        "Michedev#5, improved-diffusion#33, vdvae#5"),
    Deviation("M51b", "NATS_AS_BITS", "K.7", "reports nats", "mean over dimensions, divided by ln 2",
        {likelihood.per_bit: instead(lambda R: 1.0)}, "keras-io#270, sigma-vae-tf#2"),
    Deviation("M51c", "BOUND_MEAN_OVER_T", "K.8", "averages the terms over t", "L_T + Σ L_{t-1} + L_0, a sum",
        {likelihood.sum_of_terms: instead(lambda R, terms: terms.mean(axis=0))}, "improved-diffusion#33, MMVAE PR#19"),
    Deviation("M53", "VLB_TERM_SET", "K.8", "takes a KL at t = 0 where the decoder's likelihood belongs", "L_0 = -ln p(x_0|x_1)",
        {likelihood.is_decoder_step: instead(lambda R, t: False)}, "Michedev#5, Ambiguous-Med#5"),
    Deviation("M53b", "PRIOR_DROPPED", "K.8", "leaves out the prior term", "L_T + Σ L_{t-1} + L_0",
        {likelihood.prior_share: instead(lambda R: 0.0)}, "Michedev#5"),
    Deviation("M53c", "PRIOR_TWICE", "K.8", "counts the prior term twice", "L_T + Σ L_{t-1} + L_0",
        {likelihood.prior_share: instead(lambda R: 2.0)}, "Ambiguous-Med#5"),
    Deviation("M54", "TANH_CDF_AS_EXACT", "K.5", "uses the tanh form of Φ, 1.8e-4 off, without saying so", "Φ(z) = ½ erfc(-z/√2)",
        {likelihood.cdf: instead(lambda R, z: tanh_cdf(z))}, "openai, dit-official, GLIDE"),
    Deviation("C05", "HYBRID_FACTOR_ONE", "D.36",
        "the bound's term with factor 1 for every T: a convention that agrees at T = 1000", "λ T L_vb, λ = 0.001",
        {losses.bound_factor: instead(lambda R, T: 1.0)}, "dit-official"),
]  # fmt: skip
