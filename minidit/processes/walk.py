"""The loop that every sampler runs: down a grid of times, one step of (P.4) per pair.

    for (t, s) in grid:   F = network(x_t, t, y),   x_s = step(F, row, z),   row ← the next of the table

Everything that does not depend on the picture is a table, one row per step (diffusion/row.py). The host reads a row as
numbers. A recorded walk reads it at a counter on the device, so that a step is the same function of the same arrays at every
time, and is recorded once (twice if a guidance interval omits the unconditional half at some times).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minidit.backend import Array, xp_of
from minidit.diffusion.fresh import Fresh
from minidit.diffusion.row import table_of, walk_step
from minidit.diffusion.threshold import static
from minidit.nn.device import recorded
from minidit.processes.denoise import Denoiser
from minidit.training.draws import Draws

Progress = Callable[[int, int], None]  # (steps done, steps in all)
Grid = Sequence[tuple[int, int]]  # [(t, s), …] from noise to data


@dataclass
class Moment:
    """One step of a trace: the sample at time t, the network's estimate of the clean one, and the next time s."""

    t: int
    s: int
    x_t: Array
    x_0_hat: Array


class Walk:
    """One walk of a denoiser. Raises ValueError for an empty grid, and for fresh noise of more variance than its level."""

    def __init__(self, denoiser: Denoiser, grid: Grid, fresh: Fresh, draws: Draws, y: Array | None) -> None:
        if not grid:
            raise ValueError("a walk needs at least one step")
        if fresh.learned and not denoiser.network.second_half:
            raise ValueError("a learned variance needs a network with learn_sigma")
        self.denoiser, self.grid, self.fresh, self.draws = denoiser, list(grid), fresh, draws
        self.table = table_of(denoiser.answer, denoiser.path, self.grid, fresh)
        self.scales = [denoiser.scale(t) if y is not None else 1.0 for t, _ in self.grid]
        self.labels = {w: y if y is None or w == 1 else denoiser.labels(y) for w in set(self.scales)}

    def step(
        self, x: Array, k: Array, t: Array, w: float, *, noisy: bool, guess: bool = True, into: Array = None
    ) -> tuple[Array, Array]:
        """x : (B, ...) at time t  ->  (x_s, x̂_0). k : the row, an int or a counter on the device; t likewise."""
        F, F_u, v = self.denoiser(x, t, self.labels[w])
        z = self.draws.at(t).normal(x.shape) if noisy else None
        v, limit = v if self.fresh.learned else None, self.denoiser.limit
        clip, limit = limit is static, None if limit is static else limit
        return walk_step(x, F, self.table, k, F_u=F_u, w=w, z=z, v=v, clip=clip, limit=limit, guess=guess, into=into)

    def moments(self, x: Array) -> Iterator[Moment | Array]:
        """x : (B, ...) at the first time  ->  a Moment per step, and x_0 at the end."""
        for k, ((t, s), w) in enumerate(zip(self.grid, self.scales, strict=True)):
            x_s, x_0_hat = self.step(x, k, t, w, noisy=self.fresh.noisy and s > 0)
            yield Moment(t, s, x, x_0_hat)
            x = x_s
        yield x

    def recorded(self, x: Array, progress: Progress | None = None) -> Array:
        """The whole walk on a GPU, each kind of step recorded as a CUDA graph  ->  x_0."""
        xp, x = xp_of(x), x.copy()
        times, k = xp.asarray(np.array([t for t, _ in self.grid])), xp.zeros((1,), np.int64)

        def down(w: float) -> Callable[[], None]:
            def step() -> None:
                nonlocal k
                self.step(x, k, times[k], w, noisy=self.fresh.noisy, guess=False, into=x)
                k += 1

            return recorded(step, "the sampling step")

        steps = {w: down(w) for w in dict.fromkeys(self.scales)}
        for done, w in enumerate(self.scales, 1):
            steps[w]()
            if progress is not None:
                progress(done, len(self.grid))
        return x
