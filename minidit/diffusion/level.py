"""A level of noise is two numbers: at the level (α, σ) a sample is x_t = α x_0 + σ ε.

    x_t = α x_0 + σ ε                                             a level of noise                   (P.1)
    SNR = (α/σ)²
    x_t = (α_t/α_s) x_s + √(σ_t² - (α_t/α_s)² σ_s²) z             a climb, from s up to t            (P.7)

On the ladder of DDPM α = √ᾱ and σ = √(1-ᾱ); other paths have other pairs. The numbers of a level are float64: Python floats
if one level serves the whole batch, else arrays with one number per sample. `at` reads them from a table; `enter` is the only
place where they are cast and reshaped to broadcast against a picture.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minidit.backend import Array, home_of, resident, xp_of
from minidit.ops import twins


class Level(NamedTuple):
    """x_t = alpha x_0 + sigma ε.   alpha, sigma : floats, or (B,) float64, one number per sample."""

    alpha: Array
    sigma: Array


def data_of(x: Array) -> Array:
    """The array of x, which may be a Tensor: the laws read home, dtype and shape from it."""
    return x.data if type(x).__module__.partition(".")[0] == "minidit" else x


def enter(*coefficients: Array, like: Array) -> Any:
    """Coefficients cast and reshaped to broadcast against `like`: the only place where float64 tables meet pictures.

    float -> the same Python float (it takes the other side's precision);  (B,) or () -> (B, 1, ..., 1) in the home and
    dtype of `like`;  a full array keeps its shape. One coefficient is returned alone, several as a tuple.
    """
    x = data_of(like)

    def door(c: Array) -> Any:
        if home_of(c) == "":
            return float(c)
        if data_of(c) is not c or home_of(x) == "":  # a Tensor is a picture already; a scalar has no home
            return c
        shape = c.shape if c.ndim > 1 else c.shape + (1,) * (x.ndim - c.ndim)
        return xp_of(x).asarray(c.reshape(shape), dtype=x.dtype)

    out = tuple(door(c) for c in coefficients)
    return out[0] if len(out) == 1 else out


def at(table: Array, t: Array, *, like: Array = None) -> Any:
    """table[t] for an int t (a Python float) or for one rung per sample, t : (B,) int in any home.

    With `like` the value is ready to broadcast against that picture; without it, it is the exact float64 number, for
    arithmetic between coefficients (in float32, 1-ᾱ would lose four digits at small t).
    """
    if home_of(t) == "":
        return float(table[t])
    value = resident(table, t)[t]
    return value if like is None else enter(value, like=like)


def check_shapes(**arrays: Array) -> None:
    """Raises ValueError unless all arrays have one shape."""
    shapes = {name: getattr(data_of(x), "shape", None) for name, x in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"shapes must agree: {shapes}")


@twins.twin(twins.mix)
def mix(x_0: Array, eps: Array, t: Level) -> Array:
    """x_0, eps : (B, ...)  ->  x_t : (B, ...), the sample at level t."""
    signal, noise = enter(*t, like=x_0)
    return signal * x_0 + noise * eps  # (P.1, D.1)


def climb_coefficients(s: Level, t: Level) -> tuple[Array, Array]:
    """(factor on x_s, variance of the added noise) for a climb from level s to the noisier level t."""
    signal = t.alpha / s.alpha
    return signal, t.sigma**2 - (signal * s.sigma) ** 2  # (P.7)


def climb(x_s: Array, s: Level, t: Level, z: Array) -> Array:
    """x_s, z : (B, ...)  ->  x_t : (B, ...): adds noise to an already noisy sample."""
    signal, variance = climb_coefficients(s, t)
    signal, noise = enter(signal, variance**0.5, like=x_s)
    return signal * x_s + noise * z  # (P.7, D.3)


def posterior_variance(t: Level, s: Level) -> Array:
    """The variance of q(x_s | x_t, x_0), which is that of the fresh noise at η = 1. It is 0 for clean data, where σ_s = 0."""
    return s.sigma**2 * (1 - (t.alpha * s.sigma / (t.sigma * s.alpha)) ** 2)  # (P.5)
