"""The loop that every sampler runs: down a grid of times, one step of (P.4) per pair.

    for (t, s) in grid:   F = network(x_t, t, y),   x_s = step(F, row, z),   row ← the next of the table
    t above the s before: the walk climbs first, with noise of its own                                    (P.7, P.20)
    Heun, Adams–Bashforth: F̄ from the answers at both ends, or at this time and the one before      (P.6, P.22, P.27)

Everything that does not depend on the picture is a table, one row per step (diffusion/row.py). The host reads a row as
numbers. A recorded walk reads it at a counter on the device, so that a step is the same function of the same arrays at every
time, and is recorded once (twice if a guidance interval omits the unconditional half at some times): recordings.py. Heun's
steps and climbs are not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from minidit.backend import Array, xp_of
from minidit.diffusion.fresh import Fresh, ddim
from minidit.diffusion.level import Level, climb, enter
from minidit.diffusion.prediction import combined
from minidit.diffusion.row import blend_at, blends_of, pair_at, row_at, row_of, table_of, walk_step
from minidit.diffusion.solver import EULER, Solver, adams, heun, with_x
from minidit.diffusion.threshold import static
from minidit.diffusion.times import number_of
from minidit.processes.denoise import Denoiser
from minidit.training.draws import Draws

Progress = Callable[[int, int], None]  # (how much is done, how much there is): of steps, pictures, …
Grid = Sequence[tuple[Any, Any]]  # [(t, s), …] from noise to data: rungs, or floats on a continuous path

CLIMBS = 0x636C69  # added to the stream of a walk: the noise of climbs


@dataclass
class Moment:
    """One step of a trace: the sample at time t, the network's estimate of the clean one, and the next time s."""

    t: float
    s: float
    x_t: Array
    x_0_hat: Array


def recordable(grid: Grid, solver: Solver, start: Any = None) -> bool:
    """Whether all steps of a walk are one function of the counter: no climbs, and no second call."""
    ends = [grid[0][0] if start is None else start, *(s for _, s in grid)] if grid else []
    climbs = any(t > end for (t, _), end in zip(grid, ends, strict=False))
    return not climbs and not solver.asks_twice


