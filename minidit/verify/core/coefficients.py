"""Coefficients read off an answer that is linear in its pictures, and written in the letters of the law.

    y_b = Σ_k c_kb a_kb                    least squares over the entries of one sample          (D.45)
    c   = ± u, ± u v, 1 - u, …             u, v powers of ᾱ_t, 1-ᾱ_t, ᾱ_s, β = 1-ᾱ_t/ᾱ_s, of scalars
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.core.arguments import letter
from minidit.verify.core.finding import Reason
from minidit.verify.core.reference import Kind
from minidit.verify.core.relations import MULTIPLES, RIGHT, SIMPLE

FLAT = 1e-7  # what least squares may leave of an answer that is linear
SPARE = 1  # entries beyond the unknowns: fewer fit anything
POINTS = 3  # different places at which a formula must hold


@dataclass(frozen=True)
class Point:
    """The coefficients of one sample of one question, got and expected, the quantities of the law there, and which it is."""

    got: Array
    want: Array
    quantities: Mapping[str, float]
    place: str = ""


def linear_in(names: Sequence[str], args: Sequence[Any], want: Array) -> list[int]:
    """Which arguments are pictures like the answer."""
    return [k for k, a in enumerate(args[: len(names)]) if _picture(a, want)]


def _picture(a: Any, want: Array) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.shape == want.shape and a.ndim > 0


def points(names: Sequence[str], args: Sequence[Any], got: Array, want: Array, question: str = "") -> list[Point] | None:
    """The coefficients of each sample (of all entries where there is one axis); None where an answer is not linear.

    Where there are too few numbers to tell, there are no points. question: its name.
    """
    which = linear_in(names, args, want)
    if not which or got.shape != want.shape:
        return None
    out: list[Point] = []
    apart = want.ndim > 1 and any(isinstance(a, np.ndarray) and a.shape == want.shape[:1] for a in args)
    many = want.ndim > 1 and want[0].size >= len(which) + SPARE
    for b in range(len(want)) if apart or many else [slice(None)]:  # few numbers with one time for all are one sample
        design = np.stack([args[k][b].ravel() for k in which], axis=1)
        if len(design) < len(which) + SPARE or np.linalg.matrix_rank(design) < len(which):
            continue
        solved = []
        for y in (got[b].ravel(), want[b].ravel()):
            c = np.linalg.lstsq(design, y, rcond=None)[0] if np.isfinite(y).all() else np.full(len(which), np.nan)
            if not np.max(abs(design @ c - y)) <= FLAT * max(np.max(abs(y)), 1e-12):
                return None
            solved.append(c)
        out.append(Point(solved[0], solved[1], quantities(names, args, b), question + _sample(names, args, b)))
    return out


def _sample(names: Sequence[str], args: Sequence[Any], b: Any) -> str:
    """Which of the samples of a question, where each has its own time."""
    time = next((a for n, a in zip(names, args, strict=False) if n == "t" and np.ndim(a) == 1), None)
    return "" if time is None or not isinstance(b, int) else f", t = {time[b]:.4g}"


def quantities(names: Sequence[str], args: Sequence[Any], b: Any) -> dict[str, float]:
    """The numbers that the law's coefficients are made of, for one sample."""
    given = dict(zip(names, args, strict=False))
    out = {letter(n): float(a) for n, a in given.items() if isinstance(a, float)}
    table = given.get("alpha_bar")
    for name in ("t", "s"):
        if table is not None and name in given:
            t = int(given[name][b]) if np.ndim(given[name]) else int(given[name])
            out[f"ᾱ_{name}"] = float(table[t]) if t >= 0 else 1.0
    if table is not None and "t" in given and "s" not in given:
        out["ᾱ_(t-1)"] = float(table[t - 1]) if t > 0 else 1.0
    if isinstance(b, int):  # one number per sample
        out |= {letter(n): float(a[b]) for n, a in given.items() if _per_sample(a, given)}
    return out


def _per_sample(a: Any, given: Mapping[str, Any]) -> bool:
    """Whether an argument is a time or level of each sample."""
    batch = next((len(x) for x in given.values() if isinstance(x, np.ndarray) and x.ndim > 1), -1)
    return isinstance(a, np.ndarray) and a.ndim == 1 and a.dtype.kind == "f" and len(a) == batch


