"""Training the latent autoencoder, measuring its scale, and using it.

    loss = mean (x - x̂)² + w · KL / (number of latent numbers)        images in [-1, 1], w = 1e-4 by default      (L.2)
    scale = 1 / std over posterior samples of the training set                                                  (L.3)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit import ops
from minidit.autograd import value
from minidit.backend import Array, device_of, to_device, to_host
from minidit.models.autoencoder import Autoencoder
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.random import Philox
from minidit.training.clock import Clock, batch_of, stream_of
from minidit.training.forward import forward
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import Latents, Pixels, Source, source_of

AUTOENCODE_STREAM, SCALE_STREAM, DRAWS = 0x6165, 0x7363, 4


@dataclass(frozen=True)
class AutoencodeConfig(LoopConfig):
    """A short, fast recipe: the number of steps decides, so small batches and a large rate that goes down to nothing."""

    lr: float = 5e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 20
    final_lr: float = 0.02
    clip: float = 1.0
    ema: float = 0.99
    batch_size: int = 32
    kl_weight: float = 1e-4


class Reconstruction:
    """The autoencoder's loss at (step, samples)."""

    clocked = True

    def __init__(self, model: Autoencoder, source: Source, config: AutoencodeConfig) -> None:
        self.model, self.source, self.config = model, source, config

    def __call__(self, step: int | Clock, samples: Array) -> tuple[Any, dict[str, Any]]:
        config, model = self.config, self.model
        rng = stream_of(step, config.seed, AUTOENCODE_STREAM, DRAWS)
        index = batch_of(step, samples, len(self.source), config, model.device)
        x = self.source.draw(index, rng, samples)
        H, W, c = x.shape[2], x.shape[3], model.config.latent_channels
        latent = (len(x), c, H // model.config.factor, W // model.config.factor)
        x_hat, mean, logvar = model(x, rng.normal(latent, samples, model.device, x.dtype))
        error = ops.mse(x_hat, x, n=config.batch_size * x[0].size)
        kl = ops.gaussian_kl(mean, logvar, n=config.batch_size * mean.size // len(x))
        return error + kl * config.kl_weight, {"mse": error.data, "kl": kl.data}  # (L.2)


def autoencode(model: Autoencoder, data: Any, config: AutoencodeConfig, *, kind: str | None = None) -> Loop:
    """The Loop of an autoencoder."""
    return Loop(model, Reconstruction(model, source_of(data, model.device, model.dtype), config), config, kind=kind)


def posterior_of(model: Autoencoder | AutoencoderKL, x: Array) -> tuple[Array, Array]:
    """x : (N, C, H, W), host or device  ->  (mean, std) : (N, c, h, w) each, where the model lives."""

    def run(part: slice) -> tuple[Array, Array]:
        mean, logvar = model.encode(to_device(x[part], model.device))
        return value(mean), ops.exp(value(logvar) * 0.5)

    f = model.config.factor
    mean, std = forward(model, len(x), 2 * [(model.config.latent_channels, x.shape[2] // f, x.shape[3] // f)], run)
    return mean, std


def measure_scale(mean: Array, std: Array, seed: int = 0) -> float:
    """1 / std of posterior samples, over all latents given: one number, so that no channel is treated differently."""
    eps = Philox(seed, SCALE_STREAM).normal(mean.shape, None, device_of(mean), mean.dtype)
    return 1.0 / float((mean + std * eps).std())  # (L.3)


def latents_of(model: Autoencoder | AutoencoderKL, data: Any, seed: int = 0) -> Latents:
    """The latents of a data set, ready to train on; sets model.scale from them."""
    source = source_of(data, "cpu", model.dtype)
    assert isinstance(source, Pixels)
    mean, std = posterior_of(model, source.x_0)
    scale = measure_scale(mean, std, seed)
    model.scale[...] = scale
    labels = None if source.labels is None else to_device(source.labels, model.device)
    return Latents(mean, std, scale, labels)


def reconstruct(model: Autoencoder | AutoencoderKL, x: Array) -> np.ndarray[Any, Any]:
    """x : (N, C, H, W)  ->  decode(mean), on the host."""
    mean, _ = posterior_of(model, x)
    return decode(model, mean * float(model.scale))


def decode(model: Autoencoder | AutoencoderKL, z: Array) -> np.ndarray[Any, Any]:
    """Scaled latents z, as a sampler leaves them  ->  pictures on the host."""
    scale, f = float(model.scale), model.config.factor
    shape = (model.config.channels, z.shape[2] * f, z.shape[3] * f)
    (x,) = forward(model, len(z), [shape], lambda part: (value(model.decode(to_device(z[part], model.device) / scale)),))
    return to_host(x)
