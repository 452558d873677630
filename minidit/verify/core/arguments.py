"""The right law of wrong arguments: one of them negated, exchanged with another, of the first sample only, rounded, …

Each guess is asked of the reference on the smallest wrong question first, then on all.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.core.relations import FUNCTIONS, MULTIPLES, OFFSETS, ROUNDINGS, SIMPLE, in_turns

LETTERS = {
    "eps": "ε", "eps_hat": "ε̂", "alpha_bar": "ᾱ", "x_0_hat": "x̂_0", "eta": "η", "betas": "β", "theta": "θ", "gamma": "γ",
    "eps_u": "ε_∅", "eps_c": "ε_c", "omega": "ω", "phi": "φ",
}  # fmt: skip
Args = Sequence[Any]
Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Guess:
    """In words, the arguments that it makes of the right ones, and what it makes of the answer to them."""

    words: str
    change: Callable[[Args], list[Any]]
    after: Change = lambda answer: answer
    of_table: bool = False  # something done to every entry of a table, which says less than a formula of its coefficients


MOST_WEIGHTS = 12  # entries of a dictionary of which two are exchanged

LINEAR: dict[str, Change] = {"minus {}": SIMPLE["minus {}"], "{} left out": lambda a: 0 * a} | MULTIPLES
FLOATS: dict[str, Change] = LINEAR | SIMPLE | OFFSETS | {
    "{} between 0 and 1": lambda a: np.clip(a, 0, 1), "{} between -1 and 1": lambda a: np.clip(a, -1, 1),
    "1 for {}": lambda a: 0 * a + 1,
} | FUNCTIONS  # fmt: skip
NO_LADDER = ("1 for {}", "{} left out")  # of ᾱ: a law of data, or of noise, alone is no law of a ladder
WHOLE: dict[str, Change] = OFFSETS | {
    "0 for {}": lambda a: 0 * a, "twice {}": lambda a: 2 * a, "half of {}": lambda a: a // 2, "1 for {}": lambda a: 0 * a + 1,
}  # fmt: skip


BATCH: dict[str, Callable[[Array], Array]] = {
    "the first {} for all": lambda a: np.broadcast_to(a[:1], a.shape),
    "the last {} for all": lambda a: np.broadcast_to(a[-1:], a.shape),
    "the mean {} for all": lambda a: np.full_like(a, a.mean(axis=0)),
    "{} backwards along its first axis": lambda a: a[::-1],
    "{} moved by one along its first axis": lambda a: np.roll(a, 1, axis=0),
    "{} moved back by one along its first axis": lambda a: np.roll(a, -1, axis=0),
    "every other {} first": lambda a: np.concatenate((a[::2], a[1::2])),
    "the halves of {} in turns": lambda a: a.take(in_turns(len(a)), 0),
}  # fmt: skip
MEAN: dict[str, Callable[[Array], Array]] = {"{} less its mean over the batch": lambda a: a - a.mean(axis=0)}


def letter(name: str) -> str:
    """An argument as the equations write it."""
    return LETTERS.get(name, name)


def guesses(names: Sequence[str], args: Args) -> Iterator[Guess]:
    """Everything that is tried on the arguments of a question, the likeliest first."""
    yield from _exchanged(names, args)
    for k, (name, a) in enumerate(zip(names, args, strict=False)):
        for words, f in _of(a):
            if name == "alpha_bar" and words in NO_LADDER:
                continue
            yield Guess(words.format(letter(name)), _at(f, k), of_table=_table(a) and words in FLOATS)
    yield from _by_another(names, args)
    for k, (name, a) in enumerate(zip(names, args, strict=False)):
        if isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.ndim > 1:
            yield from _another_axis(letter(name), k, a.ndim)
    for kind, f in ROUNDINGS.items():
        for k, (name, a) in enumerate(zip(names, args, strict=False)):
            if isinstance(a, dict) or (isinstance(a, np.ndarray) and a.dtype.kind == "f"):
                yield Guess(f"{letter(name)} rounded to {kind}", _at(partial(_everywhere, f=f), k))
        yield Guess(f"everything rounded to {kind}", _at(partial(_everywhere, f=f), *range(len(args))))
    for k, a in enumerate(args):
        if isinstance(a, dict):
            yield from _of_weights(k, a)


def _table(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.ndim == 1 and a.dtype.kind == "f"


def _by_another(names: Sequence[str], args: Args) -> Iterator[Guess]:
    """A number or a picture times another number of the question, or divided by it."""
    numbers = [k for k, a in enumerate(args) if isinstance(a, float)]
    for j, k in itertools.product(range(len(args)), numbers):
        a = args[j]
        if j != k and (isinstance(a, float) or (isinstance(a, np.ndarray) and a.dtype.kind == "f" and not _table(a))):
            words = letter(names[j]), letter(names[k])
            yield Guess("{} times {}".format(*words), partial(_of_both, j=j, k=k, f=operator.mul))
            yield Guess("{} divided by {}".format(*words), partial(_of_both, j=j, k=k, f=operator.truediv))


def _of_both(args: Args, j: int, k: int, f: Callable[[Any, Any], Any]) -> list[Any]:
    return [f(a, args[k]) if n == j else a for n, a in enumerate(args)]


def _another_axis(name: str, k: int, ndim: int) -> Iterator[Guess]:
    """The law along another axis than the last: there and back."""
    for axis in range(ndim - 1):
        swap = partial(_axis_last, axis=axis, ndim=ndim)
        yield Guess(f"axis {axis} of {name} in the place of its last", _at(swap, k), swap)


def _axis_last(a: Any, axis: int, ndim: int) -> Any:
    return np.swapaxes(a, axis, -1) if np.ndim(a) == ndim else a


def _of(a: Any) -> Iterator[tuple[str, Change]]:
    """What may have been done to one argument."""
    if isinstance(a, np.ndarray) and a.ndim:
        if a.dtype.kind in "iu":
            yield from BATCH.items()
            yield "{} + 1, at most the largest", lambda t: np.minimum(t + 1, max(t.max(), 1))
            yield "{} - 1, at least 0", lambda t: np.maximum(t - 1, 0)
            yield from WHOLE.items()
        elif a.dtype.kind == "f":
            yield from FLOATS.items()
            if len(a) >= 100 and a.ndim == 1:
                yield "{} backwards", lambda a: a[::-1]
                yield "{} of the next entry", lambda a: np.append(a[1:], a[-1])
                yield "{} of the entry before", lambda a: np.append(a[0], a[:-1])
                yield "{} of the entry before, 1 at the first", lambda a: np.append(1.0, a[:-1])
                yield "{} without its last entry", lambda a: a[:-1]
            else:
                yield from BATCH.items()
            if a.ndim > 1:
                yield from MEAN.items()
            if a.ndim > 2:
                yield "{} with its last two axes exchanged", lambda a: np.swapaxes(a, -1, -2)
            if a.ndim > 1:
                yield "{} in rising order along its last axis", lambda a: np.sort(a, axis=-1)
                yield "{} in falling order along its last axis", lambda a: -np.sort(-a, axis=-1)
        elif a.dtype.kind == "b":
            yield "{} the other way", lambda a: ~a
            yield "{} nowhere", np.zeros_like
    elif isinstance(a, (bool, np.bool_)):
        yield "{} the other way", lambda a: not a
    elif isinstance(a, (int, np.integer)):
        yield from WHOLE.items()
    elif isinstance(a, (float, np.floating)):
        yield from FLOATS.items()


def _exchanged(names: Sequence[str], args: Args) -> Iterator[Guess]:
    partners = {j: names.index(f"{n[:-2]}_2") for j, n in enumerate(names) if n.endswith("_1") and f"{n[:-2]}_2" in names}
    if len(partners) > 1:  # mean_1, logvar_1 and mean_2, logvar_2
        both = partners | {k: j for j, k in partners.items()}
        ones, twos = (", ".join(names[k] for k in side) for side in (partners, partners.values()))
        yield Guess(f"{ones} and {twos} exchanged", _swap(both))
    for j, k in partners.items():
        for words, f in FLOATS.items():
            yield Guess(words.format(f"{names[j]} and {names[k]}"), _at(f, j, k))
    for j, k in itertools.combinations(range(len(args)), 2):
        a, b = args[j], args[k]
        if (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape) or (
            isinstance(a, float) and isinstance(b, float)
        ):
            yield Guess(f"{letter(names[j])} and {letter(names[k])} exchanged", _swap({j: k, k: j}))
            for there, taken in ((j, k), (k, j)):
                yield Guess(f"{letter(names[taken])} in the place of {letter(names[there])}", _swap({there: taken}))


def _of_weights(k: int, weights: dict[str, Any]) -> Iterator[Guess]:
    """One array of a dictionary left out, negated, …, in all blocks alike; two of one shape exchanged, where there are few."""
    families: dict[str, list[str]] = {}
    for name, w in weights.items():
        if isinstance(w, np.ndarray) and w.dtype.kind == "f":
            families.setdefault(re.sub(r"\.\d+\.", ".*.", name, count=1) if name.startswith("blocks.") else name, []).append(name)
    for family, names in families.items():
        made: list[tuple[str, Change]] = [(words.format(family), f) for words, f in LINEAR.items()]
        made += [(f"{family} rounded to {kind}", f) for kind, f in ROUNDINGS.items()]
        if all(weights[n].ndim == 2 and len(set(weights[n].shape)) == 1 for n in names):
            made.append((f"{family} transposed", np.transpose))
        for words, f in made:
            yield Guess(words, _at(partial(_entries, names=names, f=f), k))
    if len(families) <= MOST_WEIGHTS:
        for a, b in itertools.combinations([n for names in families.values() for n in names], 2):
            if weights[a].shape == weights[b].shape:
                yield Guess(f"{a} and {b} exchanged", _at(partial(_exchanged_entries, a=a, b=b), k))


def _entries(weights: dict[str, Any], names: Sequence[str], f: Change) -> dict[str, Any]:
    return weights | {name: f(weights[name]) for name in names if name in weights}


def _exchanged_entries(weights: dict[str, Any], a: str, b: str) -> dict[str, Any]:
    return weights | {a: weights[b], b: weights[a]}


def _at(f: Change, *places: int) -> Callable[[Args], list[Any]]:
    """f of the arguments at these places."""
    return lambda args: [f(a) if k in places else a for k, a in enumerate(args)]


def _swap(places: dict[int, int]) -> Callable[[Args], list[Any]]:
    return lambda args: [args[places.get(n, n)] for n in range(len(args))]


def _everywhere(a: Any, f: Callable[[Array], Array]) -> Any:
    """f of every floating array of an argument."""
    if isinstance(a, dict):
        return {n: _everywhere(w, f) for n, w in a.items()}
    return f(a) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
