"""What stands before ε̂ in a step that writes x̂_0, ε̂ and z one beside the other, read off the coefficients of x_t and ε.

    x_s = p (x_t - √(1-ᾱ_t) ε)/√ᾱ_t + d ε + σ z          c_x = p/√ᾱ_t      c_ε = d - √(1-ᾱ_t) c_x      d² = 1-ᾱ_s-σ²     (D.7)

The sum c_ε hides what is wrong with d, and with the sign of σ² in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from minidit.backend import Array
from minidit.verify.core.coefficients import POINTS, Point

NOISY = {"x_t", "eps", "z"}  # the pictures of a step with fresh noise
RIGHT = "√(1-ᾱ_s-σ²)"


def in_words(all_points: Sequence[Point], names: Sequence[str], tolerance: float) -> str:
    """Which root stands before ε̂ instead of the right one, in one sentence; "" where it is no such step, or no such root."""
    if not all_points or not set(names) >= NOISY or not all({"ᾱ_t", "ᾱ_s"} <= p.quantities.keys() for p in all_points):
        return ""
    x, e, z = (list(names).index(n) for n in ("x_t", "eps", "z"))
    got, want = (np.array([getattr(p, side) for p in all_points]) for side in ("got", "want"))
    at = {n: np.array([p.quantities[n] for p in all_points]) for n in ("ᾱ_t", "ᾱ_s")}
    limit = max(100 * tolerance, 1e-8) * max(float(np.max(abs(want))), 1e-12)
    if np.any(abs(got[:, [x, z]] - want[:, [x, z]]) > limit):  # x̂_0 and the noise are right
        return ""
    with np.errstate(all="ignore"):
        mine, right = (c[:, e] + (1 - at["ᾱ_t"]) ** 0.5 * c[:, x] for c in (got, want))
        sigma = want[:, z]
        if np.any(abs(right - (1 - at["ᾱ_s"] - sigma**2) ** 0.5) > limit):  # a law of another form
            return ""
        several = len({round(float(s), 9) for s in sigma}) >= POINTS
        form = next((words for words, d in _forms(at, sigma) if np.all(abs(mine - d) <= limit)), "") if several else ""
    return f"{form.format('before ε̂ stands')} for {RIGHT}" if form else ""


def _forms(at: Mapping[str, Array], sigma: Array) -> Iterator[tuple[str, Array]]:
    """What may stand there, by its length: other signs, other levels, a root that ends too early."""
    a, b = at["ᾱ_s"], at["ᾱ_t"]
    yield "the sign of σ² is reversed: {} √(1-ᾱ_s+σ²)", (1 - a + sigma**2) ** 0.5
    yield "the sign of ε̂ is reversed: {} -√(1-ᾱ_s-σ²)", -((1 - a - sigma**2) ** 0.5)
    yield "the root ends too early: {} √(1-ᾱ_s)-σ", (1 - a) ** 0.5 - sigma
    yield "{} √(1-ᾱ_s)+σ", (1 - a) ** 0.5 + sigma
    yield "{} √(1-ᾱ_s)-σ²", (1 - a) ** 0.5 - sigma**2
    yield "a square is missing: {} √(1-ᾱ_s-σ)", (1 - a - sigma) ** 0.5
    yield "{} √(1-ᾱ_s+σ)", (1 - a + sigma) ** 0.5
    yield "the root is missing: {} 1-ᾱ_s-σ²", 1 - a - sigma**2
    yield "{} √(1-ᾱ_t-σ²)", (1 - b - sigma**2) ** 0.5
    yield "the sign of ᾱ_s is reversed: {} √(1+ᾱ_s-σ²)", (1 + a - sigma**2) ** 0.5
    yield "{} √(ᾱ_s-σ²)", (a - sigma**2) ** 0.5
    yield "{} √(1-ᾱ_s²-σ²)", (1 - a**2 - sigma**2) ** 0.5
