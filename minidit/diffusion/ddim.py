"""DDIM (Song, Meng, Ermon 2021): the same network, fewer steps, less fresh noise or none.

    σ²  = η² (1-ᾱ_s)/(1-ᾱ_t) (1-ᾱ_t/ᾱ_s)                        fresh noise: η = 0 none, η = 1 DDPM      (D.6)
    x_s = √ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε̂ + σ z         s < t         a step of step.py                       (D.7)
    x_t = √ᾱ_t x̂_0 + √(1-ᾱ_t) ε̂                  t > s         inversion, with the pair found at x_s   (D.23)
    x_s/√ᾱ_s = x_t/√ᾱ_t + (n_s - n_t) ε̂          n = √((1-ᾱ)/ᾱ)   η = 0: an Euler step of dy/dn = ε̂     (D.49)

Inversion is the Euler step of the same ODE in the other direction. It is not the inverse of a step down (that would need ε̂
at x_t, which is not known yet): encoding and then decoding leaves an error that halves with the step size.
"""

from __future__ import annotations

from minidit.backend import Array, home_of
from minidit.diffusion.level import check_shapes
from minidit.diffusion.prediction import predict_x_0
from minidit.diffusion.schedule import Schedule, check_rungs
from minidit.diffusion.step import step
from minidit.diffusion.variance import small


def ddim_std(t: Array, s: Array, sch: Schedule, eta: float) -> Array:
    """σ of the fresh noise in a step from rung t to rung s; 0 for s = 0."""
    return eta * small(t, s, sch) ** 0.5  # (D.6)


def ddim_step(x_t: Array, eps_hat: Array, t: Array, s: Array, sch: Schedule, *, eta: float = 0.0, z: Array = None) -> Array:
    """x_t, eps_hat : (B, ...), 0 ≤ s < t  ->  x_s : (B, ...). η > 0 needs z : (B, ...) unless s = 0.

    Raises ValueError for wrong rungs or shapes, for a missing z, for an η whose noise has more variance than rung s, and
    where ᾱ_t = 0.
    """
    check_rungs(t, s, sch.T, batch=x_t)
    return ddim_from_pair(predict_x_0(x_t, eps_hat, t, sch), eps_hat, t, s, sch, eta=eta, z=z)


def ddim_from_pair(
    x_0_hat: Array, eps_hat: Array, t: Array, s: Array, sch: Schedule, *, eta: float = 0.0, z: Array = None
) -> Array:
    """`ddim_step` from the pair (x̂_0, ε̂), which may be clipped, or come from a network that predicts v."""
    level, c = sch.level(s), ddim_std(t, s, sch, eta)
    if home_of(c) == "" and (eta < 0 or c**2 > level.sigma**2 + 1e-12):
        raise ValueError(f"η = {eta} asks for variance {c**2:.3g} at rung {s}, which has {level.sigma**2:.3g}")
    if eta == 0 or (z is None and home_of(s) == "" and s == 0):
        return step(x_0_hat, eps_hat, level)  # (D.49)
    check_shapes(x_0_hat=x_0_hat, z=z)
    return step(x_0_hat, eps_hat, level, c=c, z=z)


def ddim_invert_step(x_s: Array, eps_hat: Array, s: Array, t: Array, sch: Schedule) -> Array:
    """x_s, eps_hat = ε̂(x_s, s) : (B, ...), 0 ≤ s < t  ->  x_t : (B, ...), one step up the ladder.

    At s = 0 there is no noise to predict: x̂_0 = x_0, and ε̂ is the network's estimate at the lowest rung.
    """
    check_shapes(x_s=x_s, eps_hat=eps_hat)
    check_rungs(t, s, sch.T, batch=x_s)
    x_0_hat = x_s if home_of(s) == "" and s == 0 else predict_x_0(x_s, eps_hat, s, sch)
    return step(x_0_hat, eps_hat, sch.level(t))  # (D.23)
