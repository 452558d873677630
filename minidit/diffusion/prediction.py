"""Quantities that a network can predict, and how they give the pair (x̂_0, ε̂), which every other law uses.

    F   = p x_0 + q ε                                                      network's output, its answer   (P.2)
    x̂_0 = (q x_t - σ F)/Δ     ε̂ = (α F - p x_t)/Δ     Δ = αq - σp          both, recovered from F         (P.3)
    gain = (Δ/σ)²                                                          |δF|² / |δx̂_0|²                (P.8)

    answer    p             q
    ε         0             1             x̂_0 = (x_t - σ ε̂)/α              denoised guess                 (D.4)
    x_0       1             0             ε̂ = (x_t - α x̂_0)/σ              its noise                      (D.5)
    v        -σ             α             x̂_0 = α x_t - σ v                 velocity, where α² + σ² = 1     (D.10)
    u        -1             1                                              velocity of the flow
    F        σ/(σ_d r)    -σ_d/r          r = √(σ² + σ_d²)                 EDM's, where α = 1

    ∇ log q(x_t) = -ε̂ / σ                                                  score                          (D.11)

Where α = 0 (ᾱ_T = 0) the answer ε does not determine x_0; v, x_0 and u do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from minidit.backend import Array, home_of
from minidit.diffusion.level import Level, check_shapes, enter
from minidit.diffusion.schedule import Schedule, check_rungs


class Reading(NamedTuple):
    """The four numbers of (P.3): x̂_0 = x_of_x x_t + x_of_F F and ε̂ = eps_of_x x_t + eps_of_F F."""

    x_of_x: Array
    x_of_F: Array
    eps_of_x: Array
    eps_of_F: Array


@dataclass(frozen=True)
class Prediction:
    """The network's output F = p x_0 + q ε, its answer; p and q : level -> float, or (B,) one number per sample."""

    name: str
    p: Callable[[Level], Array]
    q: Callable[[Level], Array]

    def __repr__(self) -> str:
        return f"Prediction({self.name})"

    def target(self, x_0: Array, eps: Array, at: Level) -> Array:
        """x_0, eps : (B, ...)  ->  F : (B, ...), the network's training target at this level."""
        p, q = enter(self.p(at), self.q(at), like=x_0)
        return combined(p, x_0, q, eps)  # (P.2)

    def reading(self, at: Level) -> Reading:
        """Coefficients that recover x̂_0 and ε̂ from F. Raises ValueError where F does not determine x_0."""
        p, q = self.p(at), self.q(at)
        delta = combined(q, at.alpha, -p, at.sigma)
        if home_of(delta) == "" and delta == 0:
            level = f"at the level α = {at.alpha}, σ = {at.sigma}"
            raise ValueError(f"{level} the answer {self.name} does not determine x_0: let the network predict v or x_0")
        x_of_x, eps_of_x = (0.0 if is_zero(c) else c / delta for c in (q, -p))
        eps_of_F = 1.0 if delta is at.alpha else at.alpha / delta  # Δ = α: F is ε̂ itself
        return Reading(x_of_x, -at.sigma / delta, eps_of_x, eps_of_F)  # (P.3)

    def pair(self, F: Array, x_t: Array, at: Level) -> tuple[Array, Array]:
        """F, x_t : (B, ...)  ->  (x̂_0, ε̂), each (B, ...)."""
        return pair_of(F, x_t, self.reading(at))

    def gain(self, at: Level) -> Array:
        """|error of F|² / |error of x̂_0|²: divide a weight on the x_0 loss by it to get the equivalent weight on this loss."""
        return ((at.alpha * self.q(at) - at.sigma * self.p(at)) / at.sigma) ** 2  # (P.8)

    def joint_slope(self, at: Level) -> Array:
        """ασ/Δ, finite at both ends of a path, also where p or q is 0."""
        p, q = self.p(at), self.q(at)
        if is_zero(p) or is_zero(q):
            return at.sigma / q if is_zero(p) else -at.alpha / p
        return at.alpha * at.sigma / (at.alpha * q - at.sigma * p)


