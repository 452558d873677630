"""Gaussian data N(m, s²), for which everything about diffusion has a closed form. Per dimension, with A = ᾱ_t, P = ᾱ_s (s < t):

    S_A = A s² + 1 - A                                   variance of x_t                                   (D.38)
    E[x_0|x_t] = m + k (x_t - √A m)    k = √A s²/S_A      the perfect denoiser                              (D.38)
    R_A = s² (1-A)/S_A                                   variance of q(x_0|x_t): the floor of the x_0 loss  (D.39)
    (1/T) Σ_t A s²/S_A                                   the floor of L_simple                             (D.48)
    x_s = √P m + √(S_P/S_A) (x_t - √A m)                 the probability flow, solved                      (D.40)
    ρ = (√(AP) s² + √((1-A)(1-P)))/S_A                   factor of one DDIM step on x_t - √A m instead     (D.41)
    ρ = (√(AP) s² + √((1-A)(1-P-σ²)))/S_A                and with fresh noise: var' = ρ² var + σ²          (D.51)
    mean' = g mean + h    var' = g² var + σ²             one DDPM step with noise σ²                       (D.45)
        g = c_1 k + c_2    h = c_1 m (1 - k √A)
    A s²/S_A                                             x_t <- √A x̂_0, fed back at the same rung          (D.46)
    V = β̃ + c_1² R_A                                     variance of q(x_s|x_t)                            (D.20)
    L_T, L_{t-1}, L_0                                    the likelihood bound, term by term                (K.9)
    f = ln(V/β̃)/ln(β/β̃)                                  optimum of a learned range                        (K.10)

A full covariance is treated in the basis of its eigenvectors. Arguments are floats, or float64 arrays that broadcast.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion.step import posterior_coefficients


def spread(a: Array, variance: Array) -> Array:
    """S_A, the variance of x_t."""
    return a * variance + 1 - a  # (D.38)


def gain(a: Array, variance: Array) -> Array:
    """k, the slope of E[x_0 | x_t]."""
    return a**0.5 * variance / spread(a, variance)  # (D.38)


def remaining(a: Array, variance: Array) -> Array:
    """R_A, the variance of x_0 once x_t is known. Times `Prediction.gain(a)` it is the floor of that prediction's loss."""
    return variance * (1 - a) / spread(a, variance)  # (D.39)


def simple_floor(alpha_bar: Array, variance: float) -> float:
    """The lower bound of L_simple for any network; alpha_bar : (T+1,), the table of a ladder."""
    a = alpha_bar[1:]
    return float((a * variance / spread(a, variance)).mean())  # (D.48)


def reverse(a_t: Array, a_s: Array, variance: Array) -> Array:
    """The variance of q(x_s | x_t): a model needs it for exact marginals."""
    c_1, _, small = posterior_coefficients(a_t, a_s)
    return small + c_1**2 * remaining(a_t, variance)  # (D.20)


def flow_factor(a_t: Array, a_s: Array, variance: Array) -> Array:
    """The factor of the exact probability flow on x_t - √A m."""
    return (spread(a_s, variance) / spread(a_t, variance)) ** 0.5  # (D.40)


def ddim_factor(a_t: Array, a_s: Array, variance: Array, sigma2: Array = 0.0) -> Array:
    """ρ, the factor of one DDIM step on x_t - √A m, apart from its noise of variance sigma2; for a_s < a_t an inversion step."""
    return ((a_t * a_s) ** 0.5 * variance + ((1 - a_t) * (1 - a_s - sigma2)) ** 0.5) / spread(a_t, variance)  # (D.41, D.51)


def ancestral(mean: Array, var: Array, a_t: Array, a_s: Array, m: Array, variance: Array, sigma2: Array) -> tuple[Array, Array]:
    """(mean, var) of x_s from those of x_t after a DDPM step with the perfect denoiser and noise of variance sigma2."""
    k, (c_1, c_2, _) = gain(a_t, variance), posterior_coefficients(a_t, a_s)
    g, h = c_1 * k + c_2, c_1 * m * (1 - k * a_t**0.5)
    return g * mean + h, g**2 * var + sigma2  # (D.45)


def feedback_factor(a: Array, variance: Array) -> Array:
    """The factor of x_t <- √A x̂_0(x_t), fed back at the same rung, on x_t - √A m. Below 1: all pictures become the mean."""
    return a**0.5 * gain(a, variance)  # (D.46)


def entropy(variance: Array) -> Array:
    """H(x_0) in nats."""
    return 0.5 * np.log(2 * np.pi * np.e * variance)  # (K.9)


def prior_nats(a_T: Array, m: Array, variance: Array) -> Array:
    """L_T = E KL(q(x_T|x_0) ‖ N(0, 1))."""
    return 0.5 * (a_T * (variance + m**2 - 1) - np.log1p(-a_T))  # (K.9)


def kl_nats(a_t: Array, a_s: Array, variance: Array, model: Array) -> Array:
    """L_{t-1} = E KL(q(x_s|x_t,x_0) ‖ p) for the perfect mean and a model variance, s > 0."""
    _, _, small = posterior_coefficients(a_t, a_s)
    return 0.5 * (np.log(model / small) - 1 + reverse(a_t, a_s, variance) / model)  # (K.9)


def decoder_nats(a_1: Array, variance: Array, model: Array) -> Array:
    """L_0 = E[-ln p(x_0|x_1)] for the perfect mean and a model variance, continuous."""
    return 0.5 * (np.log(2 * np.pi * model) + remaining(a_1, variance) / model)  # (K.9)


def best_fraction(a_t: Array, a_s: Array, variance: Array) -> Array:
    """The f of (D.22) that a perfect variance head learns: 0 for a point, 1 for s² = 1, inside iff s² ≤ 1."""
    n = (a_s - a_t) / (1 - a_s)  # β/β̃ = 1 + n and V/β̃ = 1 + n s²/S_A, close to 1 in deep noise: hence log1p
    return np.log1p(n * variance / spread(a_t, variance)) / np.log1p(n)  # (K.10)
