"""DDPM (Ho, Jain, Abbeel 2020): noise is added in closed form and removed a little at each step.

    x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε                                   forward, any t at once         (D.1)
    x_t = √(ᾱ_t/ᾱ_s) x_s + √(1-ᾱ_t/ᾱ_s) z                         forward, from s up to t        (D.3)
    q(x_s|x_t,x_0) = N(c_1 x_0 + c_2 x_t, β̃)                      posterior                      (D.8)
    x_s = (x_t - (1-α)/√(1-ᾱ_t) ε̂)/√α + σ z                        core formula                   (D.9)
    x̂_0 = (x̂_s - c_2 x_t)/c_1                                       if a network predicts x̂_s      (D.50)

with α = ᾱ_t/ᾱ_s and β = 1-α of the step from t to any s < t (for s = t-1 the ladder's own α_t, β_t).
`ddpm_step` uses step.py, (D.7) with c² = β̃: it gives the posterior's mean and, with ε̂, the mean of the core formula.
"""

from __future__ import annotations

from minidit.backend import Array, home_of
from minidit.diffusion.level import at, check_shapes, climb, enter, mix
from minidit.diffusion.prediction import predict_x_0
from minidit.diffusion.schedule import Schedule, check_rungs
from minidit.diffusion.step import add_noise, posterior_coefficients, step
from minidit.diffusion.variance import small


def q_sample(x_0: Array, t: Array, eps: Array, sch: Schedule) -> Array:
    """x_0, eps : (B, ...), t : int or (B,) in 1..T  ->  x_t : (B, ...). Raises ValueError for other rungs or shapes."""
    check_shapes(x_0=x_0, eps=eps)
    check_rungs(t, 0, sch.T, batch=x_0)
    return mix(x_0, eps, sch.level(t))  # (D.1)


def q_climb(x_s: Array, s: Array, t: Array, z: Array, sch: Schedule) -> Array:
    """x_s, z : (B, ...), 0 ≤ s < t  ->  x_t : (B, ...): adds noise to an already noisy picture."""
    check_shapes(x_s=x_s, z=z)
    check_rungs(t, s, sch.T, batch=x_s)
    return climb(x_s, sch.level(s), sch.level(t), z)  # (D.3)


def posterior(x_t: Array, x_0: Array, t: Array, s: Array, sch: Schedule) -> tuple[Array, Array]:
    """x_t, x_0 : (B, ...), 0 ≤ s < t  ->  mean : (B, ...), var : float or (B, 1, ..., 1), of q(x_s | x_t, x_0)."""
    check_shapes(x_t=x_t, x_0=x_0)
    check_rungs(t, s, sch.T, batch=x_t)
    c_1, c_2, var = enter(*posterior_coefficients(at(sch.alpha_bar, t), at(sch.alpha_bar, s)), like=x_t)
    return c_1 * x_0 + c_2 * x_t, var  # (D.8)


def x_0_of_x_s(x_s_hat: Array, x_t: Array, t: Array, s: Array, sch: Schedule) -> Array:
    """x_s_hat, x_t : (B, ...), 0 ≤ s < t  ->  x̂_0 : (B, ...), for a network that predicts the posterior's mean directly."""
    check_shapes(x_s_hat=x_s_hat, x_t=x_t)
    check_rungs(t, s, sch.T, batch=x_t)
    c_1, c_2, _ = enter(*posterior_coefficients(at(sch.alpha_bar, t), at(sch.alpha_bar, s)), like=x_t)
    return (x_s_hat - c_2 * x_t) / c_1  # (D.50)


def core_formula(x_t: Array, eps_hat: Array, t: Array, s: Array, sch: Schedule, *, sigma: Array, z: Array) -> Array:
    """The step as the paper prints it (eq. 11, algorithm 2): 1/√α · (x_t - (1-α)/√(1-ᾱ_t) · ε̂) + σ z."""
    check_shapes(x_t=x_t, eps_hat=eps_hat, z=z)
    check_rungs(t, s, sch.T, batch=x_t)
    a_t, a_s = at(sch.alpha_bar, t), at(sch.alpha_bar, s)
    alpha = a_t / a_s
    shrink, removed, sigma = enter(alpha**0.5, (1 - alpha) / (1 - a_t) ** 0.5, sigma, like=x_t)
    return (x_t - removed * eps_hat) / shrink + sigma * z  # (D.9)


def ddpm_step(x_t: Array, eps_hat: Array, t: Array, s: Array, sch: Schedule, *, z: Array, variance: Array = None) -> Array:
    """x_t, eps_hat, z : (B, ...), 0 ≤ s < t  ->  x_s : (B, ...).

    variance : a float, (B,) or a picture, from a law in variance.py; None: the small one. z may be None for s = 0, where no
    noise is added. Raises ValueError for wrong rungs or shapes, for a missing z, and where ᾱ_t = 0.
    """
    check_rungs(t, s, sch.T, batch=x_t)
    return ddpm_from_pair(predict_x_0(x_t, eps_hat, t, sch), eps_hat, t, s, sch, z=z, variance=variance)


def ddpm_from_pair(
    x_0_hat: Array, eps_hat: Array, t: Array, s: Array, sch: Schedule, *, z: Array, variance: Array = None
) -> Array:
    """`ddpm_step` from the pair (x̂_0, ε̂), which may be clipped, or come from a network that predicts v."""
    beta_tilde = small(t, s, sch)
    mean = step(x_0_hat, eps_hat, sch.level(s), c=beta_tilde**0.5)  # the posterior's mean
    if z is None and home_of(s) == "" and s == 0:
        return mean
    check_shapes(x_0_hat=x_0_hat, z=z)
    return add_noise(mean, beta_tilde if variance is None else variance, z, s)
