"""What is timed: four networks on a CPU, three on a GPU.

This file needs nothing but Python, because the engine of PyTorch reads it too; `fixtures.py` needs minidit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

GUIDANCE, T, S = 4.0, 500, 480  # a guided step from rung 500 to rung 480 of the linear schedule with 1000 rungs
WALK = 20  # guided steps of a walk, the unit timed on a GPU: a graph is recorded in its first steps, as for any user
LR, BETAS, EPS, EMA = 1e-4, (0.9, 0.999), 1e-8, 0.9999  # of the optimiser, in every engine


@dataclass(frozen=True)
class Size:
    """A DiT with adaLN-Zero on 4-channel latents, patch 2, no learned variance."""

    name: str
    input_size: int
    width: int
    depth: int
    heads: int
    batch: int
    classes: int = 10
    check_batch: int = 4
    channels: int = 4
    patch: int = 2

    @property
    def tokens(self) -> int:
        return (self.input_size // self.patch) ** 2

    def with_batch(self, batch: int) -> Size:
        return replace(self, batch=batch)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


SIZES = {
    s.name: s
    for s in (
        Size("fashion", input_size=8, width=128, depth=4, heads=4, batch=64),
        Size("tiny", input_size=16, width=128, depth=6, heads=4, batch=64),
        Size("small", input_size=16, width=256, depth=8, heads=4, batch=32),
        Size("S2", input_size=32, width=384, depth=12, heads=6, batch=8, classes=1000, check_batch=2),
    )
}

GPU_SIZES = {  # DiT-S/2, B/2 and XL/2 on latents 4 × 32 × 32; the jobs set the batch
    s.name: s
    for s in (
        Size("S2", input_size=32, width=384, depth=12, heads=6, batch=64, classes=1000, check_batch=2),
        Size("B2", input_size=32, width=768, depth=12, heads=12, batch=64, classes=1000, check_batch=2),
        Size("XL2", input_size=32, width=1152, depth=28, heads=16, batch=64, classes=1000, check_batch=1),
    )
}
REHEARSED = Size("rehearsal", input_size=4, width=32, depth=2, heads=2, batch=3, classes=3, check_batch=2)
