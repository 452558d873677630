"""Solvers: a better answer for a step of (P.4). Without fresh noise a walk solves an ODE, and these are its methods.

    x_s = step of the answer itself                                         Euler, order 1                        (P.4)
    F̄ = ½ (F_t + F_s),   F_s asked at the end of an Euler step              Heun, order 2, two calls per step     (P.6)
    F̄ = (1 + r/2) F_t - (r/2) F_before,   r = (τ_s-τ_t)/(τ_t-τ_before)      Adams–Bashforth, order 2, one call    (P.22)
    F̄ is read at x_t (P.3), and then the step is (P.4)
    F̄ = (h v̄ + (1 - cos h) y_t)/sin h,   h = φ_s-φ_t,   v̄ by (P.22)        on the arc, where (P.4) turns          (P.27)

    answer F    clock τ          the coordinates whose ODE is solved
    u           σ/(α+σ)          straight: dx/dτ = u, with x = x_t/(α+σ)      Heun of rectified flow
    ε           σ/α              exploding: dy/dτ = ε, with y = x_t/α         Heun of EDM
    x_0         ln α/σ                                                        DPM-Solver++(2M)
    v           φ = arctan σ/α   the arc: dy/dφ = v, with y = x_t/√(α²+σ²)

Steps of (P.4) are the same in all coordinates. A second order is not: there the average is taken of another answer. It must be
one that stays the same where the pair does, with the same p and q at every level. v is none: it turns with φ, as a step of (P.4)
does. (P.27) takes the turn out of the step, which becomes y_s = y_t + h v̄, the first one included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from minidit.backend import Array
from minidit.diffusion.level import Level
from minidit.diffusion.prediction import EPS, X_0, Prediction, U

Clock = Callable[[Level], float]


def share(at: Level) -> float:
    """σ/(α+σ): the time on the straight path."""
    return float(at.sigma / (at.alpha + at.sigma))


def noise_over_signal(at: Level) -> float:
    """σ/α: the time on the exploding path."""
    return float(at.sigma / at.alpha) if at.alpha > 0 else float("inf")


def log_snr(at: Level) -> float:
    """ln α/σ, half the logarithm of the SNR; infinite for clean data and -infinite for pure noise."""
    with np.errstate(divide="ignore"):
        return float(np.log(at.alpha) - np.log(at.sigma))


def radius(at: Level) -> Array:
    """√(α²+σ²): 1 on a ladder."""
    return (at.alpha**2 + at.sigma**2) ** 0.5


def angle(at: Level) -> float:
    """φ = arctan σ/α, from 0 at the data to π/2 in pure noise."""
    return float(np.arctan2(at.sigma, at.alpha))


ARC = Prediction("arc", lambda at: -at.sigma / radius(at), lambda at: at.alpha / radius(at))  # dy/dφ; v on a ladder


@dataclass(frozen=True)
class Solver:
    """A method of a walk without fresh noise.

    answer : what is averaged (None: nothing, Euler)   clock : times of the extrapolation, Adams–Bashforth's; None: Heun's mean
    """

    answer: Prediction | None = None
    clock: Clock | None = None
    name: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return self.name or f"Solver({self.answer!r})"

    def __post_init__(self) -> None:
        ends = Level(0.6, 0.8), Level(0.8, 0.6)
        if self.on_the_arc and self.clock is not angle:
            raise ValueError("a solver on the arc extrapolates in its angle")
        if self.answer is not None and not self.on_the_arc and len({(self.answer.p(at), self.answer.q(at)) for at in ends}) > 1:
            raise ValueError(
                f"a solver averages only answers with the same p and q at every level (u, ε, x_0), not {self.answer.name!r}"
            )

    @property
    def on_the_arc(self) -> bool:
        """Whether F̄ has a part of x_t (P.27)."""
        return self.answer is ARC

    @property
    def asks_twice(self) -> bool:
        """Whether the network is asked again at the end of each step."""
        return self.answer is not None and self.clock is None

    def of_x(self, t: Level, s: Level) -> float:
        """The part of x_t in F̄: (1 - cos h)/sin h on the arc, for y_t; else 0."""
        return float(np.tan((angle(s) - angle(t)) / 2) / radius(t)) if self.on_the_arc else 0.0  # (P.27)

    def weights(self, before: Level | None, t: Level, s: Level) -> tuple[float, float]:
        """Those of the answers at t and at the time before it."""
        now, past = self.of_answers(before, t, s)
        h = angle(s) - angle(t)
        turn = float(h / np.sin(h)) if self.on_the_arc else 1.0  # (P.27)
        return turn * now, turn * past

    def of_answers(self, before: Level | None, t: Level, s: Level) -> tuple[float, float]:
        """(1 + r/2, -r/2), the weights of the answers at t and at the time before it; (1, 0) in the first step.

        Where the clock is infinite at an end (clean data in ln α/σ) the step is Euler's.
        """
        if self.clock is None or before is None:
            return 1.0, 0.0
        ends = [self.clock(at) for at in (before, t, s)]
        if not np.isfinite(ends).all() or ends[0] == ends[1]:
            return 1.0, 0.0
        half = (ends[2] - ends[1]) / (ends[1] - ends[0]) / 2
        return 1 + half, -half  # (P.22)


EULER = Solver(name="EULER")
HEUN = Solver(U, name="HEUN")
HEUN_EDM = Solver(EPS, name="HEUN_EDM")
AB2 = Solver(U, share, "AB2")
AB2_ARC = Solver(ARC, angle, "AB2_ARC")
DPM_2M = Solver(X_0, log_snr, "DPM_2M")


def heun(F_t: Array, F_s: Array) -> Array:
    """The mean of the answers at both ends of a step."""
    return 0.5 * (F_t + F_s)  # (P.6)


def adams(F_t: Array, F_before: Array, weights: tuple[Array, Array]) -> Array:
    """The answer extrapolated to the middle of a step; weights : those of `Solver.weights`."""
    now, past = weights
    return now * F_t + past * F_before  # (P.22)


def with_x(F_bar: Array, x_t: Array, part: Array) -> Array:
    """The answer of a step on the arc; part : `Solver.of_x`."""
    return F_bar + part * x_t  # (P.27)
