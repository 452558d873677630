"""The memory of a training update, counted for the fast twins; tests compare the sum with measurements.

    block     s (u n D + k r n D + v D) + attention(n, h)         kept by the adjoint of one block                    bytes
    working   s (w + m r) n D + e · 4 H W (C + C_out)             the adjoint that runs, and the ends of the network

s bytes per stored number, n tokens of width D, r D the inner width of the MLP, h heads. u and v are the block's own, see `costs`
in models/; k, m, w, e and the attention depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minidit.kernels.cpu import TILE

TILES = 12 * TILE  # bytes per shard of a CPU: the twins' cache tiles


@dataclass(frozen=True)
class SampleMemory:
    """Bytes per sample at the peak of an update: the last block's adjoint runs, the others keep what they need."""

    kept: float  # by the adjoints of all blocks
    block: float  # by that of one block
    inputs: float  # by all blocks, if each keeps only its input and runs again
    working: float
    size: int  # of one stored activation
    apart: float = 0  # of all samples together: gradients of one block's MLP, which wait beside those of the pieces before


@dataclass(frozen=True)
class Home:
    """Counts of stored numbers, which depend on the twins that run."""

    inner_kept: int  # per inner channel of the MLP: W₁ x + b₁ on a CPU; gelu and its slope on a GPU
    inner_made: int  # per inner channel, while the adjoint runs
    working: int  # per token and channel; on a CPU including the arena's idle buffers of other sizes
    ends: int  # per number of a sample and of an output
    attention: Callable[[int, int], int]  # bytes that n tokens and h heads keep
    joined: int = 0  # of `working`, where streams are joined for attention: q, k, v and the output side by side


HOMES = {
    "cpu": Home(1, 2, 14, 6, lambda n, h: 4 * h * n * n, 4),  # e^logits
    "cuda": Home(2, 1, 1, 1, lambda n, h: 4 * n * (4 + h)),  # means, deviations and sums of the rows
}
