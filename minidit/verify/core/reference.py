"""The right answers as small named functions, so that one of them can be replaced by a wrong one.

A *part* is a function `f(R, ...)` that reaches the other parts through R, never by its module's name. A *topic* is a part
that somebody else's code can be asked for; it carries the probes (inputs) to ask with. A `Deviation` wraps one or more
parts; `R.deviated(a, b)` is the reference with the mistakes a and b in it, composed in that order. The parts say their
equations by calling the package's own laws and ops, so that the reference is minidit itself and not a second copy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

PARTS: dict[str, Callable[..., Any]] = {}
TOPICS: dict[str, Topic] = {}


@dataclass(frozen=True)
class Probe:
    """One question: the arguments, in the order of the topic's signature. `reveals` says what it was chosen to show."""

    name: str
    args: tuple[Any, ...]
    reveals: str = ""


@dataclass(frozen=True)
class Topic:
    """What an implementation can be asked for.

    takes   the signature in words, as the implementer reads it: names, shapes, units
    gives   what must come back
    probes  () -> the questions, smallest first; made on demand, always the same
    tol     factor on the precision's tolerance, and why (`because`)
    exact   the same for float64 where it is less: what cancels in float32 need not be lost in float64; 0: tol
    measure for answers that are random or have their own units: answer -> numbers to compare (same for the reference)
    allowed for statistics, which are measured in standard errors: how many of them; 0: TOLERANCE of the precision, times tol
    """

    name: str
    spec: str
    takes: str
    gives: str
    probes: Callable[[], Sequence[Probe]]
    tol: float = 1.0
    exact: float = 0.0
    because: str = "rounding of the few operations involved"
    measure: Callable[[Any], Any] | None = None
    group: str = ""
    allowed: float = 0.0


def part(f: Callable[..., Any]) -> Callable[..., Any]:
    """Registers f(R, ...) under its own name."""
    if f.__name__ in PARTS:
        raise ValueError(f"two parts are called {f.__name__}")
    PARTS[f.__name__] = f
    return f


def topic(
    *, spec: str, takes: str, gives: str, probes: Callable[[], Sequence[Probe]], **more: Any
) -> Callable[..., Any]:
    """Registers a part that others can be asked for."""

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        group = f.__module__.rpartition(".")[2]
        TOPICS[f.__name__] = Topic(f.__name__, spec, takes, gives, functools.cache(probes), group=group, **more)
        return part(f)

    return register


@dataclass(frozen=True, eq=False)  # told apart by identity: keys of the references made with them
class Deviation:
    """A way to be wrong (or, in a dialect, to be deliberately different): one change of one or a few parts.

    patches: part name -> wrapper; wrapper(original) gives the changed f(R, ...), and original is called as original(R, ...).
    """

    id: str  # M02; b, c, ... where one row of the catalogue holds several mistakes
    name: str
    spec: str  # the equation it breaks
    wrong: str  # what it does
    right: str  # the correct equation
    seen: str = ""  # where it was met
    patches: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.id} {self.name}"


class Reference:
    """R.name(...) calls the part of that name; with deviations, their changed form. `touched` collects the parts that ran."""

    def __init__(self, deviations: Iterable[Deviation] = ()) -> None:
        self.deviations = tuple(deviations)
        self.touched: set[str] = set()
        self.taps: dict[str, Any] = {}
        self._parts = dict(PARTS)
        for deviation in self.deviations:
            for name, wrap in deviation.patches.items():
                self._parts[name] = wrap(self._parts[name])  # KeyError: a deviation of a part that does not exist

    def deviated(self, *more: Deviation) -> Reference:
        """This reference with more deviations, composed in order."""
        return Reference((*self.deviations, *more))

    def tap(self, name: str, value: Any) -> Any:
        """Notes an intermediate value, in the order of computation, and hands it on."""
        self.taps[name] = value
        return value

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            f = self.__dict__["_parts"][name]
        except KeyError:
            raise AttributeError(name) from None
        self.touched.add(name)
        return functools.partial(f, self)
