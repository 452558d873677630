"""The latent autoencoder of Stable Diffusion and DiT (Rombach et al. 2022): eight times smaller, residual blocks, one attention.

    block:   h = conv₂(silu(norm₂(conv₁(silu(norm₁(x))))));   y = shortcut(x) + h     shortcut is 1 × 1 where widths differ  (L.6)

Down: blocks, then half the size (L.7). Up: blocks, then twice the size. Between them attention among pixels (L.8), with one
head. The posterior is (L.1). Parameter names are those of the
published files in their present grammar; checkpoint/ maps other names to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value
from minidit.keywords import check_config, suggesting
from minidit.models.autoencoder import GaussianEncoder
from minidit.nn import Conv2d, Double, GroupNorm, Halve, Module, PixelAttention
from minidit.random import Philox


@suggesting
@dataclass(frozen=True)
class AutoencoderKLConfig:
    """widths: channels at each size, halved between them. The defaults are the published autoencoder's (83,653,863 numbers).

    Raises ValueError if sizes conflict.
    """

    channels: int = 3
    latent_channels: int = 4  # channels of the latents
    widths: tuple[int, ...] = (128, 256, 512, 512)  # channels at each size, which is halved between them
    blocks: int = 2  # residual blocks at each size; one more on the way up
    groups: int = 32  # of the group norms; they divide the widths
    scale: float = 0.18215  # latents times scale have unit variance, L.3
    size: int | tuple[int, int] = 256  # of the pictures, for the record: the network fits any multiple of `factor`

    def __post_init__(self) -> None:
        if not self.widths or min(self.channels, self.latent_channels, *self.widths, self.blocks, self.groups, self.scale) <= 0:
            raise ValueError(f"every size must be positive: {self}")
        for width in self.widths:
            if width % self.groups:
                raise ValueError(f"{width} channels cannot be cut into {self.groups} equal groups")

    @property
    def factor(self) -> int:
        """The ratio of a picture's side to its latent's."""
        return int(2 ** (len(self.widths) - 1))


class ResBlock(Module):
    """x : (B, C, H, W)  ->  (B, O, H, W)"""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        self.norm1, self.conv1 = GroupNorm(channels, groups), Conv2d(channels, out, 3)
        self.norm2, self.conv2 = GroupNorm(out, groups), Conv2d(out, out, 3)
        self.conv_shortcut = Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x: Value) -> Value:
        h = self.conv2(ops.silu(self.norm2(self.conv1(ops.silu(self.norm1(x))))))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h  # (L.6)


class Down(Module):
    """Residual blocks at one size, then half the size, except in the last."""

    def __init__(self, channels: int, out: int, blocks: int, groups: int, last: bool) -> None:
        self.resnets = [ResBlock(channels if i == 0 else out, out, groups) for i in range(blocks)]
        self.downsamplers = [] if last else [Halve(out)]

    def forward(self, x: Value) -> Value:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class Up(Module):
    """Residual blocks at one size, then twice the size, except in the last."""

    def __init__(self, channels: int, out: int, blocks: int, groups: int, last: bool) -> None:
        self.resnets = [ResBlock(channels if i == 0 else out, out, groups) for i in range(blocks)]
        self.upsamplers = [] if last else [Double(out)]

    def forward(self, x: Value) -> Value:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Middle(Module):
    """x : (B, C, h, w)  ->  the same: block, attention, block."""

    def __init__(self, width: int, groups: int) -> None:
        self.attentions = [PixelAttention(width, groups)]
        self.resnets = [ResBlock(width, width, groups), ResBlock(width, width, groups)]

    def forward(self, x: Value) -> Value:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(Module):
    """x : (B, C, H, W)  ->  moments (B, 2·latent, H/f, W/f)"""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        w, g = config.widths, config.groups
        self.conv_in = Conv2d(config.channels, w[0], 3)
        self.down_blocks = [Down(w[max(i - 1, 0)], w[i], config.blocks, g, i == len(w) - 1) for i in range(len(w))]
        self.mid_block = Middle(w[-1], g)
        self.conv_norm_out, self.conv_out = GroupNorm(w[-1], g), Conv2d(w[-1], 2 * config.latent_channels, 3)

    def forward(self, x: Value) -> Value:
        h = self.conv_in(x)
        for block in self.down_blocks:
            h = block(h)
        return self.conv_out(ops.silu(self.conv_norm_out(self.mid_block(h))))


class Decoder(Module):
    """z : (B, latent, h, w)  ->  (B, C, f·h, f·w)"""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        w, g = config.widths[::-1], config.groups
        self.conv_in = Conv2d(config.latent_channels, w[0], 3)
        self.mid_block = Middle(w[0], g)
        self.up_blocks = [Up(w[max(i - 1, 0)], w[i], config.blocks + 1, g, i == len(w) - 1) for i in range(len(w))]
        self.conv_norm_out, self.conv_out = GroupNorm(w[-1], g), Conv2d(w[-1], config.channels, 3)

    def forward(self, z: Value) -> Value:
        h = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            h = block(h)
        return self.conv_out(ops.silu(self.conv_norm_out(h)))


class AutoencoderKL(GaussianEncoder):
    """The autoencoder of Stable Diffusion and DiT. rng=None allocates without initialising, for loading.

    Raises ValueError for other shapes.
    """

    config: AutoencoderKLConfig

    def __init__(
        self, config: AutoencoderKLConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        check_config(self, config, AutoencoderKLConfig)
        self.config = config
        z = config.latent_channels
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv, self.post_quant_conv = Conv2d(2 * z, 2 * z, 1), Conv2d(z, z, 1)
        self.register_buffer("scale", np.asarray(config.scale))
        self.build(rng, device=device, dtype=dtype)

    def moments(self, x: Value) -> Value:
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Value) -> Value:
        """Pictures from unscaled latents."""
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(f"z has shape {tuple(z.shape)}, expected (B, {self.config.latent_channels}, h, w)")
        return self.decoder(self.post_quant_conv(z))
