"""Forward passes without gradients over many images: a few at a time, in parallel on the CPU, and on several ranks.

The images that go through the network together are always the same, so the result has the same bits on any number of cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from minidit.autograd import no_grad
from minidit.backend import Arena, Array, flat_buffer
from minidit.nn.module import Module
from minidit.training.workers import over_shards

CHUNK, PASSES = 64, 16  # images per pass, at most; passes on a CPU, at least


def forward(
    model: Module, n: int, shapes: Sequence[tuple[int, ...]], run: Callable[[slice], Sequence[Array]], *, alone: bool = False
) -> list[Array]:
    """run(part) -> arrays (len(part), *shape), one for each of `shapes`  ->  the same for all n images, on the model's device.

    alone : whether this rank computes all of them, while the others do something else
    """
    results = [flat_buffer(n * math.prod(shape), model.dtype, model.device).reshape(n, *shape) for shape in shapes]
    size = min(CHUNK, -(-n // PASSES)) if model.device == "cpu" else CHUNK

    def body(passes: slice, i: int) -> None:
        with no_grad(), Arena():
            for k in range(passes.start, passes.stop):
                part = slice(k * size, min((k + 1) * size, n))
                for result, values in zip(results, run(part), strict=True):
                    result[part] = values

    over_shards(-(-n // max(1, size)), body, model.device, into=results, rows=size, alone=alone)
    return results
