"""A diffusion transformer on clips: patches in space and time are its tokens (Sora; Latte, Ma et al. 2024).

    token_{(f h + r) w + s} = W · vec x[:, f t : f t + t, r p : r p + p, s p : s p + p] + b + pos[r w + s]        (T.31)
    place of time f:   p(f) - p(0),    p = [sin f ω | cos f ω],    ω_i = 10000^(-i/(D/2))                         (T.32)
    full          every token attends to all others; its place of time is added to it at the start               (T.33)
    factorised    blocks in turn: tokens of one frame attend to each other; tokens of one site, over time          (T.34)
    none          tokens of one frame only: a picture model that draws every frame by itself
    rope          no places are added: q and k are turned by (time, row, column), and only differences are seen          (T.37)

A block is that of the DiT (T.5), and so is the last layer: only the attention is grouped. A picture is a clip of one frame, the
first of its patch: its place of time is zero, and with t = 1 the full model is the DiT to the bit. In the factorised model only
attention over time sees places of time, so that closed gates (T.7) leave the picture model of every frame. Latte adds them to the
tokens, once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minidit import ops
from minidit.autograd import Value, value
from minidit.backend import Array, read_only, resident, xp_of
from minidit.keywords import check_config
from minidit.models.backbone import PictureNetwork
from minidit.models.condition import check_one_per_sample
from minidit.models.dit import DiT, DiTBlock, FinalLayer
from minidit.models.embedders import LabelEmbedder, TimestepEmbedder
from minidit.models.spacetime_config import SpacetimeConfig
from minidit.models.variants import summed
from minidit.nn import Linear, Module, SelfAttention, sincos_1d, sincos_2d
from minidit.nn.attention import Turn, attended
from minidit.nn.block import Block
from minidit.nn.initial import xavier_uniform
from minidit.nn.position import rotary
from minidit.nn.stack import through
from minidit.random import Philox


def patches(x: Value, t: int, p: int) -> Value:
    """x : (B, C, T, H, W)  ->  (B, (T/t)(H/p)(W/p), C t p p), frame by frame and row by row: (T.31), for t = T = 1 (T.1)."""
    B, C, T, H, W = x.shape
    grid = x.reshape(B, C, T // t, t, H // p, p, W // p, p).transpose(0, 2, 4, 6, 1, 3, 5, 7)
    return grid.reshape(B, -1, C * t * p * p)


def filled(x: Value, t: int) -> Value:
    """x : (B, C, T, H, W)  ->  a picture, T = 1, with t - 1 empty frames after it; clips as they are."""
    B, C, T, H, W = x.shape
    if T > 1 or t == 1:
        return x
    return ops.concat(x, xp_of(value(x)).zeros((B, C, t - 1, H, W), value(x).dtype), axis=2)  # (T.31)


def clip_of(tokens: Value, t: int, p: int, size: tuple[int, int]) -> Value:
    """tokens : (B, (T/t)(H/p)(W/p), t p p C), in the order of (T.2)  ->  (B, C, T, H, W), size = (H, W)."""
    B, N, (H, W) = tokens.shape[0], tokens.shape[1], size
    h, w = H // p, W // p
    C, f = tokens.shape[2] // (t * p * p), N // (h * w)
    grid = tokens.reshape(B, f, h, w, t, p, p, C).transpose(0, 7, 1, 4, 2, 5, 3, 6)  # (T.31)
    return grid.reshape(B, C, f * t, H, W)


@lru_cache(maxsize=64)
def places_of_time(F: int, width: int, dtype: Any) -> NDArray[Any]:
    """(F, 1, width), read-only: (T.32)."""
    p = sincos_1d(width, F)
    return read_only((p - p[:1]).astype(dtype)[:, None])


def float_of(x: Value) -> Any:
    """The type of tables beside x: float64 beside float64, otherwise float32."""
    return np.float64 if value(x).dtype == np.float64 else np.float32


def times_beside(x: Value) -> Array:
    """x : (B, F, n, D)  ->  the places of its times, (F, 1, D), in its home and type."""
    a = value(x)
    return resident(places_of_time(x.shape[1], x.shape[3], a.dtype), like=a)


@lru_cache(maxsize=64)
def turns(F: int, h: int, w: int, axes: tuple[int, ...], dtype: Any) -> Turn:
    """cos and sin, (F h w, K/2) each and read-only, of the angles of F times, h rows and w columns."""
    ids = np.stack(np.meshgrid(np.arange(F), np.arange(h), np.arange(w), indexing="ij"), axis=-1)
    cos, sin = (table.astype(dtype) for table in rotary(ids.reshape(-1, 3), axes))  # (T.37)
    return read_only(cos), read_only(sin)


class ClipAttention(SelfAttention):
    """x : (B, F n, D)  ->  the same shape: all tokens attend to each other.   axes : of a head, if it is turned, see `turns`"""

    def __init__(self, width: int, heads: int, grid: tuple[int, int], axes: tuple[int, ...] = ()) -> None:
        super().__init__(width, heads)
        self.grid, self.sites, self.axes = grid, math.prod(grid), axes

    def group(self, x: Value, F: int, h: int, w: int) -> Value:
        """The attention of F h w tokens, x : (groups, F h w, D)."""
        if not self.axes:
            return super().mixed(x)
        return attended(self.qkv(x), self.heads, turns(F, h, w, self.axes, float_of(x)))  # (T.37)

    def mixed(self, x: Value) -> Value:
        return self.group(x, x.shape[1] // self.sites, *self.grid)


class InFrames(ClipAttention):
    """x : (B, F n, D)  ->  the same shape: the n tokens of a frame attend to each other."""

    def mixed(self, x: Value) -> Value:
        B, N, D = x.shape
        return self.group(x.reshape(-1, self.sites, D), 1, *self.grid).reshape(B, N, D)  # (T.34)


class OverTime(ClipAttention):
    """x : (B, F n, D)  ->  the same shape: the F tokens of a site attend to each other.   places : whether times are added"""

    places = False

    def mixed(self, x: Value) -> Value:
        B, N, D = x.shape
        n, F = self.sites, N // self.sites
        grid = x.reshape(B, F, n, D)
        by_site = (grid + times_beside(grid) if self.places else grid).transpose(0, 2, 1, 3).reshape(B * n, F, D)
        return self.group(by_site, F, 1, 1).reshape(B, n, F, D).transpose(0, 2, 1, 3).reshape(B, N, D)  # (T.34)


class GroupedBlock(DiTBlock):
    """A DiT block whose attention is within groups of tokens."""

    float32_tokens = True  # they are moved, which the other types of a GPU do not know

    def __init__(self, width: int, heads: int, inner: int, attention: SelfAttention) -> None:
        super().__init__(width, heads, inner)
        self.attn = attention


def block_of(config: SpacetimeConfig, k: int) -> Block:
    """Block number k."""
    D, heads, inner = config.hidden_size, config.num_heads, int(config.hidden_size * config.mlp_ratio)
    turned, full = config.positions == "rope", config.time_attention == "full"
    if full and not turned:
        return DiTBlock(D, heads, inner)
    over_time = config.time_attention == "factorised" and k % 2
    kind = OverTime if over_time else ClipAttention if full else InFrames
    attention = kind(D, heads, config.grid, config.axes if turned else ())
    if isinstance(attention, OverTime):
        attention.places = config.positions == "sincos"
    return GroupedBlock(D, heads, inner, attention)


class ClipEmbed(Module):
    """x : (B, C, T, H, W)  ->  tokens : (B, N, D), a three-dimensional convolution with kernel and stride (t, p, p)."""

    def __init__(self, config: SpacetimeConfig) -> None:
        self.t, self.p = config.frame_patch, config.patch_size
        self.proj = Linear(config.in_channels * config.numbers, config.hidden_size, init=xavier_uniform)

    def forward(self, x: Value) -> Value:
        return self.proj(patches(x, self.t, self.p))  # (T.31)


class SpacetimeDiT(PictureNetwork):
    """out = model(x, t, y):  x (B, C, T, H, W) of any T, or pictures (B, C, H, W); t (B,), y (B,) int  ->  as x, or 2C channels.

    rng=None allocates without initialising, for loading. y=None is for num_classes=0. Raises ValueError for wrong shapes.
    """

    config: SpacetimeConfig
    pos_embed: Array
    blocks: list[Block]

    def __init__(
        self, config: SpacetimeConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        check_config(self, config, SpacetimeConfig, "md.SPACETIME")
        D = config.hidden_size
        self.config = config
        self.shape, self.condition, self.second_half = config.shape, config.condition, config.learn_sigma
        if config.positions != "rope":
            self.register_buffer("pos_embed", sincos_2d(D, *config.grid)[None])
        self.x_embedder = ClipEmbed(config)
        self.t_embedder = TimestepEmbedder(D)
        if config.num_classes:
            self.y_embedder = LabelEmbedder(config.condition.rows, D)
        self.blocks = [block_of(config, k) for k in range(config.depth)]
        self.final_layer = FinalLayer(D, config.numbers * config.out_channels, config.tokens)
        self.build(rng, device=device, dtype=dtype)

    def forward(self, x: Value, t: Array, y: Array | None = None) -> Value:
        B, C, *T, H, W = self._check(x, t, y)
        tokens = self.placed(self.x_embedder(filled(x.reshape(B, C, *(T or [1]), H, W), self.config.frame_patch)))
        h, c = summed(tokens, [self.t_embedder(t), *([] if y is None else [self.y_embedder(y)])])
        h = through(self.blocks, self.final_layer, h, c)
        out = clip_of(h, self.config.frame_patch, self.config.patch_size, (H, W))
        return out[:, :, : math.prod(T)].reshape(B, -1, *T, H, W)

    def placed(self, tokens: Value) -> Value:
        """Tokens with their places in space, and those of time if all tokens attend to each other."""
        if self.config.positions == "rope":
            return tokens
        B, N, D = tokens.shape
        grid, places = tokens.reshape(B, -1, self.config.sites, D), self.pos_embed
        if self.config.time_attention == "full" and self.config.positions == "sincos":
            places = places + times_beside(grid)  # (T.33)
        return (grid + places).reshape(B, N, D)

    def of_frames(self, frames: int) -> Self:
        """The same weights for clips of so many frames, or with 1 for pictures. Raises ValueError for part of a patch."""
        if frames < 1:
            raise ValueError(f"a clip of {frames} frames must have at least one")
        config = replace(self.config, frames=0 if frames == 1 else frames)
        made = type(self)(config, device=self.device, dtype=self.dtype)
        made.load_state_dict(self.state_dict())
        return made

    def _check(self, x: Value, t: Array, y: Array | None) -> tuple[int, ...]:
        C, (H, W), frames = self.config.in_channels, self.config.size, self.config.frame_patch
        shape = tuple(x.shape)
        T = math.prod(shape[2:-2])
        if len(shape) not in (4, 5) or (shape[1], *shape[-2:]) != (C, H, W) or (T > 1 and T % frames) or not T:
            each = "" if frames == 1 else f" with T divisible by {frames}"
            raise ValueError(f"x has shape {shape}, expected (B, {C}, T, {H}, {W}){each}, or pictures (B, {C}, {H}, {W})")
        check_one_per_sample("t", t, len(x))
        self.condition.check(y, len(x))
        return shape

    @classmethod
    def like(
        cls, network: DiT, rng: Philox, *, frames: int = 0, time_attention: str = "full", positions: str = "sincos"
    ) -> Self:
        """The weights of a DiT in a network for clips; new are the blocks over time, whose gates are closed (T.7).

        Raises ValueError for a DiT of another conditioning than adaln_zero, and for places that are not added.
        """
        c = network.config
        if (c.conditioning, c.freq_shift, c.mlp_norm_eps) != ("adaln_zero", 0, 1e-6) or positions == "rope":
            raise ValueError(
                "the DiT must have conditioning adaln_zero, freq_shift 0 and mlp_norm_eps 1e-6, and places are added"
            )
        names = [name for name in SpacetimeConfig.__dataclass_fields__ if name in type(c).__dataclass_fields__]
        same = {name: getattr(c, name) for name in names}
        config = SpacetimeConfig(**same, frames=frames, time_attention=time_attention, positions=positions)
        step = 2 if config.time_attention == "factorised" else 1
        made = cls(replace(config, depth=c.depth * step), rng, device=network.device, dtype=network.dtype)
        state = made.state_dict()
        for name, array in network.state_dict().items():
            head, *rest = name.split(".")
            if head == "blocks":
                name = ".".join([head, str(step * int(rest[0])), *rest[1:]])
            state[name] = array.reshape(state[name].shape)
        made.load_state_dict(state)
        return made
