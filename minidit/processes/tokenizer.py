"""The map between pictures and what a network generates: the pixels themselves, or an autoencoder's latents.

    x_0 = encode(x)      x = decode(x_0)         Pixels: the identity;  Latent: scale · mean, and back
    scale = 1 / std over posterior samples of the training set                                                (L.3)

An autoencoder takes clips frame by frame: what stands here for pictures (B, C, H, W) holds for clips (B, C, T, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minidit.autograd import value
from minidit.backend import Array, to_device, to_host
from minidit.data.cache import Cache
from minidit.diffusion.threshold import Limit, static
from minidit.frames import clips_of, frames_of
from minidit.models.autoencoder import Autoencoder
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.processes.latents import latent_shape, latents_of, measure_scale, posterior_of
from minidit.training.augment import NOTHING, Augment
from minidit.training.forward import forward
from minidit.training.source import Augmented, Source, source_of

__all__ = ["Latent", "Pixel", "Pixels", "Tokenizer", "decode", "latents_of", "measure_scale", "posterior_of", "reconstruct"]

Pixel = np.ndarray[Any, Any]


class Tokenizer(Protocol):
    """From pictures to what a network generates, and back. It knows no process."""

    @property
    def limit(self) -> Limit | None:
        """The function that keeps x̂_0 in its range while sampling; None if it has no range."""

    @property
    def unit(self) -> str:
        """The name of one number of x_0."""

    def shape(self, C: int, *size: int) -> tuple[int, ...]:
        """The shape of x_0 for pictures (C, H, W) or clips (C, T, H, W). Raises ValueError for sizes that do not fit."""

    def source(self, data: Any, augment: Augment = NOTHING, cache: Cache | None = None) -> Source:
        """The data as a network is trained on them: augmented, and of a set on disk what is computed once is cached."""

    def held_out(self, data: Any, cache: Cache | None = None) -> Source:
        """Data as a network is compared on them; nothing is measured or changed."""

    def encode(self, x: Array) -> Array:
        """Pictures (B, C, H, W) in [-1, 1]  ->  x_0 : (B, ...)."""

    def decode(self, x_0: Array) -> Pixel:
        """x_0 : (B, ...)  ->  pictures (B, C, H, W) on the host."""


@dataclass(frozen=True)
class Pixels:
    """No tokenizer: the network generates the pictures themselves."""

    device: str = "cpu"
    limit: Limit | None = static
    unit: str = "pixel"

    def __repr__(self) -> str:
        return "Pixels()"

    def shape(self, C: int, *size: int) -> tuple[int, ...]:
        return C, *size

    def source(self, data: Any, augment: Augment = NOTHING, cache: Cache | None = None) -> Source:
        source = source_of(data, self.device)
        return Augmented(source, augment) if augment else source

    def held_out(self, data: Any, cache: Cache | None = None) -> Source:
        return source_of(data, self.device)

    def encode(self, x: Array) -> Array:
        return to_device(x, self.device)

    def decode(self, x_0: Array) -> Pixel:
        return to_host(x_0)


@dataclass(frozen=True)
class Latent:
    """The latents of an autoencoder, scaled to unit variance by its one measured factor."""

    autoencoder: Autoencoder | AutoencoderKL
    limit: None = None
    unit: str = "latent number (not of the picture)"

    def __repr__(self) -> str:
        return f"Latent({self.autoencoder!r})"

    def shape(self, C: int, *size: int) -> tuple[int, ...]:
        config, (*_, H, W) = self.autoencoder.config, size
        if config.channels != C or H % config.factor or W % config.factor:
            raise ValueError(f"pictures of {C} x {H} x {W} do not fit an autoencoder of {config.channels} channels and "
                             f"factor {config.factor}")  # fmt: skip
        return latent_shape(self.autoencoder, *size)

    def source(self, data: Any, augment: Augment = NOTHING, cache: Cache | None = None) -> Source:
        """Mirrored pictures have their own latents. Shifted ones have not: `crop` acts on the autoencoder's training only."""
        return latents_of(self.autoencoder, data, flip=augment.flip, cache=cache)

    def held_out(self, data: Any, cache: Cache | None = None) -> Source:
        return latents_of(self.autoencoder, data, scale=float(self.autoencoder.scale), cache=cache)

    def encode(self, x: Array) -> Array:
        x = to_device(x, self.autoencoder.device)
        return posterior_of(self.autoencoder, x)[0] * float(self.autoencoder.scale)

    def decode(self, x_0: Array) -> Pixel:
        return decode(self.autoencoder, x_0)


def reconstruct(model: Autoencoder | AutoencoderKL, x: Array) -> np.ndarray[Any, Any]:
    """x : (N, C, H, W)  ->  decode(mean), on the host."""
    mean, _ = posterior_of(model, x)
    return decode(model, mean * float(model.scale))


def decode(model: Autoencoder | AutoencoderKL, z: Array) -> np.ndarray[Any, Any]:
    """Scaled latents z from a sampler, (B, c, h, w) or (B, c, T, h, w)  ->  pictures or clips on the host."""
    scale, frames = float(model.scale), frames_of(z)

    def run(part: slice) -> tuple[Array]:
        return (value(model.decode(to_device(frames[part], model.device) / scale)),)

    (x,) = forward(model, len(frames), [model.picture_shape(*z.shape[-2:])], run)
    pictures: Pixel = clips_of(to_host(x), z.shape)
    return pictures
