"""What stands between pictures and the network that generates: pixels as they are, or an autoencoder's latents.

    x_0 = encode(x)      x = decode(x_0)         Pixels: the identity;  Latent: scale · mean, and back        (L.3)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minidit.backend import Array, to_device, to_host
from minidit.diffusion.threshold import Limit, static
from minidit.models.autoencoder import Autoencoder
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.processes.autoencode import decode, latents_of, posterior_of
from minidit.training.source import Source, source_of

Pixel = np.ndarray[Any, Any]


class Tokenizer(Protocol):
    """From pictures to what a network generates, and back. It knows no process."""

    @property
    def limit(self) -> Limit | None:
        """What keeps x̂_0 in its range while sampling; None where it has none."""

    @property
    def unit(self) -> str:
        """What one number of x_0 is called."""

    def shape(self, C: int, H: int, W: int) -> tuple[int, ...]:
        """Of x_0, for pictures of this shape. Raises ValueError for sizes that do not fit."""

    def source(self, data: Any) -> Source:
        """The data as a network is trained on them."""

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

    def shape(self, C: int, H: int, W: int) -> tuple[int, ...]:
        return C, H, W

    def source(self, data: Any) -> Source:
        return source_of(data, self.device)

    def encode(self, x: Array) -> Array:
        return to_device(x, self.device)

    def decode(self, x_0: Array) -> Pixel:
        return to_host(x_0)


@dataclass(frozen=True)
class Latent:
    """The latents of an autoencoder, at unit variance by its one measured factor."""

    autoencoder: Autoencoder | AutoencoderKL
    limit: None = None
    unit: str = "latent number (not of the picture)"

    def shape(self, C: int, H: int, W: int) -> tuple[int, ...]:
        config = self.autoencoder.config
        if config.channels != C or H % config.factor or W % config.factor:
            raise ValueError(f"pictures of {C} x {H} x {W} do not fit an autoencoder of {config.channels} channels and "
                             f"factor {config.factor}")  # fmt: skip
        return self.autoencoder.latent_shape(H, W)

    def source(self, data: Any) -> Source:
        return latents_of(self.autoencoder, data)

    def encode(self, x: Array) -> Array:
        x = to_device(x, self.autoencoder.device)
        return posterior_of(self.autoencoder, x)[0] * float(self.autoencoder.scale)

    def decode(self, x_0: Array) -> Pixel:
        return decode(self.autoencoder, x_0)
