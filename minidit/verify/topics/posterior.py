"""Topics: the posterior of a step and its variances. Time as others count it: t in 0..T-1, s = -1 is the data.

The variances are spelled out part by part: mistakes change β, ᾱ_s, the ends and the mixture in the middle of them (M02, M03,
M25 to M27b, C04, X80, X81).
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion import step as law
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.variance import large, log_small
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.schedules import LADDERS, full
from minidit.verify.topics.timesteps import jump_beta

topic = Group("samplers")
STEP = "t int 0..T-1, s int < t (-1: data), alpha_bar (T,)"
LOST = "1-ᾱ loses digits in float32 where ᾱ is near 1"


def hops(*hops: tuple[int, int]) -> list[tuple[str, Array, int, int]]:
    """(name, alpha_bar, t, s) on the linear ladder, the first one also on the cosine; at last the last step with noise.

    That one is on a ladder of five rungs: where 1-ᾱ is small, float32 tables lose its digits.
    """
    linear, cosine = (make(1000).alpha_bar[1:] for make in (LADDERS["linear"], LADDERS["cosine"]))
    first = [(f"cosine-t{hops[0][0]}-s{hops[0][1]}", cosine, *hops[0])]
    return [(f"t{t}-s{s}", linear, t, s) for t, s in hops] + first + [("short-t1-s0", LADDERS["cosine"](5).alpha_bar[1:], 1, 0)]


HOPS = ((500, 457), (999, 979), (37, 20), (501, 500), (20, -1), (0, -1))


# ᾱ at the rung a step arrives at; 1 at the data
alpha_below = part(lambda R, alpha_bar, t, s: float(alpha_bar[s]) if s >= 0 else 1.0)
step_beta = part(lambda R, alpha_bar, t, a_s: float(jump_beta(R, alpha_bar, t, a_s)))  # β of the step
# c_1 and c_2 of q(x_s | x_t, x_0)
posterior_weights = part(lambda R, alpha_bar, t, a_t, a_s: law.posterior_coefficients(a_t, a_s)[:2])


@part
def small_variance(R: Reference, alpha_bar: Array, t: int, s: int) -> float:
    """β̃; 0 into the data."""
    a_s = alpha_below(R, alpha_bar, t, s)
    return float((1 - a_s) / (1 - alpha_bar[t]) * step_beta(R, alpha_bar, t, a_s))


@part
def log_small_variance(R: Reference, alpha_bar: Array, t: int, s: int) -> float:
    """ln β̃; into the data, where β̃ = 0, that of the step before."""
    return float(np.log(small_variance(R, alpha_bar, t, s)) if s >= 0 else log_at_data(R, alpha_bar, t))


log_at_data = part(lambda R, alpha_bar, t: float(log_small(t + 1, 0, full(alpha_bar))))  # ln β̃ of the step before the last one
# the large variance into the data: β̃ of the step before
large_at_data = part(lambda R, alpha_bar, t: float(large(t + 1, 0, full(alpha_bar))))


@part
def large_variance(R: Reference, alpha_bar: Array, t: int, s: int) -> float:
    """β of the step, and into the data β̃ of the step before."""
    return float(step_beta(R, alpha_bar, t, alpha_below(R, alpha_bar, t, s)) if s >= 0 else large_at_data(R, alpha_bar, t))


def _tables() -> list[Probe]:
    return [
        Probe("four", (Schedule.from_betas([0.1, 0.2, 0.3, 0.4]).alpha_bar[1:],), "small enough to check by hand"),
        Probe("linear", (Schedule.linear(1000).alpha_bar[1:],), "entry 0"),
    ]


@topic("D.18", "alpha_bar (T,)", "(T,): β̃ of each step t -> t-1, 0 at t = 0", _tables)
def posterior_variance(R: Reference, alpha_bar: Array) -> Array:
    """β̃_t = (1-ᾱ_{t-1})/(1-ᾱ_t) β_t, 0 at t = 0."""
    return np.array([small_variance(R, alpha_bar, t, t - 1) for t in range(len(alpha_bar))])


@topic("D.21", "alpha_bar (T,)", "(T,): ln β̃, finite: entry 0 is that of t = 1", _tables, tol=10.0, because=LOST)
def posterior_log_variance(R: Reference, alpha_bar: Array) -> Array:
    """ln β̃_t, and ln β̃_1 at t = 0."""
    return np.array([log_small_variance(R, alpha_bar, t, t - 1) for t in range(len(alpha_bar))])


@topic("D.19", "alpha_bar (T,)", "(T,): β, entry 0 is β̃ of t = 1", _tables)
def fixed_large_variance(R: Reference, alpha_bar: Array) -> Array:
    """β_t, and β̃_1 at t = 0."""
    return np.array([large_variance(R, alpha_bar, t, t - 1) for t in range(len(alpha_bar))])


def _posteriors() -> list[Probe]:
    rng, out = Philox(22), []
    for name, alpha_bar, t, s in hops(*HOPS):
        x_0, x_t = (rng.normal((2, 3, 2, 2), dtype=np.float64) for _ in range(2))
        out.append(Probe(name, (x_0, x_t, t, s, alpha_bar), "skipped rungs, neighbours, the last step"))
    return out


@topic("D.8", f"x_0, x_t (B,C,H,W), {STEP}", "mean (B,C,H,W)", _posteriors)
def posterior_mean(R: Reference, x_0: Array, x_t: Array, t: int, s: int, alpha_bar: Array) -> Array:
    """√ᾱ_s β/(1-ᾱ_t) x_0 + √α (1-ᾱ_s)/(1-ᾱ_t) x_t, α = ᾱ_t/ᾱ_s, β = 1-α."""
    c_1, c_2 = posterior_weights(R, alpha_bar, t, float(alpha_bar[t]), alpha_below(R, alpha_bar, t, s))
    return c_1 * x_0 + c_2 * x_t


def _heads() -> list[Probe]:
    rng = Philox(23)
    v = rng.normal((2, 3, 2, 2), dtype=np.float64)
    v[0, 0, 0] = -1, 1
    return [
        Probe(name, (v, t, s, alpha_bar), "v = -1, 1 and beyond; the last step") for name, alpha_bar, t, s in hops(*HOPS[:-1])
    ]


learned_fraction = part(lambda R, v: (v + 1) / 2)  # f = (v+1)/2, from the small variance at v = -1 to the large at v = 1
# the variance a fraction of the way, on the log scale
between = part(lambda R, fraction, log_low, log_high: np.exp(fraction * log_high + (1 - fraction) * log_low))


@topic("D.22", f"v (B,C,H,W), {STEP}", "variance (B,C,H,W)", _heads, tol=10.0, because=LOST)
def learned_range_variance(R: Reference, v: Array, t: int, s: int, alpha_bar: Array) -> Array:
    """exp(f ln β + (1-f) ln β̃), f = (v+1)/2, β and β̃ of the step from t to s."""
    high = np.log(step_beta(R, alpha_bar, t, alpha_below(R, alpha_bar, t, s)))
    return between(R, learned_fraction(R, v), log_small_variance(R, alpha_bar, t, s), high)
