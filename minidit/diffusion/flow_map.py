"""Flow maps: from a point of a trajectory to any later point of it, in one step.

    X(x_t, t, s) = α_s x̂_0 + σ_s ε̂ = A x_t + B F(x_t, t, s)      the step (P.4) without fresh noise, its answer F told s    (S.9)
        A = α_s q/Δ - σ_s p/Δ     B = -α_s σ_t/Δ + σ_s α_t/Δ     (P.3), α, σ, Δ, p, q at t
    F* = (x_s - A x_t)/B                                         the answer that leads to x_s, if x_s is known             (S.10)
    u(x_t, t, s) = (x_t - x_s)/(t - s)                           the mean velocity, the F of the straight path
    u = v - (t-s) du/dt     du/dt = ∂_t u + ∂_x u v              what it is where only the velocity v is known             (S.11)
    du/dt = (u(x+δv, t+δ, s) - u(x-δv, t-δ, s))/2δ + O(δ²)       two answers in place of derivatives                       (S.12)

A teacher is a velocity v. Either it is walked, and every later point of its trajectories is known: the student's regression is
(S.10), and F* is exact. Or (S.11) is iterated, with the student's own answers on the right side and no gradient through them.
"""

from __future__ import annotations

from minidit.backend import Array, xp_of
from minidit.diffusion.level import Level, enter
from minidit.diffusion.prediction import Prediction


def jump(answer: Prediction, t: Level, s: Level) -> tuple[Array, Array]:
    """(A, B) of the step from level t to level s: floats, or (B,) float64. B = 0 where s = t."""
    r = answer.reading(t)
    return s.alpha * r.x_of_x + s.sigma * r.eps_of_x, s.alpha * r.x_of_F + s.sigma * r.eps_of_F  # (S.9)


def moved(x_t: Array, F: Array, coefficients: tuple[Array, Array]) -> Array:
    """x_t, F : (B, ...)  ->  x_s : (B, ...), where one step ends."""
    a, b = enter(*coefficients, like=x_t)
    return a * x_t + b * F  # (S.9)


def answer_to(x_s: Array, x_t: Array, coefficients: tuple[Array, Array]) -> Array:
    """x_s, x_t : (B, ...)  ->  F* : (B, ...), the answer whose step from x_t ends at x_s."""
    a, b = enter(*coefficients, like=x_t)
    return (x_s - a * x_t) / b  # (S.10)


def mean_velocity(v: Array, slope: Array, t: Array, s: Array) -> Array:
    """v, slope = du/dt : (B, ...), t, s : (B,)  ->  u : (B, ...), where it is its own target."""
    return v - enter(t - s, like=v) * slope  # (S.11)


def difference(later: Array, earlier: Array, apart: Array) -> Array:
    """du/dt from u at two places of the line x + τ v, `apart` : (B,) in time."""
    return (later - earlier) / enter(apart, like=later)  # (S.12)


def bracket(t: Array, h: float) -> tuple[Array, Array]:
    """t : (B,) of the straight path  ->  the times t - h and t + h at which u is asked, cut off at the ends of the path."""
    xp = xp_of(t)
    return xp.maximum(t - h, 0.0), xp.minimum(t + h, 1.0)  # (S.12)
