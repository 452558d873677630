"""Topics: noising, and what a network's output says about the data. t (B,) in 0..T-1, one for each sample.

The parts of a pair take ᾱ itself, not a rung: a level is where mistakes enter (M01b, M01c), and at ᾱ = 0 a mistake has to answer
0/0 (M18) where the package's doors refuse.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion import ddpm, prediction
from minidit.diffusion.level import Level
from minidit.diffusion.prediction import EPS, X_0, V
from minidit.diffusion.schedule import Schedule
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.schedules import LADDERS, full

topic = Group("conversions")
Pair = tuple[Array, Array]  # (x̂_0, ε̂)

PAIR = "x_t, {} (B,C,H,W), t (B,) ints in 0..T-1, alpha_bar (T,)"


level = part(lambda R, alpha_bar, t: np.asarray(alpha_bar, np.float64)[t].reshape(-1, 1, 1, 1))  # ᾱ_t of each sample, (B,1,1,1)


def on_ladder(a: float | Array) -> Level:
    """The level of the ladder whose ᾱ is a: arrays, for which 0/0 is no error."""
    a = np.atleast_1d(np.asarray(a, np.float64))  # a root of an array without axes would be a scalar
    return Level(a**0.5, (1 - a) ** 0.5)


def with_levels(a: Array) -> tuple[Array, Schedule]:
    """Rungs, one for each sample, and a ladder that holds these ᾱ there: the package's doors take rungs."""
    return np.arange(1, 1 + a.size), full(a.ravel())


def two_pictures() -> list[Probe]:
    """Two pictures, B = 3 with distinct t, H ≠ W, and a table."""
    rng, out = Philox(31), []
    for name, make in LADDERS.items():
        a, b = (rng.normal((3, 2, 2, 3), dtype=np.float64) for _ in range(2))
        t = np.array([37, 500, 940])
        out.append(Probe(name, (a, b, t, make(1000).alpha_bar[1:]), "one t for each sample; small, middle and large noise"))
    return out


@topic("D.1", PAIR.format("eps").replace("x_t", "x_0"), "x_t (B,C,H,W)", two_pictures)
def q_sample(R: Reference, x_0: Array, eps: Array, t: Array, alpha_bar: Array) -> Array:
    """√ᾱ_t x_0 + √(1-ᾱ_t) ε."""
    rungs, ladder = with_levels(level(R, alpha_bar, t))
    return ddpm.q_sample(x_0, rungs, eps, ladder)


x_0_of_eps = part(lambda R, x_t, eps, a: EPS.pair(eps, x_t, on_ladder(a))[0])  # x̂_0 from ε̂; `a` is ᾱ_t, a float or (B,1,1,1)
eps_of_x_0 = part(lambda R, x_t, x_0, a: X_0.pair(x_0, x_t, on_ladder(a))[1])  # ε̂ from x̂_0
v_of = part(lambda R, x_0, eps, a: V.target(x_0, eps, on_ladder(a)))  # v of a pair
pair_of_v = part(lambda R, x_t, v, a: V.pair(v, x_t, on_ladder(a)))  # (x̂_0, ε̂) from v


@topic("D.4", PAIR.format("eps"), "x_0 (B,C,H,W)", two_pictures)
def x_0_from_eps(R: Reference, x_t: Array, eps: Array, t: Array, alpha_bar: Array) -> Array:
    """x̂_0 = (x_t - √(1-ᾱ_t) ε̂)/√ᾱ_t."""
    return x_0_of_eps(R, x_t, eps, level(R, alpha_bar, t))


@topic("D.5", PAIR.format("x_0"), "eps (B,C,H,W)", two_pictures)
def eps_from_x_0(R: Reference, x_t: Array, x_0: Array, t: Array, alpha_bar: Array) -> Array:
    """ε̂ = (x_t - √ᾱ_t x̂_0)/√(1-ᾱ_t)."""
    return eps_of_x_0(R, x_t, x_0, level(R, alpha_bar, t))


@topic("D.10", PAIR.format("eps").replace("x_t", "x_0"), "v (B,C,H,W)", two_pictures)
def v_from_pair(R: Reference, x_0: Array, eps: Array, t: Array, alpha_bar: Array) -> Array:
    """√ᾱ ε - √(1-ᾱ) x_0."""
    return v_of(R, x_0, eps, level(R, alpha_bar, t))


@topic("D.10", PAIR.format("v"), "x_0 (B,C,H,W)", two_pictures)
def x_0_from_v(R: Reference, x_t: Array, v: Array, t: Array, alpha_bar: Array) -> Array:
    """√ᾱ x_t - √(1-ᾱ) v."""
    return pair_of_v(R, x_t, v, level(R, alpha_bar, t))[0]


@topic("D.10", PAIR.format("v"), "eps (B,C,H,W)", two_pictures)
def eps_from_v(R: Reference, x_t: Array, v: Array, t: Array, alpha_bar: Array) -> Array:
    """√(1-ᾱ) x_t + √ᾱ v."""
    return pair_of_v(R, x_t, v, level(R, alpha_bar, t))[1]


def _one_picture() -> list[Probe]:
    return [Probe(p.name, p.args[1:], p.reveals) for p in two_pictures()]


@topic("D.11", "eps (B,C,H,W), t (B,), alpha_bar (T,)", "score (B,C,H,W)", _one_picture)
def score_from_eps(R: Reference, eps: Array, t: Array, alpha_bar: Array) -> Array:
    """-ε̂/√(1-ᾱ)."""
    return prediction.predict_score(eps, *with_levels(level(R, alpha_bar, t)))


@topic("D.11", "score (B,C,H,W), t (B,), alpha_bar (T,)", "eps (B,C,H,W)", _one_picture)
def eps_from_score(R: Reference, score: Array, t: Array, alpha_bar: Array) -> Array:
    """-√(1-ᾱ) ∇ log q."""
    return prediction.eps_of_score(score, *with_levels(level(R, alpha_bar, t)))
