"""What is tried on every law alike: another law of the same arguments, and each of its parts with something simple done to it.

"equals T.6 with half of condition (topics/network.py)": the part of that name in that file gives half of what it should.
Like fits.py these are no rows of the bank.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import combinations
from typing import Any

import numpy as np

from minidit.verify.bank.nonlinear import fit
from minidit.verify.bank.wrap import instead
from minidit.verify.core.reference import AnyPart, AnyTopic, Change, Deviation, Form, Kind, Part, Reference
from minidit.verify.core.relations import MULTIPLES, OFFSETS, ROUNDINGS, SIMPLE
from minidit.verify.topics import FAMILIES, TOPICS

SLOW = ("hybrid_gradient", "dit_gradients", "dit_square")  # a question takes too long to be asked hundreds of times

DONE: dict[str, Callable[[Any], Any]] = SIMPLE | MULTIPLES | OFFSETS | {  # to what a part gives
    "0 for {}": lambda w: 0 * w, "1 for {}": lambda w: 0 * w + 1,
} | {f"{{}} rounded to {name}": f for name, f in ROUNDINGS.items()}  # fmt: skip


def alike(topic: AnyTopic) -> Iterator[Deviation]:
    """The laws of all topics that are asked with the same arguments."""
    for other in TOPICS.values():
        if other is not topic and other.parameters == topic.parameters:
            yield fit(f"the law of {other.name} ({other.spec})", topic, instead(partial(_of_another, other)), Kind.LAW)


def _of_another(other: AnyTopic, R: Reference, *args: Any) -> Any:
    return other(Reference(R.deviations[:-1]), *args)


def cuts(topic: AnyTopic) -> Iterator[Deviation]:
    """Every part with something simple done to it; whoever asks drops those that the topic does not run through."""
    if topic.name not in SLOW:
        yield from (d for part, made in _all_cuts() if part is not topic for d in made)


@cache
def _all_cuts() -> list[tuple[AnyPart, list[Deviation]]]:
    return [(p, list(_of(p, f"{name} (topics/{_file(family)})"))) for family in FAMILIES
            for name, p in vars(family).items() if isinstance(p, Part) and p.right.__module__ == family.__name__]  # fmt: skip


def _file(family: Any) -> str:
    return str(family.__name__.rpartition(".")[2]) + ".py"


def _of(part: AnyPart, name: str) -> Iterator[Deviation]:
    for words, f in DONE.items():
        yield fit(words.format(name), part, _after(f))
    yield fit(f"the opposite of {name}", part, _after(_opposite))
    yield fit(f"{name} exchanged", part, _after(_exchanged))
    names = list(inspect.signature(part.right).parameters)[1:]
    for k, of in enumerate(names):
        yield fit(f"{of} itself for {name}", part, partial(_skipped, k))
    for (j, a), (k, b) in combinations(enumerate(names), 2):
        yield fit(f"{a} and {b} exchanged in {name}", part, partial(_swapped, j, k))


def _after(f: Callable[[Any], Any]) -> Change:
    return lambda original: lambda R, *args: f(original(R, *args))


def _opposite(w: Any) -> Any:
    if np.asarray(w).dtype.kind != "b":
        raise TypeError("no yes or no")
    return np.logical_not(w)


def _exchanged(pair: Any) -> Any:
    first, second = pair if isinstance(pair, tuple) else ()
    return second, first


def _skipped(k: int, original: Form) -> Form:
    def changed(R: Reference, *args: Any) -> Any:
        if np.shape(args[k]) != np.shape(original(R, *args)) or isinstance(args[k], str):
            raise ValueError("an argument of another shape")
        return args[k]

    return changed


def _swapped(j: int, k: int, original: Form) -> Form:
    def changed(R: Reference, *args: Any) -> Any:
        if not isinstance(args[j], type(args[k])) or np.shape(args[j]) != np.shape(args[k]) or args[j] is args[k]:
            raise ValueError("arguments of different kinds")
        order = {j: k, k: j}
        return original(R, *(args[order.get(n, n)] for n in range(len(args))))

    return changed
