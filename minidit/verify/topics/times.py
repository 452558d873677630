"""Topics: laws of training times, shifts, and the grids that samplers of continuous time walk down.

A law gets its uniform draw u as an argument, so that it is a function. The points of a grid, its ends and its exponent are parts
of their own, because mistakes change each of them apart (M104, C12, C14).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidit.backend import Array
from minidit.diffusion import times as law
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.paths import clock

topic = Group("times")

# ------------------------------------------------------------------------------------------------ laws of training times

UNIFORM = np.array([0.02, 0.3, 0.5, 0.85, 0.999])
TAIL = "float32 loses digits of Φ⁻¹ and of a tail"


def _laws(*more: tuple[float, ...]) -> Callable[[], list[Probe]]:
    return lambda: [Probe("-".join(map(str, m)) or "one", (UNIFORM, *m), "a mean beside 0, a std beside 1") for m in more]


@topic("P.13", "u (B,) uniform in (0, 1), mean, std", "t (B,), rising with u", _laws((0.0, 1.0), (-0.7, 1.6)), tol=5.0,
       because=TAIL)  # fmt: skip
def logit_normal_times(R: Reference, u: Array, mean: float, std: float) -> Array:
    """t = 1/(1 + e^-(m + s Φ⁻¹(u)))."""
    return law.logit_normal(mean, std)(u)


@topic("P.13", "t (B,) drawn logit-normally, mean, std", "(B,): the weight of each sample's loss",
       lambda: [Probe("drawn", (np.array([0.1, 0.5, 0.8]), 0.0, 1.0), "the law draws; it is no weight")])  # fmt: skip
def logit_normal_weight(R: Reference, t: Array, mean: float, std: float) -> Array:
    """1: times that are drawn more often count more already."""
    return np.ones_like(t)


@topic("P.14", "u (B,) uniform in (0, 1), scale", "t (B,), falling with u; a refusal where it would not be monotone",
       _laws((1.29,), (-0.5,), (2.5,)), tol=2.0, because="terms cancel at both ends")  # fmt: skip
def mode_times(R: Reference, u: Array, scale: float) -> Array:
    """t = 1 - u - s (cos²(πu/2) - 1 + u), -1 ≤ s ≤ 2/(π-2)."""
    return mode_law(R, scale)(u)


mode_law = part(lambda R, scale: law.mode(scale))  # u -> t; ValueError for a scale out of range


mixed = part(lambda R, law_, p: law.partly_uniform(law_, p))


@topic("P.26", "u (B,) uniform in (0, 1), p: the uniform part; the rest is logit-normal, mean 0, std 1", "t (B,)",
       _laws((0.1,), (0.4,)), tol=5.0, because=TAIL)  # fmt: skip
def partly_uniform_times(R: Reference, u: Array, p: float) -> Array:
    """u/p where u < p, else 1/(1 + e^-Φ⁻¹(u')), u' = (u-p)/(1-p)."""
    return mixed(R, lambda u: logit_normal_times(R, u, 0.0, 1.0), p)(u)


@topic("P.15", "u (B,) uniform in (0, 1)", "t (B,), rising with u", _laws(()), tol=2.0, because="1 - 1/(tan + 1) cancels")
def cosmap_times(R: Reference, u: Array) -> Array:
    """t = 1 - 1/(tan(πu/2) + 1)."""
    return law.cosmap(u)


@topic("P.16", "u (B,) uniform in (0, 1)", "sigma (B,), rising with u: EDM's training noise", _laws(()), tol=5.0, because=TAIL)
def edm_sigmas(R: Reference, u: Array) -> Array:
    """ln σ = -1.2 + 1.2 Φ⁻¹(u)."""
    return law.lognormal(*edm_constants(R))(u)


edm_constants = part(lambda R: (-1.2, 1.2))  # mean and std of ln σ

# ------------------------------------------------------------------------------------------------ shifts


@topic("P.17", "t (B,) in [0, 1], or a float; a", "t, shifted", lambda: [
    Probe("three", (np.array([0.0, 0.2, 0.6, 1.0]), 3.0), "a > 1 is more noise; both ends stay"),
    Probe("less", (np.array([0.2, 0.6]), 0.4), "a < 1 is less noise"),
    Probe("end", (0.0, 3.0), "a Python number at the data")])  # fmt: skip
def shift_time(R: Reference, t: Array, a: float) -> Array:
    """a t/(1 + (a-1) t)."""
    return clock(R, shifted(R, clock(R, t), a))


shifted = part(lambda R, t, a: law.shift(t, a))  # a time with a times the noise over signal


@topic("P.17", "m pixels of the pictures, n pixels for which the times were chosen", "float: the shift a",
       lambda: [Probe("4-times", (4096, 1024), "the root; which over which"), Probe("less", (900, 1600))])  # fmt: skip
def resolution_shift(R: Reference, m: int, n: int) -> float:
    """a = √(m/n)."""
    return float((m / n) ** 0.5)


@topic("P.17", "n: the tokens of a picture, 2 × 2 latents each", "float: the shift a of FLUX.1", lambda: [
    Probe(f"{n}-tokens", (n,), "the ends of the line, between them, and beyond") for n in (256, 1024, 4096, 6400)])  # fmt: skip
def flux_shift(R: Reference, n: int) -> float:
    """a = e^μ, μ = 1/2 + (1.15 - 1/2) (n - 256)/(4096 - 256)."""
    return shift_of_mu(R, mu(R, n))


mu = part(lambda R, n: 0.5 + (1.15 - 0.5) * (n - 256) / (4096 - 256))
shift_of_mu = part(lambda R, mu: float(np.exp(mu)))


@topic("P.17", "frames of a clip of latents, m pixels of each, n for which the times were chosen", "float: the shift a", lambda: [
    Probe("two-chunks", (34, 4096, 1024), "the root of all numbers of a clip"),
    Probe("short", (6, 4096, 1024), "fewer frames than a chunk has"),
    Probe("picture", (1, 4096, 1024), "a clip of one frame is a picture")])  # fmt: skip
def clip_shift(R: Reference, frames: int, m: int, n: int) -> float:
    """a = √(F m/n)."""
    return shift_of_clip(R, frames, resolution_shift(R, m, n), m)


shift_of_clip = part(lambda R, frames, a, m: float(frames**0.5 * a))  # a of one frame, of m pixels

# ------------------------------------------------------------------------------------------------ grids

points = part(lambda R, n: np.linspace(1.0, 0.0, n + 1))  # the times of n equal steps, n+1 of them, before any shift


@topic("P.18", "n steps", "(n+1,) times, from the noise to the data", lambda: [Probe(f"N{n}", (n,), "both ends") for n in (4, 1)])
def linear_grid(R: Reference, n: int) -> Array:
    """i/n, i = n..0."""
    _steps(n)
    return clock(R, points(R, n))


@topic("P.18", "n steps, a", "(n+1,) shifted times, from the noise to the data",
       lambda: [Probe(f"N{n}", (n, a), "the shift once") for n, a in ((4, 3.0), (5, 0.5))])  # fmt: skip
def shifted_grid(R: Reference, n: int, a: float) -> Array:
    """a t/(1 + (a-1) t) of i/n, i = n..0."""
    _steps(n)
    return clock(R, shifted_points(R, n, a))


shifted_points = part(lambda R, n, a: shifted(R, points(R, n), a))  # (n+1,), from 1 to 0


@topic("P.18", "times (n+1,) that the user has made, shifted or not, and a, the shift of the sampler's own grids",
       "(n+1,): the times that are walked", lambda: [
       Probe("three", (np.array([1.0, 0.7, 0.2, 0.0]), 3.0), "what is given is not shifted once more")])  # fmt: skip
def users_grid(R: Reference, times: Array, a: float) -> Array:
    """The times as they are."""
    return clock(R, users_points(R, clock(R, times), a))


users_points = part(lambda R, times, a: times)


def _steps(n: int) -> None:
    """ValueError unless n ≥ 1."""
    law.linear(n)


def _karras() -> list[Probe]:
    cases = (5, 0.002, 80.0, 7.0), (4, 0.01, 20.0, 3.0)
    return [Probe(f"N{args[0]}", args, "both ends, and the exponent") for args in cases]


spread = part(lambda R, n: np.arange(n) / (n - 1))  # from 0 at σ_max to 1 at σ_min
exponent = part(lambda R, rho: (1 / rho, rho))  # of the way in, and back
lowest = part(lambda R, sigmas: np.append(sigmas, 0.0))  # a sampler's grid goes on to the data


@part
def karras(R: Reference, n: int, low: float, high: float, rho: float) -> Array:
    """(n,), falling."""
    law.karras(n, low, high, rho)
    inner, outer = exponent(R, rho)
    a, b = high**inner, low**inner
    return np.asarray((a + spread(R, n) * (b - a)) ** outer)


@topic("P.19", "n, low, high, rho", "(n+1,) noise levels: n from high to low, then 0; a refusal unless 0 < low < high",
       _karras, tol=5.0, because="seventh powers")  # fmt: skip
def edm_grid(R: Reference, n: int, low: float, high: float, rho: float) -> Array:
    """(high^(1/ρ) + i/(n-1) (low^(1/ρ) - high^(1/ρ)))^ρ, i = 0..n-1, and 0."""
    return lowest(R, karras(R, n, low, high, rho))