class Walk:
    """One walk of a denoiser. start : the time of the sample that it begins with, if that is not the grid's first.

    Raises ValueError for an empty grid, for fresh noise of more variance than its level, and for fresh noise with a solver of
    order 2, which solves an ODE.
    """

    def __init__(
        self, denoiser: Denoiser, grid: Grid, fresh: Fresh, draws: Draws, y: Array | None, solver: Solver = EULER,
        start: Any = None,
    ) -> None:  # fmt: skip
        if not grid:
            raise ValueError("a walk needs at least one step")
        if any(s >= t for t, s in grid) or any(t < above for (_, above), (t, _) in pairwise(grid)):
            raise ValueError(f"a grid is [(t, s), …] with s < t, each t at or above the s before it; got {list(grid)}")
        if fresh.learned and not denoiser.network.second_half:
            raise ValueError("a learned variance needs a network with learn_sigma")
        if fresh.noisy and solver.answer is not None:
            raise ValueError("a solver of order 2 takes no fresh noise: choose η = 0, or raise the times of the grid (churn)")
        self.denoiser, self.grid, self.fresh, self.draws, self.solver = denoiser, list(grid), fresh, draws, solver
        self.table = table_of(denoiser.answer, denoiser.path, self.grid, fresh)
        if solver.answer is not None:
            self.blends = blends_of(solver, denoiser.path, self.grid)
            self.averaged = table_of(solver.answer, denoiser.path, self.grid, ddim())
        self.start = self.grid[0][0] if start is None else start
        self.scales, self.scales_at_ends = (
            [1.0 if y is None else denoiser.scale(t) for t in ts] for ts in zip(*grid, strict=True)
        )
        asked = {*self.scales, *(self.scales_at_ends if solver.asks_twice else ())}
        self.labels = {w: y if y is None or w == 1 else denoiser.labels(y) for w in asked}

    def of_batch(self, draws: Draws, y: Array | None) -> Walk:
        """The same walk of other samples, with labels if this one has any. Its tables stay what they are, where they are."""
        other = copy(self)
        other.draws = draws
        other.labels = {w: y if y is None or w == 1 else self.denoiser.labels(y) for w in self.labels}
        return other

    def tables(self) -> list[np.ndarray[Any, Any]]:
        """All that a step reads at its counter."""
        return [self.table] if self.solver.answer is None else [self.table, self.blends, self.averaged]

    def arrays(self) -> dict[str, Any]:
        """What a recorded step has read, by name: it must outlive the recording."""
        return {name: vars(self)[name] for name in ("table", "blends", "averaged", "labels", "draws") if name in vars(self)}

    def with_arrays(self, arrays: dict[str, Any]) -> Walk:
        """The same walk by the `arrays` of one that is alike."""
        other = copy(self)
        vars(other).update(arrays)
        return other

    def step(
        self, x: Array, k: Array, t: Array, w: float, *, noisy: bool, guess: bool = True, into: Array = None, number: Array = None
    ) -> tuple[Array, Array]:
        """x : (B, ...) at time t  ->  (x_s, x̂_0). k : the row, an int or a counter on the device; t and number likewise.

        number : of the draw of fresh noise (None: that of time t)
        """
        F, F_u, v = self.denoiser(x, t, self.labels[w])
        z = self.draws.at(number_of(t) if number is None else number).normal(x.shape) if noisy else None
        v, limit = v if self.fresh.learned else None, self.denoiser.limit
        clip, limit = limit is static, None if limit is static else limit
        return walk_step(x, F, self.table, k, F_u=F_u, w=w, z=z, v=v, clip=clip, limit=limit, guess=guess, into=into)

    def better_step(
        self, x: Array, k: Array, t: Array, w: float, before: Array, into: Array = None
    ) -> tuple[Array, Array, Array]:
        """A step of the solver: x : (B, ...) at time t  ->  (x_s, x̂_0, F). before : the F of the step before, at first zeros."""
        F, F_u, _ = self.denoiser(x, t, self.labels[w])
        x_0_hat, eps_hat = pair_at(x, F, row_at(self.table, k), F_u=F_u, w=w, limit=self.denoiser.limit)
        p, q, now, past, of_x = enter(*blend_at(self.blends, k), like=x)
        F_t = combined(p, x_0_hat, q, eps_hat)
        F_bar = self.mean_of_ends(x, F_t, k) if self.solver.asks_twice else adams(F_t, before, (now, past))
        F_bar = with_x(F_bar, x, of_x) if self.solver.on_the_arc else F_bar
        x_s, _ = walk_step(x, F_bar, self.averaged, k, guess=False, into=into)
        return x_s, x_0_hat, F_t

    def mean_of_ends(self, x: Array, F_t: Array, k: int) -> Array:
        """Heun's answer. A step to clean data is Euler's: no network is asked there."""
        _, s = self.grid[k]
        path, answer = self.denoiser.path, self.solver.answer
        at = path.level(s)
        if answer is None or at.sigma == 0:
            return F_t
        x_s, _ = walk_step(x, F_t, self.averaged, k, guess=False)
        w = self.scales_at_ends[k]
        F, F_u, _ = self.denoiser(x_s, s, self.labels[w])
        row = row_of(self.denoiser.answer, at, Level(1.0, 0.0), ddim())
        pair = pair_at(x_s, F, row, F_u=F_u, w=w, limit=self.denoiser.limit)
        return heun(F_t, answer.target(*pair, at))

    def moments(self, x: Array) -> Iterator[Moment | Array]:
        """x : (B, ...) at the start  ->  a Moment per step, and x_0 at the end."""
        path, above, F = self.denoiser.path, self.start, xp_of(x).zeros_like(x) if self.solver.answer else None
        for k, ((t, s), w) in enumerate(zip(self.grid, self.scales, strict=True)):
            if t > above:
                x = climb(x, path.level(above), path.level(t), self.climbing(t).normal(x.shape))
            if F is None:
                x_s, x_0_hat = self.step(x, k, t, w, noisy=self.fresh.noisy and path.level(s).sigma > 0)
            else:
                x_s, x_0_hat, F = self.better_step(x, k, t, w, F)
            yield Moment(t, s, x, x_0_hat)
            x, above = x_s, s
        yield x

    def climbing(self, t: Any) -> Draws:
        """The noise of a climb to time t."""
        return replace(self.draws, stream=self.draws.stream + CLIMBS).at(number_of(t))
