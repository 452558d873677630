"""A tiny latent autoencoder: four times smaller on each side, a Gaussian posterior, no attention.

    (μ, λ) = encode(x),   z = μ + e^{λ/2} ε                   the posterior q(z|x) = N(μ, e^λ)                (L.1)
    loss = mean (x - decode(z))² + w · KL(q(z|x) ‖ N(0, 1)) per latent number                                (L.2)
    scale = 1 / std(z) over posterior samples of the training set: latents times scale have unit variance    (L.3)

Strided convolutions go down; upwards every channel holds the four pixels of a 2 × 2 square and is spread out (sub-pixel
convolution, Shi et al. 2016), so that nearly all work is done at the smallest size, where a convolution is a good matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array
from minidit.keywords import check_config, suggesting
from minidit.nn import Conv2d, GroupNorm, Module
from minidit.random import Philox


@suggesting
@dataclass(frozen=True)
class AutoencoderConfig:
    """widths: the channels after the first and the second halving, and of the residual blocks at the smallest size."""

    channels: int = 1
    latent_channels: int = 4  # channels of the latents, on a quarter of each side
    widths: tuple[int, int, int] = (16, 32, 64)  # channels at full, half and a quarter of the size
    groups: int = 8  # of the group norms; they divide the widths
    size: int | tuple[int, int] = 32  # of the pictures, for the record: the network fits any multiple of 4

    @property
    def factor(self) -> int:
        """The ratio of a picture's side to its latent's."""
        return 4


class ResBlock(Module):
    """x : (B, C, H, W)  ->  x + conv(silu(norm(conv(silu(norm(x))))))"""

    def __init__(self, width: int, groups: int) -> None:
        self.norm1, self.conv1 = GroupNorm(width, groups), Conv2d(width, width, 3)
        self.norm2, self.conv2 = GroupNorm(width, groups), Conv2d(width, width, 3)

    def forward(self, x: Value) -> Value:
        h = self.conv1(ops.silu(self.norm1(x)))
        return x + self.conv2(ops.silu(self.norm2(h)))


class Shape(Protocol):
    """The sizes that encoder and decoder read, as in AutoencoderConfig; a tokenizer of whole numbers has them as well."""

    @property
    def channels(self) -> int: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def widths(self) -> tuple[int, int, int]: ...
    @property
    def groups(self) -> int: ...


class Encoder(Module):
    """x : (B, C, H, W)  ->  (B, out, H/4, W/4)"""

    def __init__(self, config: Shape, out: int) -> None:
        a, b, c = config.widths
        self.down1, self.down2 = Conv2d(config.channels, a, 3, stride=2), Conv2d(a, b, 3, stride=2)
        self.wide = Conv2d(b, c, 3)
        self.block = ResBlock(c, config.groups)
        self.norm, self.out = GroupNorm(c, config.groups), Conv2d(c, out, 3)

    def forward(self, x: Value) -> Value:
        h = self.wide(ops.silu(self.down2(ops.silu(self.down1(x)))))
        return self.out(ops.silu(self.norm(self.block(h))))


def spread(x: Value) -> Value:
    """x : (B, 4C, h, w)  ->  (B, C, 2h, 2w): channel (c, i, j) is the pixel (i, j) of every 2 × 2 square (L.4)."""
    B, C4, h, w = x.shape
    squares = x.reshape(B, C4 // 4, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3)
    return squares.reshape(B, C4 // 4, 2 * h, 2 * w)  # (L.4)


class Decoder(Module):
    """z : (B, latent, h, w)  ->  (B, C, 4h, 4w)"""

    def __init__(self, config: Shape) -> None:
        a, b, c = config.widths
        self.wide = Conv2d(config.latent_channels, c, 3)
        self.block = ResBlock(c, config.groups)
        self.norm, self.up1 = GroupNorm(c, config.groups), Conv2d(c, 4 * b, 3)
        self.up2, self.out = Conv2d(b, 4 * (a // 2), 3), Conv2d(a // 2, config.channels, 3)

    def forward(self, z: Value) -> Value:
        h = ops.silu(self.norm(self.block(self.wide(z))))
        h = ops.silu(spread(self.up1(h)))
        return self.out(ops.silu(spread(self.up2(h))))


class GaussianEncoder(Module):
    """The base of autoencoders with a Gaussian posterior q(z|x) = N(mean, e^logvar): what is the same whatever their layers.

    encode(x) -> (mean, logvar) and decode(z) -> x, both unscaled; `scale` is the one factor of the latents (L.3).
    x : (B, C, H, W) in [-1, 1], H and W divisible by f = config.factor;  z : (B, latent, H/f, W/f).
    """

    config: Any  # its sizes; an autoencoder says which
    scale: Array

    def latent_shape(self, H: int, W: int) -> tuple[int, int, int]:
        """The shape of one picture's latents."""
        return self.config.latent_channels, H // self.config.factor, W // self.config.factor

    def picture_shape(self, h: int, w: int) -> tuple[int, int, int]:
        """The shape of the picture decoded from latents of this height and width."""
        return self.config.channels, h * self.config.factor, w * self.config.factor

    def moments(self, x: Value) -> Value:
        """x : (B, C, H, W)  ->  (B, 2 latent, H/f, W/f): mean and log-variance, side by side."""
        raise NotImplementedError

    def decode(self, z: Value) -> Value:
        """Pictures from unscaled latents. Raises ValueError for other shapes."""
        raise NotImplementedError

    def encode(self, x: Value) -> tuple[Value, Value]:
        """The posterior's mean and log-variance, the latter limited to [-30, 20]. Raises ValueError for other shapes."""
        C, f = self.config.channels, self.config.factor
        if x.ndim != 4 or x.shape[1] != C or x.shape[2] % f or x.shape[3] % f:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {C}, H, W), H and W divisible by {f}")
        mean, logvar = ops.split(self.moments(x), parts=2, axis=1)
        return mean, ops.clip(logvar, low=-30.0, high=20.0)

    def forward(self, x: Value, eps: Value) -> tuple[Value, Value, Value]:
        """(reconstruction, mean, logvar) with the noise eps of the posterior sample."""
        mean, logvar = self.encode(x)
        return self.decode(mean + ops.exp(logvar * 0.5) * eps), mean, logvar  # (L.1)


class Autoencoder(GaussianEncoder):
    """The tiny autoencoder: f = 4. rng=None allocates without initialising, for loading. Raises ValueError for other shapes."""

    config: AutoencoderConfig

    def __init__(
        self, config: AutoencoderConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        check_config(self, config, AutoencoderConfig)
        self.config = config
        self.encoder, self.decoder = Encoder(config, 2 * config.latent_channels), Decoder(config)
        self.register_buffer("scale", np.ones(()))
        self.build(rng, device=device, dtype=dtype)

    def moments(self, x: Value) -> Value:
        return self.encoder(x)

    def decode(self, z: Value) -> Value:
        """Pictures from unscaled latents."""
        return self.decoder(z)
