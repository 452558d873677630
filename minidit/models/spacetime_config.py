"""The sizes of a diffusion transformer on clips, and its costs: counted, and compared with the network by tests.

    blocks   (4 + 2r) N D² + 6 D² + 2 g m² D     multiply-accumulates of one whose attention has g groups of m tokens      (T.35)
    full     1 group of N = F n tokens           factorised   F groups of n, then n groups of F           none   F groups of n
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from minidit.choices import check_words, one_of
from minidit.keywords import Named, suggesting
from minidit.models.backbone import Indivisible, OfPatches
from minidit.models.condition import check_dropout
from minidit.models.dit import DiTBlock, FinalLayer
from minidit.models.embedders import FREQUENCIES
from minidit.nn.memory import HOMES, SampleMemory

TIME_ATTENTION, POSITIONS = ("full", "factorised", "none"), ("sincos", "space", "rope")
AXIS = 7 / 16  # of a head: the share of rows and that of columns; the rest is for time, as in FLUX


@suggesting
@dataclass(frozen=True)
class SpacetimeConfig(OfPatches):
    """The sizes of a spacetime DiT. Raises ValueError if they conflict."""

    input_size: int | tuple[int, int] = 16  # height and width of a frame
    frames: int = 0  # of one sample; 0: samples are pictures, without an axis of time
    frame_patch: int = 1  # t, frames of a patch
    patch_size: int = 2  # pixels per side of a token: twice as many are a quarter of the work
    in_channels: int = 1
    hidden_size: int = 96  # the width: numbers per token
    depth: int = 4  # blocks
    num_heads: int = 4  # heads of attention; they divide the width
    mlp_ratio: float = 4.0  # hidden width of the MLP, in widths
    class_dropout_prob: float = 0.1  # how often training leaves the class out, which guidance needs
    num_classes: int = 10  # 0: unconditional
    time_attention: str = one_of("full", TIME_ATTENTION)  # which frames a token sees: all; its own, then all; its own
    positions: str = one_of("sincos", POSITIONS)  # of time and space; space: the order of frames is not seen
    learn_sigma: bool = False  # twice the channels: the second half is for the variance

    def __post_init__(self) -> None:
        self.check_sizes(self.depth, self.frame_patch, self.frames + 1)
        check_dropout(self.num_classes, self.class_dropout_prob)
        if self.frames > 1 and self.frames % self.frame_patch:
            text = f"{self.frames} frames are not divisible by frame_patch {self.frame_patch}"
            raise Indivisible("frames", self.frame_patch, text)
        if self.positions == "rope" and (self.hidden_size // self.num_heads % 2 or min(self.axes) <= 0):
            raise ValueError(
                f"heads of {self.hidden_size // self.num_heads} numbers are not turned: positions rope needs 6, 8, …"
            )
        check_words(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, T, H, W), or (C, H, W) of pictures."""
        return (self.in_channels, *([self.frames] if self.frames else []), *self.size)

    @property
    def sites(self) -> int:
        """Tokens of one frame, or of `frame_patch` frames."""
        return math.prod(self.grid)

    @property
    def times(self) -> int:
        """Tokens of one site; a picture has one."""
        return max(1, self.frames // self.frame_patch)

    @property
    def tokens(self) -> int:
        """Tokens of one sample."""
        return self.times * self.sites

    @property
    def axes(self) -> tuple[int, int, int]:
        """The numbers of a head that are turned by time, row and column."""
        K = self.hidden_size // self.num_heads
        side = max(2, 2 * int(AXIS * K / 2))
        return K - 2 * side, side, side

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
        table = 0 if self.positions == "rope" else self.sites * D
        return self.depth * block + ends + self.condition.rows * D + table

    def step_memory(self, home: str, precision: str) -> SampleMemory:
        """The memory of a training update per sample on "cpu" or "cuda"."""
        D, r, n, at = self.hidden_size, self.mlp_ratio, self.tokens, HOMES[home]
        costs = DiTBlock.costs(n, 1, D)
        half = home == "cuda" and precision == "bf16" and self.time_attention == "full"
        size = 2 if half else 4
        moved = 2 * size * n * D  # tokens that are put in groups and back
        block = size * ((costs.kept + at.inner_kept * r) * n * D + costs.kept_of_sample * D)
        over_time = [self.time_attention == "factorised" and k % 2 == 1 for k in range(self.depth)]
        scores = [g * at.attention(m, self.num_heads) for g, m in self.groups()]
        attentions = [kept + moved * over for kept, over in zip(scores, over_time, strict=True)]
        ends = 4 * math.prod(self.shape[1:]) * (self.in_channels + self.out_channels)
        working = size * (at.working + at.inner_made * r) * n * D + at.ends * ends
        kept = self.depth * block + sum(attentions)
        bars = 4 * 2 * r * D * D
        return SampleMemory(kept, block + max(attentions), self.depth * size * n * D, working, size, apart=bars)


_SMALL = SpacetimeConfig(input_size=16, frames=6, patch_size=4)
_BOX = SpacetimeConfig(input_size=16, frames=4, frame_patch=4, patch_size=4, hidden_size=192, num_heads=6)
SPACETIME: Named[SpacetimeConfig] = Named(
    {
        "clips": _BOX,
        "clips-full": _SMALL,
        "clips-factor": replace(_SMALL, time_attention="factorised"),
    }
)
