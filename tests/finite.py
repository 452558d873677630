"""Derivatives by differences whose step nobody has to guess: a ladder of steps, extrapolated, with the error that it sees.

    D(h)   = (f(h) - f(-h)) / 2h = f'(0) + c₂ h² + c₄ h⁴ + …
    D_j(h) = D_{j-1}(h/r) + (D_{j-1}(h/r) - D_{j-1}(h)) / (r^2j - 1)            Richardson: takes c_{2j} away

Large steps err by the next term of the series, small ones by rounding, and both show as a disagreement between neighbours of
the table: the entry whose neighbours agree best is the answer, and its error is how far they are apart, plus the rounding of f
itself (Ridders 1982). The ratio r of the steps is no whole number: a wave of whose periods all steps of a ladder were multiples
would look flat on every one of them. Where no entry is good enough the comparison fails, and says so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from support import agree, host

RATIO, RUNGS = 3.9, 11
FIRST = 2.0**-8
SETTLED = 0.2  # of a bound: a difference that is less sure of itself than this decides nothing


class Slope(NamedTuple):
    """A derivative, and the norm of what it may be off by."""

    value: np.ndarray
    error: float


def slope(f, *, enough=1e-9, floor=0.0):
    """df/ds at s = 0.   f : a number s -> an array of floats. Stops where the error is below enough · max(|df/ds|, floor)."""
    best, above = Slope(np.zeros(0), np.inf), []
    for k in range(RUNGS):
        h = FIRST / RATIO**k
        low, high = (np.asarray(host(f(s))) for s in (-h, h))
        row, rounding = [(high - low) / (2 * h)], np.finfo(high.dtype).eps * float(np.linalg.norm(high)) / (4 * h)
        for j, coarse in enumerate(above, 1):
            row.append(row[-1] + (row[-1] - coarse) / (RATIO ** (2 * j) - 1))
            error = rounding + max(float(np.linalg.norm(row[j] - a)) for a in (row[j - 1], coarse))
            if error < best.error and j > 1:  # two steps that agree may do so by chance
                best = Slope(row[j], error)
        if best.error <= enough * max(float(np.linalg.norm(best.value)), floor):
            break
        above = row
    return best


def flat(ys):
    """Several arrays as one vector."""
    return np.concatenate([np.ravel(host(y)) for y in ys])


def check_adjoint(back, f, bar, *, bound, of=(), floor=0.0):
    """⟨Jᵀ ȳ, u⟩ = ⟨ȳ, J u⟩, relative to |ȳ| max(|J u|, floor).   back : the left side; f : s -> y(x + s u), like bar an array."""
    there = slope(f, enough=SETTLED**2 * bound, floor=floor)
    size = max(float(np.linalg.norm(there.value)), floor)
    assert there.error <= SETTLED * bound * size, f"no step settles the difference: {there.error / size:.2g} of {bound:.2g}"
    bar = np.asarray(host(bar))
    scale = max(float(np.linalg.norm(bar)) * size, 1e-300)
    agree(np.float64(back / scale), np.float64((bar * there.value).sum() / scale), bound=bound, of=of)


def check_slope(actual, f, *, bound, of=(), floor=1.0):
    """actual = df/ds at 0 entry by entry, relative to the largest entry or to `floor`."""
    there = slope(f, enough=SETTLED**2 * bound, floor=floor)
    size = max(float(np.abs(there.value).max(initial=0)), floor)
    assert there.error <= SETTLED * bound * size, f"no step settles the difference: {there.error / size:.2g} of {bound:.2g}"
    agree(host(actual) / size, there.value / size, bound=bound, of=of)
