"""Gaussian data N(m, s²), for which everything about diffusion has a closed form, on any path. Per dimension, at a level (α, σ):

    S = α² s² + σ²                                       variance of x_t                                   (D.38)
    E[x_0|x_t] = m + k (x_t - α m)       k = α s²/S      the perfect denoiser                              (D.38)
    R = s² σ²/S                                          variance of q(x_0|x_t): the floor of the x_0 loss  (D.39)
    mean of α² s²/S over the rungs                       the floor of L_simple                             (D.48)
    x_s = α_s m + √(S_s/S_t) (x_t - α_t m)               the probability flow, solved                      (D.40)
    ρ = (α_t α_s s² + σ_t √(σ_s² - c²))/S_t              factor of one step (P.4) on x_t - α_t m instead   (D.41)
    var' = ρ² var + c²                                   and with fresh noise                              (D.51)
    mean' = g mean + h    var' = g² var + noise          one DDPM step with a noise of any variance        (D.45)
        g = c_1 k + c_2    h = c_1 m (1 - k α_t)
    α² s²/S                                              x_t <- α x̂_0, fed back at the same level          (D.46)
    V = β̃ + c_1² R                                       variance of q(x_s|x_t)                            (D.20)
    L_T, L_{t-1}, L_0                                    the likelihood bound, term by term                (K.9)
    f = ln(V/β̃)/ln(β/β̃)                                  optimum of a learned range                        (K.10)

A full covariance is treated in the basis of its eigenvectors. The numbers of a level, m and s² are floats, or float64 arrays
that broadcast. t is the noisier level, s the other one.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion.level import Level, climb_coefficients, posterior_variance
from minidit.diffusion.step import remaining_std


def spread(at: Level, variance: Array) -> Array:
    """S, the variance of x_t."""
    return at.alpha**2 * variance + at.sigma**2  # (D.38)


def gain(at: Level, variance: Array) -> Array:
    """k, the slope of E[x_0 | x_t]."""
    return at.alpha * variance / spread(at, variance)  # (D.38)


def remaining(at: Level, variance: Array) -> Array:
    """R, the variance of x_0 once x_t is known. Times `Prediction.gain(at)` it is the floor of that prediction's loss."""
    return variance * at.sigma**2 / spread(at, variance)  # (D.39)


def simple_floor(levels: Level, variance: float) -> float:
    """The lower bound of L_simple for any network; levels : (T+1,) each, the tables of a ladder."""
    rungs = Level(levels.alpha[1:], levels.sigma[1:])
    return float((rungs.alpha**2 * variance / spread(rungs, variance)).mean())  # (D.48)


def posterior_slopes(t: Level, s: Level) -> tuple[Array, Array]:
    """c_1 and c_2 of q(x_s|x_t, x_0) = N(c_1 x_0 + c_2 x_t, β̃), on any path: (D.8) on the ladder."""
    signal, added = climb_coefficients(s, t)
    return s.alpha * added / t.sigma**2, signal * (s.sigma / t.sigma) ** 2


def reverse(t: Level, s: Level, variance: Array) -> Array:
    """The variance of q(x_s | x_t): a model needs it for exact marginals."""
    return posterior_variance(t, s) + posterior_slopes(t, s)[0] ** 2 * remaining(t, variance)  # (D.20)


def flow_factor(t: Level, s: Level, variance: Array) -> Array:
    """The factor of the exact probability flow on x_t - α_t m, down or up."""
    return (spread(s, variance) / spread(t, variance)) ** 0.5  # (D.40)


def step_factor(t: Level, s: Level, variance: Array, c: Array = 0.0) -> Array:
    """ρ, the factor of one step on x_t - α_t m, apart from its noise of std c; from less noise to more, an inversion step."""
    return (t.alpha * s.alpha * variance + t.sigma * remaining_std(s, c)) / spread(t, variance)  # (D.41, D.51)


def ancestral(mean: Array, var: Array, t: Level, s: Level, m: Array, variance: Array, noise: Array) -> tuple[Array, Array]:
    """(mean, var) of x_s from those of x_t after a DDPM step with the perfect denoiser; noise : variance of its fresh noise."""
    k, (c_1, c_2) = gain(t, variance), posterior_slopes(t, s)
    g, h = c_1 * k + c_2, c_1 * m * (1 - k * t.alpha)
    return g * mean + h, g**2 * var + noise  # (D.45)


def feedback_factor(at: Level, variance: Array) -> Array:
    """The factor of x_t <- α x̂_0(x_t), fed back at the same level, on x_t - α m. Below 1: all pictures become the mean."""
    return at.alpha * gain(at, variance)  # (D.46)


def entropy(variance: Array) -> Array:
    """H(x_0) in nats."""
    return 0.5 * np.log(2 * np.pi * np.e * variance)  # (K.9)


def prior_nats(top: Level, m: Array, variance: Array) -> Array:
    """L_T = E KL(q(x_T|x_0) ‖ N(0, 1))."""
    return 0.5 * (top.alpha**2 * (variance + m**2) + top.sigma**2 - 1 - 2 * np.log(top.sigma))  # (K.9)


def kl_nats(t: Level, s: Level, variance: Array, model: Array) -> Array:
    """L_{t-1} = E KL(q(x_s|x_t,x_0) ‖ p) for the perfect mean and a model variance; s is no clean data."""
    return 0.5 * (np.log(model / posterior_variance(t, s)) - 1 + reverse(t, s, variance) / model)  # (K.9)


def decoder_nats(first: Level, variance: Array, model: Array) -> Array:
    """L_0 = E[-ln p(x_0|x_1)] for the perfect mean and a model variance, continuous; first : the level of x_1."""
    return 0.5 * (np.log(2 * np.pi * model) + remaining(first, variance) / model)  # (K.9)


def best_fraction(t: Level, s: Level, variance: Array) -> Array:
    """The f of (D.22) that a perfect variance head learns: 0 for a point, 1 for s² = 1, inside iff s² ≤ 1."""
    n = s.alpha**2 * climb_coefficients(s, t)[1] / s.sigma**2  # V/β̃ = 1 + n s²/S, close to 1 in deep noise: hence log1p
    return np.log1p(n * variance / spread(t, variance)) / np.log1p((t.sigma**2 - s.sigma**2) / s.sigma**2)  # (K.10)
