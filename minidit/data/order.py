"""Which images make up the batch of a training step.

    epochs     π_0, π_1, ...    π_e a permutation of 0..n-1 drawn from Philox(seed) at draw number e
    sequence   i_p = π_{⌊p/n⌋}(p mod n),            p = 0, 1, 2, ...
    batch      i_p  for  step·B ≤ p < (step + 1)·B

A batch across the end of an epoch takes the rest of one and the start of the next, so every image occurs exactly once per epoch.
The batch is a pure function of the step's number: a resumed run sees the batches that it would have seen.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from minidit.backend import read_only
from minidit.random import Philox

ORDER_STREAM = 0x64617462  # the Philox stream of the epochs


@lru_cache(maxsize=4)  # without it every step would draw the whole epoch again
def epoch_order(epoch: int, n: int, seed: int) -> NDArray[np.int64]:
    """π_epoch : int64 (n,), read-only."""
    return read_only(Philox(seed, ORDER_STREAM, state=epoch).permutation(n).astype(np.int64))


def batch_indices(step: int, batch_size: int, n: int, seed: int) -> NDArray[np.int64]:
    """The indices of the images of a training step: int64 (batch_size,) in 0..n-1.   step : int ≥ 0

    Raises ValueError for a negative step or an empty batch or set.
    """
    if step < 0 or batch_size < 1 or n < 1:
        raise ValueError(f"batch_indices(step={step}, batch_size={batch_size}, n={n}): needs step ≥ 0, batch_size ≥ 1, n ≥ 1")
    p, end = step * batch_size, (step + 1) * batch_size
    pieces = []
    while p < end:
        epoch, start = divmod(p, n)
        pieces.append(epoch_order(epoch, n, seed)[start : start + end - p])
        p += len(pieces[-1])
    return np.concatenate(pieces)
