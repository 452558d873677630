"""Topics: one step down the ladder with fresh noise. Time as others count it: t in 0..T-1, s = -1 is the data.

The noise is spelled out, because mistakes change its mask, its root and its variance apart (M21, M22, M24, X85, X86).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidit.backend import Array
from minidit.diffusion import ddpm as law
from minidit.diffusion import threshold
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics import posterior
from minidit.verify.topics.conversions import Pair, eps_of_x_0, pair_of_v, x_0_of_eps
from minidit.verify.topics.posterior import HOPS, LOST, STEP, alpha_below, hops
from minidit.verify.topics.schedules import full

topic = Group("samplers")
Limit = Callable[[Reference, Array], Array]  # what becomes of x̂_0


noise_mask = part(lambda R, s, t=None: float(s >= 0))  # no fresh noise into the data, wherever the step into it comes from


@part
def fresh(R: Reference, s: int, t: int, std: Array, z: Array) -> Array:
    """The fresh noise of a step; where there is none, its standard deviation does not matter, even if it is no number."""
    mask = noise_mask(R, s, t)
    return mask * std * z if mask else np.zeros_like(z)


latent_range = part(lambda R, x_0: x_0)  # what becomes of x̂_0 where no clipping was asked for: nothing
pixel_range = part(lambda R, x_0: threshold.static(x_0))  # what becomes of x̂_0 where pixels were asked for
std_of_log = part(lambda R, log_variance: np.exp(0.5 * log_variance))  # σ = exp(½ ln σ²)
# σ of the learned range
learned_std = part(lambda R, v, alpha_bar, t, s: std_of_log(R, np.log(posterior.learned_range_variance(R, v, t, s, alpha_bar))))
# σ of the large variance
large_std = part(lambda R, alpha_bar, t, s: float(std_of_log(R, np.log(posterior.large_variance(R, alpha_bar, t, s)))))


@part
def ddpm_mean(R: Reference, x_t: Array, eps: Array, alpha_bar: Array, t: int, s: int) -> Array:
    """(x_t - β/√(1-ᾱ_t) ε̂)/√α."""
    ladder = full(np.array([alpha_below(R, alpha_bar, t, s), alpha_bar[t]]))
    return law.core_formula(x_t, eps, 2, 1, ladder, sigma=0.0, z=np.zeros_like(x_t))


def noisy_steps(variants: tuple[tuple[str, ...], ...] = ((),), channels: int = 3) -> list[Probe]:
    """A step over each of the HOPS, with each set of further arguments."""
    rng, out = Philox(21), []
    for name, alpha_bar, t, s in hops(*HOPS):
        for more in variants:
            x, z = (rng.normal((2, 3, 2, 2), dtype=np.float64) for _ in range(2))
            eps = rng.normal((2, channels, 2, 2), dtype=np.float64)
            label = "-".join([name, *map(str, more)])
            out.append(Probe(label, (x, eps, t, s, alpha_bar, z, *more), "skipped rungs, neighbours, the last step, |x̂_0| > 1"))
    return out


DDPM = f"x_t, eps (B,C,H,W), {STEP}, z (B,C,H,W)"


@topic("D.9", DDPM, "x_s (B,C,H,W)", noisy_steps)
def ddpm_step(R: Reference, x_t: Array, eps: Array, t: int, s: int, alpha_bar: Array, z: Array) -> Array:
    """(x_t - β/√(1-ᾱ_t) ε̂)/√α + [s ≥ 0] √β̃ z, α = ᾱ_t/ᾱ_s, β = 1-α, β̃ = β (1-ᾱ_s)/(1-ᾱ_t)."""
    std = std_of_log(R, posterior.log_small_variance(R, alpha_bar, t, s))
    return ddpm_mean(R, x_t, eps, alpha_bar, t, s) + fresh(R, s, t, std, z)


@topic("D.17", DDPM, "x_s (B,C,H,W)", noisy_steps)
def ddpm_step_large(R: Reference, x_t: Array, eps: Array, t: int, s: int, alpha_bar: Array, z: Array) -> Array:
    """(x_t - β/√(1-ᾱ_t) ε̂)/√α + [s ≥ 0] √β z, α = ᾱ_t/ᾱ_s, β = 1-α."""
    return ddpm_mean(R, x_t, eps, alpha_bar, t, s) + fresh(R, s, t, large_std(R, alpha_bar, t, s), z)


@topic("D.31", DDPM, "x_s (B,C,H,W)", noisy_steps)
def ddpm_step_clipped(R: Reference, x_t: Array, eps: Array, t: int, s: int, alpha_bar: Array, z: Array) -> Array:
    """Mean of q(x_s | x_t, x̂_0) with x̂_0 clipped to [-1, 1], + [s ≥ 0] √β̃ z: for pixels."""
    x_0 = x_0_of_eps(R, x_t, eps, float(alpha_bar[t]))
    std = std_of_log(R, posterior.log_small_variance(R, alpha_bar, t, s))
    return posterior.posterior_mean(R, pixel_range(R, x_0), x_t, t, s, alpha_bar) + fresh(R, s, t, std, z)


@part
def pair_of(R: Reference, out: Array, x_t: Array, a_t: float, objective: str) -> Pair:
    """(x̂_0, ε̂) from what the network was trained to say: eps, x_0 or v."""
    if objective == "eps":
        return x_0_of_eps(R, x_t, out, a_t), out
    return (out, eps_of_x_0(R, x_t, out, a_t)) if objective == "x_0" else pair_of_v(R, x_t, out, a_t)


@part
def halves_of_channels(R: Reference, out: Array) -> Pair:
    """(B,2C,H,W)  ->  the first C channels, the last C."""
    first, second = np.split(out, 2, axis=1)
    return first, second


def _doubles() -> list[Probe]:
    return [Probe("four", (np.arange(16.0).reshape(1, 4, 2, 2),), "C = 2: a half is not every other channel")]


@topic("D.22", "out (B,2C,H,W): a network's answer that learns its variance", "(eps, v), each (B,C,H,W)", _doubles)
def split_output(R: Reference, out: Array) -> Pair:
    """(ε̂, v): the first C channels, the last C."""
    return halves_of_channels(R, out)


@topic("D.22", f"x_t (B,C,H,W), out (B,2C,H,W), {STEP}, z, objective: eps, x_0 or v", "x_s (B,C,H,W)",
       lambda: noisy_steps((("eps",), ("x_0",), ("v",)), channels=6), tol=10.0, because=LOST)  # fmt: skip
def ddpm_step_learned(R: Reference, x_t: Array, out: Array, t: int, s: int, alpha_bar: Array, z: Array, objective: str) -> Array:
    """Mean of q(x_s | x_t, x̂_0) + [s ≥ 0] σ z, σ² = exp(f ln β + (1-f) ln β̃), f = (v+1)/2, v the second half of out."""
    out, v = halves_of_channels(R, out)
    x_0, _ = pair_of(R, out, x_t, float(alpha_bar[t]), objective)
    std = learned_std(R, v, alpha_bar, t, s)
    return posterior.posterior_mean(R, latent_range(R, x_0), x_t, t, s, alpha_bar) + fresh(R, s, t, std, z)
