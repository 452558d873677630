"""Slips of the pen in noising and in one step: a root, a sign, a level or a term out of its place (D.1, D.4, D.7, D.9, D.17)."""

from __future__ import annotations

from typing import Any

from minidit.backend import Array
from minidit.verify.bank.samplers import CORE, SIGMA, mean_of
from minidit.verify.bank.wrap import instead
from minidit.verify.core.reference import Change, Deviation, Reference
from minidit.verify.topics import conversions, ddim, ddpm, posterior

STEP = "√ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε̂ + σ z"
SMALL = "β̃ = β (1-ᾱ_s)/(1-ᾱ_t), β = 1-ᾱ_t/ᾱ_s"
NOISE = "mean + [s > 0] σ z"


def _inverted(R: Reference, alpha_bar: Array, t: int, s: int) -> float:
    a_s = posterior.alpha_below(R, alpha_bar, t, s)
    return float((1 - alpha_bar[t]) / (1 - a_s) * posterior.step_beta(R, alpha_bar, t, a_s)) if a_s < 1 else 0.0


def _without_roots(R: Reference, x_0: Array, eps: Array, t: Array, alpha_bar: Array) -> Array:
    a = conversions.level(R, alpha_bar, t)
    noisy: Array = a * x_0 + (1 - a) * eps
    return noisy


def _direction_of(level: Any) -> Change:
    """The DDIM step with its own factors of x̂_0, ε̂ and z, made of (ᾱ_t, ᾱ_s, σ, η)."""

    def changed(R: Reference, x_0: Array, eps: Array, a_t: float, a_s: float, s: int, eta: float, z: Array) -> Any:
        signal, noise, fresh = level(a_t, a_s, ddim.ddim_sigma(R, a_t, a_s, eta), eta)
        return signal * x_0 + max(noise, 0.0) ** 0.5 * eps + ddpm.noise_mask(R, s) * fresh * z

    return instead(changed)


BANK = [
    Deviation("X80", "SMALL_VARIANCE_IS_BETA", "D.18", "takes β, the large variance, where the small one was asked for", SMALL,
        {posterior.small_variance: instead(lambda R, alpha_bar, t, s:
            posterior.step_beta(R, alpha_bar, t, posterior.alpha_below(R, alpha_bar, t, s)))}),
    Deviation("X81", "SMALL_VARIANCE_INVERTED", "D.18", "β (1-ᾱ_t)/(1-ᾱ_s): the levels are exchanged", SMALL,
        {posterior.small_variance: instead(_inverted)}),
    Deviation("X82", "EPS_MEAN_OF_ONE_STEP", "D.9", "β/√(1-α) before ε̂: the noise of one step, not of all until t", CORE,
        {ddpm.ddpm_mean: mean_of(lambda x, eps, beta, a, alpha: (x - beta / (1 - alpha) ** 0.5 * eps) / alpha**0.5)}),
    Deviation("X83", "EPS_MEAN_TIMES_ROOT", "D.9", "multiplies the mean by √α", CORE,
        {ddpm.ddpm_mean: mean_of(lambda x, eps, beta, a, alpha: (x - beta / (1 - a) ** 0.5 * eps) * alpha**0.5)}),
    Deviation("X84", "EPS_MEAN_SIGN", "D.9", "adds the noise in the mean", CORE,
        {ddpm.ddpm_mean: mean_of(lambda x, eps, beta, a, alpha: (x + beta / (1 - a) ** 0.5 * eps) / alpha**0.5)}),
    Deviation("X85", "NOISE_WITHOUT_SIGMA", "D.17", "adds z itself", NOISE,
        {ddpm.fresh: instead(lambda R, s, t, std, z: ddpm.noise_mask(R, s, t) * z)}),
    Deviation("X86", "NOISE_FORGOTTEN", "D.17", "returns the mean: no fresh noise at all", NOISE,
        {ddpm.fresh: instead(lambda R, s, t, std, z: 0 * z)}),
    Deviation("X87", "ALPHA_BAR_WRAPS_AROUND", "D.7", "ᾱ_s from the table's last entry where s = -1", "ᾱ = 1 at the data",
        {posterior.alpha_below: instead(lambda R, alpha_bar, t, s: float(alpha_bar[s]))}),
    Deviation("X88", "DDIM_DIRECTION_WITHOUT_SIGMA", "D.7", "√(1-ᾱ_s) before ε̂, whatever noise is added", STEP,
        {ddim.ddim_from_pair: _direction_of(lambda a_t, a_s, sigma, eta: (a_s**0.5, 1 - a_s, sigma))}),
    Deviation("X89", "DDIM_DIRECTION_OF_DEPARTURE", "D.7", "√(1-ᾱ_t-σ²) before ε̂: the level that is left", STEP,
        {ddim.ddim_from_pair: _direction_of(lambda a_t, a_s, sigma, eta: (a_s**0.5, 1 - a_t - sigma**2, sigma))}),
    Deviation("X90", "DDIM_SIGNAL_FORGOTTEN", "D.7", "x̂_0 without √ᾱ_s", STEP,
        {ddim.ddim_from_pair: _direction_of(lambda a_t, a_s, sigma, eta: (1.0, 1 - a_s - sigma**2, sigma))}),
    Deviation("X91", "DDIM_SIGNAL_WITHOUT_ROOT", "D.7", "ᾱ_s before x̂_0", STEP,
        {ddim.ddim_from_pair: _direction_of(lambda a_t, a_s, sigma, eta: (a_s, 1 - a_s - sigma**2, sigma))}),
    Deviation("X92", "DDIM_NOISE_IS_ETA", "D.7", "adds η z", STEP,
        {ddim.ddim_from_pair: _direction_of(lambda a_t, a_s, sigma, eta: (a_s**0.5, 1 - a_s - sigma**2, eta))}),
    Deviation("X93", "DDIM_SIGMA_WITHOUT_ROOT", "D.6", "takes η σ² for η σ", SIGMA,
        {ddim.ddim_sigma: instead(lambda R, a_t, a_s, eta: eta * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s))}),
    Deviation("X94", "X_0_WITHOUT_ROOT", "D.4", "divides by ᾱ_t", "x̂_0 = (x_t - √(1-ᾱ_t) ε̂)/√ᾱ_t",
        {conversions.x_0_of_eps: instead(lambda R, x_t, eps, a: (x_t - (1 - a) ** 0.5 * eps) / a)}),
    Deviation("X95", "X_0_NOISE_WITHOUT_ROOT", "D.4", "1-ᾱ_t before ε̂", "x̂_0 = (x_t - √(1-ᾱ_t) ε̂)/√ᾱ_t",
        {conversions.x_0_of_eps: instead(lambda R, x_t, eps, a: (x_t - (1 - a) * eps) / a**0.5)}),
    Deviation("X340", "NOISING_WITHOUT_ROOTS", "D.1", "ᾱ_t x_0 + (1-ᾱ_t) ε: both roots are missing, the variance is not kept",
        "x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε", {conversions.q_sample: instead(_without_roots)}),
]  # fmt: skip
