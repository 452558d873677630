"""Forward passes without gradients over many images: a few at a time, in parallel on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from minidit.autograd import no_grad
from minidit.backend import Arena, Array, flat_buffer
from minidit.nn.module import Module
from minidit.training.workers import over_shards

CHUNK = 64  # images per pass


# The passes begin at multiples of CHUNK, whatever the number of cores: which pictures share a pass may change the last bits.


def forward(model: Module, n: int, shapes: Sequence[tuple[int, ...]], run: Callable[[slice], Sequence[Array]]) -> list[Array]:
    """run(part) -> arrays (len(part), *shape), one for each of `shapes`  ->  the same for all n images, on the model's device."""
    results = [flat_buffer(n * math.prod(shape), model.dtype, model.device).reshape(n, *shape) for shape in shapes]

    def body(mine: slice, i: int) -> None:
        with no_grad(), Arena():
            for k in range(mine.start, mine.stop):
                part = slice(k * CHUNK, min((k + 1) * CHUNK, n))
                for result, values in zip(results, run(part), strict=True):
                    result[part] = values

    over_shards(-(-n // CHUNK), body, model.device)
    return results
