"""Training the latent autoencoder, measuring its scale, and using it.

    loss = mean (x - x̂)² + w · KL / (number of latent numbers)        images in [-1, 1], w = 1e-4 by default      (L.2)
    scale = 1 / std over posterior samples of the training set                                                  (L.3)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minidit import ops
from minidit.autograd import Tensor, value
from minidit.backend import Array, device_of, to_device, to_host
from minidit.models.autoencoder import Autoencoder
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.forward import forward
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import Latents, Pictures, source_of

SCALE_STREAM = 0x7363


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


@dataclass(frozen=True)
class Reconstruction:
    """The loss of an autoencoder."""

    kl_weight: float = 1e-4

    stream: ClassVar[int] = 0x6165
    per: ClassVar[int] = 4

    def loss(self, network: Any, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        x_hat, mean, logvar = network(x_0, draws.normal((len(x_0), *network.latent_shape(*x_0.shape[2:]))))
        error = ops.mse(x_hat, x_0)
        kl = ops.gaussian_kl(mean, logvar) * (1 / mean.data[0].size)
        return error + kl * self.kl_weight, {"mse": error.data, "kl": kl.data}  # (L.2)


def autoencode(model: Autoencoder, data: Any, config: AutoencodeConfig, *, kind: str | None = None) -> Loop:
    """The Loop of an autoencoder."""
    source = source_of(data, model.device, model.dtype)
    return Loop(model, Reconstruction(config.kl_weight), source, config, kind=kind)


def posterior_of(model: Autoencoder | AutoencoderKL, x: Array) -> tuple[Array, Array]:
    """x : (N, C, H, W), host or device  ->  (mean, std) : (N, c, h, w) each, where the model lives."""

    def run(part: slice) -> tuple[Array, Array]:
        mean, logvar = model.encode(to_device(x[part], model.device))
        return value(mean), ops.exp(value(logvar) * 0.5)

    mean, std = forward(model, len(x), 2 * [model.latent_shape(*x.shape[2:])], run)
    return mean, std


def measure_scale(mean: Array, std: Array, seed: int = 0) -> float:
    """1 / std of posterior samples, over all latents given: one number, so that no channel is treated differently."""
    eps = Philox(seed, SCALE_STREAM).normal(mean.shape, None, device_of(mean), mean.dtype)
    return 1.0 / float((mean + std * eps).std())  # (L.3)


def latents_of(model: Autoencoder | AutoencoderKL, data: Any, seed: int = 0) -> Latents:
    """The latents of a data set, ready to train on; sets model.scale from them."""
    source = source_of(data, "cpu", model.dtype)
    assert isinstance(source, Pictures)
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
    scale = float(model.scale)

    def run(part: slice) -> tuple[Array]:
        return (value(model.decode(to_device(z[part], model.device) / scale)),)

    (x,) = forward(model, len(z), [model.picture_shape(*z.shape[2:])], run)
    return to_host(x)
