"""Times: laws of training times, each a function of one uniform u per sample, and the grids that samplers walk down.

    t = 1 + ⌊u T⌋                                       rungs, equally often                          (P.12)
    t = u                                               uniform                                       (P.12)
    t = 1/(1 + e^-(m + s Φ⁻¹(u)))                       logit-normal: none at either end              (P.13)
    t = 1 - u - s (cos²(πu/2) - 1 + u)                  mode: more in the middle for s > 0            (P.14)
    t = 1 - 1/(tan(πu/2) + 1)                           cosmap: uniform in the angle of a cosine path (P.15)
    ln t = m + s Φ⁻¹(u)                                 log-normal: EDM's noise                       (P.16)
    t = u/p where u < p, else of another law            mixed: at least a part p is uniform           (P.26)
    t <- a t/(1 + (a-1) t)                              shift: noise over signal times a              (P.17)
    t_i = i/n                                           linear, or shifted by (P.17)                  (P.18)
    t_i = (high^(1/ρ) + i/(n-1) (low^(1/ρ) - high^(1/ρ)))^ρ      Karras                               (P.19)
    t <- min(1 + churn/n, √2) t                         churn: a grid that climbs before each step    (P.20)
    number = t, or ⌊2²⁰ t⌋                              of a step's noise: rung, or continuous time   (P.21)

u is a float64, strictly between 0 and 1 (a float32 might round to 1, where Φ⁻¹ is infinite).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from minidit.backend import Array, home_of, special_of, xp_of

TimeLaw = Callable[[Array], Array]  # u : (B,) float64 in (0, 1)  ->  times : (B,)
Pairs = list[tuple[float, float]]  # a grid [(t, s), …]


# ------------------------------------------------------------------------------------------------ laws of training times


def rung(T: int) -> TimeLaw:
    """1..T, equally often."""
    return lambda u: (1 + u * T).astype("int64")  # (P.12)


def uniform(u: Array) -> Array:
    """Every time equally often."""
    return u  # (P.12)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeLaw:
    """The density vanishes at both ends: a network that is trained with it hardly ever sees pure noise (Esser et al. 2024)."""
    return lambda u: special_of(u).expit(mean + std * special_of(u).ndtri(u))  # (P.13)


def mode(scale: float = 1.29) -> TimeLaw:
    """More in the middle (scale > 0) or at the ends (scale < 0), and some everywhere. Raises ValueError if it is not monotone."""
    if not -1 <= scale <= 2 / (math.pi - 2):
        raise ValueError(f"the mode law needs a scale in -1..2/(π-2) = 1.752, got {scale}")
    return lambda u: 1 - u - scale * (xp_of(u).cos(math.pi / 2 * u) ** 2 - 1 + u)  # (P.14)


def cosmap(u: Array) -> Array:
    """The times of the straight path at which a uniform angle of the path α = cos θ, σ = sin θ has the same SNR."""
    return 1 - 1 / (xp_of(u).tan(math.pi / 2 * u) + 1)  # (P.15)


def lognormal(mean: float = -1.2, std: float = 1.2) -> TimeLaw:
    """EDM's noise, for the exploding path (Karras et al. 2022)."""
    return lambda u: xp_of(u).exp(mean + std * special_of(u).ndtri(u))  # (P.16)


def partly_uniform(law: TimeLaw, part: float) -> TimeLaw:
    """A law of times in 0..1 of which a part is uniform, so that both ends of a path are trained too."""
    if not 0 < part < 1:
        raise ValueError(f"the uniform part of a law of times must be between 0 and 1, got {part}")

    def mixed(u: Array) -> Array:
        xp, within = xp_of(u), u < part
        rest = xp.where(within, 0.5, (u - part) / (1 - part))  # where u < p the other law is not asked
        return xp.where(within, u / part, law(rest))  # (P.26)

    return mixed


def shift(t: Array, a: float) -> Array:
    """Times of the straight path with a times as much noise over signal: a = √(pixels/pixels') after a change of resolution."""
    return a * t / (1 + (a - 1) * t)  # (P.17)


def shifted_law(law: TimeLaw, a: float) -> TimeLaw:
    """A law followed by `shift`."""
    return lambda u: shift(law(u), a)  # (P.17)


# ------------------------------------------------------------------------------------------------ grids


def down(levels: Iterable[float]) -> Pairs:
    """Falling times  ->  [(t, s), …]. Raises ValueError unless they fall, to 0 or above."""
    t = [float(x) for x in levels]
    if len(t) < 2 or t[-1] < 0 or any(a <= b for a, b in pairwise(t)):
        raise ValueError(f"the times of a grid must fall, to 0 or above; got {t}")
    return list(pairwise(t))


def _checked(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"a grid needs at least one step, got {steps}")
    return steps


def linear(steps: int, a: float = 1.0) -> Pairs:
    """The straight path in equal steps from 1 to 0, or shifted: `linear(4, 3.0)`."""
    return down(shift(k / _checked(steps), a) for k in range(steps, -1, -1))  # (P.18)


def karras(n: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> list[float]:
    """n times of the exploding path from high to low, both exactly; `down([*karras(n), 0.0])` walks on to the data."""
    if n < 1 or not 0 < low < high:
        raise ValueError(f"a grid of Karras needs n ≥ 1 and 0 < low < high, got n = {n}, low = {low}, high = {high}")
    a, b = high ** (1 / rho), low ** (1 / rho)
    inner = [(a + i / (n - 1) * (b - a)) ** rho for i in range(1, n - 1)]  # (P.19)
    return [float(high), *inner, float(low)] if n > 1 else [float(high)]


def churned(grid: Sequence[tuple[float, float]], churn: float, low: float = 0.0, high: float = math.inf) -> Pairs:
    """The grid with every t in [low, high] raised: a walk then adds fresh noise (P.7) before it steps (EDM's S_churn)."""
    if churn < 0:
        raise ValueError(f"churn = {churn} must not be negative")
    factor = min(1 + churn / len(grid), 2**0.5)
    return [(t * factor if low <= t <= high else t, s) for t, s in grid]  # (P.20)


def number_of(t: Array) -> Array:
    """Which draw is the noise of a step from time t. The number depends on t alone, so grids of any length use the same noise.

    t : a rung, or a float of at least 2⁻²⁰; or an array of one of them.
    """
    if home_of(t):
        return t if t.dtype.kind in "iu" else (t * 2**20).astype("int64")
    return t if isinstance(t, int) else int(t * 2**20)  # (P.21)
