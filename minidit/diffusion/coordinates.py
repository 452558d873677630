"""A network that was trained on one path, walked in the coordinates of another.

    x, t  ->  its own time τ with the SNR of t, and its own sample (P.11)          the network is asked there
    F = p x_0 + q ε     with p, q of its own level                                 and read at the level of t   (P.25)

The SNR decides, so a walk through the same SNRs gives the same samples in all coordinates. Paths differ in the grids that are
natural to them, and in where they begin and end. Beyond an end of its own path a network is asked at that end.

    ln(σ/α) of a ladder, linear between its rungs:  any SNR has a time there, a fraction of a rung                (P.24)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from minidit.backend import Array, home_of, read_only, resident, xp_of
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding, Path, Straight, changed, one_per_sample
from minidit.diffusion.prediction import Prediction
from minidit.diffusion.schedule import Schedule

LEAST = 1e-12  # of a signal


class Continuous(Protocol):
    """A path of which a level of any SNR has a time."""

    def level(self, t: Array) -> Level: ...

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]: ...

    def time(self, at: Level) -> Array: ...


@dataclass(frozen=True, eq=False)
class Between:
    """A ladder with times between its rungs, floats from 1 to T."""

    ladder: Schedule

    @cached_property
    def logs(self) -> Array:
        """ln(σ/α) of the rungs 1..T : (T,) float64, rising. Where ᾱ_T = 0 the last one is that of an ᾱ a thousand times smaller
        than the rung before has."""
        alpha_bar = self.ladder.alpha_bar[1:].copy()
        alpha_bar[-1] = alpha_bar[-1] or (alpha_bar[-2] if len(alpha_bar) > 1 else 1.0) / 1000
        return read_only(0.5 * (np.log1p(-alpha_bar) - np.log(alpha_bar)))

    def time(self, at: Level) -> Array:
        """The time with the SNR of this level, of any path; that of rung 1 or T for a level beyond them."""
        if home_of(at.sigma) == "":
            with np.errstate(divide="ignore"):
                log = float(np.log(at.sigma) - np.log(at.alpha))
            return 1 + float(np.interp(log, self.logs, np.arange(self.ladder.T)))  # (P.24)
        xp, logs = xp_of(at.sigma), resident(self.logs, at.sigma)
        log = xp.clip(xp.log(at.sigma) - xp.log(at.alpha), self.logs[0], self.logs[-1])
        below = xp.clip(xp.searchsorted(logs, log) - 1, 0, max(0, self.ladder.T - 2))
        above = xp.minimum(below + 1, self.ladder.T - 1)
        part = (log - logs[below]) / xp.maximum(logs[above] - logs[below], 1e-300)
        return 1 + below + part  # (P.24)

    def level(self, t: Array) -> Level:
        """The level at a time from 1 to T, with α² + σ² = 1."""
        xp = np if home_of(t) == "" else xp_of(t)
        ratio = xp.exp(2 * self._between(self.logs, t))
        alpha, sigma = (1 / (1 + ratio)) ** 0.5, (ratio / (1 + ratio)) ** 0.5
        return Level(float(alpha), float(sigma)) if home_of(t) == "" else Level(alpha, sigma)  # (P.24)

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        """x_t as it is, and the network's time, between those of the two rungs."""
        t = one_per_sample(x_t, t)
        return x_t, self._between(self.times, t)

    @cached_property
    def times(self) -> Array:
        """The network's time at the rungs 1..T : (T,) float64."""
        return read_only(self.ladder.time[1:].astype(np.float64))

    def _between(self, table: Array, t: Array) -> Array:
        """table : (T,) at the rungs 1..T, read at a time between them."""
        if home_of(t) == "":
            return float(np.interp(float(t) - 1, np.arange(self.ladder.T), table))
        xp, values = xp_of(t), resident(table, t)
        below = xp.clip((t - 1).astype(np.int64), 0, self.ladder.T - 1)
        above = xp.minimum(below + 1, self.ladder.T - 1)
        return values[below] + (t - 1 - below) * (values[above] - values[below])


def continuous(path: Path) -> tuple[Continuous, Callable[[Array], Array]]:
    """(the path with a time for every SNR, a function that keeps times on it). Raises ValueError for an unknown kind of path."""
    if isinstance(path, Schedule):
        return Between(path), lambda t: t
    if isinstance(path, Exploding):
        return path, lambda t: _within(t, path.low, path.high)
    if isinstance(path, Straight):
        return path, lambda t: t
    raise ValueError(f"a network of the path {type(path).__name__} is walked in its own coordinates only")


def _within(t: Array, low: float, high: float) -> Array:
    return min(max(float(t), low), high) if home_of(t) == "" else xp_of(t).clip(t, low, high)


def with_signal(at: Level) -> Level:
    """The level, or where its signal is 0 one of so little signal that no path reaches it: its σ/α is finite."""
    if home_of(at.alpha) == "":
        return Level(max(float(at.alpha), LEAST), at.sigma)
    return Level(xp_of(at.alpha).maximum(at.alpha, LEAST), at.sigma)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A Path: the levels, start and grid of `walked`, for a network that was trained on `trained`."""

    walked: Path
    trained: Path

    def __post_init__(self) -> None:
        continuous(self.trained)

    @cached_property
    def own(self) -> tuple[Continuous, Callable[[Array], Array]]:
        """`continuous` of the path that the network was trained on. Its tables are made once."""
        return continuous(self.trained)

    def seen(self, at: Level) -> tuple[Array, Level]:
        """A level of any path  ->  the network's own time for it, and its own level there."""
        path, kept = self.own
        t = kept(path.time(with_signal(at)))
        return t, path.level(t)

    def level(self, t: Array) -> Level:
        return self.walked.level(t)

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        at = self.walked.level(t)
        time, own = self.seen(at)
        return self.own[0].inputs(changed(x_t, at, own), time)  # (P.25)

    def origin(self, x: Array, time: Array) -> tuple[Array, Array]:
        raise ValueError("a network in other coordinates has inputs of its own path: take them back by that path")

    def start(self, z: Array) -> Array:
        return self.walked.start(z)

    def part(self, u: float) -> Any:
        """The time of `walked` at the part u of `trained`: guidance holds at the same levels in all coordinates."""
        if u in (0.0, 1.0):
            return self.walked.part(u)
        at = self.trained.level(self.trained.part(u))
        path, kept = continuous(self.walked)
        return min(kept(path.time(with_signal(at))), float(self.walked.part(1.0)))

    def grid(self, steps: int) -> list[tuple[Any, Any]]:
        return self.walked.grid(steps)

    def answer(self, answer: Prediction) -> Prediction:
        """The network's answer in these coordinates."""
        return Prediction(answer.name, lambda at: answer.p(self.seen(at)[1]), lambda at: answer.q(self.seen(at)[1]))  # (P.25)
