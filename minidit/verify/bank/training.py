"""Mistakes around the network: label dropout, averages, optimisers, latents, ranges (C4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import Deviation, Form, Patches, Reference
from minidit.verify.topics import latents, training

# ------------------------------------------------------------------------------------------------ label dropout, averages


def _feedback(R: Reference, theta: Array, average: Array, update: Array, decay: float) -> tuple[Array, Array]:
    average = training.ema_update(R, average, theta + update, decay)
    return average, average


# ------------------------------------------------------------------------------------------------ optimiser


def _update(f: Form) -> Patches:
    """f(R, theta, m, v, g, n, lr, b1, b2, eps, wd) instead of the step."""
    return {training.adamw_update: instead(f)}


def _old_moments(
    R: Reference, theta: Array, m: Array, v: Array, g: Array, n: int, lr: float, b1: float, b2: float, eps: float, wd: float
) -> Any:
    ratio = training.adam_ratio(R, *training.corrected(R, m, v, b1, b2, n), eps)
    return training.moved(R, theta, ratio, lr, wd), *training.moments(R, m, v, g, b1, b2)


def _eps_hat(
    R: Reference, theta: Array, m: Array, v: Array, g: Array, n: int, lr: float, b1: float, b2: float, eps: float, wd: float
) -> Any:
    m, v = training.moments(R, m, v, training.gradient_in(R, g, theta, wd), b1, b2)
    ratio = (1 - b2**n) ** 0.5 / (1 - b1**n) * training.adam_ratio(R, m, v, eps)
    return training.moved(R, theta, ratio, lr, wd), m, v


def _second_of_first(original: Form) -> Any:
    def moments(R: Reference, m: Array, v: Array, g: Array, b1: float, b2: float) -> tuple[Array, Array]:
        new = original(R, m, v, g, b1, b2)[0]
        return new, b2 * v + (1 - b2) * new * new

    return moments


# ------------------------------------------------------------------------------------------------ ranges


def _truncated(f: Form) -> Patches:
    return {latents.pixels_out: instead(lambda R, x: np.clip(f(x), 0, 255).astype(np.uint8))}


_ADAMW = "θ ← θ - lr (m̂/(√v̂ + ε) + λ θ), m̂ = m/(1-β₁ⁿ), v̂ = v/(1-β₂ⁿ), n = 1, 2, …"
_MOMENTS = "m ← β₁ m + (1-β₁) g, v ← β₂ v + (1-β₂) g²"
_EMA = "θ̃ ← d θ̃ + (1-d) θ after each step; training never reads θ̃, samplers do"
_DROP = "y ← num_classes with probability p, one decision per sample, in training only"
_LATENT = "z_0 = scale (μ + e^{λ/2} ε)"
_CLIP = "g · min(1, c/‖g‖), ‖g‖ the norm of the whole gradient"
_BYTES = "round(255 (x+1)/2), clipped, ties to even"

BANK = [
    Deviation("M82", "LABEL_DROPOUT_IN_EVAL", "G.7", "drops labels outside training too", _DROP,
        {training.dropout_rate: instead(lambda R, p, train: p)}, "DiT train.py and sample.py warn of it"),
    Deviation("M82b", "LABEL_DROPOUT_NEVER", "G.7", "never drops a label, so that no unconditional branch is learned", _DROP,
        {training.dropout_rate: instead(lambda R, p, train: 0.0)}, "train() forgotten"),
    Deviation("M83", "LABEL_DROPOUT_PER_BLOCK", "G.7", "decides anew in every block: all of them drop with p^L", _DROP,
        {training.dropout_masks: instead(lambda R, seed, depth, B, p:
            np.asarray(Philox(seed, 78).uniform((depth, B), dtype=np.float64) < p))},
        "diffusers DiTTransformer2DModel (7 draws for depth 6), U-DiT#12"),
    Deviation("X10", "LABEL_DROPOUT_KEEPS_P", "G.7", "keeps labels with probability p", _DROP,
        {training.dropout_rate: instead(lambda R, p, train: 1 - p if train else 0.0)}),
    Deviation("X11", "LABEL_DROPOUT_PER_BATCH", "G.7", "one decision for the whole batch", _DROP,
        {training.dropout_masks: instead(lambda R, seed, depth, B, p:
            np.full((1, B), float(Philox(seed, 79).uniform((1,), dtype=np.float64)[0]) < p))}),
    Deviation("M95", "EMA_NOT_USED", "O.4", "the average is the raw weights", _EMA,
        {training.ema_update: instead(lambda R, average, theta, decay: np.array(theta))}, "improved-diffusion#59, diffae#16"),
    Deviation("M95b", "EMA_STALE", "O.4", "no warm-up: dⁿ of the first weights stay in the average (0.9999: 37 % after 10K)",
        "d_n = min(d, (1+n)/(10+n))", {training.ema_decay: instead(lambda R, decay, n: decay)},
        "DiT train.py; DALLE2-pytorch#131"),
    Deviation("M95c", "EMA_NEVER_UPDATED", "O.4", "the average stays as it was", _EMA,
        {training.ema_update: instead(lambda R, average, theta, decay: np.array(average))}),
    Deviation("M95d", "EMA_SWAPPED", "O.4", "(1-d) θ̃ + d θ", _EMA,
        {training.ema_update: lambda f: lambda R, average, theta, decay: f(R, average, theta, 1 - decay)}),
    Deviation("M95e", "EMA_BEFORE_THE_STEP", "O.4", "averages the weights from before the step: one step behind", _EMA,
        {training.ema_step: instead(lambda R, theta, average, update, decay:
            (theta + update, training.ema_update(R, average, theta, decay)))}),
    Deviation("M95f", "EMA_FROM_ZERO", "O.4", "the average starts at zero and is not corrected", "θ̃ starts as θ_0",
        {training.ema_start: then(np.zeros_like)}),
    Deviation("M97", "EMA_FEEDBACK", "O.4", "copies the average back into the trained weights", _EMA,
        {training.ema_step: instead(_feedback)}, "SeqDiffuSeq#8"),
    Deviation("X01", "ADAM_L2_DECAY", "O.2", "adds λθ to the gradient: Adam with L2, not AdamW", _ADAMW,
        {training.gradient_in: instead(lambda R, g, theta, wd: g + wd * theta),
        training.moved: instead(lambda R, theta, ratio, lr, wd: theta - lr * ratio)}, "Loshchilov, Hutter 2019 is about it"),
    Deviation("X02", "ADAM_NO_BIAS_CORRECTION", "O.2", "uses m and v as they are", _ADAMW,
        {training.corrected: instead(lambda R, m, v, b1, b2, n: (m, v))}, "BERT's AdamW"),
    Deviation("X02b", "ADAM_SECOND_MOMENT_UNCORRECTED", "O.2", "corrects m only", _ADAMW,
        {training.corrected: instead(lambda R, m, v, b1, b2, n: (m / (1 - b1**n), v))}),
    Deviation("X02c", "ADAM_FIRST_MOMENT_UNCORRECTED", "O.2", "corrects v only", _ADAMW,
        {training.corrected: instead(lambda R, m, v, b1, b2, n: (m, v / (1 - b2**n)))}),
    Deviation("X03", "ADAM_EPS_IN_ROOT", "O.2", "m̂/√(v̂ + ε)", _ADAMW,
        {training.adam_ratio: instead(lambda R, m, v, eps: m / (v + eps) ** 0.5)}, "optax's eps_root by another name"),
    Deviation("X04", "ADAM_EPS_BEFORE_CORRECTION", "O.2",
        "adds ε to √v before the correction: the ε̂ of Kingma and Ba's other form", _ADAMW, _update(_eps_hat), "TensorFlow"),
    Deviation("X05", "ADAM_STEP_OFF_BY_ONE", "O.2", "corrects with n + 1", _ADAMW,
        {training.corrected: lambda f: lambda R, m, v, b1, b2, n: f(R, m, v, b1, b2, n + 1)}),
    Deviation("X05b", "ADAM_STEP_FROM_ZERO", "O.2", "corrects with n - 1: divides by 0 at the first step", _ADAMW,
        {training.corrected: lambda f: lambda R, m, v, b1, b2, n: f(R, m, v, b1, b2, n - 1)}),
    Deviation("X06", "ADAM_SECOND_MOMENT_OF_M", "O.1", "averages m² in place of g²", _MOMENTS,
        {training.moments: _second_of_first}),
    Deviation("X07", "DECAY_WITHOUT_RATE", "O.2", "the decay is not multiplied by lr", _ADAMW,
        {training.moved: instead(lambda R, theta, ratio, lr, wd: theta - lr * ratio - wd * theta)},
        "Loshchilov, Hutter 2019 write it with η alone"),
    Deviation("X07b", "DECAY_SIGN", "O.2", "the decay lets the weights grow", _ADAMW,
        {training.moved: lambda f: lambda R, theta, ratio, lr, wd: f(R, theta, ratio, lr, -wd)}),
    Deviation("X07c", "DECAY_FORGOTTEN", "O.2", "no decay", _ADAMW,
        {training.moved: lambda f: lambda R, theta, ratio, lr, wd: f(R, theta, ratio, lr, 0.0)}),
    Deviation("X08", "DECAY_ON_EVERYTHING", "O.2", "biases and gains decay too", "weights of two axes or more decay",
        {training.decays: instead(lambda R, name, shape: True)}, "torch.optim.AdamW over model.parameters()"),
    Deviation("X09", "ADAM_BETAS_SWAPPED", "O.1", "β₂ for m and β₁ for v", _MOMENTS, {training.adamw_update: lambda original:
            lambda R, theta, m, v, g, n, lr, b1, b2, eps, wd: original(R, theta, m, v, g, n, lr, b2, b1, eps, wd)}),
    Deviation("X12", "ADAM_OLD_MOMENTS", "O.2", "moves by the moments from before this gradient", _ADAMW, _update(_old_moments)),
    Deviation("X13", "ADAM_ASCENDS", "O.2", "θ + lr …: uphill", _ADAMW,
        {training.moved: instead(lambda R, theta, ratio, lr, wd: theta + lr * ratio - lr * wd * theta)}),
    Deviation("X15", "CLIP_EACH", "O.3", "clips every array by its own norm", _CLIP,
        {training.clip_factor: instead(lambda R, gradients, name, limit:
            float(min(1.0, limit / (gradients[name] ** 2).sum() ** 0.5)))}),
    Deviation("X15b", "CLIP_BY_VALUE", "O.3", "clips every number", _CLIP,
        {training.clip_gradients: instead(lambda R, gradients, limit:
            {k: np.clip(g, -limit, limit) for k, g in gradients.items()})}, "clip_grad_value_ for clip_grad_norm_"),
    Deviation("X15c", "CLIP_ALWAYS", "O.3", "rescales small gradients too", _CLIP,
        {training.clip_factor: instead(lambda R, gradients, name, limit:
            float(limit / sum((g * g).sum() for g in gradients.values()) ** 0.5))}),
    Deviation("X15d", "CLIP_SQUARED_NORM", "O.3", "divides by the squared norm", _CLIP,
        {training.clip_factor: instead(lambda R, gradients, name, limit:
            min(1.0, limit / float(sum((g * g).sum() for g in gradients.values()))))}),
    Deviation("X16", "WARMUP_FROM_ZERO", "O.5", "lr (n-1)/warmup: the first step does nothing", "lr n/warmup, n = 1, 2, …",
        {training.warmup_rate: lambda f: lambda R, n, lr, warmup: f(R, n - 1, lr, warmup)}, "LambdaLR with step/warmup"),
    Deviation("M88", "VAE_SCALE_FORGOTTEN", "L.5", "trains on unscaled latents, of std 5.5", _LATENT,
        {latents.scaled: instead(lambda R, z, scale: z)},
        "Open-Sora#493, LightningDiT#34, VDM_EVFI#4, finetrainers#101, fast-DiT#7, SimpleTuner#1560"),
    Deviation("M88b", "VAE_UNSCALE_FORGOTTEN", "L.3", "decodes scaled latents", "z_0 / scale before the decoder",
        {latents.unscaled: instead(lambda R, z, scale: z)}, "Open-Sora#494"),
    Deviation("M89", "VAE_SCALE_TWICE", "L.5", "multiplies by the scale twice", _LATENT,
        {latents.scaled: instead(lambda R, z, scale: z * scale * scale)}, "Open-Sora#493"),
    Deviation("M89b", "VAE_SCALE_OF_SDXL", "L.5", "0.13025, the scale of SDXL's autoencoder", _LATENT,
        {latents.scaled: instead(lambda R, z, scale: z * 0.13025)}, "Open-Sora#493"),
    Deviation("M89c", "VAE_SCALE_INVERTED", "L.5", "divides by the scale when encoding", _LATENT,
        {latents.scaled: instead(lambda R, z, scale: z / scale)}),
    Deviation("M89d", "VAE_UNSCALE_INVERTED", "L.3", "multiplies by the scale when decoding", "z_0 / scale before the decoder",
        {latents.unscaled: instead(lambda R, z, scale: z * scale)}),
    Deviation("M90", "VAE_MODE_VS_SAMPLE", "L.1", "trains on the mean of the posterior", _LATENT,
        {latents.posterior_sample: instead(lambda R, mean, logvar, eps: mean)}, "OOTDiffusion#132"),
    Deviation("M90b", "VAE_LOGVAR_DROPPED", "L.1", "takes the log-variance for 0: μ + ε", _LATENT,
        {latents.posterior_std: then(np.ones_like)}, "candle PR#3841, diffusers PR#13657"),
    Deviation("M90c", "VAE_LOGVAR_AS_LOG_STD", "L.1", "e^λ for the standard deviation", _LATENT,
        {latents.posterior_std: instead(lambda R, logvar: np.exp(logvar))}),
    Deviation("M90d", "VAE_LOGVAR_AS_STD", "L.1", "λ for the standard deviation", _LATENT,
        {latents.posterior_std: instead(lambda R, logvar: logvar)}),
    Deviation("X17", "SCALE_BY_VARIANCE", "L.3", "1 / variance", "1 / std over all numbers",
        {latents.measured_scale: instead(lambda R, z: float(1 / z.var()))}),
    Deviation("X18", "SCALE_IS_STD", "L.3", "the std itself", "1 / std over all numbers",
        {latents.measured_scale: instead(lambda R, z: float(z.std()))}),
    Deviation("M91", "VAE_PAD", "L.7", "zeros on all four sides (or above and to the left): the picture moves by a pixel",
        "zeros below and to the right",
        {latents.halve_padding: instead(lambda R, x: np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))))},
        "divamgupta stable-diffusion-tensorflow PR#42"),
    Deviation("M93", "DATA_RANGE", "D.1", "pixels in [0, 1]", "u/127.5 - 1: the prior and the clip assume [-1, 1]",
        {latents.pixels_in: instead(lambda R, u: u / 255)}, "lucidrains#20, #156, #307; OCT_DDPM#3"),
    Deviation("M93b", "DATA_RANGE_BYTES", "D.1", "pixels in [0, 255]", "u/127.5 - 1: the prior and the clip assume [-1, 1]",
        {latents.pixels_in: instead(lambda R, u: u.astype(np.float64))}),
    Deviation("M93c", "DATA_RANGE_128", "D.1", "u/128 - 1: white is 0.992", "u/127.5 - 1",
        {latents.pixels_in: instead(lambda R, u: u / 128 - 1)}),
    Deviation("M94", "UINT8_ROUND", "E.8", "truncates 127.5 x + 128: ties go up", _BYTES, _truncated(lambda x: 127.5 * x + 128),
        "DiT sample_ddp.py, ADM"),
    Deviation("M94b", "UINT8_TRUNCATED", "E.8", "truncates 255 (x+1)/2: half a level darker", _BYTES,
        _truncated(lambda x: 255 * (x + 1) / 2), "imeanflow#5"),
    Deviation("M94c", "UINT8_WRAPS", "E.8", "does not clip: 256 wraps to 0", _BYTES,
        {latents.pixels_out: instead(lambda R, x: np.rint(255 * (x + 1) / 2).astype(np.int64).astype(np.uint8))}),
]  # fmt: skip


def _norm_and_a_little(R: Reference, gradients: Any, name: str, limit: float) -> float:
    norm = float(sum((g * g).sum() for g in gradients.values())) ** 0.5
    return float(min(1.0, limit / (norm + 1e-6)))


HABITS = [  # too small to be wrong: they pass, and are called by their name
    Deviation("H01", "CLIP_EPSILON", "O.3", "adds 1e-6 to the norm", _CLIP, {training.clip_factor: instead(_norm_and_a_little)},
        "a habit of torch.nn.utils.clip_grad_norm_"),
]  # fmt: skip
