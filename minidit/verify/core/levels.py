"""Where a step leads: the rung whose level of noise it reaches, read off a wrong answer.

Every step with the noise of an ε network multiplies x_t by √(ᾱ_s/ᾱ_t): from that factor follows ᾱ_s, and from the table s.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.core.compare import difference
from minidit.verify.core.finding import questions

Law = Callable[..., Any]
NEAR = 1e-4  # of a rung's width: a level this near is that of the rung


def rung(alpha_bar: Array, level: float) -> str:
    """The timestep of a level of noise, "480" or "480.3"; "the data" where there is none."""
    if abs(level - 1) < 1e-9:
        return "the data"
    t = np.interp(-level, -np.append(1.0, alpha_bar), np.arange(-1.0, len(alpha_bar)))
    return f"t = {round(float(t))}" if abs(t - round(float(t))) < NEAR else f"t = {t:.4g}"


def reached(alpha_bar: Array, t: int, factor: float) -> str:
    """Where a step from t leads that multiplies x_t by a factor."""
    return rung(alpha_bar, factor**2 * float(alpha_bar[t]))


def in_words(names: Sequence[str], cases: Sequence[tuple[Sequence[Any], Any]], law: Law, tolerance: float) -> str:
    """What is wrong with the timesteps t and s of a step, where other ones give the answers; "" where none do.

    cases: (the arguments, the answer) of all questions that were answered wrongly.
    """
    if not {"t", "s", "alpha_bar"} <= set(names) or not cases:
        return ""
    for name, says in (("s", _arrivals), ("t", _departures)):
        k = list(names).index(name)
        found = []
        for args, got in cases:
            T = len(args[list(names).index("alpha_bar")])
            other = _instead(k, args, got, law, tolerance, range(-1 if name == "s" else 0, T))  # no step starts from the data
            if other is None:
                break
            found.append((args[list(names).index("t")], args[list(names).index("s")], other))
        else:
            return says(found)
    return ""


def _instead(k: int, args: Sequence[Any], got: Any, law: Law, tolerance: float, places: range) -> int | None:
    """Which timestep in the place of the k-th argument gives an answer; the nearest where several do."""
    for other in sorted(places, key=lambda n: abs(n - int(args[k]))):
        changed = questions(args)
        changed[k] = other
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if difference(got, law(*changed)).error <= tolerance:
                    return other
        except Exception:  # a step up where the law goes down has no answer
            continue
    return None


def _named(t: int) -> str:
    return "the data" if t < 0 else f"t = {t}"


def _arrivals(found: Sequence[tuple[int, int, int]]) -> str:
    t, s, other = found[0]
    off = {s - other for _, s, other in found if other >= 0 and s >= 0}
    words = f"the step from t = {t} lands on the level of {_named(other)}, expected {_named(s)}"
    if len(off) == 1 and (by := next(iter(off))):
        return f"{words} ({abs(by)} {'too far down' if by > 0 else 'short of it'}, always)"
    if all(other == -1 for _, _, other in found):
        return f"every step lands on the data; {words}"
    if len({(s, other) for _, s, other in found}) > 1:
        t, s, other = next((f for f in found if f[1:] != (s, other)), found[-1])
        return f"{words}; that from t = {t} on the level of {_named(other)}, expected {_named(s)}"
    return words


def _departures(found: Sequence[tuple[int, int, int]]) -> str:
    t, _, other = found[0]
    off = {other - t for t, _, other in found}
    words = f"the step from t = {t} takes x_t for a sample of the level of {_named(other)}"
    return f"{words} (always {abs(min(off))} {'above' if min(off) > 0 else 'below'})" if len(off) == 1 else words
