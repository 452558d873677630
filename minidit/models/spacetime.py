"""A diffusion transformer on clips: patches in space and time are its tokens (Sora; Latte, Ma et al. 2024).

    token_{(f h + r) w + s} = W · vec x[:, f t : f t + t, r p : r p + p, s p : s p + p] + b + pos[r w + s]        (T.31)
    place of time f:   p(f) - p(0),    p = [sin f ω | cos f ω],    ω_i = 10000^(-i/(D/2))                         (T.32)
    full          every token attends to all others; its place of time is added to it at the start               (T.33)
    factorised    blocks in turn: tokens of one frame attend to each other; tokens of one site, over time          (T.34)
    none          tokens of one frame only: a picture model that draws every frame by itself

A block is that of the DiT (T.5), and so is the last layer: only the attention is grouped. A picture is a clip of one frame: its
place of time is zero, and with t = 1 the full model is the DiT to the bit. In the factorised model only attention over time
sees places of time, so that closed gates (T.7) leave the picture model of every frame. Latte adds them to the tokens, once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minidit.autograd import Value, value
from minidit.backend import Array, resident
from minidit.models.backbone import OfPictures, check_one_per_sample
from minidit.models.condition import FREQUENCIES, LabelEmbedder, TimestepEmbedder
from minidit.models.dit import DiT, DiTBlock, FinalLayer
from minidit.models.variants import summed
from minidit.nn import Linear, Module, SelfAttention, sincos_1d, sincos_2d
from minidit.nn.block import Block
from minidit.nn.initial import xavier_uniform
from minidit.nn.memory import HOMES, SampleMemory
from minidit.nn.module import Parameter
from minidit.nn.stack import modulations_first, through
from minidit.random import Philox

TIME_ATTENTION, POSITIONS = ("full", "factorised", "none"), ("sincos", "space")


@dataclass(frozen=True)
class SpacetimeConfig(OfPictures):
    """The sizes of a spacetime DiT. Raises ValueError if they conflict."""

    input_size: int | tuple[int, int] = 16  # height and width of a frame
    frames: int = 0  # of one sample; 0: samples are pictures, without an axis of time
    frame_patch: int = 1  # t, frames of a patch
    patch_size: int = 2
    in_channels: int = 1
    hidden_size: int = 96
    depth: int = 4
    num_heads: int = 4
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    num_classes: int = 10  # 0: unconditional
    time_attention: str = "full"  # full, factorised or none
    positions: str = "sincos"  # of time and space, or space alone: the order of frames is not seen
    learn_sigma: bool = False

    def __post_init__(self) -> None:
        (H, W), t, p = self.size, self.frame_patch, self.patch_size
        sizes = (H, W, t, p, self.in_channels, self.hidden_size, self.depth, self.num_heads, self.mlp_ratio)
        if min(sizes) <= 0 or self.frames < 0:
            raise ValueError(f"every size must be positive: {self}")
        if self.num_classes < 0 or not 0 <= self.class_dropout_prob < 1:
            raise ValueError(f"num_classes {self.num_classes} or class_dropout_prob {self.class_dropout_prob} is out of range")
        if H % p or W % p or max(1, self.frames) % t:
            raise ValueError(f"{max(1, self.frames)} frames of {H} x {W} are not divisible by patches of {t} x {p} x {p}")
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads} and by 4")
        for name, word, words in (
            ("time_attention", self.time_attention, TIME_ATTENTION),
            ("positions", self.positions, POSITIONS),
        ):
            if word not in words:
                raise ValueError(f"{name} {word!r} is not one of {', '.join(words)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, T, H, W), or (C, H, W) of pictures."""
        return (self.in_channels, *([self.frames] if self.frames else []), *self.size)

    @property
    def sites(self) -> int:
        """Tokens of one frame, or of `frame_patch` frames."""
        return (self.size[0] // self.patch_size) * (self.size[1] // self.patch_size)

    @property
    def times(self) -> int:
        """Tokens of one site."""
        return max(1, self.frames) // self.frame_patch

    @property
    def tokens(self) -> int:
        return self.times * self.sites

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of the patch."""
        return self.patch_size

    @property
    def numbers(self) -> int:
        """Entries of a patch in one channel."""
        return self.frame_patch * self.patch_size**2

    def fitted(self, shape: tuple[int, ...], classes: int) -> Self:
        """The same network for samples of this shape, (C, T, H, W) or (C, H, W), and `classes` classes."""
        C, *T, H, W = shape
        size = H if H == W else (H, W)
        return replace(self, input_size=size, frames=T[0] if T else 0, in_channels=C, num_classes=classes)

    def groups(self) -> list[tuple[int, int]]:
        """(how many groups of tokens, tokens of each) that attend to each other, for every block."""
        frame, site, everything = (self.times, self.sites), (self.sites, self.times), (1, self.tokens)
        kinds = {"full": [everything], "factorised": [frame, site], "none": [frame]}[self.time_attention]
        return [kinds[k % len(kinds)] for k in range(self.depth)]

    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample (T.35)."""
        N, D, L, C = self.tokens, self.hidden_size, self.depth, self.in_channels + self.out_channels
        blocks = L * ((4 + 2 * self.mlp_ratio) * N * D * D + 6 * D * D) + sum(2 * g * n * n * D for g, n in self.groups())
        return int(blocks + N * D * self.numbers * C + FinalLayer.costs(D).macs + FREQUENCIES * D + D * D)

    def parameters(self) -> int:
        """Numbers in the checkpoint, the table of places in space included (T.36)."""
        D, inner, final, out = self.hidden_size, int(self.hidden_size * self.mlp_ratio), FinalLayer.costs, self.out_channels
        block = 4 * D * D + 4 * D + 2 * D * inner + inner + D + DiTBlock.costs(self.tokens, 1, D).parameters
        ends = (self.in_channels * self.numbers + 1) * D + (FREQUENCIES + 1) * D + (D + 1) * D
        ends += final(D).parameters + (D + 1) * self.numbers * out
        return self.depth * block + ends + self.condition.rows * D + self.sites * D

    def step_memory(self, home: str, precision: str) -> SampleMemory:
        """The memory of a training update per sample on "cpu" or "cuda"."""
        D, r, n, at = self.hidden_size, self.mlp_ratio, self.tokens, HOMES[home]
        costs = DiTBlock.costs(n, 1, D)
        half = home == "cuda" and precision == "bf16" and self.time_attention == "full"
        size = 2 if half else 4
        moved = 2 * size * n * D  # tokens that are put in groups and back
        block = size * ((costs.kept + at.inner_kept * r) * n * D + costs.kept_of_sample * D)
        attentions = [g * at.attention(m, self.num_heads) + (moved if m == self.times > 1 else 0) for g, m in self.groups()]
        ends = 4 * math.prod(self.shape[1:]) * (self.in_channels + self.out_channels)
        working = size * (at.working + at.inner_made * r) * n * D + at.ends * ends
        kept = self.depth * block + sum(attentions)
        return SampleMemory(kept, block + max(attentions), self.depth * size * n * D, working, size)


def patches(x: Value, t: int, p: int) -> Value:
    """x : (B, C, T, H, W)  ->  (B, (T/t)(H/p)(W/p), C t p p), frame by frame and row by row: (T.31), for t = T = 1 (T.1)."""
    B, C, T, H, W = x.shape
    grid = x.reshape(B, C, T // t, t, H // p, p, W // p, p).transpose(0, 2, 4, 6, 1, 3, 5, 7)
    return grid.reshape(B, -1, C * t * p * p)


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
    places: NDArray[Any] = (p - p[:1]).astype(dtype)[:, None]
    places.setflags(write=False)
    return places


def with_places(x: Value) -> Value:
    """x : (B, F, n, D)  ->  every token with its place of time."""
    a = value(x)
    return x + resident(places_of_time(x.shape[1], x.shape[3], a.dtype), like=a)


class InFrames(SelfAttention):
    """x : (B, F n, D)  ->  the same shape: the n tokens of a frame attend to each other."""

    def __init__(self, width: int, heads: int, sites: int) -> None:
        super().__init__(width, heads)
        self.sites = sites

    def mixed(self, x: Value) -> Value:
        B, N, D = x.shape
        return super().mixed(x.reshape(-1, self.sites, D)).reshape(B, N, D)  # (T.34)


class OverTime(InFrames):
    """x : (B, F n, D)  ->  the same shape: the F tokens of a site attend to each other.   places : whether they see times"""

    def __init__(self, width: int, heads: int, sites: int, places: bool) -> None:
        super().__init__(width, heads, sites)
        self.places = places

    def mixed(self, x: Value) -> Value:
        B, N, D = x.shape
        n, F = self.sites, N // self.sites
        grid = x.reshape(B, F, n, D)
        by_site = (with_places(grid) if self.places else grid).transpose(0, 2, 1, 3).reshape(B * n, F, D)
        return SelfAttention.mixed(self, by_site).reshape(B, n, F, D).transpose(0, 2, 1, 3).reshape(B, N, D)  # (T.34)


class GroupedBlock(DiTBlock):
    """A DiT block whose attention is within groups of tokens."""

    float32_tokens = True  # they are moved, which the other types of a GPU do not know

    def __init__(self, width: int, heads: int, inner: int, attention: SelfAttention) -> None:
        super().__init__(width, heads, inner)
        self.attn = attention


def block_of(config: SpacetimeConfig, k: int) -> Block:
    """Block number k."""
    D, heads, n = config.hidden_size, config.num_heads, config.sites
    inner, seen = int(D * config.mlp_ratio), config.positions == "sincos"
    if config.time_attention == "full":
        return DiTBlock(D, heads, inner)
    over_time = config.time_attention == "factorised" and k % 2
    return GroupedBlock(D, heads, inner, OverTime(D, heads, n, seen) if over_time else InFrames(D, heads, n))


class ClipEmbed(Module):
    """x : (B, C, T, H, W)  ->  tokens : (B, N, D), a three-dimensional convolution with kernel and stride (t, p, p)."""

    def __init__(self, config: SpacetimeConfig) -> None:
        self.t, self.p = config.frame_patch, config.patch_size
        self.proj = Linear(config.in_channels * config.numbers, config.hidden_size, init=xavier_uniform)

    def forward(self, x: Value) -> Value:
        return self.proj(patches(x, self.t, self.p))  # (T.31)


class SpacetimeDiT(Module):
    """out = model(x, t, y):  x (B, C, T, H, W) of any T, or pictures (B, C, H, W); t (B,), y (B,) int  ->  as x, or 2C channels.

    rng=None allocates without initialising, for loading. y=None is for num_classes=0. Raises ValueError for wrong shapes.
    """

    pos_embed: Array
    blocks: list[Block]

    def __init__(
        self, config: SpacetimeConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        D, p = config.hidden_size, config.patch_size
        self.config = config
        self.shape, self.condition, self.second_half = config.shape, config.condition, config.learn_sigma
        self.register_buffer("pos_embed", sincos_2d(D, config.size[0] // p, config.size[1] // p)[None])
        self.x_embedder = ClipEmbed(config)
        self.t_embedder = TimestepEmbedder(D)
        if config.num_classes:
            self.y_embedder = LabelEmbedder(config.condition.rows, D)
        self.blocks = [block_of(config, k) for k in range(config.depth)]
        self.final_layer = FinalLayer(D, config.numbers * config.out_channels, config.tokens)
        self.build(rng, device=device, dtype=dtype)

    def forward(self, x: Value, t: Array, y: Array | None = None) -> Value:
        B, C, *T, H, W = self._check(x, t, y)
        tokens = self.placed(self.x_embedder(x.reshape(B, C, *(T or [1]), H, W)))
        h, c = summed(tokens, [self.t_embedder(t), *([] if y is None else [self.y_embedder(y)])])
        h = through(self.blocks, self.final_layer, h, c)
        out = clip_of(h, self.config.frame_patch, self.config.patch_size, (H, W))
        return out.reshape(B, -1, *T, H, W)

    def placed(self, tokens: Value) -> Value:
        """Tokens with their places in space, and those of time if all tokens attend to each other."""
        B, N, D = tokens.shape
        grid = (tokens.reshape(B, -1, self.config.sites, D)) + self.pos_embed
        if self.config.time_attention == "full" and self.config.positions == "sincos":
            grid = with_places(grid)  # (T.33)
        return grid.reshape(B, N, D)

    def null(self, y: Array | None) -> Array:
        """The labels of the same batch with the class left out. Raises ValueError if the model has no null label."""
        return self.condition.left_out(y)

    def layout_order(self, parameters: dict[str, Parameter]) -> list[Parameter]:
        return modulations_first(parameters)

    def _check(self, x: Value, t: Array, y: Array | None) -> tuple[int, ...]:
        C, (H, W), frames = self.config.in_channels, self.config.size, self.config.frame_patch
        shape = tuple(x.shape)
        T = math.prod(shape[2:-2])
        if len(shape) not in (4, 5) or (shape[1], *shape[-2:]) != (C, H, W) or T % frames or not T:
            each = "" if frames == 1 else f" with T divisible by {frames}"
            raise ValueError(f"x has shape {shape}, expected (B, {C}, T, {H}, {W}){each}, or pictures (B, {C}, {H}, {W})")
        check_one_per_sample("t", t, len(x))
        self.condition.check(y, len(x))
        return shape

    @classmethod
    def like(cls, network: DiT, rng: Philox, **more: Any) -> Self:
        """The weights of a DiT in a network for clips; new are the blocks over time, whose gates are closed (T.7).

        more : time_attention, frames. Raises ValueError for a DiT of another conditioning than adaln_zero.
        """
        c = network.config
        if (c.conditioning, c.freq_shift, c.mlp_norm_eps) != ("adaln_zero", 0, 1e-6):
            raise ValueError("the DiT must have conditioning adaln_zero, freq_shift 0 and mlp_norm_eps 1e-6")
        names = [name for name in SpacetimeConfig.__dataclass_fields__ if name in type(c).__dataclass_fields__]
        config = SpacetimeConfig(**{name: getattr(c, name) for name in names}, **more)
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


_SMALL = SpacetimeConfig(input_size=16, frames=6, patch_size=4)
SPACETIME: dict[str, SpacetimeConfig] = {
    "clips": _SMALL,
    "clips-factor": replace(_SMALL, time_attention="factorised"),
}
