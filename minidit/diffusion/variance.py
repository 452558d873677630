"""Variance laws: how much fresh noise a DDPM step adds. Every law returns numbers.

    β̃ = (1-ᾱ_s)/(1-ᾱ_t) · β,      β = 1-ᾱ_t/ᾱ_s                small: the posterior's                    (D.18)
    β,  and into s = 0 the β̃ of the step before                  large                                     (D.19)
    β̃ + c_1² R_t                                                 optimal for Gaussian data                 (D.20)
    ln β̃,  and into s = 0 the ln β̃ of the step before            small, as a finite logarithm              (D.21)
    f ln β + (1-f) ln β̃,          f = (v+1)/2                     learned range, v from the network         (D.22)

with c_1 as in (D.8), and R_t = s²(1-ᾱ_t)/(ᾱ_t s²+1-ᾱ_t) the variance of x_0 given x_t, for data of variance s².

Into s = 0 the posterior is a point (β̃ = 0, ln β̃ = -∞); a likelihood needs a finite number there, and by convention it is
that of the step before, u -> t. On a full or respaced ladder u = t+1, the default.
For int rungs the results are Python floats, for rung arrays (B,) float64.
"""

from __future__ import annotations

from minidit import ops
from minidit.backend import Array, home_of, xp_of
from minidit.diffusion import step
from minidit.diffusion.gaussian import reverse
from minidit.diffusion.level import at, enter
from minidit.diffusion.schedule import Schedule


def beta(t: Array, s: Array, sch: Schedule) -> Array:
    """β of a step from t to any s < t."""
    return step.jump(at(sch.alpha_bar, t), at(sch.alpha_bar, s))


def small(t: Array, s: Array, sch: Schedule) -> Array:
    """β̃, the variance of q(x_s | x_t, x_0); 0 for s = 0."""
    return step.posterior_coefficients(at(sch.alpha_bar, t), at(sch.alpha_bar, s))[2]  # (D.18)


def _lent(t: Array, sch: Schedule, above: Array) -> Array:
    """β̃ of the step before, above -> t; above T there is only noise, ᾱ = 0, and β̃ = 1-ᾱ_T."""
    above = t + 1 if above is None else above
    if home_of(t) == "":
        return small(above, t, sch) if above <= sch.T else 1 - at(sch.alpha_bar, t)
    xp = xp_of(t)
    inside = xp.minimum(above, sch.T)
    return xp.where(above > sch.T, 1 - at(sch.alpha_bar, t), small(inside, xp.minimum(t, inside - 1), sch))


def _finite(variance: Array, t: Array, s: Array, sch: Schedule, above: Array) -> Array:
    """The variance, except into s = 0: there that of the step before."""
    if home_of(s) == "":
        return variance if s > 0 else _lent(t, sch, above)
    return xp_of(s).where(s > 0, variance, _lent(t, sch, above))


def large(t: Array, s: Array, sch: Schedule, *, above: Array = None) -> Array:
    """β, except into s = 0: there β̃ of the step before."""
    return _finite(beta(t, s, sch), t, s, sch, above)  # (D.19)


def log_small(t: Array, s: Array, sch: Schedule, *, above: Array = None) -> Array:
    """ln β̃, also into s = 0 (OpenAI's posterior_log_variance_clipped)."""
    return _log(_finite(small(t, s, sch), t, s, sch, above))  # (D.21)


def optimal(t: Array, s: Array, sch: Schedule, data_variance: Array) -> Array:
    """The exact reverse variance for Gaussian data of this variance (a float, or the shape of one picture; then t is an int)."""
    return reverse(sch.level(t), sch.level(s), data_variance)  # (D.20)


def log_learned_range(v: Array, t: Array, s: Array, sch: Schedule, *, above: Array = None) -> Array:
    """The log-variance encoded by the second half of a network's channels, v : (B, ...); v is not bounded."""
    low, high = enter(log_small(t, s, sch, above=above), _log(beta(t, s, sch)), like=v)
    frac = (v + 1) * 0.5
    return frac * high + (1 - frac) * low  # (D.22)


def learned_range(v: Array, t: Array, s: Array, sch: Schedule, *, above: Array = None) -> Array:
    """The variance itself: -1 gives the small one, +1 gives β, 0 their geometric mean."""
    return ops.exp(log_learned_range(v, t, s, sch, above=above))  # (D.22)


def learned(log_variance: Array) -> Array:
    """The variance of a network that predicts its logarithm directly."""
    return ops.exp(log_variance)


def _log(x: Array) -> Array:
    return float(xp_of(x).log(x)) if home_of(x) == "" else xp_of(x).log(x)
