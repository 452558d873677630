"""One step from any level to one of less noise: the one line of all samplers. `row.py` calls it for every step of a walk.

    x_s = α_s x̂_0 + √(σ_s² - c²) ε̂ + c z               0 ≤ c ≤ σ_s               (P.4)
    x_s = √ᾱ_s x̂_0 + √(1-ᾱ_s-c²) ε̂ + c z               the same on the ladder    (D.7)

    sampler            path                 levels         c
    DDPM               ᾱ ladder             rungs          posterior's std, √β̃
    DDIM               ᾱ ladder             rungs          η √β̃
    rectified flow     α = 1-t, σ = t       any            0
    EDM (Euler)        α = 1, σ = t         Karras         0
    consistency        α = 1, σ = t         two or three   σ_s

In a single step to the data all rows are one: x_s = x̂_0. `md.sample` walks them all.

    x_s = mean + [s > 0] √variance z                                             (D.17)
    q(x_s|x_t,x_0) = N(c_1 x_0 + c_2 x_t, β̃)             α = ᾱ_t/ᾱ_s, β = 1-α    (D.8)
        c_1 = √ᾱ_s β/(1-ᾱ_t)    c_2 = √α (1-ᾱ_s)/(1-ᾱ_t)    β̃ = β (1-ᾱ_s)/(1-ᾱ_t)

With c = σ_s, ε̂ drops out. Clean data has σ = 0, so a step to s = 0 returns x̂_0 without a special case.
"""

from __future__ import annotations

from minidit.backend import Array
from minidit.diffusion.level import Level, enter


def step(x_0_hat: Array, eps_hat: Array, s: Level, *, c: Array = 0.0, std: Array = None, z: Array = None) -> Array:
    """From the pair (x̂_0, ε̂) at some level down to level s; c is the std of the fresh noise.

    x_0_hat, eps_hat, z : (B, ...) of one shape  ->  x_s : the same.   c : float, or one number per sample; z None: no noise
    std : standard deviation of the noise, if it differs from c (DDPM's large and learned variances); may have the shape of z
    """
    signal, direction = enter(s.alpha, remaining_std(s, c), like=x_0_hat)
    x_s = signal * x_0_hat + direction * eps_hat  # (P.4, D.7)
    return x_s if z is None else x_s + enter(c if std is None else std, like=x_0_hat) * z  # (P.4, D.7)


def remaining_std(s: Level, c: Array) -> Array:
    """√(σ_s² - c²), the coefficient of ε̂."""
    rest = s.sigma**2 - c**2
    return (rest * (rest > 0)) ** 0.5  # where it should be 0 (α_t = 0, η = 1), rounding may give -1e-17


def jump(a_t: Array, a_s: Array) -> Array:
    """β of a step between two rungs, however far apart; a_t = ᾱ_t, a_s = ᾱ_s."""
    return 1 - a_t / a_s  # (D.3)


def posterior_coefficients(a_t: Array, a_s: Array) -> tuple[Array, Array, Array]:
    """c_1, c_2 and β̃ of q(x_s|x_t,x_0) = N(c_1 x_0 + c_2 x_t, β̃); (1, 0, 0) for s = 0."""
    beta = jump(a_t, a_s)
    c_1 = a_s**0.5 * beta / (1 - a_t)
    c_2 = (a_t / a_s) ** 0.5 * (1 - a_s) / (1 - a_t)
    return c_1, c_2, beta * (1 - a_s) / (1 - a_t)  # (D.8)


def add_noise(mean: Array, variance: Array, z: Array, s: Array) -> Array:
    """mean + [s > 0] √variance z: no noise is added in the final step (s = 0), whatever the variance.

    variance : float, (B,) or the shape of mean;  s : int or (B,), the rung of the result
    """
    active, variance = enter((s > 0) * 1.0, variance, like=mean)
    return mean + active * variance**0.5 * z  # (D.17)
