"""What a training step keeps in memory, counted for the fast twins; tests hold the sum to what is measured.

    block     s (u n D + k r n D + v D) + attention(n, h)         what the adjoint of one block keeps                 bytes
    working   s (w + m r) n D + e · 4 H W (C + C_out)             the adjoint that runs, and the ends of the network

s bytes per stored number, n tokens of width D, r D the inner width of the MLP, h heads. u and v are the block's own, see `costs`
in models/; k, m, w, e and the attention depend on where the work happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minidit.kernels.cpu import TILE

TILES = 12 * TILE  # bytes per shard of a CPU: the twins' cache tiles


@dataclass(frozen=True)
class SampleMemory:
    """Bytes per sample when a training step is at its fullest: the last block's adjoint runs, the others keep what they need."""

    kept: float  # by the adjoints of all blocks
    block: float  # by that of one block
    inputs: float  # by all blocks, if each keeps its input only and runs again
    working: float
    size: int  # of one stored activation


@dataclass(frozen=True)
class Home:
    """Numbers kept and made, which depend on whose twins run."""

    inner_kept: int  # per inner channel of the MLP: W₁ x + b₁ on a CPU; gelu and its slope on a GPU
    inner_made: int  # per inner channel, while the adjoint runs
    working: int  # per token and channel; on a CPU the arena's buffers of other sizes wait beside them
    ends: int  # per number of a sample and of an answer
    attention: Callable[[int, int], int]  # bytes that n tokens and h heads keep


HOMES = {
    "cpu": Home(1, 2, 14, 6, lambda n, h: 4 * h * n * n),  # e^logits
    "cuda": Home(2, 1, 1, 1, lambda n, h: 4 * n * (4 + h)),  # means, deviations and sums of the rows
}
