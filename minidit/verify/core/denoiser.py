"""A linear denoiser that notes what it is asked, so that every step of a sampler is affine and can be read off its run.

    x_{k+1} = a_k x_k + b_k ε̂_k + σ_k z_k         least squares over the entries of one run                    (D.45)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from minidit.backend import Array, to_host
from minidit.diffusion import gaussian
from minidit.diffusion.level import Level
from minidit.verify.core.forms import array_of


class Call(NamedTuple):
    """One question to a denoiser, and what it answered."""

    t: float
    x: Array
    eps: Array


@dataclass(eq=False)
class Linear:
    """ε̂(x, t) = slope[t] x + shift[t] pattern. slope, shift (T,); pattern (B,C,H,W) or a float. Notes every call in `seen`.

    A t between two timesteps takes the line between their entries, so that a wrong unit of time has an answer too.
    labels: where the network hears a label, ε̂(x, t, y) = slope[t] x + labels[y] shift[t] pattern, pattern (C,H,W).
    """

    slope: Array
    shift: Array
    pattern: Array | float = 1.0
    labels: Array | None = None
    seen: list[Call] = field(default_factory=list)

    def __call__(self, x: Array, t: Array | int, y: Array | int = 0) -> Array:
        x, t = array_of(x), np.asarray(array_of(t), np.float64)
        grid = np.arange(len(self.slope))
        a, b = (np.interp(t, grid, table).reshape(-1, *[1] * (x.ndim - 1)) for table in (self.slope, self.shift))
        if self.labels is not None:
            b = b * self.labels[array_of(y)].reshape(-1, *[1] * (x.ndim - 1))
        answer = (a * x + b * self.pattern).astype(x.dtype)
        self.seen.append(Call(float(t.reshape(-1)[0]), x.astype(np.float64), answer.astype(np.float64)))
        return answer

    def __str__(self) -> str:
        return "ε̂ = slope[t] x + shift[t] pattern, linear, so that every step is affine"

    def fresh(self) -> Linear:
        """The same without notes."""
        return Linear(self.slope, self.shift, self.pattern, self.labels)


def perfect(alpha_bar: Array, mean: float = 0.3, variance: float = 0.25) -> Linear:
    """The perfect denoiser of N(mean, variance) data, which is linear."""
    noise = (1 - alpha_bar) ** 0.5
    k = gaussian.gain(Level(alpha_bar**0.5, noise), variance)
    return Linear((1 - alpha_bar**0.5 * k) / noise, -(alpha_bar**0.5) * mean * (1 - k * alpha_bar**0.5) / noise)


class Step(NamedTuple):
    """One step read off a run: its coefficients of x, ε̂ and z, and what they leave unexplained."""

    t: float
    factors: Array
    residual: float


def coefficients(seen: Sequence[Call], last: Array, z: Array | None = None) -> list[Step]:
    """The steps of a run, from the notes of a Linear and the final x; the factor of z is 0 where there was no z."""
    steps = []
    states = [call.x for call in seen] + [np.asarray(to_host(last), np.float64)]
    for k, (t, x, eps) in enumerate(seen):
        columns = [x.ravel(), eps.ravel()] + ([np.asarray(z[k], np.float64).ravel()] if z is not None else [])
        design, goal = np.stack(columns, axis=1), states[k + 1].ravel()
        factors = np.linalg.lstsq(design, goal, rcond=None)[0]
        residual = float(np.max(abs(design @ factors - goal)) / max(np.max(abs(goal)), 1e-30))
        steps.append(Step(t, np.append(factors, 0.0)[:3], residual))
    return steps


def first_wrong_step(
    mine: Sequence[Step], right: Sequence[Step], tolerance: float, lands: Callable[[float, float], str] = lambda t, factor: ""
) -> str:
    """In words: which coefficient of which step is the first to differ; empty where none does.

    lands: (t, the factor of x) -> the level of noise where the step leads, in words.
    """
    if len(mine) != len(right):
        return f"{len(mine)} calls of the network, expected {len(right)}"
    for k, (got, want) in enumerate(zip(mine, right, strict=True)):
        if abs(got.t - want.t) > 1e-6:
            return f"step {k + 1}: the network is told {got.t:g}, expected {want.t:g}"
        place = f"step {k + 1} (t = {got.t:g})"
        if got.residual > max(tolerance, 1e-6):
            return f"{place}: not affine in x, ε̂ and z (residual {got.residual:.1e}): clipping, or noise of its own"
        for letter, a, b in zip(("x", "ε̂", "z"), got.factors, want.factors, strict=True):
            if abs(a - b) > max(tolerance, 1e-7) * max(1.0, float(np.max(abs(want.factors)))):
                there = [lands(got.t, factors[0]) for factors in (got.factors, want.factors)]
                end = f"; it lands on the level of {there[0]}, expected {there[1]}" if all(there) and there[0] != there[1] else ""
                return f"{place}: coefficient of {letter} is {a:.9g}, expected {b:.9g}{end}"
    return ""
