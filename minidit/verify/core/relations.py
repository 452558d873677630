"""What an answer is to the right one: minus it, its root, twice it, backwards along an axis, the mean over another, …

A relation is a sentence and a function right -> wrong. It is said only where it gives the answers to all questions, to the
tolerance of the topic, and where there are enough numbers for that to be no accident.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minidit.backend import Array

Relation = tuple[str, Callable[[Array], Array]]  # in words, and the wrong answer from the right one
LEAST = 3  # numbers that a fitted factor must explain
IT = "{}"  # the right one, until `relation` says what it is called
RIGHT = "the right one"


@dataclass(frozen=True)
class Pair:
    """One array of an answer, the right one, and the numbers of the question that may be factors: its sizes, its scalars."""

    got: Array
    want: Array
    factors: Mapping[str, float]

    def __bool__(self) -> bool:
        return bool(self.want.size)


SIMPLE: dict[str, Callable[[Any], Any]] = {  # what is done to a number by a slip of the pen
    "minus {}": lambda w: -w, "the square of {}": lambda w: w * w, "the root of {}": lambda w: w**0.5,
    "the reciprocal of {}": lambda w: 1 / w, "1 minus {}": lambda w: 1 - w,
}  # fmt: skip
MULTIPLES: dict[str, Callable[[Any], Any]] = {"twice {}": lambda w: 2 * w, "half of {}": lambda w: w / 2}
OFFSETS: dict[str, Callable[[Any], Any]] = {"{} + 1": lambda w: w + 1, "{} - 1": lambda w: w - 1}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "the logarithm of {}": np.log, "e to the power of {}": np.exp, "the absolute value of {}": abs, "tanh of {}": np.tanh,
    "the sigmoid of {}": lambda w: 1 / (1 + np.exp(-w)),
}  # fmt: skip
ELEMENTWISE: dict[str, Callable[[Any], Any]] = SIMPLE | FUNCTIONS | {
    "the fourth root of {}": lambda w: w**0.25, "the reciprocal of the root of {}": lambda w: w**-0.5,
    "the cube of {}": lambda w: w**3, "1 minus the root of {}": lambda w: 1 - w**0.5,
    "the root of 1 minus {}": lambda w: (1 - w) ** 0.5, "SiLU of {}": lambda w: w / (1 + np.exp(-w)),
    "ReLU of {}": lambda w: np.maximum(w, 0), "the sine of {}": np.sin, "the cosine of {}": np.cos,
}  # fmt: skip
NUMBERS = {
    "2": 2.0, "½": 0.5, "3": 3.0, "4": 4.0, "¼": 0.25, "10": 10.0, "1/10": 0.1, "100": 100.0, "1000": 1000.0, "1/1000": 1e-3,
    "ln 2": math.log(2), "1/ln 2": 1 / math.log(2), "ln 10": math.log(10), "1/ln 10": 1 / math.log(10), "√2": 2**0.5,
    "1/√2": 0.5**0.5, "π": math.pi, "2π": 2 * math.pi, "1/2π": 0.5 / math.pi,
}  # fmt: skip
POWERS = {"{}": 1.0, "1/{}": -1.0, "√{}": 0.5, "1/√{}": -0.5, "{}²": 2.0, "1/{}²": -2.0}


def same(a: Array, b: Array, tolerance: float, size: float = 0.0) -> bool:
    """Whether two arrays agree to a tolerance, relative to the largest entry or to a size; NaN and infinities must agree too."""
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):
        equal = (a == b) | (np.isnan(a) & np.isnan(b))
        if not np.all(equal | (np.isfinite(a) & np.isfinite(b))):
            return False
        size = size or np.max(abs(b), where=np.isfinite(b), initial=1e-300)
        return bool(np.all(np.where(equal, 0.0, abs(a - b)) <= tolerance * size))


def relation(pairs: Sequence[Pair], tolerance: float, axes: Sequence[str] = (), it: str = RIGHT) -> str:
    """What all answers are to the right ones, in words; "" where nothing simple is.

    axes: their names, such as B, C, H, W; it: what the right one is called.
    """
    return _relation([p for p in pairs if p], tolerance, axes).format(it)


def _relation(pairs: Sequence[Pair], tolerance: float, axes: Sequence[str]) -> str:
    if not pairs or sum(np.unique(p.want).size for p in pairs) < 2:
        return ""
    with np.errstate(all="ignore"):
        several = max(np.unique(p.want).size for p in pairs) >= LEAST  # of two numbers every other order is a move and a turn
        for words, f in itertools.chain(ELEMENTWISE.items(), _along(pairs, axes) if several else ()):
            if all(same(p.got, np.asarray(f(p.want)), tolerance) for p in pairs):
                return words
        words = _permuted(pairs, tolerance, axes) or _factor(pairs, tolerance) or _offset(pairs, tolerance)
        return words or _limits(pairs, tolerance) or _rounded(pairs)


# ------------------------------------------------------------------------------------------------ along axes


def listed(gives: str, n: int) -> tuple[str, ...]:
    """The names of the n axes, or entries, of an answer: "x_t (B,C,H,W)", "(x_0, eps), …"; () where they do not fit."""
    words = re.search(r"\((\w+(?: ?, ?[\w*]+)*),?\)", gives)
    names = tuple(re.split(r" ?, ?", words[1])) if words else ()
    return names if len(names) == n else ()


def _along(pairs: Sequence[Pair], axes: Sequence[str]) -> Iterator[Relation]:
    """Relations along the axes of the right answer: the same shape first, then what takes axes away."""
    yield f"the mean of {IT} over everything", lambda w: np.asarray(w.mean())
    yield f"the sum of {IT} over everything", lambda w: np.asarray(w.sum())
    yield "its mean over everything for all", lambda w: np.full(w.shape, w.mean())
    shapes = {p.want.ndim for p in pairs}
    if len(shapes) > 1:
        return
    (ndim,) = shapes
    names = axes or [f"axis {k}" for k in range(ndim)]
    for k in range(ndim):
        yield from ((words.format("{}", axis=names[k]), _along_axis(f, k)) for words, f in ALONG.items())
    for j, k in itertools.combinations(range(ndim), 2):
        yield f"{IT} with {names[j]} and {names[k]} exchanged", partial(np.swapaxes, axis1=j, axis2=k)
        yield f"{IT} read with {names[j]} and {names[k]} exchanged", partial(_read_exchanged, j=j, k=k)
    for n in range(1, ndim):
        for over in itertools.combinations(range(ndim), n):
            what = " and ".join(names[k] for k in over)
            yield f"the mean of {IT} over {what}", partial(np.mean, axis=over)
            yield f"the sum of {IT} over {what}", partial(np.sum, axis=over)


def _along_axis(f: Callable[[Array, int], Array], k: int) -> Callable[[Array], Array]:
    return lambda w: f(w, k)


def _read_exchanged(w: Array, j: int, k: int) -> Array:
    return np.swapaxes(w, j, k).reshape(w.shape)


def in_turns(n: int) -> Array:
    """The first of both halves of n places, the second of both, …"""
    return np.arange(n).reshape(2, -1).T.ravel() if n % 2 == 0 else np.arange(n)


ALONG: dict[str, Callable[[Array, int], Array]] = {
    "{} backwards along {axis}": lambda w, k: np.flip(w, k),
    "{} moved by one along {axis}": lambda w, k: np.roll(w, 1, k),
    "{} moved back by one along {axis}": lambda w, k: np.roll(w, -1, k),
    "{} with the halves of {axis} exchanged": lambda w, k: np.roll(w, w.shape[k] // 2, k),
    "the first of {axis} for all": lambda w, k: np.broadcast_to(w.take([0], k), w.shape),
    "the last of {axis} for all": lambda w, k: np.broadcast_to(w.take([-1], k), w.shape),
    "its mean over {axis} for all": lambda w, k: np.broadcast_to(w.mean(k, keepdims=True), w.shape),
    "{} less its mean over {axis}": lambda w, k: w - w.mean(axis=k, keepdims=True),
    "{} divided by its length along {axis}": lambda w, k: w / (w * w).sum(axis=k, keepdims=True) ** 0.5,
    "{} divided by its deviation along {axis}": lambda w, k: w / w.std(axis=k, keepdims=True),
    "{} with the halves of {axis} alternating": lambda w, k: w.take(in_turns(w.shape[k]), k),
}


def _permuted(pairs: Sequence[Pair], tolerance: float, axes: Sequence[str]) -> str:
    """The right answer with the places of one axis in another order."""
    if any(p.got.shape != p.want.shape or p.want.ndim != pairs[0].want.ndim for p in pairs):
        return ""
    for k in range(pairs[0].want.ndim):
        orders = [_order(p, k, tolerance) for p in pairs]
        longest = max((o for o in orders if o is not None), key=len, default=None)
        if longest is None or None in orders or len(longest) < LEAST or longest == sorted(longest):
            continue
        shown = ", ".join(map(str, longest[:8])) + (", …" if len(longest) > 8 else "")
        return f"{IT} with {axes[k] if axes else f'axis {k}'} in another order ({shown})"
    return ""


def _order(p: Pair, axis: int, tolerance: float) -> list[int] | None:
    """The places of the right answer that stand along an axis; None where it is no order of them."""
    got, want = (np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1) for a in (p.got, p.want))
    weights = np.cos(np.arange(want.shape[1]))  # a number for each place, which tells them apart
    if np.unique(want @ weights).size < len(want):
        return None
    order = np.empty(len(want), int)
    order[np.argsort(got @ weights)] = np.argsort(want @ weights)
    return order.tolist() if same(got, want[order], tolerance) else None


# ------------------------------------------------------------------------------------------------ factors, sums, limits


def _factor(pairs: Sequence[Pair], tolerance: float) -> str:
    """A factor that is the same for all entries of an answer: a number, or a size or scalar of the question."""
    found = []
    for p in pairs:
        if p.got.shape != p.want.shape:
            return ""
        k = int(np.argmax(np.where(np.isfinite(p.want), abs(p.want), 0)))
        factor = float(p.got.reshape(-1)[k] / p.want.reshape(-1)[k]) if p.want.reshape(-1)[k] else math.nan
        if not (math.isfinite(factor) and factor and same(p.got, factor * p.want, tolerance)):
            return ""
        found.append(factor)
    if sum(p.want.size for p in pairs) < LEAST:
        return ""

    def close(a: float, b: float) -> bool:
        return abs(a - b) <= 10 * tolerance * abs(b)

    constant = all(close(f, found[0]) for f in found)
    number = next((words for words, n in NUMBERS.items() if constant and close(abs(found[0]), n)), "")
    if number:
        return f"{'minus ' if found[0] < 0 else ''}{number} times {IT}"
    for name in sorted(set.intersection(*(set(p.factors) for p in pairs))):
        for form, power in POWERS.items():
            if all(p.factors[name] > 0 and close(f, p.factors[name] ** power) for f, p in zip(found, pairs, strict=True)):
                return f"{form.format(name)} times {IT}"
    if constant:
        return f"{found[0]:.6g} times {IT}"
    return ""


def factor_of_each(pairs: Sequence[Pair], tolerance: float) -> str:
    """The weakest of all: every answer is a multiple of the right one, another multiple in every question."""
    factors = []
    for p in pairs:
        if p.got.shape != p.want.shape or p.want.size < 2 or not np.isfinite(p.want).all() or not p.want.any():
            return ""
        k = int(np.argmax(abs(p.want)))
        factors.append(float(p.got.reshape(-1)[k] / p.want.reshape(-1)[k]))
        if not math.isfinite(factors[-1]) or not same(p.got, factors[-1] * p.want, tolerance):
            return ""
    k = int(np.argmax(abs(np.array(factors) - 1)))
    return f"a multiple of {RIGHT}, another one in every question ({factors[k]:.6g} for example)"


def _offset(pairs: Sequence[Pair], tolerance: float) -> str:
    """One number added to every entry of every answer."""
    if any(p.got.shape != p.want.shape for p in pairs) or sum(p.want.size for p in pairs) < LEAST:
        return ""
    by = float(np.median(pairs[0].got - pairs[0].want))
    if not math.isfinite(by) or not all(same(p.got, p.want + by, tolerance) for p in pairs):
        return ""
    return f"{IT} {'plus' if by > 0 else 'minus'} {abs(by):.6g}"


def _limits(pairs: Sequence[Pair], tolerance: float) -> str:
    """The right answer cut at a number above or below."""
    if any(p.got.shape != p.want.shape for p in pairs):
        return ""
    low, high = float(min(p.got.min() for p in pairs)), float(max(p.got.max() for p in pairs))
    cut = [np.clip(p.want, low, high) for p in pairs]
    inside = sum(int(((p.want > low) & (p.want < high)).sum()) for p in pairs)
    outside = [sum(int((p.want > high).sum()) for p in pairs), sum(int((p.want < low).sum()) for p in pairs)]
    if inside < LEAST or not any(outside) or not all(same(p.got, c, tolerance) for p, c in zip(pairs, cut, strict=True)):
        return ""
    ends = [f"at most {high:.6g}"] * bool(outside[0]) + [f"at least {low:.6g}"] * bool(outside[1])
    return f"{IT}, cut to be {' and '.join(ends)}"


def bfloat16(a: Array) -> Array:
    """Rounded to the 8 significant bits of bfloat16."""
    m, e = np.frexp(np.asarray(a, np.float64))
    return np.ldexp(np.rint(m * 256) / 256, e)


def float16(a: Array) -> Array:
    return np.asarray(a).astype(np.float16).astype(np.float64)


ROUNDINGS = {"float16": float16, "bfloat16": bfloat16}


def argument_itself(pairs: Sequence[Pair], args: Sequence[Mapping[str, Array]], tolerance: float) -> str:
    """Whether the answer is one of the arguments, or something simple of it. args: of each pair, by letter."""
    for name in sorted(set.intersection(*map(set, args))) if args else ():
        for form, sign, plus in (("{} itself", 1, 0), ("minus {}", -1, 0), ("1 - {}", -1, 1)):
            if all(same(p.got, np.asarray(plus + sign * a[name]), tolerance) for p, a in zip(pairs, args, strict=True)):
                return form.format(name)
    return ""


def _rounded(pairs: Sequence[Pair]) -> str:
    for name, f in ROUNDINGS.items():
        if all(same(p.got, f(p.want), 1e-12) for p in pairs):
            return f"{IT} rounded to {name}"
    return ""
