"""What a network may be asked for, and the pair (x̂_0, ε̂) that every other law wants.

    x̂_0 = (x_t - √(1-ᾱ_t) ε̂) / √ᾱ_t                                      denoised guess     (D.4)
    ε̂   = (x_t - √ᾱ_t x̂_0) / √(1-ᾱ_t)                                    its noise          (D.5)
    v   = √ᾱ_t ε - √(1-ᾱ_t) x_0                                           velocity           (D.10)
          x_0 = √ᾱ_t x_t - √(1-ᾱ_t) v     ε = √(1-ᾱ_t) x_t + √ᾱ_t v
    ∇ log q(x_t) = -ε̂ / √(1-ᾱ_t)                                          score              (D.11)

Of the three only v and x_0 survive ᾱ_T = 0, where ε says nothing about x_0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minidit.backend import Array, home_of
from minidit.diffusion.schedule import Schedule, at, check_rungs, check_shapes, enter


@dataclass(frozen=True)
class Prediction:
    """What the network's output means. `a` is ᾱ_t: a float, or one number a sample, (B,) or (B, 1, ..., 1).

    target(x_0, eps, a) -> what the network should output
    pair(out, x_t, a)   -> (x_0_hat, eps_hat)
    gain(a)             -> |error of the output|² / |error of x̂_0|²
    """

    name: str
    target: Callable[[Array, Array, Array], Array]
    pair: Callable[[Array, Array, Array], tuple[Array, Array]]
    gain: Callable[[Array], Array]


def _x_0_of_eps(eps: Array, x_t: Array, a: Array) -> Array:
    signal, noise = enter(a**0.5, (1 - a) ** 0.5, like=x_t)
    return (x_t - noise * eps) / signal  # (D.4)


def _eps_of_x_0(x_0: Array, x_t: Array, a: Array) -> Array:
    signal, noise = enter(a**0.5, (1 - a) ** 0.5, like=x_t)
    return (x_t - signal * x_0) / noise  # (D.5)


def _v_of_pair(x_0: Array, eps: Array, a: Array) -> Array:
    signal, noise = enter(a**0.5, (1 - a) ** 0.5, like=x_0)
    return signal * eps - noise * x_0  # (D.10)


def _pair_of_v(v: Array, x_t: Array, a: Array) -> tuple[Array, Array]:
    signal, noise = enter(a**0.5, (1 - a) ** 0.5, like=x_t)
    return signal * x_t - noise * v, noise * x_t + signal * v  # (D.10)


EPS = Prediction("eps", lambda x_0, eps, a: eps, lambda out, x_t, a: (_x_0_of_eps(out, x_t, a), out), lambda a: a / (1 - a))
X_0 = Prediction("x_0", lambda x_0, eps, a: x_0, lambda out, x_t, a: (out, _eps_of_x_0(out, x_t, a)), lambda a: 1.0)
V = Prediction("v", _v_of_pair, _pair_of_v, lambda a: 1 / (1 - a))
PREDICTIONS = {p.name: p for p in (EPS, X_0, V)}


def predict_x_0(x_t: Array, eps_hat: Array, t: Array, sch: Schedule) -> Array:
    """x_t, eps_hat : (B, ...), t : int or (B,)  ->  x̂_0 : (B, ...). Raises ValueError where ᾱ_t = 0."""
    check_shapes(x_t=x_t, eps_hat=eps_hat)
    check_rungs(t, 0, sch.T, batch=x_t)
    if home_of(t) == "" and sch.alpha_bar[t] == 0:
        raise ValueError(f"ᾱ_{t} = 0: ε says nothing about x_0 there; let the network predict v or x_0")
    return _x_0_of_eps(eps_hat, x_t, at(sch.alpha_bar, t))


def predict_eps(x_t: Array, x_0_hat: Array, t: Array, sch: Schedule) -> Array:
    """x_t, x_0_hat : (B, ...), t : int or (B,)  ->  ε̂ : (B, ...)."""
    check_shapes(x_t=x_t, x_0_hat=x_0_hat)
    check_rungs(t, 0, sch.T, batch=x_t)
    return _eps_of_x_0(x_0_hat, x_t, at(sch.alpha_bar, t))


def predict_v(x_0: Array, eps: Array, t: Array, sch: Schedule) -> Array:
    """x_0, eps : (B, ...), t : int or (B,)  ->  v : (B, ...)  (Salimans & Ho 2022)."""
    check_shapes(x_0=x_0, eps=eps)
    check_rungs(t, 0, sch.T, batch=x_0)
    return _v_of_pair(x_0, eps, at(sch.alpha_bar, t))


def predict_score(eps_hat: Array, t: Array, sch: Schedule) -> Array:
    """eps_hat : (B, ...), t : int or (B,)  ->  ∇ log q(x_t) : (B, ...)."""
    check_rungs(t, 0, sch.T, batch=eps_hat)
    return -eps_hat / at((1 - sch.alpha_bar) ** 0.5, t, like=eps_hat)  # (D.11)


def eps_of_score(score: Array, t: Array, sch: Schedule) -> Array:
    """The way back: score : (B, ...), t : int or (B,)  ->  ε̂ : (B, ...)."""
    check_rungs(t, 0, sch.T, batch=score)
    return -score * at((1 - sch.alpha_bar) ** 0.5, t, like=score)  # (D.11)