def is_zero(c: Array) -> bool:
    """Whether a coefficient is zero at every level: a Python number 0."""
    return home_of(c) == "" and c == 0


def combined(a: Array, x: Array, b: Array, y: Array) -> Array:
    """a x + b y, exact where a coefficient is 0 or 1."""
    if is_zero(a):
        return y if home_of(b) == "" and b == 1 else b * y
    if is_zero(b):
        return x if home_of(a) == "" and a == 1 else a * x
    return a * x + b * y


def pair_of(F: Array, x_t: Array, reading: Reading) -> tuple[Array, Array]:
    """F, x_t : (B, ...)  ->  (x̂_0, ε̂), each (B, ...)."""
    r = Reading(*enter(*reading, like=x_t))
    return combined(r.x_of_x, x_t, r.x_of_F, F), combined(r.eps_of_x, x_t, r.eps_of_F, F)  # (P.3)


EPS = Prediction("eps", lambda at: 0.0, lambda at: 1.0)
X_0 = Prediction("x_0", lambda at: 1.0, lambda at: 0.0)
V = Prediction("v", lambda at: -at.sigma, lambda at: at.alpha)  # (D.10)
U = Prediction("u", lambda at: -1.0, lambda at: 1.0)


def edm(sigma_data: float) -> Prediction:
    """The output of EDM's preconditioned network, for data of this standard deviation (Karras et al. 2022, table 1)."""

    def root(at: Level) -> Array:
        return (at.sigma**2 + sigma_data**2) ** 0.5

    return Prediction("edm", lambda at: at.sigma / (sigma_data * root(at)), lambda at: -sigma_data / root(at))  # (P.23)


PREDICTIONS = {p.name: p for p in (EPS, X_0, V)}


def predict_x_0(x_t: Array, eps_hat: Array, t: Array, sch: Schedule) -> Array:
    """x_t, eps_hat : (B, ...), t : int or (B,)  ->  x̂_0 : (B, ...). Raises ValueError where ᾱ_t = 0."""
    check_shapes(x_t=x_t, eps_hat=eps_hat)
    check_rungs(t, 0, sch.T, batch=x_t)
    if home_of(t) == "" and sch.alpha_bar[t] == 0:
        raise ValueError(f"ᾱ_{t} = 0: ε does not determine x_0 there; let the network predict v or x_0")
    return EPS.pair(eps_hat, x_t, sch.level(t))[0]  # (D.4)


def predict_eps(x_t: Array, x_0_hat: Array, t: Array, sch: Schedule) -> Array:
    """x_t, x_0_hat : (B, ...), t : int or (B,)  ->  ε̂ : (B, ...)."""
    check_shapes(x_t=x_t, x_0_hat=x_0_hat)
    check_rungs(t, 0, sch.T, batch=x_t)
    return X_0.pair(x_0_hat, x_t, sch.level(t))[1]  # (D.5)


def predict_v(x_0: Array, eps: Array, t: Array, sch: Schedule) -> Array:
    """x_0, eps : (B, ...), t : int or (B,)  ->  v : (B, ...)  (Salimans & Ho 2022)."""
    check_shapes(x_0=x_0, eps=eps)
    check_rungs(t, 0, sch.T, batch=x_0)
    return V.target(x_0, eps, sch.level(t))  # (D.10)


def predict_score(eps_hat: Array, t: Array, sch: Schedule) -> Array:
    """eps_hat : (B, ...), t : int or (B,)  ->  ∇ log q(x_t) : (B, ...)."""
    check_rungs(t, 0, sch.T, batch=eps_hat)
    return -eps_hat / enter(sch.level(t).sigma, like=eps_hat)  # (D.11)


def eps_of_score(score: Array, t: Array, sch: Schedule) -> Array:
    """The inverse of `predict_score`: score : (B, ...), t : int or (B,)  ->  ε̂ : (B, ...)."""
    check_rungs(t, 0, sch.T, batch=score)
    return -score * enter(sch.level(t).sigma, like=score)  # (D.11)
