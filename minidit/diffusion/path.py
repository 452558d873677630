"""A path leads from data to noise: at every time it gives the level (α, σ) and the inputs of the network.

    path         level(t)                 inputs(x_t, t)                          start
    ladder       √ᾱ_t, √(1-ᾱ_t)           x_t, time[t]                            z           schedule.py         (D.2)
    straight     1-t, t                   x_t, 1000 t                             z           t from 0 to 1       (P.9)
    exploding    1, √(t²-end²)            x_t/√(t²+σ_d²), 250 ln t                σ_max z     t from end to σ_max (P.10)

    x_s = (α_s+σ_s)/(α_t+σ_t) x_t         where σ_s/α_s = σ_t/α_t: one sample, in the coordinates of two paths    (P.11)

SNR falls with t. One denoiser serves all paths, because it depends on the SNR only: with (P.11) its trajectories are the same.
The factors 1000 and 250 bring t and ln t to the range that a sinusoidal embedding of period 10000 resolves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from minidit.backend import Array, home_of, xp_of
from minidit.diffusion import times
from minidit.diffusion.level import Level, enter
from minidit.shown import levels


@runtime_checkable
class Path(Protocol):
    """From data to noise. Times are in the path's own unit: rungs 1..T on the ladder, floats on a continuous path."""

    def level(self, t: Array) -> Level:
        """t : one time, or (B,) one time per sample  ->  the level there, floats or (B,) float64."""

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        """The network's inputs for x_t : (B, ...) at time t: a sample of about unit variance, and (B,) times in its unit."""

    def origin(self, x: Array, time: Array) -> tuple[Array, Array]:
        """The inverse of `inputs`: (x_t, t), for a time that is one number or (B,)."""

    def start(self, z: Array) -> Array:
        """The sample at the noisy end, from z ~ N(0, 1)."""

    def part(self, u: float) -> Any:
        """The time at the part u of the path: 0 is data, 1 the noisy end."""

    def grid(self, steps: int) -> list[tuple[Any, Any]]:
        """The usual grid of a sampler: [(t, s), …] from the noisy end to data."""


def check_path(path: Any) -> None:
    """Raises TypeError for what is no path, and ValueError for one that does not lead from data to noise."""
    name, needed = type(path).__name__, ("level", "inputs", "origin", "start", "part", "grid")
    if missing := [method for method in needed if not hasattr(path, method)]:
        raise TypeError(f"{name} is not a path: it has no {', '.join(missing)} (see minidit.diffusion.path.Path)")
    last = 0.0
    for t in [path.part(k / 8) for k in range(1, 9)]:
        level = path.level(t)
        if not isinstance(level, Level):
            raise TypeError(f"the level of the path {name} must be a Level(alpha, sigma), not {level!r}")
        alpha, sigma = float(level.alpha), float(level.sigma)
        if not (math.isfinite(alpha) and math.isfinite(sigma) and min(alpha, sigma) >= 0):
            raise ValueError(f"the path {name} has α = {alpha:g} and σ = {sigma:g} at the time {t:g}: both must be 0 or more")
        if math.atan2(sigma, alpha) < last:
            raise ValueError(f"the path {name} has less noise at the time {t:g} than before: part(0) is data")
        last = math.atan2(sigma, alpha)
    if np.shape(time := path.inputs(np.zeros((2, 1), np.float32), path.part(1.0))[1]) != (2,):
        raise ValueError(f"the inputs of the path {name} must have one time per sample, (B,), also for one t, got {time}")


def one_per_sample(x: Array, t: Array) -> Array:
    """One time for all, or (B,)  ->  (B,) float64 in the home of x."""
    return xp_of(x).full(len(x), float(t)) if home_of(t) == "" else t


@dataclass(frozen=True)
class Straight:
    """From data at t = 0 to noise at t = 1 on a straight line: the path of flow matching and rectified flow.

    unit : the network's time per t   shift : of the grid (P.17)
    """

    unit: float = 1000.0
    shift: float = 1.0

    def _repr_html_(self) -> str:
        t = np.linspace(0, 1, 101)
        return levels(self, t, *self.level(t))

    def level(self, t: Array) -> Level:
        return Level(1 - t, t)  # (P.9)

    def time(self, at: Level) -> Array:
        """The time with the SNR of this level, of any path."""
        return at.sigma / (at.alpha + at.sigma)  # (P.11)

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        return x_t, self.unit * one_per_sample(x_t, t)  # (P.9)

    def origin(self, x: Array, time: Array) -> tuple[Array, Array]:
        return x, time / self.unit

    def start(self, z: Array) -> Array:
        return z

    def part(self, u: float) -> float:
        return float(u)

    def grid(self, steps: int) -> list[tuple[float, float]]:
        """Equal steps from 1 to 0, shifted."""
        return times.linear(steps, self.shift)


@dataclass(frozen=True)
class Exploding:
    """The sample stays and noise is added to it, up to σ_max: the path of EDM and of consistency models.

    sigma_data : σ_d, the standard deviation of the data   low, high : the least noise above the data in a grid, and σ_max
    end : the time of the data end: 0, or the ε of a consistency model, whose levels are relative to the sample at ε
    unit : the network's time per ln t: 250, or ¼ as EDM has it for its own embedding
    """

    sigma_data: float = 0.5
    low: float = 0.002
    high: float = 80.0
    end: float = 0.0
    unit: float = 250.0

    def _repr_html_(self) -> str:
        t = np.geomspace(max(self.low, self.end), self.high, 201)
        return levels(self, t, *self.level(t))

    def level(self, t: Array) -> Level:
        if home_of(t) == "":
            return Level(1.0, float((t**2 - self.end**2) ** 0.5) if self.end else float(t))
        return Level(xp_of(t).ones_like(t), (t**2 - self.end**2) ** 0.5 if self.end else t)  # (P.10)

    def time(self, at: Level) -> Array:
        """The time with the SNR of this level, of any path."""
        return ((at.sigma / at.alpha) ** 2 + self.end**2) ** 0.5  # (P.11)

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        t = one_per_sample(x_t, t)
        return x_t * enter((t**2 + self.sigma_data**2) ** -0.5, like=x_t), self.unit * xp_of(t).log(t)  # (P.10)

    def origin(self, x: Array, time: Array) -> tuple[Array, Array]:
        t = xp_of(time).exp(time / self.unit) if home_of(time) else math.exp(time / self.unit)
        return x * enter((t**2 + self.sigma_data**2) ** 0.5, like=x), t

    def start(self, z: Array) -> Array:
        return self.level(self.high).sigma * z

    def part(self, u: float) -> float:
        """The time at which σ/(α+σ), the time of the straight path, is u of its greatest value."""
        share = u * self.high / (1 + self.high)
        return float(self.high) if u == 1 else share / (1 - share)

    def grid(self, steps: int) -> list[tuple[float, float]]:
        """That of Karras et al. A path with a data end ε ends there, any other goes on to 0."""
        if self.end:
            return times.down(times.karras(steps + 1, self.end, self.high))
        return times.down([*times.karras(steps, self.low, self.high), 0.0])


def changed(x: Array, t: Level, s: Level) -> Array:
    """x : (B, ...) at level t  ->  the same sample in the coordinates of a path on which its level is s, of the same SNR."""
    return x * enter((s.alpha + s.sigma) / (t.alpha + t.sigma), like=x)  # (P.11)
