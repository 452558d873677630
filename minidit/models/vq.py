"""Tokenizers: a picture becomes a map of vectors, which are then replaced by numbers, and is decoded from what these stand for.

    z = encode(x) : (B, h, w, d)          x̂ = decode(vectors)              h = H/4, w = W/4
    VQ             vectors are rows of a codebook (K, d), on the sphere if it says so                          (Q.1, Q.4)
    FSQ            d whole numbers per place, no codebook                                                      (Q.8)
    MultiScaleVQ   a pyramid of codes from one codebook; φ(h) = ½ h + ½ conv(h), a few of them shared, which
                   change nothing at the start                                                                 (Q.9, Q.13)

Encoder and decoder are those of the autoencoder with a Gaussian posterior; which vector becomes which number is the law's affair
(processes/codes.py), so a network here only holds what is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value
from minidit.models.autoencoder import Decoder, Encoder
from minidit.nn import Conv2d, Embedding, Module
from minidit.nn.initial import dirac, uniform
from minidit.random import Philox


@dataclass(frozen=True)
class VQConfig:
    """The sizes of a tokenizer with a codebook. Raises ValueError if they conflict."""

    channels: int = 1
    latent_channels: int = 8
    codes: int = 512
    sphere: bool = True  # vectors and codes are normalised before they are compared
    widths: tuple[int, int, int] = (16, 32, 64)
    groups: int = 8
    size: int | tuple[int, int] = 32  # of the pictures, for the record: the network fits any multiple of 4
    factor: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if min(self.channels, self.latent_channels, self.codes, *self.widths) < 1:
            raise ValueError(f"every size must be positive: {self}")

    @property
    def vocabulary(self) -> int:
        """The number of different codes."""
        return self.codes


@dataclass(frozen=True)
class FSQConfig:
    """The sizes of a tokenizer without a codebook: one number of levels per channel."""

    channels: int = 1
    levels: tuple[int, ...] = (8, 8, 8)
    widths: tuple[int, int, int] = (16, 32, 64)
    groups: int = 8
    size: int | tuple[int, int] = 32
    factor: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"every channel needs at least two levels: {self.levels}")

    @property
    def latent_channels(self) -> int:
        """d, one channel per number of levels."""
        return len(self.levels)

    @property
    def vocabulary(self) -> int:
        """The number of different codes."""
        return math.prod(self.levels)


@dataclass(frozen=True)
class MultiScaleVQConfig(VQConfig):
    """The sizes of a tokenizer of several scales.   sizes : rising, the last one the side of the map"""

    sphere: bool = False
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    phis: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sizes or list(self.sizes) != sorted(self.sizes) or self.sizes[0] < 1 or self.phis < 1:
            raise ValueError(f"sizes {self.sizes} must rise from at least 1, phis {self.phis} be at least 1")


class Tokenizing(Module):
    """encode(x) -> z : (B, H/4, W/4, d) and decode(vectors) -> x. x : (B, C, H, W) in [-1, 1], H and W divisible by 4."""

    def __init__(self, config: VQConfig | FSQConfig) -> None:
        self.channels = config.channels
        self.encoder, self.decoder = Encoder(config, config.latent_channels), Decoder(config)

    def encode(self, x: Value) -> Value:
        """Vectors. Raises ValueError for other sizes."""
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {self.channels}, H, W), H and W divisible by 4")
        return ops.transpose(self.encoder(x), axes=(0, 2, 3, 1))

    def decode(self, vectors: Value) -> Value:
        """Pictures from vectors (B, h, w, d)."""
        return self.decoder(ops.transpose(vectors, axes=(0, 3, 1, 2)))

    forward = decode


class VQ(Tokenizing):
    """A tokenizer with a codebook: `codebook.weight` (K, d), U(-1/K, 1/K) at the start."""

    def __init__(
        self, config: VQConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        self.config = config
        super().__init__(config)
        self.codebook = Embedding(config.codes, config.latent_channels, uniform(1 / config.codes))
        self.build(rng, device=device, dtype=dtype)


class FSQ(Tokenizing):
    """A tokenizer of whole numbers."""

    def __init__(
        self, config: FSQConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        self.config = config
        super().__init__(config)
        self.build(rng, device=device, dtype=dtype)


class MultiScaleVQ(Tokenizing):
    """A tokenizer of several scales with one codebook. `phi(j, h)` blends a map with its convolution number j."""

    def __init__(
        self, config: MultiScaleVQConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        self.config = config
        super().__init__(config)
        self.codebook = Embedding(config.codes, config.latent_channels, uniform(1 / config.codes))
        d = config.latent_channels
        self.blends = [Conv2d(d, d, 3, init=dirac) for _ in range(config.phis)]
        self.build(rng, device=device, dtype=dtype)

    def phi(self, j: int, h: Value) -> Value:
        """h : (B, H, W, d)  ->  ½ h + ½ conv_j(h)."""
        conv = ops.transpose(self.blends[j](ops.transpose(h, axes=(0, 3, 1, 2))), axes=(0, 2, 3, 1))
        return 0.5 * h + 0.5 * conv
