"""Mistakes of losses and weights (C2), the bound (C3), and the numbers of pictures (C4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.diffusion.likelihood import tanh_cdf
from minidit.random import Philox
from minidit.verify.bank.wrap import instead
from minidit.verify.core.reference import Deviation

BIN = "half a bin is 1/255: the 256 levels of [-1, 1] are 2/255 apart"


def _uniform(R: Any, shape: Any) -> Any:
    return Philox(65).uniform(shape, dtype=np.float64)


def _symmetric_uniform(R: Any, shape: Any) -> Any:
    return 2 * _uniform(R, shape) - 1


def _always_eps(R: Any, x_0: Any, eps: Any, a: Any, objective: str) -> Any:
    return eps


def _other_target(R: Any, x_0: Any, eps: Any, a: Any, objective: str) -> Any:
    return {"eps": x_0, "x_0": eps}.get(objective, R.v_of(x_0, eps, a))


def _scaled_noise(R: Any, x_0: Any, eps: Any, a: Any, objective: str) -> Any:
    return (1 - a) ** 0.5 * eps if objective == "eps" else {"x_0": x_0}.get(objective, R.v_of(x_0, eps, a))


def _plus_one_first(R: Any, alpha_bar: Any, gamma: float) -> Any:
    snr = R.snr(alpha_bar)
    return np.minimum(snr + 1, gamma) / (snr + 1)


def _divided(R: Any, alpha_bar: Any, gamma: float) -> Any:
    return np.minimum(R.snr(alpha_bar), gamma) / R.snr(alpha_bar)


def _without_decoder(R: Any, t: int) -> bool:
    return False


BANK = [
    Deviation(
        "M38", "LAMBDA_WITHOUT_T", "D.36",
        wrong="λ = 0.001 on one term of the bound: the variance learns T times too slowly",
        right="λ T L_vb: one term is 1/T of the bound on average",
        seen="lucidrains LearnedGaussianDiffusion, improved-diffusion#17, #114, #147, #153",
        patches={"bound_factor": instead(lambda R, T: 1e-3)},
    ),
    Deviation(
        "M39", "VLB_MEAN_LEAK", "D.36",
        wrong="lets the bound's gradient into ε̂",
        right="ε̂ is a constant in the bound: its gradient trains the variance alone",
        seen="DiT#55",
        patches={"leak": instead(lambda R: 1.0)},
    ),
    Deviation(
        "M41", "NOISE_DISTRIBUTION", "R.3",
        wrong="draws noise uniformly from [0, 1)",
        right="standard normal",
        seen="acids-ircam#8, flow_matching#7",
        patches={"noise": instead(_uniform)},
    ),
    Deviation(
        "M41b", "NOISE_UNIFORM_SYMMETRIC", "R.3",
        wrong="draws noise uniformly from [-1, 1)",
        right="standard normal",
        seen="class",
        patches={"noise": instead(_symmetric_uniform)},
    ),
    Deviation(
        "M42", "LOSS_TARGET", "D.34",
        wrong="compares an ε network with x_0, and the other way round",
        right="‖ε - ε̂‖² for ε, ‖x_0 - x̂_0‖² for x_0",
        seen="tqch#2, DALLE2-pytorch PR#16",
        patches={"target_of": instead(_other_target)},
    ),
    Deviation(
        "M42b", "LOSS_TARGET_SCALED", "D.34",
        wrong="compares with √(1-ᾱ) ε, the noise as it was added",
        right="‖ε - ε̂‖², ε of unit variance",
        seen="DALLE2-pytorch PR#16",
        patches={"target_of": instead(_scaled_noise)},
    ),
    Deviation(
        "M42c", "LOSS_TARGET_ALWAYS_EPS", "D.34",
        wrong="compares with ε whatever the objective",
        right="the target of the objective",
        seen="class",
        patches={"target_of": instead(_always_eps)},
    ),
    Deviation(
        "M43", "MINSNR_V", "D.35",
        wrong="min(SNR+1, γ)/(SNR+1)",
        right="min(SNR, γ)/(SNR+1)",
        seen="diffusers#5654, #9451, kohya#673",
        patches={"min_snr_v": instead(_plus_one_first)},
    ),
    Deviation(
        "M44", "MINSNR_DIV0", "D.35",
        wrong="divides by SNR = 0 where ᾱ_T = 0: not a number",
        right="min(SNR,γ)/SNR = 1 where SNR ≤ γ",
        seen="Min-SNR#2, PR#4, SimpleTuner#187",
        patches={"min_snr_eps": instead(_divided)},
    ),
    Deviation(
        "M45", "IMPORTANCE_WEIGHT_MISSING", "D.37",
        wrong="draws t from p without a weight",
        right="1/(T p_t)",
        seen="rlcode/per#3",
        patches={"importance_weights": instead(lambda R, p, t: np.ones(len(t)))},
    ),
    Deviation(
        "M45b", "IMPORTANCE_WEIGHT_WITHOUT_T", "D.37",
        wrong="weights by 1/p_t: T times the loss",
        right="1/(T p_t)",
        seen="class",
        patches={"importance_weights": instead(lambda R, p, t: 1 / p[t])},
    ),
    Deviation(
        "M48", "BIN_WIDTH", "K.4",
        wrong="half a bin of 1/127.5: bins overlap, probabilities add up to 2",
        right=BIN,
        seen="class",
        patches={"half_bin": instead(lambda R: 1 / 127.5)},
    ),
    Deviation(
        "M48b", "BIN_WIDTH_256", "K.4",
        wrong="half a bin of 1/256",
        right=BIN,
        seen="score_sde#51",
        patches={"half_bin": instead(lambda R: 1 / 256)},
    ),
    Deviation(
        "M48c", "BIN_OF_UNIT_RANGE", "K.4",
        wrong="half a bin of 1/510, that of data in [0, 1]",
        right=BIN,
        seen="score_sde#51",
        patches={"half_bin": instead(lambda R: 1 / 510)},
    ),
    Deviation(
        "M49", "LOGVAR_AS_LOGSCALE", "K.4",
        wrong="uses ln σ² as ln σ",
        right="ln σ = ½ ln σ²",
        seen="class",
        patches={"log_scale": instead(lambda R, log_variance: log_variance)},
    ),
    Deviation(
        "M50", "DECODER_ON_LATENTS", "K.6",
        wrong="scores latents as if they were grey levels in [-1, 1]",
        right="½ (ln 2π + λ + (x-μ)² e^-λ)",
        seen="dit-official (DiT#52)",
        patches={"latent_nll": instead(lambda R, x, mean, log_variance: R.discretised_nll(x, mean, log_variance))},
    ),
    Deviation(
        "M51", "KL_REDUCTION", "K.7",
        wrong="sums over the dimensions: bits a picture",
        right="mean over dimensions, divided by ln 2",
        seen="Michedev#5, improved-diffusion#33, vdvae#5",
        patches={"over_dimensions": instead(lambda R, nats: nats.sum(axis=tuple(range(1, nats.ndim))))},
    ),
    Deviation(
        "M51b", "NATS_AS_BITS", "K.7",
        wrong="reports nats",
        right="mean over dimensions, divided by ln 2",
        seen="keras-io#270, sigma-vae-tf#2",
        patches={"per_bit": instead(lambda R: 1.0)},
    ),
    Deviation(
        "M51c", "BOUND_MEAN_OVER_T", "K.8",
        wrong="averages the terms over t",
        right="L_T + Σ L_{t-1} + L_0, a sum",
        seen="improved-diffusion#33, MMVAE PR#19",
        patches={"sum_of_terms": instead(lambda R, terms: terms.mean(axis=0))},
    ),
    Deviation(
        "M53", "VLB_TERM_SET", "K.8",
        wrong="takes a KL at t = 0 where the decoder's likelihood belongs",
        right="L_0 = -ln p(x_0|x_1)",
        seen="Michedev#5, Ambiguous-Med#5",
        patches={"is_decoder_step": instead(_without_decoder)},
    ),
    Deviation(
        "M53b", "PRIOR_DROPPED", "K.8",
        wrong="leaves out the prior term",
        right="L_T + Σ L_{t-1} + L_0",
        seen="Michedev#5",
        patches={"prior_share": instead(lambda R: 0.0)},
    ),
    Deviation(
        "M53c", "PRIOR_TWICE", "K.8",
        wrong="counts the prior term twice",
        right="L_T + Σ L_{t-1} + L_0",
        seen="Ambiguous-Med#5",
        patches={"prior_share": instead(lambda R: 2.0)},
    ),
    Deviation(
        "M54", "TANH_CDF_AS_EXACT", "K.5",
        wrong="uses the tanh form of Φ, 1.8e-4 off, without saying so",
        right="Φ(z) = ½ erfc(-z/√2)",
        seen="openai, dit-official, GLIDE",
        patches={"cdf": instead(lambda R, z: tanh_cdf(z))},
    ),
    Deviation(
        "C05", "HYBRID_FACTOR_ONE", "D.36",
        wrong="the bound's term with factor 1 for every T: a convention that agrees at T = 1000",
        right="λ T L_vb, λ = 0.001",
        seen="dit-official",
        patches={"bound_factor": instead(lambda R, T: 1.0)},
    ),
]  # fmt: skip
