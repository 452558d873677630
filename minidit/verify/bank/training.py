"""Mistakes around the network: label dropout, averages, optimisers, latents, ranges (C4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import Deviation

# ------------------------------------------------------------------------------------------------ label dropout, averages


def _masks_per_block(R: Any, seed: int, depth: int, B: int, p: float) -> Array:
    return np.asarray(Philox(seed, 78).uniform((depth, B), dtype=np.float64) < p)


def _one_mask(R: Any, seed: int, depth: int, B: int, p: float) -> Array:
    return np.full((1, B), float(Philox(seed, 79).uniform((1,), dtype=np.float64)[0]) < p)


def _feedback(R: Any, theta: Array, average: Array, update: Array, decay: float) -> tuple[Array, Array]:
    average = R.ema_update(average, theta + update, decay)
    return average, average


def _before_the_step(R: Any, theta: Array, average: Array, update: Array, decay: float) -> tuple[Array, Array]:
    return theta + update, R.ema_update(average, theta, decay)


# ------------------------------------------------------------------------------------------------ optimiser


def _update(f: Any) -> Any:
    """f(R, theta, m, v, g, n, lr, b1, b2, eps, wd) instead of the step."""
    return {"adamw_update": instead(f)}


def _old_moments(
    R: Any, theta: Array, m: Array, v: Array, g: Array, n: int, lr: float, b1: float, b2: float, eps: float, wd: float
) -> Any:
    ratio = R.adam_ratio(*R.corrected(m, v, b1, b2, n), eps)
    return R.moved(theta, ratio, lr, wd), *R.moments(m, v, g, b1, b2)


def _eps_hat(
    R: Any, theta: Array, m: Array, v: Array, g: Array, n: int, lr: float, b1: float, b2: float, eps: float, wd: float
) -> Any:
    m, v = R.moments(m, v, R.gradient_in(g, theta, wd), b1, b2)
    ratio = (1 - b2**n) ** 0.5 / (1 - b1**n) * R.adam_ratio(m, v, eps)
    return R.moved(theta, ratio, lr, wd), m, v


def _swapped_betas(original: Any) -> Any:
    return lambda R, theta, m, v, g, n, lr, b1, b2, eps, wd: original(R, theta, m, v, g, n, lr, b2, b1, eps, wd)


def _each_norm(R: Any, gradients: dict[str, Array], name: str, limit: float) -> float:
    return float(min(1.0, limit / (gradients[name] ** 2).sum() ** 0.5))


def _always(R: Any, gradients: dict[str, Array], name: str, limit: float) -> float:
    return float(limit / sum((g * g).sum() for g in gradients.values()) ** 0.5)


def _no_root(R: Any, gradients: dict[str, Array], name: str, limit: float) -> float:
    return min(1.0, limit / float(sum((g * g).sum() for g in gradients.values())))


def _by_value(R: Any, gradients: dict[str, Array], limit: float) -> dict[str, Array]:
    return {k: np.clip(g, -limit, limit) for k, g in gradients.items()}


# ------------------------------------------------------------------------------------------------ ranges


def _truncated(f: Any) -> Any:
    return {"pixels_out": instead(lambda R, x: np.clip(f(x), 0, 255).astype(np.uint8))}


_ADAMW = "θ ← θ - lr (m̂/(√v̂ + ε) + λ θ), m̂ = m/(1-β₁ⁿ), v̂ = v/(1-β₂ⁿ), n = 1, 2, …"
_MOMENTS = "m ← β₁ m + (1-β₁) g, v ← β₂ v + (1-β₂) g²"
_EMA = "θ̃ ← d θ̃ + (1-d) θ after each step; training never reads θ̃, samplers do"
_DROP = "y ← num_classes with probability p, one decision a sample, in training only"
_LATENT = "z_0 = scale (μ + e^{λ/2} ε)"
_CLIP = "g · min(1, c/‖g‖), ‖g‖ the norm of the whole gradient"
_BYTES = "round(255 (x+1)/2), clipped, ties to even"

BANK = [
    Deviation(
        "M82", "LABEL_DROPOUT_IN_EVAL", "G.7", wrong="drops labels outside training too", right=_DROP,
        seen="DiT train.py and sample.py warn of it", patches={"dropout_rate": instead(lambda R, p, train: p)},
    ),
    Deviation(
        "M82b", "LABEL_DROPOUT_NEVER", "G.7", wrong="never drops a label, so that no unconditional branch is learned",
        right=_DROP,
        seen="train() forgotten", patches={"dropout_rate": instead(lambda R, p, train: 0.0)},
    ),
    Deviation(
        "M83", "LABEL_DROPOUT_PER_BLOCK", "G.7", wrong="decides anew in every block: all of them drop with p^L",
        right=_DROP,
        seen="diffusers DiTTransformer2DModel (7 draws for depth 6), U-DiT#12",
        patches={"dropout_masks": instead(_masks_per_block)},
    ),
    Deviation(
        "X10", "LABEL_DROPOUT_KEEPS_P", "G.7", wrong="keeps labels with probability p", right=_DROP,
        patches={"dropout_rate": instead(lambda R, p, train: 1 - p if train else 0.0)},
    ),
    Deviation(
        "X11", "LABEL_DROPOUT_PER_BATCH", "G.7", wrong="one decision for the whole batch", right=_DROP,
        patches={"dropout_masks": instead(_one_mask)},
    ),
    Deviation(
        "M95", "EMA_NOT_USED", "O.4", wrong="the average is the raw weights", right=_EMA,
        seen="improved-diffusion#59, diffae#16",
        patches={"ema_update": instead(lambda R, average, theta, decay: np.array(theta))},
    ),
    Deviation(
        "M95b", "EMA_STALE", "O.4",
        wrong="no warm-up: dⁿ of the first weights stay in the average (0.9999: 37 % after 10K)",
        right="d_n = min(d, (1+n)/(10+n))", seen="DiT train.py; DALLE2-pytorch#131",
        patches={"ema_decay": instead(lambda R, decay, n: decay)},
    ),
    Deviation(
        "M95c", "EMA_NEVER_UPDATED", "O.4", wrong="the average stays as it was", right=_EMA,
        patches={"ema_update": instead(lambda R, average, theta, decay: np.array(average))},
    ),
    Deviation(
        "M95d", "EMA_SWAPPED", "O.4", wrong="(1-d) θ̃ + d θ", right=_EMA,
        patches={"ema_update": lambda f: lambda R, average, theta, decay: f(R, average, theta, 1 - decay)},
    ),
    Deviation(
        "M95e", "EMA_BEFORE_THE_STEP", "O.4", wrong="averages the weights from before the step: one step behind",
        right=_EMA,
        patches={"ema_step": instead(_before_the_step)},
    ),
    Deviation(
        "M95f", "EMA_FROM_ZERO", "O.4", wrong="the average starts at zero and is not corrected",
        right="θ̃ starts as θ_0",
        patches={"ema_start": then(np.zeros_like)},
    ),
    Deviation(
        "M97", "EMA_FEEDBACK", "O.4", wrong="copies the average back into the trained weights", right=_EMA,
        seen="SeqDiffuSeq#8",
        patches={"ema_step": instead(_feedback)},
    ),
    Deviation(
        "X01", "ADAM_L2_DECAY", "O.2", wrong="adds λθ to the gradient: Adam with L2, not AdamW", right=_ADAMW,
        seen="Loshchilov, Hutter 2019 is about it",
        patches={"gradient_in": instead(lambda R, g, theta, wd: g + wd * theta),
                 "moved": instead(lambda R, theta, ratio, lr, wd: theta - lr * ratio)},
    ),
    Deviation(
        "X02", "ADAM_NO_BIAS_CORRECTION", "O.2", wrong="uses m and v as they are", right=_ADAMW,
        seen="BERT's AdamW", patches={"corrected": instead(lambda R, m, v, b1, b2, n: (m, v))},
    ),
    Deviation(
        "X02b", "ADAM_SECOND_MOMENT_UNCORRECTED", "O.2", wrong="corrects m only", right=_ADAMW,
        patches={"corrected": instead(lambda R, m, v, b1, b2, n: (m / (1 - b1**n), v))},
    ),
    Deviation(
        "X02c", "ADAM_FIRST_MOMENT_UNCORRECTED", "O.2", wrong="corrects v only", right=_ADAMW,
        patches={"corrected": instead(lambda R, m, v, b1, b2, n: (m, v / (1 - b2**n)))},
    ),
    Deviation(
        "X03", "ADAM_EPS_IN_ROOT", "O.2", wrong="m̂/√(v̂ + ε)", right=_ADAMW, seen="optax's eps_root by another name",
        patches={"adam_ratio": instead(lambda R, m, v, eps: m / (v + eps) ** 0.5)},
    ),
    Deviation(
        "X04", "ADAM_EPS_BEFORE_CORRECTION", "O.2",
        wrong="adds ε to √v before the correction: the ε̂ of Kingma and Ba's other form",
        right=_ADAMW, seen="TensorFlow", patches=_update(_eps_hat),
    ),
    Deviation(
        "X05", "ADAM_STEP_OFF_BY_ONE", "O.2", wrong="corrects with n + 1", right=_ADAMW,
        patches={"corrected": lambda f: lambda R, m, v, b1, b2, n: f(R, m, v, b1, b2, n + 1)},
    ),
    Deviation(
        "X05b", "ADAM_STEP_FROM_ZERO", "O.2", wrong="corrects with n - 1: divides by 0 at the first step", right=_ADAMW,
        patches={"corrected": lambda f: lambda R, m, v, b1, b2, n: f(R, m, v, b1, b2, n - 1)},
    ),
    Deviation(
        "X06", "ADAM_SECOND_MOMENT_OF_M", "O.1", wrong="averages m² in place of g²", right=_MOMENTS,
        patches={"moments": lambda f: lambda R, m, v, g, b1, b2: (
            (new := f(R, m, v, g, b1, b2)[0]), b2 * v + (1 - b2) * new * new)},
    ),
    Deviation(
        "X07", "DECAY_WITHOUT_RATE", "O.2", wrong="the decay is not multiplied by lr", right=_ADAMW,
        seen="Loshchilov, Hutter 2019 write it with η alone",
        patches={"moved": instead(lambda R, theta, ratio, lr, wd: theta - lr * ratio - wd * theta)},
    ),
    Deviation(
        "X07b", "DECAY_SIGN", "O.2", wrong="the decay lets the weights grow", right=_ADAMW,
        patches={"moved": lambda f: lambda R, theta, ratio, lr, wd: f(R, theta, ratio, lr, -wd)},
    ),
    Deviation(
        "X07c", "DECAY_FORGOTTEN", "O.2", wrong="no decay", right=_ADAMW,
        patches={"moved": lambda f: lambda R, theta, ratio, lr, wd: f(R, theta, ratio, lr, 0.0)},
    ),
    Deviation(
        "X08", "DECAY_ON_EVERYTHING", "O.2", wrong="biases and gains decay too",
        right="weights of two axes or more decay",
        seen="torch.optim.AdamW over model.parameters()", patches={"decays": instead(lambda R, name, shape: True)},
    ),
    Deviation(
        "X09", "ADAM_BETAS_SWAPPED", "O.1", wrong="β₂ for m and β₁ for v", right=_MOMENTS,
        patches={"adamw_update": _swapped_betas},
    ),
    Deviation(
        "X12", "ADAM_OLD_MOMENTS", "O.2", wrong="moves by the moments from before this gradient", right=_ADAMW,
        patches=_update(_old_moments),
    ),
    Deviation(
        "X13", "ADAM_ASCENDS", "O.2", wrong="θ + lr …: uphill", right=_ADAMW,
        patches={"moved": instead(lambda R, theta, ratio, lr, wd: theta + lr * ratio - lr * wd * theta)},
    ),
    Deviation(
        "X15", "CLIP_EACH", "O.3", wrong="clips every array by its own norm", right=_CLIP,
        patches={"clip_factor": instead(_each_norm)},
    ),
    Deviation(
        "X15b", "CLIP_BY_VALUE", "O.3", wrong="clips every number", right=_CLIP,
        seen="clip_grad_value_ for clip_grad_norm_",
        patches={"clip_gradients": instead(_by_value)},
    ),
    Deviation(
        "X15c", "CLIP_ALWAYS", "O.3", wrong="rescales small gradients too", right=_CLIP,
        patches={"clip_factor": instead(_always)},
    ),
    Deviation(
        "X15d", "CLIP_SQUARED_NORM", "O.3", wrong="divides by the squared norm", right=_CLIP,
        patches={"clip_factor": instead(_no_root)},
    ),
    Deviation(
        "X16", "WARMUP_FROM_ZERO", "O.5", wrong="lr (n-1)/warmup: the first step does nothing",
        right="lr n/warmup, n = 1, 2, …",
        seen="LambdaLR with step/warmup",
        patches={"warmup_rate": lambda f: lambda R, n, lr, warmup: f(R, n - 1, lr, warmup)},
    ),
    Deviation(
        "M88", "VAE_SCALE_FORGOTTEN", "L.5", wrong="trains on unscaled latents, of std 5.5", right=_LATENT,
        seen="Open-Sora#493, LightningDiT#34, VDM_EVFI#4, finetrainers#101, fast-DiT#7, SimpleTuner#1560",
        patches={"scaled": instead(lambda R, z, scale: z)},
    ),
    Deviation(
        "M88b", "VAE_UNSCALE_FORGOTTEN", "L.3", wrong="decodes scaled latents", right="z_0 / scale before the decoder",
        seen="Open-Sora#494", patches={"unscaled": instead(lambda R, z, scale: z)},
    ),
    Deviation(
        "M89", "VAE_SCALE_TWICE", "L.5", wrong="multiplies by the scale twice", right=_LATENT, seen="Open-Sora#493",
        patches={"scaled": instead(lambda R, z, scale: z * scale * scale)},
    ),
    Deviation(
        "M89b", "VAE_SCALE_OF_SDXL", "L.5", wrong="0.13025, the scale of SDXL's autoencoder", right=_LATENT,
        seen="Open-Sora#493",
        patches={"scaled": instead(lambda R, z, scale: z * 0.13025)},
    ),
    Deviation(
        "M89c", "VAE_SCALE_INVERTED", "L.5", wrong="divides by the scale when encoding", right=_LATENT,
        patches={"scaled": instead(lambda R, z, scale: z / scale)},
    ),
    Deviation(
        "M89d", "VAE_UNSCALE_INVERTED", "L.3", wrong="multiplies by the scale when decoding",
        right="z_0 / scale before the decoder",
        patches={"unscaled": instead(lambda R, z, scale: z * scale)},
    ),
    Deviation(
        "M90", "VAE_MODE_VS_SAMPLE", "L.1", wrong="trains on the mean of the posterior", right=_LATENT,
        seen="OOTDiffusion#132",
        patches={"posterior_sample": instead(lambda R, mean, logvar, eps: mean)},
    ),
    Deviation(
        "M90b", "VAE_LOGVAR_DROPPED", "L.1", wrong="takes the log-variance for 0: μ + ε", right=_LATENT,
        seen="candle PR#3841, diffusers PR#13657", patches={"posterior_std": then(np.ones_like)},
    ),
    Deviation(
        "M90c", "VAE_LOGVAR_AS_LOG_STD", "L.1", wrong="e^λ for the standard deviation", right=_LATENT,
        patches={"posterior_std": instead(lambda R, logvar: np.exp(logvar))},
    ),
    Deviation(
        "M90d", "VAE_LOGVAR_AS_STD", "L.1", wrong="λ for the standard deviation", right=_LATENT,
        patches={"posterior_std": instead(lambda R, logvar: logvar)},
    ),
    Deviation(
        "X17", "SCALE_BY_VARIANCE", "L.3", wrong="1 / variance", right="1 / std over all numbers",
        patches={"measured_scale": instead(lambda R, z: float(1 / z.var()))},
    ),
    Deviation(
        "X18", "SCALE_IS_STD", "L.3", wrong="the std itself", right="1 / std over all numbers",
        patches={"measured_scale": instead(lambda R, z: float(z.std()))},
    ),
    Deviation(
        "M91", "VAE_PAD", "L.7",
        wrong="zeros on all four sides (or above and to the left): the picture moves by a pixel",
        right="zeros below and to the right",
        seen="divamgupta stable-diffusion-tensorflow PR#42",
        patches={"halve_padding": instead(lambda R, x: np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))))},
    ),
    Deviation(
        "M93", "DATA_RANGE", "D.1", wrong="pixels in [0, 1]",
        right="u/127.5 - 1: the prior and the clip assume [-1, 1]",
        seen="lucidrains#20, #156, #307; OCT_DDPM#3", patches={"pixels_in": instead(lambda R, u: u / 255)},
    ),
    Deviation(
        "M93b", "DATA_RANGE_BYTES", "D.1", wrong="pixels in [0, 255]",
        right="u/127.5 - 1: the prior and the clip assume [-1, 1]",
        patches={"pixels_in": instead(lambda R, u: u.astype(np.float64))},
    ),
    Deviation(
        "M93c", "DATA_RANGE_128", "D.1", wrong="u/128 - 1: white is 0.992", right="u/127.5 - 1",
        patches={"pixels_in": instead(lambda R, u: u / 128 - 1)},
    ),
    Deviation(
        "M94", "UINT8_ROUND", "E.8", wrong="truncates 127.5 x + 128: ties go up", right=_BYTES,
        seen="DiT sample_ddp.py, ADM", patches=_truncated(lambda x: 127.5 * x + 128),
    ),
    Deviation(
        "M94b", "UINT8_TRUNCATED", "E.8", wrong="truncates 255 (x+1)/2: half a level darker", right=_BYTES,
        seen="imeanflow#5",
        patches=_truncated(lambda x: 255 * (x + 1) / 2),
    ),
    Deviation(
        "M94c", "UINT8_WRAPS", "E.8", wrong="does not clip: 256 wraps to 0", right=_BYTES,
        patches={"pixels_out": instead(lambda R, x: np.rint(255 * (x + 1) / 2).astype(np.int64).astype(np.uint8))},
    ),
]  # fmt: skip