# ------------------------------------------------------------------------------------------------ in words


def sentences(all_points: Sequence[Point], names: Sequence[str], tolerance: float) -> list[Reason]:
    """Which coefficients differ, what they are to the right ones, and by how much at one question. names: of the pictures.

    A coefficient that is nothing simple is MEASURED: it is said to be wrong, and not how it came about.
    """
    out = []
    got, want = (np.array([getattr(p, side) for p in all_points]) for side in ("got", "want"))
    limit = max(100 * tolerance, 1e-8) * max(float(np.max(abs(want))), 1e-12)
    wrong = abs(got - want) > limit
    shown = int(np.argmax(wrong.sum(axis=1)))  # the first question that shows as many of them as there are
    for k, name in enumerate(names):
        if wrong[:, k].any():
            b = shown if wrong[shown, k] else int(np.argmax(wrong[:, k]))
            here = ", ".join(
                f"{word} {0.0 if abs(c) <= limit else c:.6g}" for word, c in (("got", got[b, k]), ("expected", want[b, k]))
            )
            how = _how(all_points, got[:, k], want, k, limit, names)
            place = f" at {all_points[b].place}" if all_points[b].place else ""
            kind = Kind.COEFFICIENT if how else Kind.MEASURED
            out.append(Reason(f"the coefficient of {letter(name)} is {how or 'wrong'}", kind, numbers=here + place))
    return out


def _how(all_points: Sequence[Point], got: Array, want: Array, k: int, limit: float, names: Sequence[str]) -> str:
    """What a coefficient is: in words beside the right one, and both as formulas; "" where it is nothing simple."""

    def is_got(c: Array) -> bool:
        return bool(np.all(abs(got - c) <= limit))

    right = want[:, k]
    if is_got(0 * right):
        return "left out"
    words = ""
    with np.errstate(all="ignore"):
        if len({round(float(c), 6) for c in right}) > 1:  # one number alone may be root, half and square of another by accident
            words = next((w.format(RIGHT) for w, f in (SIMPLE | MULTIPLES).items() if is_got(f(right))), "")
            words = words or next((f"that of {letter(n)}" for j, n in enumerate(names) if j != k and is_got(want[:, j])), "")
        words = words or _times_it(all_points, got, right, limit)
        mine, law = formula(all_points, got, limit), formula(all_points, right, limit)
    if not words and not mine:  # what is wrong at some places only is read there
        off = np.flatnonzero(abs(got - right) > limit)
        if len(off) < len(got):
            return _how([all_points[int(b)] for b in off], got[off], want[off], k, limit, names)
        steady = len(got) >= POINTS and np.ptp(got) <= limit
        mine = f"{got[0]:.6g}" if steady and law else _affine(all_points, got, limit) if law else ""
    return ": ".join(filter(None, (words, f"{mine} for {law}" if mine and law else mine)))


def _affine(all_points: Sequence[Point], got: Array, limit: float) -> str:
    """a + b u, of a quantity u of the law at three places or more; "" where it is none."""
    for name, u in _table(all_points).items():
        if len(set(u.round(9))) >= POINTS:
            slope, start = np.polyfit(u, got, 1)
            if np.all(abs(start + slope * u - got) <= limit):
                return f"{start:.6g} {'+' if slope > 0 else '-'} {abs(slope):.6g} {name}"
    return ""


def _times_it(all_points: Sequence[Point], got: Array, right: Array, limit: float) -> str:
    """A constant multiple of the right coefficient, at three places or more: a quantity of the law, or a number."""
    k = int(np.argmax(abs(right)))
    ratio = float(got[k] / right[k]) if right[k] else 0.0
    if len({round(float(c), 6) for c in right}) < POINTS or not ratio:
        return ""
    for words, u in _atoms(_table(all_points)):
        if np.all(abs(got - u * right) <= limit):
            return f"{words} times {RIGHT}"
    return f"{ratio:.6g} times {RIGHT}" if np.all(abs(got - ratio * right) <= limit) else ""


