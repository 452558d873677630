"""The sizes of a FLUX (models/flux.py), their costs, and the places of its tokens.

    double block      two streams of (T.26), r the same for both
    single block      (4 + 2r) n D² + 2 n² D + 3D²                         multiply-accumulates, n = M + N tokens       (T.29)
                      4D² + 3D + 2rD² + rD + D + 3 (D² + D) + 2K           numbers
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from minidit.backend import read_only
from minidit.choices import check_words, one_of
from minidit.keywords import Named, suggesting
from minidit.models.embedders import FREQUENCIES
from minidit.models.mmdit_config import StreamSize, working_of
from minidit.models.words import OfWords
from minidit.nn.attention import Turn
from minidit.nn.memory import HOMES, SampleMemory
from minidit.nn.position import grid_ids, rotary

GUIDANCE = ("none", "flux", "from_one")


@functools.cache
def turn_of(words: int, grid: tuple[int, int], axes: tuple[int, ...]) -> Turn:
    """RoPE's tables for words, all at (0, 0, 0), and the patches of a grid at (0, row, column); read-only."""
    places = np.pad(grid_ids(*grid), ((words, 0), (1, 0)))
    cos, sin = rotary(places, axes)
    return read_only(cos), read_only(sin)


@suggesting
@dataclass(frozen=True)
class FluxConfig(OfWords):
    """The sizes of a FLUX. Raises ValueError if they conflict."""

    input_size: int | tuple[int, int] = 32  # height and width of the (latent) image
    patch_size: int = 8  # pixels or latents per side of a token: twice as many are a quarter of the work
    in_channels: int = 3
    hidden_size: int = 128  # the width: numbers per token
    depth: int = 2  # double blocks
    single_depth: int = 4  # single blocks, after the double ones
    num_heads: int = 4  # heads of attention; they divide the width
    mlp_ratio: float = 4.0  # hidden width of the MLP, in widths
    rope_widths: tuple[int, ...] = ()  # numbers of a head for (index, row, column); empty: an eighth or more, the rest in halves
    guidance: str = one_of("none", GUIDANCE)  # flux: the network knows w; from_one: and is the conditional one at w = 1
    class_dropout_prob: float = 0.1  # captions or classes that training leaves out
    vocabulary: int = 0  # words of captions, padding (0) among them; 0: no captions
    caption_length: int = 0  # words per caption
    word_dropout_prob: float = 0.0  # words of captions that training makes unknown
    text_width: int = 0  # of the tokens of text encoders; 0: none
    text_pooled: int = 0  # of their vector
    text_length: int = 512  # their tokens: for counts, any length is taken
    num_classes: int = 0
    learn_sigma: bool = False  # twice the channels: the second half is for the variance

    def __post_init__(self) -> None:
        self.check_sizes(self.depth + 1, self.single_depth + 1, self.depth + self.single_depth)  # one of the two may be 0
        K = self.hidden_size // self.num_heads
        if K % 4 or K < 8:
            raise ValueError(f"heads of {K} numbers: three axes of places need a multiple of 4, at least 8")
        three = len(self.rope_widths) == 3 and sum(self.rope_widths) == K and not any(d % 2 for d in self.rope_widths)
        if self.rope_widths and not three:
            raise ValueError(f"rope_widths {self.rope_widths} must be three even numbers that sum up to {K}, a head")
        check_words(self)
        self.check_text()

    @property
    def axes(self) -> tuple[int, ...]:
        """Numbers of a head that belong to the index, the row and the column."""
        K = self.hidden_size // self.num_heads
        first = next(a for a in range(2, K, 2) if 8 * a >= K and (K - a) % 4 == 0)
        return self.rope_widths or (first, (K - first) // 2, (K - first) // 2)

    def streams(self) -> list[StreamSize]:
        """The streams of a double block."""
        inner = int(self.hidden_size * self.mlp_ratio)
        return [StreamSize(n, inner) for n in (self.tokens, self.words) if n]

    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample (T.29)."""
        N, D, p, n = self.tokens, self.hidden_size, self.patch_size, self.tokens + self.words
        inner, embedder = int(D * self.mlp_ratio), FREQUENCIES * D + D * D
        double = sum(stream.macs(D) for stream in self.streams()) + 2 * n * n * D
        single = 4 * n * D * D + 2 * n * D * inner + 2 * n * n * D + 3 * D * D
        scales = {"none": 0, "flux": 1, "from_one": 2}[self.guidance]
        ends = N * D * p * p * (self.in_channels + self.out_channels) + 2 * D * D + (1 + scales) * embedder
        return self.depth * double + self.single_depth * single + ends + self.text_macs(D)

    def parameters(self) -> int:
        """Numbers in the checkpoint (T.29)."""
        D, p, gains = self.hidden_size, self.patch_size, 2 * (self.hidden_size // self.num_heads)
        inner, embedder = int(D * self.mlp_ratio), (FREQUENCIES + 1) * D + (D + 1) * D
        double = sum(stream.parameters(D, gains) for stream in self.streams())
        single = 4 * D * D + 3 * D + 2 * D * inner + inner + D + 3 * (D * D + D) + gains
        ends = (self.in_channels * p * p + 1) * D + 2 * D * D + 2 * D + (D + 1) * p * p * self.out_channels
        scales = embedder * (1 + (self.guidance != "none"))
        return self.depth * double + self.single_depth * single + ends + scales + self.text_parameters(D)

    def step_memory(self, home: str, precision: str) -> SampleMemory:
        """The memory of a training update per sample on "cpu" or "cuda"."""
        D, at, n, joint = self.hidden_size, HOMES[home], self.tokens + self.words, self.words > 0
        attention, streams = at.attention(n, self.num_heads), self.streams()
        double = 4 * sum(s.kept(D, at, norm=True, joint=joint) for s in streams) + attention
        single = 4 * (n * (10 * D + at.inner_kept * int(D * self.mlp_ratio)) + 4 * D) + attention
        kept, block = self.depth * double + self.single_depth * single, double if self.depth else single
        both = joint and self.depth and self.single_depth  # blocks of two streams and blocks of one: buffers of both sizes
        idle = double if both and home == "cpu" else 0
        inputs = (self.depth + self.single_depth) * 4 * n * D
        return SampleMemory(kept, block, inputs, working_of(self, streams, at) + idle, 4)


FLUX: Named[FluxConfig] = Named({
    "flux-words": FluxConfig(vocabulary=1409, caption_length=7),
    "FLUX.1-dev": FluxConfig(
        128, 2, 16, 3072, 19, 38, 24, rope_widths=(16, 56, 56), guidance="flux", class_dropout_prob=0.0, text_width=4096,
        text_pooled=768,
    ),
})  # fmt: skip
