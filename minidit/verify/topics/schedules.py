"""Topics: ladders of noise. Time as other projects count it: t in 0..T-1, -1 is the data.

β and ᾱ are spelled out, because mistakes change the ends, the grid, the cap and the product in the middle (M12, M14, M15), and
what comes of it may be no ladder that the package would make.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.verify.core.reference import Group, Probe, Reference, part

topic = Group("schedules")


LADDERS = {"linear": Schedule.linear, "cosine": Schedule.cosine}
UP = "the first probes are small enough to check by hand"


def full(alpha_bar: Array) -> Schedule:
    """The foreign table (T,) as a ladder with its rung 0."""
    return Schedule(np.append(1.0, np.asarray(alpha_bar, np.float64)), np.arange(len(alpha_bar) + 1) - 1)


def _lengths(*lengths: int) -> list[Probe]:
    return [Probe(f"T{T}", (T,), "T = 1000 alone hides what is not scaled by 1000/T") for T in lengths]


ends = part(lambda R, T, start, end: (start * 1000 / T, end * 1000 / T))  # both ends of β on a ladder of T rungs, made for 1000


@part
def possible(R: Reference, betas: Array) -> Array:
    """The same betas; ValueError where one is not in (0, 1]."""
    Schedule.from_betas(betas)
    return betas


@topic("D.12", "T", "betas (T,); a refusal (any exception) where β would reach 1", lambda: _lengths(250, 1000, 16))
def linear_betas(R: Reference, T: int) -> Array:
    """β linear from 1e-4·1000/T to 0.02·1000/T, a refusal where it would reach 1."""
    start, end = ends(R, T, 1e-4, 0.02)
    return possible(R, np.linspace(start, end, T))


@topic("D.13", "T", "betas (T,); a refusal where β would reach 1", lambda: _lengths(250, 1000, 10))
def scaled_linear_betas(R: Reference, T: int) -> Array:
    """β = (linear from √(8.5e-4·1000/T) to √(0.012·1000/T))², a refusal where it would reach 1."""
    low, high = ends(R, T, 8.5e-4, 0.012)
    return possible(R, np.linspace(low**0.5, high**0.5, T) ** 2)


cosine_grid = part(lambda R, T: np.arange(T + 1) / T)  # u = i/T, i = 0..T
cosine_cap = part(lambda R, betas: np.minimum(betas, 0.999))  # β never above 0.999
# f (T+1,), the signal that the cosine schedule aims at
cosine_f = part(lambda R, T: np.cos((cosine_grid(R, T) + 0.008) / 1.008 * np.pi / 2) ** 2)


@topic("D.14", "T", "betas (T,)", lambda: _lengths(20, 1000))
def cosine_betas(R: Reference, T: int) -> Array:
    """β_i = min(1 - f_i/f_{i-1}, 0.999), f_i = cos²((i/T + 0.008)/1.008 · π/2), i = 1..T."""
    f = cosine_f(R, T)
    return cosine_cap(R, 1 - f[1:] / f[:-1])


@topic("D.14", "T", "alpha_bar (T,)", lambda: _lengths(20, 1000), measure=np.log10, unit="log10 of the answer", tol=2.0,
       because="compared as log10, a sum of T logarithms")  # fmt: skip
def cosine_alpha_bar(R: Reference, T: int) -> Array:
    """ᾱ_i = Π (1-β), β = min(1 - f_i/f_{i-1}, 0.999): the product of the clipped ones, not f itself."""
    return alpha_bar(R, cosine_betas(R, T))


@topic("D.2", "betas (T,)", "alpha_bar (T,), alpha_bar[0] after one step of noise",
       lambda: [Probe("four", (np.array([0.1, 0.2, 0.3, 0.4]),), UP), Probe("linear", (Schedule.linear(1000).beta[1:],)),
                Probe("cosine", (Schedule.cosine(100).beta[1:],))])  # fmt: skip
def alpha_bar(R: Reference, betas: Array) -> Array:
    """ᾱ_t = Π_{i ≤ t} (1-β_i)."""
    return np.cumprod(1 - betas)


# √ᾱ shifted and stretched so that ᾱ_T = 0 and ᾱ_1 stays
zero_snr = part(lambda R, alpha_bar: zero_terminal_snr(full(alpha_bar)).alpha_bar[1:])


@topic("D.16", "betas (T,)", "betas (T,), the last one 1", lambda: [Probe("four", (np.array([0.1, 0.2, 0.3, 0.4]),), UP),
                Probe("scaled-linear", (Schedule.scaled_linear(1000).beta[1:],), "what Stable Diffusion leaves at T")], tol=10.0,
       because="β of ratios of ᾱ")  # fmt: skip
def zero_snr_betas(R: Reference, betas: Array) -> Array:
    """r = √ᾱ: r' = (r - r_T) r_1/(r_1 - r_T), ᾱ' = r'², β' = 1 - ᾱ'_t/ᾱ'_{t-1}."""
    return full(zero_snr(R, alpha_bar(R, betas))).beta[1:]