def _table(all_points: Sequence[Point]) -> dict[str, Array]:
    """The quantities that are there at every point."""
    common = set.intersection(*(set(p.quantities) for p in all_points)) if all_points else set()
    return {n: np.array([p.quantities[n] for p in all_points]) for n in sorted(common)}


def formula(all_points: Sequence[Point], values: Array, limit: float) -> str:
    """The shortest formula in the quantities of the law that gives these coefficients at every point; "" where none does."""
    table = _table(all_points)
    different = len({tuple(round(float(v), 9) for v in row) for row in np.array(list(table.values())).T}) if table else 0
    all_words, all_values = _formulas(tuple((name, tuple(u)) for name, u in table.items()))
    with np.errstate(all="ignore"):
        fits = np.flatnonzero(np.all(abs(all_values - values) <= limit, axis=1))
    return next((all_words[k] for k in fits if different >= POINTS or " " not in all_words[k].strip("-")), "")


@lru_cache(maxsize=32)
def _formulas(table: tuple[tuple[str, tuple[float, ...]], ...]) -> tuple[list[str], Array]:
    """All formulas in these quantities, and what each is at every point, by their length."""
    with np.errstate(all="ignore"):
        all_words, all_values = zip(*_forms({name: np.array(u) for name, u in table}), strict=True)
    return list(all_words), np.array(all_values)


def _forms(table: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Formulas by their length."""
    one = np.ones(len(next(iter(table.values())))) if table else np.ones(1)
    for words, number in (("0", 0.0), ("1", 1.0), ("-1", -1.0), ("2", 2.0), ("½", 0.5)):
        yield words, number * one
    atoms = list(_atoms(table))
    for words, u in atoms:
        yield words, u
        yield f"-{words}", -u
    for words, u in atoms:
        yield f"1 - {words}", 1 - u
        yield f"2 {words}", 2 * u
        yield f"½ {words}", u / 2
        yield f"-½ {words}", -u / 2
    for (a, u), (b, v) in itertools.combinations(atoms, 2):
        yield _times(a, b), u * v
        yield f"-{_times(a, b)}", -u * v
    for (a, u), (b, v) in itertools.permutations(atoms, 2):
        yield f"{a} - {b}", u - v
    few = [(a, u) for a, u in atoms if "²" not in a]
    for (a, u), (b, v), (c, w) in itertools.combinations(few, 3):
        yield _times(_times(a, b), c), u * v * w
        yield f"-{_times(_times(a, b), c)}", -u * v * w


def _times(a: str, b: str) -> str:
    """A product in one line: what is divided by comes last."""
    if a.startswith("1/") and not b.startswith("1/"):
        a, b = b, a
    return f"{a} / {b[2:]}" if b.startswith("1/") and not a.startswith("1/") else f"{a} {b}"


def _atoms(table: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    bases = dict(table)
    below = next((n for n in ("ᾱ_s", "ᾱ_(t-1)") if n in table), "")
    if "ᾱ_t" in table and below:
        bases |= {"α": table["ᾱ_t"] / table[below], "β": 1 - table["ᾱ_t"] / table[below]}
    for name in list(bases):
        if name not in "αβ":
            bases[f"(1-{name})"] = 1 - bases[name]
        if "ᾱ" in name:
            bases[f"(1-√{name})"] = 1 - bases[name] ** 0.5
        elif name not in "αβ":
            bases |= {f"(1+{name})": 1 + bases[name], f"(2-{name})": 2 - bases[name], f"(1-{name}²)": 1 - bases[name] ** 2}
    plain = [(n, u) for n, u in table.items() if "ᾱ" not in n]
    for (a, u), (b, v) in itertools.combinations(plain, 2):
        bases |= {f"({a}²+{b}²)": u * u + v * v, f"|{a}²-{b}²|": abs(u * u - v * v)}
        bases |= {f"({a}+{b})": u + v, f"|{a}-{b}|": abs(u - v)}
    for name, u in bases.items():
        yield name, u
        yield f"√{name}", u**0.5
        yield f"1/{name}", 1 / u
        yield f"1/√{name}", u**-0.5
        yield f"{name}²", u * u
