"""The variational bound of a picture, in bits: L_T + Σ L_{t-1} + L_0.

    KL(N(μ_1, e^λ_1) ‖ N(μ_2, e^λ_2)) = ½ (λ_2 - λ_1 - 1 + e^(λ_1-λ_2) + (μ_1-μ_2)² e^-λ_2)              (K.1)
    L_T     = ½ (ᾱ_T (x_0² - 1) - ln(1-ᾱ_T))                  q(x_T|x_0) against N(0, 1)                (K.2)
    L_{t-1} = KL(q(x_s|x_t,x_0) ‖ N(μ(x_t, x̂_0), e^λ))        s = t-1 ≥ 1                               (K.3)
    L_0     = -ln (Φ((x-μ+h)/σ) - Φ((x-μ-h)/σ))               h = 1/(levels-1), end bins open           (K.4)
    Φ(z)    ≈ ½ (1 + tanh(√(2/π) (z + 0.044715 z³)))          OpenAI's and DiT's Φ, 1.8e-4 off          (K.5)
    L_0     = ½ (ln 2π + λ + (x-μ)² e^-λ)                     for data that are not grey levels         (K.6)
    L_0     = (K.4) with the Φ of (K.5), or (K.6)             grey levels or not: the decoder of a loss (K.11)
    bits per dimension = nats / (ln 2 · dimensions)                                                     (K.7)
    total   = L_T + Σ_{t=2..T} L_{t-1} + L_0                  a sum over all rungs, not a mean          (K.8)

Terms are elementwise, in nats; only `bits` reduces. λ is a log-variance: a float, (B,), a picture or a Tensor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from minidit import ops
from minidit.backend import Array, home_of, special_of, xp_of
from minidit.diffusion.ddpm import posterior
from minidit.diffusion.level import check_shapes, enter
from minidit.diffusion.schedule import Schedule, check_rungs
from minidit.diffusion.variance import log_small

Law = Callable[..., Array]


def _exp(x: Array) -> Array:
    return math.exp(x) if home_of(x) == "" else ops.exp(x)


def normal_kl(mean_1: Array, logvar_1: Array, mean_2: Array, logvar_2: Array) -> Array:
    """KL(N(mean_1, e^logvar_1) ‖ N(mean_2, e^logvar_2)) in nats, elementwise; the arguments broadcast."""
    return 0.5 * (
        logvar_2 - logvar_1 - 1.0 + _exp(logvar_1 - logvar_2) + (mean_1 - mean_2) ** 2 * _exp(-logvar_2)
    )  # (K.1)


def prior_term(x_0: Array, sch: Schedule) -> Array:
    """x_0 : (B, ...)  ->  L_T : (B, ...) in nats, the information about x_0 left at t = T."""
    a_T = float(sch.alpha_bar[-1])
    return 0.5 * (a_T * (x_0**2 - 1) - math.log1p(-a_T))  # (K.2)


def kl_term(x_0: Array, x_t: Array, x_0_hat: Array, log_variance: Array, t: Array, s: Array, sch: Schedule) -> Array:
    """L_{t-1} : (B, ...) in nats of the model N(μ(x_t, x̂_0), e^log_variance) for a step from t to s, s ≥ 1."""
    check_shapes(x_0=x_0, x_t=x_t, x_0_hat=x_0_hat)
    q_mean, _ = posterior(x_t, x_0, t, s, sch)
    p_mean, _ = posterior(x_t, x_0_hat, t, s, sch)
    q_logvar, log_variance = enter(log_small(t, s, sch), log_variance, like=x_t)
    return normal_kl(q_mean, q_logvar, p_mean, log_variance)  # (K.3)


def exact_cdf(z: Array) -> Array:
    """Φ(z) by erfc, accurate in the lower tail; z : arrays of any shape."""
    return special_of(z).erfc(z * -(0.5**0.5)) / 2


def tanh_cdf(z: Array) -> Array:
    """The approximation of Φ that OpenAI's code and DiT use, off by up to 2e-4; z : arrays and Tensors of any shape."""
    return (ops.tanh((z + z**3 * 0.044715) * (2 / math.pi) ** 0.5) + 1.0) * 0.5  # (K.5)


