"""Topics: one DDIM step down the ladder, or up. Time as others count it: t in 0..T-1, s = -1 is the data.

The sum of the three terms is spelled out, because mistakes change σ, the mask and the pair apart (M21, M31, M34, X88 to X93).
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion import step as law
from minidit.diffusion.schedule import Schedule
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.conversions import Pair, eps_of_x_0, on_ladder, pair_of_v, x_0_of_eps
from minidit.verify.topics.ddpm import Limit, latent_range, noise_mask, noisy_steps, pixel_range
from minidit.verify.topics.posterior import STEP, alpha_below

topic = Group("samplers")


# the noise that goes with a limited x̂_0: derived anew, so that the pair still gives x_t
eps_after = part(lambda R, x_t, x_0, eps, a_t: eps_of_x_0(R, x_t, x_0, a_t))


@part
def limited(R: Reference, x_t: Array, x_0: Array, eps: Array, a_t: float, limit: Limit) -> Pair:
    """The pair with x̂_0 in its range."""
    inside = limit(R, x_0)
    return (inside, eps) if inside is x_0 else (inside, eps_after(R, x_t, inside, eps, a_t))


# the std of the fresh noise of a DDIM step
ddim_sigma = part(lambda R, a_t, a_s, eta: float(eta * law.posterior_coefficients(a_t, a_s)[2] ** 0.5))


@part
def ddim_from_pair(R: Reference, x_0: Array, eps: Array, a_t: float, a_s: float, s: int, eta: float, z: Array) -> Array:
    """√ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε̂ + σ z."""
    sigma = ddim_sigma(R, a_t, a_s, eta)
    return ddim_direction(R, x_0, eps, a_s, sigma) + noise_mask(R, s) * sigma * z


ddim_direction = part(lambda R, x_0, eps, a_s, sigma: law.step(x_0, eps, on_ladder(a_s), c=sigma))  # the step without its noise


def _steps(*etas: float) -> list[Probe]:
    plain = noisy_steps()
    return [
        Probe(f"{p.name}-eta{eta}", (*p.args[:5], eta, p.args[5]), p.reveals + ", several η")
        for k, p in enumerate(plain)
        for eta in (etas if k < 2 else (etas[k % len(etas)],))
    ]


DDIM = f"x_t, eps (B,C,H,W), {STEP}, eta, z (B,C,H,W)"


@topic("D.7", DDIM, "x_s (B,C,H,W)", lambda: _steps(0.0, 1.0, 0.5))
def ddim_step(R: Reference, x_t: Array, eps: Array, t: int, s: int, alpha_bar: Array, eta: float, z: Array) -> Array:
    """√ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε̂ + σ z, x̂_0 = (x_t - √(1-ᾱ_t) ε̂)/√ᾱ_t, σ² = η² (1-ᾱ_s)/(1-ᾱ_t) (1-ᾱ_t/ᾱ_s)."""
    return _limited_step(R, x_t, eps, t, s, alpha_bar, eta, z, latent_range)


@topic("D.33", DDIM, "x_s (B,C,H,W)", lambda: _steps(0.0, 0.7))
def ddim_step_clipped(R: Reference, x_t: Array, eps: Array, t: int, s: int, alpha_bar: Array, eta: float, z: Array) -> Array:
    """The DDIM step of x̂_0 clipped to [-1, 1] and of ε̂ = (x_t - √ᾱ_t x̂_0)/√(1-ᾱ_t) derived anew: for pixels."""
    return _limited_step(R, x_t, eps, t, s, alpha_bar, eta, z, pixel_range)


def _limited_step(
    R: Reference, x_t: Array, eps: Array, t: int, s: int, alpha_bar: Array, eta: float, z: Array, limit: Limit
) -> Array:  # fmt: skip
    a_t, a_s = float(alpha_bar[t]), alpha_below(R, alpha_bar, t, s)
    x_0, eps = limited(R, x_t, x_0_of_eps(R, x_t, eps, a_t), eps, a_t, limit)
    return ddim_from_pair(R, x_0, eps, a_t, a_s, s, eta, z)


def _velocities() -> list[Probe]:
    rng, base = Philox(24), Schedule.scaled_linear(1000).alpha_bar[1:]
    r = base**0.5
    zero = ((r - r[-1]) * r[0] / (r[0] - r[-1])) ** 2
    out, steps = [], (("t500-s457", base, 500, 457), ("zero-snr-t999-s979", zero, 999, 979), ("t20-s-1", base, 20, -1))
    for name, alpha_bar, t, s in steps:
        x, v = (rng.normal((2, 3, 2, 2), dtype=np.float64) for _ in range(2))
        out.append(Probe(name, (x, v, t, s, alpha_bar), "ᾱ_T = 0, where ε says nothing about x_0"))
    return out


zero_snr_pair = part(lambda R, x_t, v, a_t: pair_of_v(R, x_t, v, a_t))  # (x̂_0, ε̂) where nothing of the picture may be left


@topic("D.16", f"x_t, v (B,C,H,W), {STEP}; alpha_bar[T-1] may be 0", "x_s (B,C,H,W), finite", _velocities)
def ddim_step_v(R: Reference, x_t: Array, v: Array, t: int, s: int, alpha_bar: Array) -> Array:
    """√ᾱ_s x̂_0 + √(1-ᾱ_s) ε̂, x̂_0 = √ᾱ_t x_t - √(1-ᾱ_t) v, ε̂ = √(1-ᾱ_t) x_t + √ᾱ_t v."""
    a_t, a_s = float(alpha_bar[t]), alpha_below(R, alpha_bar, t, s)
    x_0, eps = zero_snr_pair(R, x_t, v, a_t)
    x_0, eps = limited(R, x_t, x_0, eps, a_t, latent_range)
    return ddim_direction(R, x_0, eps, a_s, 0.0)


def _climbs() -> list[Probe]:
    return [
        Probe(f"s{p.args[3]}-t{p.args[2]}", (*p.args[:2], p.args[3], *p.args[2:3], p.args[4]), "up, also from the data")
        for p in noisy_steps()[:-2]
    ]


level_of_pair = part(lambda R, a_s, a_t: a_s)  # ᾱ of the rung where x and ε̂ were found, when climbing from s to t


@topic("D.23", "x_s, eps (B,C,H,W) found at s, s int (-1: data), t int > s, alpha_bar (T,)", "x_t (B,C,H,W)", _climbs)
def ddim_invert_step(R: Reference, x_s: Array, eps: Array, s: int, t: int, alpha_bar: Array) -> Array:
    """√ᾱ_t x̂_0 + √(1-ᾱ_t) ε̂, x̂_0 = (x_s - √(1-ᾱ_s) ε̂)/√ᾱ_s: one step up with the pair found at s."""
    a_s, a_t = float(alpha_bar[s]) if s >= 0 else 1.0, float(alpha_bar[t])
    x_0 = x_0_of_eps(R, x_s, eps, level_of_pair(R, a_s, a_t))
    return ddim_direction(R, x_0, eps, a_t, 0.0)
