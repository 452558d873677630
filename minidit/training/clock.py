"""Which step it is: a number of the host, or a counter on the device that a recorded step reads and moves on itself.

    draws of step k     k · per, k · per + 1, …               batch of step k     the k-th piece of the endless order of the data
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import Array, module_of, to_device
from minidit.data import batch_indices
from minidit.kernels.cuda_laws import Philox

ROWS = 64  # steps whose batches are sent to the device at once


class Clock:
    """The number of steps done, on the device, and the batches of the steps around it."""

    def __init__(self, device: str, batch_size: int) -> None:
        self.xp = module_of(device)
        self.done = self.xp.zeros((1,), np.int64)
        self.samples = self.xp.arange(batch_size)
        self.tables: dict[tuple[int, int, int], Array] = {}  # row k mod ROWS is the batch of step k
        self.now = 0

    def set(self, step: int) -> None:
        """Puts the counter where the host knows it to be; no step is recorded meanwhile."""
        self.done[...] = step
        self.follow(step, anew=True)

    def follow(self, step: int, *, anew: bool = False) -> None:
        """Says on the host which step is next: now and then, the batches of the steps to come are sent."""
        old, self.now = self.now // ROWS, step
        if anew or step // ROWS != old:
            for key, table in self.tables.items():
                table[...] = self.xp.asarray(self._rows(*key))  # in the stream's order: after all who still read it

    def _rows(self, batch_size: int, n: int, seed: int) -> Array:
        first = self.now // ROWS * ROWS
        return np.stack([batch_indices(k, batch_size, n, seed) for k in range(first, first + ROWS)])

    def batch(self, batch_size: int, n: int, seed: int) -> Array:
        """The indices of this step's images: (batch_size,) int64 on the device."""
        key = batch_size, n, seed
        if key not in self.tables:
            self.tables[key] = self.xp.asarray(self._rows(*key))
        return self.tables[key][self.done % ROWS][0]


def stream_of(step: int | Clock, seed: int, stream: int, per: int) -> Philox:
    """The random numbers of a step that makes at most `per` draws."""
    if not isinstance(step, Clock):
        return Philox(seed, stream, state=step * per)
    rng = Philox(seed, stream)
    rng.counter, rng.per = step.done, per
    return rng


def batch_of(step: int | Clock, samples: Array, n: int, config: Any, device: str) -> Array:
    """Which of n images the samples of a step's batch are, as an array on the device."""
    if not isinstance(step, Clock):
        return to_device(batch_indices(step, config.batch_size, n, config.seed)[samples], device)
    index = step.batch(config.batch_size, n, config.seed)
    return index if samples is step.samples else index[samples]