def discretised_nll(
    x: Array, mean: Array, log_variance: Array, *, levels: int = 256, cdf: Law = exact_cdf, floor: float = 1e-12
) -> Array:
    """-ln P(grey level x) : (B, ...) in nats. x on the grid {2k/(levels-1) - 1}, mean : arrays of one shape.

    The bins tile the line, so the probabilities of all levels add up to 1. log_variance may be a Tensor if cdf is tanh_cdf.
    """
    check_shapes(x=x, mean=mean)
    h, c = 1 / (levels - 1), x - mean
    per_std = _exp(enter(log_variance, like=x) * -0.5)
    bottom, top, right = x < -1 + h, x > 1 - h, c > 0
    # Φ(u) - Φ(l) = Φ(-l) - Φ(-u): every bin is measured in the lower tail, where the difference does not cancel
    away = xp_of(x).where(right, top, bottom)  # end bins open away from the mean: no lower edge
    across = xp_of(x).where(right, bottom, top)  # ... or across it: no upper edge
    upper = cdf(per_std * (h - abs(c))) * enter(~across, like=x) + enter(across, like=x)
    lower = cdf(per_std * (-h - abs(c))) * enter(~away, like=x)
    return -ops.log(ops.clip(upper - lower, low=floor, high=1.0))  # (K.4)


def continuous_nll(x: Array, mean: Array, log_variance: Array) -> Array:
    """-ln N(x; mean, e^log_variance) : (B, ...) in nats, for latents and other data without grey levels."""
    check_shapes(x=x, mean=mean)
    log_variance = enter(log_variance, like=x)
    return 0.5 * (math.log(2 * math.pi) + log_variance + (x - mean) ** 2 * _exp(-log_variance))  # (K.6)


def trained_decoder(levels: int | None) -> Law:
    """The decoder of a training loss, (x, mean, log_variance) -> (B, ...) nats; log_variance is a Tensor.

    levels : the number of grey levels, whose bins use the tanh form of Φ, the one that has a gradient; None : latents and
    other numbers, which have no bins.
    """
    if levels is None:
        return continuous_nll
    return functools.partial(discretised_nll, levels=levels, cdf=tanh_cdf)  # (K.11)


def bits(nats: Array) -> Array:
    """(B, ...) nats per entry  ->  (B,) bits per dimension."""
    return nats.mean(axis=tuple(range(1, nats.ndim))) * (1 / math.log(2))  # (K.7)


def bound_term(
    x_0: Array, x_t: Array, x_0_hat: Array, log_variance: Array, t: Array, sch: Schedule, *, decoder: Law
) -> Array:
    """The bound's term at rung t : (B,) bits per dimension; the decoder's at t = 1, the KL above.

    t : int or (B,), decoder : continuous_nll, or discretised_nll with its options bound. In the hybrid loss x_0_hat comes from
    the network's ε as a plain array: that is the stop-gradient.
    """
    check_rungs(t, 0, sch.T, batch=x_0)
    if home_of(t) == "" and t > 1:
        return bits(kl_term(x_0, x_t, x_0_hat, log_variance, t, t - 1, sch))
    mean, _ = posterior(x_t, x_0_hat, t, t - 1, sch)
    nll = bits(decoder(x_0, mean, log_variance))
    if home_of(t) == "":
        return nll
    first = xp_of(t).asarray(t == 1, dtype=x_0.dtype)
    return first * nll + (1 - first) * bits(kl_term(x_0, x_t, x_0_hat, log_variance, t, t - 1, sch))  # (K.8)


class Bound(NamedTuple):
    """The bound of each picture in bits per dimension, term by term."""

    prior: Array  # (B,)         L_T
    terms: Array  # (T, B)       L_0, L_1, …, L_{T-1}: one for every rung t = 1..T

    @property
    def total(self) -> Array:
        """(B,): the sum over all rungs."""
        return self.prior + self.terms.sum(axis=0)  # (K.8)


