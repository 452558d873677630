"""The sizes of an MM-DiT (models/mmdit.py), and what they cost.

    stream of n tokens, inner width rD      (4 + 2r) n D² + parts D²           multiply-accumulates
                                            4D² + 4D + 2rD² + rD + D + parts (D² + D) + [2K]     numbers         (T.26)
    joint attention of M + N tokens         2 (M + N)² D

A dual attention adds 4ND² + 2N²D, and 4D² + 4D + [2K]; the brackets are the gains of QK-norm. parts is 6, with dual attention 9.
The last context has no output projection, no MLP, and 2 parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from minidit.keywords import Named, suggesting
from minidit.models.embedders import FREQUENCIES
from minidit.models.words import OfWords
from minidit.nn.memory import HOMES, Home, SampleMemory


@suggesting
@dataclass(frozen=True)
class MMDiTConfig(OfWords):
    """The sizes of an MM-DiT. Raises ValueError if they conflict."""

    input_size: int | tuple[int, int] = 32  # height and width of the (latent) image
    patch_size: int = 8  # pixels or latents per side of a token: twice as many are a quarter of the work
    in_channels: int = 3
    hidden_size: int = 128  # the width: numbers per token
    depth: int = 4  # blocks
    num_heads: int = 4  # heads of attention; they divide the width
    mlp_ratio: float = 4.0  # hidden width of the MLP of the picture, in widths
    context_ratio: float = 2.0  # hidden width of the MLP of the words, in widths
    qk_norm: bool = True  # queries and keys are normalised
    dual_attention: tuple[int, ...] = ()  # the blocks whose picture also attends to itself alone
    position_side: int = 0  # rows and columns of the table of positions, whose middle is used; 0: those of the grid
    class_dropout_prob: float = 0.1  # captions or classes that training leaves out
    vocabulary: int = 0  # words of captions, padding (0) among them; 0: no captions
    caption_length: int = 0  # words per caption
    word_dropout_prob: float = 0.0  # words of captions that training makes unknown
    text_width: int = 0  # of the tokens of text encoders; 0: none
    text_pooled: int = 0  # of their vector
    text_length: int = 154  # their tokens: for counts, any length is taken
    num_classes: int = 0
    learn_sigma: bool = False  # twice the channels: the second half is for the variance

    def __post_init__(self) -> None:
        self.check_sizes(self.depth, self.context_ratio)
        if self.position_side and self.position_side < max(self.grid):
            raise ValueError(f"position_side {self.position_side} must be 0, or at least {max(self.grid)}, the grid's side")
        if any(not 0 <= i < self.depth for i in self.dual_attention):
            raise ValueError(f"dual_attention {self.dual_attention}: the blocks are 0 to {self.depth - 1}")
        self.check_text()

    @property
    def side(self) -> tuple[int, int]:
        """Rows and columns of the position table."""
        return (self.position_side, self.position_side) if self.position_side else self.grid

    @property
    def unit(self) -> float:
        """Of the coordinates in the table: one of side × side spans as much as the grid of one picture does."""
        return self.grid[0] / self.position_side if self.position_side else 1.0

    def streams(self) -> list[StreamSize]:
        """The streams of all blocks."""
        sizes, N, M, last = [], self.tokens, self.words, self.depth - 1
        for i in range(self.depth):
            sizes.append(StreamSize(N, int(self.hidden_size * self.mlp_ratio), dual=i in self.dual_attention))
            if M:
                sizes.append(StreamSize(M, int(self.hidden_size * self.context_ratio), last=i == last))
        return sizes

    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample (T.26)."""
        N, M, D, p = self.tokens, self.words, self.hidden_size, self.patch_size
        total = N * D * p * p * (self.in_channels + self.out_channels) + FREQUENCIES * D + D * D + 2 * D * D
        total += self.depth * 2 * (M + N) ** 2 * D + sum(stream.macs(D) for stream in self.streams())
        return total + self.text_macs(D)

    def parameters(self) -> int:
        """Numbers in the checkpoint, a frozen position table included (T.26)."""
        D, p, gains = self.hidden_size, self.patch_size, 2 * (self.hidden_size // self.num_heads) * self.qk_norm
        total = sum(stream.parameters(D, gains) for stream in self.streams())  # (T.26)
        total += (self.in_channels * p * p + 1) * D + (FREQUENCIES + 1) * D + (D + 1) * D
        total += 2 * D * D + 2 * D + (D + 1) * p * p * self.out_channels + self.side[0] * self.side[1] * D
        return total + self.text_parameters(D)

    def step_memory(self, home: str, precision: str) -> SampleMemory:
        """The memory of a training update per sample on "cpu" or "cuda"."""
        D, at, n = self.hidden_size, HOMES[home], self.tokens + self.words
        joint, attention = self.words > 0, at.attention(n, self.num_heads)
        streams = [4 * s.kept(D, at, norm=self.qk_norm, joint=joint) for s in self.streams()]
        block = max(streams) + (streams[1] if joint else 0) + attention  # the largest one, with its words
        kept = sum(streams) + self.depth * attention
        return SampleMemory(kept, block, self.depth * 4 * n * D, working_of(self, self.streams()[: 1 + joint], at), 4)


class StreamSize(NamedTuple):
    """One stream of one block: its tokens and the inner width of its MLP."""

    tokens: int
    inner: int
    dual: bool = False
    last: bool = False

    def kept(self, D: int, at: Home, *, norm: bool, joint: bool) -> int:
        """Numbers that the adjoint of this stream in a block keeps. joint: there is another stream, so that tokens are copied."""
        parts = 5 + 3 * norm if self.last else 10 + 3 * norm + joint
        inner = 0 if self.last else at.inner_kept * self.inner
        return self.tokens * ((parts + self.dual * (7 + 3 * norm)) * D + inner) + (self.parts + 1) * D

    @property
    def parts(self) -> int:
        """Modulations."""
        return 2 if self.last else 9 if self.dual else 6

    def macs(self, D: int) -> int:
        """Of all but the joint attention's logits and means."""
        n = self.tokens
        own = 3 * n * D * D if self.last else 4 * n * D * D + 2 * n * D * self.inner
        return own + self.dual * (4 * n * D * D + 2 * n * n * D) + self.parts * D * D

    def parameters(self, D: int, gains: int) -> int:
        """gains: those of QK-norm."""
        own = 3 * (D * D + D) + gains + self.parts * (D * D + D)
        if not self.last:
            own += D * D + D + 2 * D * self.inner + self.inner + D
        return own + self.dual * (4 * (D * D + D) + gains)


def working_of(config: OfWords, streams: Sequence[StreamSize], at: Home) -> float:
    """Bytes per sample that the adjoint of a block uses while it runs, and the ends of the network."""
    D, (H, W) = config.hidden_size, config.size
    ends = 4 * H * W * (config.in_channels + config.out_channels)
    working = at.working - (at.joined if len(streams) == 1 else 0)
    return 4 * sum(s.tokens * (working * D + at.inner_made * s.inner) for s in streams) + at.ends * ends


_REAL = MMDiTConfig(
    128, 2, 16, mlp_ratio=4.0, context_ratio=4.0, qk_norm=False, position_side=192, class_dropout_prob=0.0,
    text_width=4096, text_pooled=2048,
)  # fmt: skip

MMDIT: Named[MMDiTConfig] = Named(
    {
        "words": MMDiTConfig(vocabulary=1409, caption_length=7),
        "SD3-M": replace(_REAL, hidden_size=64 * 24, depth=24, num_heads=24),
        "SD3.5-M": replace(
            _REAL, hidden_size=64 * 24, depth=24, num_heads=24, qk_norm=True, position_side=384, dual_attention=tuple(range(13))
        ),
        "SD3.5-L": replace(_REAL, hidden_size=64 * 38, depth=38, num_heads=38, qk_norm=True),
    }
)
