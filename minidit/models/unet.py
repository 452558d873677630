"""The U-Net of DDPM (Ho, Jain, Abbeel 2020), which DiT replaced.

    c     = W₂ silu(W₁ emb(t)) + table[y]                                        time, and class if there are classes  (T.15)
    block:  h = conv₁(silu(norm₁(x))) + m,   m = W silu(c);   y = S x + conv₂(silu(norm₂(h)))                            (T.16)
    down:   every block's output, and every halved picture, is remembered:   h₀, h₁, … , h_n
    up:     block([x | h_n]), block([x | h_{n-1}]), …   until none is left                                              (T.17)
    the last convolution of every block and attention, and of the network, starts at zero: the output is 0             (T.18)

S is a 1 × 1 convolution where the number of channels changes, else the identity. Attention among pixels (L.8) follows the blocks
of some sizes. Parameter names are those of diffusers' UNet2DModel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array
from minidit.keywords import check_config
from minidit.models.backbone import PictureNetwork, check_inputs
from minidit.models.unet_config import Place, UNetConfig
from minidit.nn import Conv2d, Double, Embedding, GroupNorm, Halve, Linear, Module, PixelAttention, timestep_embedding
from minidit.nn.initial import zeros
from minidit.nn.module import Parameter
from minidit.nn.pixels import projections_together
from minidit.nn.recompute import run
from minidit.random import Philox

__all__ = ["UNet", "UNetConfig"]


class TimeEmbedder(Module):
    """t : (B,) as the path gives it  ->  (B, 4 w), w the first width."""

    def __init__(self, config: UNetConfig) -> None:
        self.width, self.shift, self.sine_first = config.widths[0], config.freq_shift, not config.cosine_first
        self.linear_1 = Linear(self.width, config.condition_width)
        self.linear_2 = Linear(config.condition_width, config.condition_width)

    def forward(self, t: Array) -> Value:
        dtype = self.linear_1.weight.data.dtype
        emb = timestep_embedding(t, self.width, dtype, shift=self.shift, sine_first=self.sine_first)
        return self.linear_2(ops.silu(self.linear_1(emb)))


def halved(x: Value) -> Value:
    """(B, C, H, W)  ->  (B, C, H/2, W/2): the mean of every 2 × 2 square."""
    B, C, H, W = x.shape
    return ops.mean(x.reshape(B, C, H // 2, 2, W // 2, 2), axis=(3, 5))


class ResBlock(Module):
    """x : (B, C, H, W), m : (B, O) or (B, 2 O) from the condition  ->  (B, O, H, W), or the size that `change` makes."""

    def __init__(self, place: Place, config: UNetConfig, change: Callable[[Value], Value] | None = None) -> None:
        C, O, g, eps = place.channels, place.out, config.groups, config.norm_eps
        self.change, self.scale_shift = change, config.scale_shift
        self.norm1, self.conv1 = GroupNorm(C, g, eps=eps), Conv2d(C, O, 3)
        self.time_emb_proj = Linear(config.condition_width, O * (2 if config.scale_shift else 1))
        self.norm2, self.conv2 = GroupNorm(O, g, eps=eps), Conv2d(O, O, 3, init=zeros)  # (T.18)
        self.conv_shortcut = Conv2d(C, O, 1) if place.changes else None

    def forward(self, x: Value, m: Value) -> Value:
        h = self.norm1.silu(x)
        if self.change is not None:
            x, h = self.change(x), self.change(h)
        if self.scale_shift:
            scale, shift = ops.split(m.reshape(*m.shape, 1, 1), parts=2, axis=1)
            h = ops.silu(self.norm2(self.conv1(h)) * (1 + scale) + shift)
        else:
            h = self.norm2.silu(self.conv1(h, m))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + self.conv2(h)  # (T.16)


Parts = dict[ResBlock, Value]  # m of every block


class Size(Module):
    """The blocks of one size, each followed by its attention if this size has any."""

    def __init__(self, places: list[Place], config: UNetConfig) -> None:
        attentive = [p for p in places if p.attention]
        self.attentions = [attention_of(p.out, config) for p in attentive]
        self.resnets = [ResBlock(p, config) for p in places]

    def stage(self, j: int, x: Value, parts: Parts) -> Value:
        """x : (B, C, H, W)  ->  (B, C', H, W): the j-th block, and its attention if it has one. parts : of `conditioned`"""
        x = run(self.resnets[j], x, parts[self.resnets[j]])
        return run(self.attentions[j], x) if j < len(self.attentions) else x


class Down(Size):
    """x  ->  x at the next size, and what is remembered: the output of every block, and x itself."""

    def __init__(self, places: list[Place], config: UNetConfig, last: bool) -> None:
        super().__init__(places, config)
        self.downsamplers: list[Module] = []
        if not last:
            w = places[-1].out
            even = Halve(w, (1, 1) if config.even_padding else (0, 1))
            self.downsamplers = [even if config.resample == "conv" else ResBlock(Place(0, w, w, False), config, halved)]

    def forward(self, x: Value, parts: Parts) -> tuple[Value, list[Value]]:
        remembered = []
        for j in range(len(self.resnets)):
            x = self.stage(j, x, parts)
            remembered.append(x)
        for layer in self.downsamplers:
            x = resampled(layer, x, parts)
            remembered.append(x)
        return x, remembered


class Middle(Size):
    """x : (B, C, H, W)  ->  the same: block, attention, block, at the smallest size."""

    def forward(self, x: Value, parts: Parts) -> Value:
        return self.stage(1, self.stage(0, x, parts), parts)


class Up(Size):
    """x and what the way down remembered, of which it takes the last from the list  ->  x at the next size."""

    def __init__(self, places: list[Place], config: UNetConfig, last: bool) -> None:
        super().__init__(places, config)
        self.upsamplers: list[Module] = []
        if not last:
            w = places[-1].out
            self.upsamplers = [
                Double(w) if config.resample == "conv" else ResBlock(Place(0, w, w, False), config, ops.upsample_nearest)
            ]

    def forward(self, x: Value, parts: Parts, remembered: list[Value]) -> Value:
        for j in range(len(self.resnets)):
            x = self.stage(j, ops.concat(x, remembered.pop(), axis=1), parts)  # (T.17)
        for layer in self.upsamplers:
            x = resampled(layer, x, parts)
        return x


def attention_of(width: int, config: UNetConfig) -> PixelAttention:
    """Attention among pixels whose last linear map starts at zero (T.18)."""
    return PixelAttention(width, config.groups, heads=config.heads(width), eps=config.norm_eps, out=zeros)


def resampled(layer: Module, x: Value, parts: Parts) -> Value:
    """x in half or twice the size, by a convolution or by a block."""
    return run(layer, x, parts[layer]) if isinstance(layer, ResBlock) else layer(x)


def conditioned(blocks: list[ResBlock], c: Value) -> Parts:
    """m = W silu(c) of all blocks, in one product per width: the flat buffer holds these W side by side."""
    parts: Parts = {}
    for width in {block.time_emb_proj.weight.declared[0]: None for block in blocks}:
        alike = [block for block in blocks if block.time_emb_proj.weight.declared[0] == width]
        linears = [block.time_emb_proj for block in alike]
        weight, bias = (ops.concat(*(getattr(linear, name) for linear in linears), axis=0) for name in ("weight", "bias"))
        parts |= zip(alike, ops.split(ops.linear(c, weight, bias), parts=len(alike)), strict=True)
    return parts


class UNet(PictureNetwork):
    """out = model(x, t, y):  x (B, C, H, W), t (B,) as the path gives it, y (B,) int  ->  (B, C or 2C, H, W).

    rng=None allocates without initialising, for loading. y=None is for num_classes=0. Raises ValueError for wrong shapes.
    """

    config: UNetConfig

    def __init__(
        self, config: UNetConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        check_config(self, config, UNetConfig, "md.UNET")
        self.config = config
        self.shape, self.condition, self.second_half = config.shape, config.condition, config.learn_sigma
        w, last = config.widths, len(config.widths) - 1
        self.conv_in = Conv2d(config.in_channels, w[0], 3)
        self.time_embedding = TimeEmbedder(config)
        if config.num_classes:
            self.class_embedding = Embedding(config.condition.rows, config.condition_width)
        self.down_blocks = [Down(places, config, i == last) for i, places in enumerate(config.down())]
        self.mid_block = Middle(config.middle(), config)
        self.up_blocks = [Up(places, config, i == last) for i, places in enumerate(config.up())]
        self.conv_norm_out = GroupNorm(w[0], config.groups, eps=config.norm_eps)
        self.conv_out = Conv2d(w[0], config.out_channels, 3, init=zeros)  # (T.18)
        self.build(rng, device=device, dtype=dtype)

    def forward(self, x: Value, t: Array, y: Array | None = None) -> Value:
        check_inputs(self, x, t, y)
        c = self.time_embedding(t)
        c = c if y is None else c + self.class_embedding(y)  # (T.15)
        parts = conditioned([block for _, block in self.named_modules() if isinstance(block, ResBlock)], ops.silu(c))
        x = self.conv_in(x)
        remembered = [x]
        for down in self.down_blocks:
            x, more = down(x, parts)
            remembered += more
        x = self.mid_block(x, parts)
        for up in self.up_blocks:
            x = up(x, parts, remembered)
        return self.conv_out(self.conv_norm_out.silu(x))

    def layout_order(self, parameters: dict[str, Parameter]) -> list[Parameter]:
        maps = {name: p for name, p in parameters.items() if "time_emb_proj." in name}
        kinds = {name: (name.endswith("weight"), p.declared[0]) for name, p in maps.items()}  # side by side: `conditioned`
        first = [maps[name] for name in sorted(maps, key=lambda name: kinds[name], reverse=True)]
        return first + projections_together({name: p for name, p in parameters.items() if name not in maps})
