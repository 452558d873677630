"""placeholder of the lead's"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minidit.backend import Array, to_host
from minidit.processes.autoencode import decode, latents_of, posterior_of
from minidit.training.source import Source, source_of


class Tokenizer(Protocol):
    limit: bool

    def encode(self, x: Array) -> Array: ...
    def decode(self, x_0: Array) -> Any: ...
    def source(self, data: Any) -> Source: ...
    def shape_of(self, channels: int, H: int, W: int) -> tuple[int, int, int]: ...


@dataclass(frozen=True)
class Pixels:
    device: str = "cpu"
    limit = True

    def encode(self, x: Array) -> Array:
        return x

    def decode(self, x_0: Array) -> Any:
        return to_host(x_0)

    def source(self, data: Any) -> Source:
        return source_of(data, self.device)

    def shape_of(self, channels: int, H: int, W: int) -> tuple[int, int, int]:
        return channels, H, W


@dataclass(frozen=True)
class Latent:
    autoencoder: Any
    limit = False

    def encode(self, x: Array) -> Array:
        return posterior_of(self.autoencoder, x)[0] * float(self.autoencoder.scale)

    def decode(self, x_0: Array) -> Any:
        return decode(self.autoencoder, x_0)

    def source(self, data: Any) -> Source:
        return latents_of(self.autoencoder, data)

    def shape_of(self, channels: int, H: int, W: int) -> tuple[int, int, int]:
        f = self.autoencoder.config.factor
        return self.autoencoder.config.latent_channels, H // f, W // f
