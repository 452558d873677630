"""One step down the ladder, from rung t to any rung s < t: the single home of the sampling update.

    x_s = √ᾱ_s x̂_0 + √(1-ᾱ_s-c²) ε̂ + c z               0 ≤ c² ≤ 1-ᾱ_s         (D.7)

    x_s = mean + [s > 0] √variance z                                             (D.17)
    q(x_s|x_t,x_0) = N(c_1 x_0 + c_2 x_t, β̃)             α = ᾱ_t/ᾱ_s, β = 1-α    (D.8)
        c_1 = √ᾱ_s β/(1-ᾱ_t)    c_2 = √α (1-ᾱ_s)/(1-ᾱ_t)    β̃ = β (1-ᾱ_s)/(1-ᾱ_t)

c = 0 is DDIM, c = the posterior's std is DDPM, c = √(1-ᾱ_s) forgets ε̂ altogether. The table has T+1 entries and
ᾱ_0 = 1 exactly, so a step into s = 0 returns x̂_0 and needs no special case.
"""

from __future__ import annotations

from minidit.backend import Array
from minidit.diffusion.schedule import enter


def jump(a_t: Array, a_s: Array) -> Array:
    """β of a step between two rungs, however far apart; a_t = ᾱ_t, a_s = ᾱ_s."""
    return 1 - a_t / a_s  # (D.3)


def posterior_coefficients(a_t: Array, a_s: Array) -> tuple[Array, Array, Array]:
    """c_1, c_2 and β̃ of q(x_s|x_t,x_0) = N(c_1 x_0 + c_2 x_t, β̃); (1, 0, 0) into s = 0."""
    beta = jump(a_t, a_s)
    c_1 = a_s**0.5 * beta / (1 - a_t)
    c_2 = (a_t / a_s) ** 0.5 * (1 - a_s) / (1 - a_t)
    return c_1, c_2, beta * (1 - a_s) / (1 - a_t)  # (D.8)


def step(x_0_hat: Array, eps_hat: Array, a_s: Array, *, c: Array = 0.0, z: Array = None) -> Array:
    """From the pair (x̂_0, ε̂) at some rung down to the rung with ᾱ = a_s; c is the std of the fresh noise.

    x_0_hat, eps_hat, z : (B, ...) of one shape  ->  x_s : the same.   a_s, c : float, or one number a sample
    """
    rest = 1 - a_s - c**2
    rest = rest * (rest > 0)  # where nothing is left (ᾱ_t = 0, η = 1) rounding leaves -1e-17, whose root is not real
    signal, direction, fresh = enter(a_s**0.5, rest**0.5, c, like=x_0_hat)
    x_s = signal * x_0_hat + direction * eps_hat  # (D.7)
    return x_s if z is None else x_s + fresh * z  # (D.7)


def add_noise(mean: Array, variance: Array, z: Array, s: Array) -> Array:
    """mean + [s > 0] √variance z: a picture that has arrived gets no grain, whatever its variance law says.

    variance : float, (B,) or the shape of mean;  s : int or (B,), the rung arrived at
    """
    moving, variance = enter((s > 0) * 1.0, variance, like=mean)
    return mean + moving * variance**0.5 * z  # (D.17)
