"""The right answers as small named functions, so that one of them can be replaced by a wrong one.

A *part* is a function f(R, ...) of a reference R; parts call each other as part(R, ...), and R decides which form runs: the right
one, or the one that a mistake changed. A *topic* is a part that somebody else's code can be asked for; it carries the probes
(inputs) to ask with. A *deviation* changes one or more parts, and Reference((a, b)) has the mistakes a and b in it, composed in
that order.

A part calls the package's own law or op wherever no mistake of the bank has to enter in the middle of that law. Where a mistake
does, the part spells the arithmetic out and its file says which mistakes those are; the tests hold it to the law.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np

from minidit.verify.core.denoiser import Linear

P = ParamSpec("P")
T = TypeVar("T")
Form = Callable[..., Any]  # f(R, ...), right or wrong
Change = Callable[[Form], Form]  # the right form -> the wrong one


class Kind(Enum):
    """What sort of explanation a sentence gives."""

    MEASURED = "what differs, and not how it came about"
    WHERE = "which questions are answered wrongly"
    RELATION = "what the whole answer is to the right one"
    PART = "the same of a part of the answer"
    ARGUMENT = "the right law of another argument"
    COEFFICIENT = "what stands before a picture in a linear answer"
    CHANGE = "a constant, a law or a part of the right law that is another one"
    LAW = "the law of another topic"
    BESIDE = "a mistake of the bank, and something simple beside it"


@dataclass(frozen=True)
class Probe:
    """One question: the arguments, in the order of the topic's signature. `reveals` says what it was chosen to show."""

    name: str
    args: tuple[Any, ...]
    reveals: str = ""


@dataclass(frozen=True, eq=False)  # a part is itself: two of one name are two parts
class Part(Generic[P, T]):
    """A right answer that a mistake can replace; part(R, ...) runs the form that R holds.

    each_weight: asked for every weight of a network by itself, so that two forms of one mistake may spoil two weights.
    """

    right: Callable[Concatenate[Reference, P], T]
    each_weight: bool = False

    def __call__(self, R: Reference, *args: P.args, **kwargs: P.kwargs) -> T:
        R.touched.add(self)
        form: Callable[Concatenate[Reference, P], T] = R.changed.get(self, self.right)
        return form(R, *args, **kwargs)


AnyPart = Part[..., Any]
Patches = dict[AnyPart, Change]


@dataclass(frozen=True, eq=False, repr=False)
class Topic(Part[P, T]):
    """A part that an implementation can be asked for.

    group   topics that belong together: one file of the test vectors
    takes   the signature in words, as the implementer reads it: names, shapes, units
    gives   what must come back
    probes  () -> the questions, smallest first; made on demand, always the same
    tol     factor on the precision's tolerance, and why (`because`)
    exact   the same for float64 where it is less: what cancels in float32 need not be lost in float64; 0: tol
    measure for answers that are random or have their own units: answer -> numbers to compare (same for the reference)
    allowed for statistics, which are measured in standard errors: how many of them; 0: TOLERANCE of the precision, times tol
    draws   "anew": the same question must get other numbers every time; "seed": the argument `seed` decides them; "": no draw
    plain   of a draw, or of what was measured: (the numbers, the arguments, what is measured of the right answer) -> in words,
            what is wrong with them
    unit    what `measure` makes of an answer, where the report shows a measured number: "log10 of the answer"
    """

    group: str = ""
    spec: str = ""
    takes: str = ""
    gives: str = ""
    probes: Callable[[], Sequence[Probe]] = tuple
    tol: float = 1.0
    exact: float = 0.0
    because: str = "rounding of the few operations involved"
    measure: Callable[[Any], Any] | None = None
    allowed: float = 0.0
    draws: str = ""
    unit: str = ""
    plain: Callable[[Any, Sequence[Any], Any], list[str]] | None = None

    @property
    def name(self) -> str:
        return self.right.__name__

    def by(self, R: Reference) -> Callable[P, T]:
        """The answers of this reference, as a function of the topic's arguments."""
        return functools.partial(self, R)

    @property
    def equation(self) -> str:
        """What is right, in a line: the docstring of the part."""
        return inspect.cleandoc(self.right.__doc__ or self.gives).removesuffix(".")

    @property
    def parameters(self) -> list[str]:
        """The names of a question's arguments; what has a default is for parts that ask on (the place of a layer)."""
        return [n for n, p in inspect.signature(self.right).parameters.items() if p.default is p.empty][1:]


AnyTopic = Topic[..., Any]


def part(f: Callable[Concatenate[Reference, P], T], *, each_weight: bool = False) -> Part[P, T]:
    """A decorator: f(R, ...) becomes a part. A part of one expression is a line, part(lambda R, ...: …), as a mistake is."""
    return Part(f, each_weight)


class Group:
    """A decorator for the topics of one group: @topic(spec, takes, gives, probes, …), the fields of Topic by name after these."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(
        self, spec: str, takes: str, gives: str, probes: Callable[[], Sequence[Probe]], **more: Any
    ) -> Callable[[Callable[Concatenate[Reference, P], T]], Topic[P, T]]:
        return lambda f: Topic(f, False, self.name, spec, takes, gives, functools.cache(lambda: sealed(probes())), **more)


def sealed(probes: Sequence[Probe]) -> Sequence[Probe]:
    """The same questions, their arrays read-only: no answer, and no mistake of the bank, can spoil what is asked next."""
    for probe in probes:
        _seal(probe.args)
    return probes


def _seal(value: Any) -> None:
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif isinstance(value, dict):
        _seal(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _seal(entry)
    elif isinstance(value, Linear):
        _seal([value.slope, value.shift, value.pattern, value.labels])


@dataclass(frozen=True, eq=False)  # compared by identity: keys of the references made with them
class Deviation:
    """A way to be wrong (or, in a dialect, to be deliberately different): one change of one or a few parts.

    patches: part -> change; change(original) is the wrong f(R, ...), and may call original(R, ...). kind: what a sentence that
    is made of it explains, where it is no row of the bank.
    """

    id: str  # M02; b, c, ... where one row of the catalogue holds several mistakes
    name: str
    spec: str  # the equation it breaks
    wrong: str  # what it does
    right: str  # the correct equation
    patches: Patches = field(default_factory=dict)
    seen: str = ""  # where it was met
    kind: Kind = Kind.CHANGE

    def __str__(self) -> str:
        return f"{self.id} {self.name}"


class Reference:
    """Right answers, or those with mistakes in them.

    changed: the parts that a mistake changed; touched: the parts that ran; taps: intermediate values, in order of computation;
    turn: how many draws were made anew, so that no two of them are alike; where: the layer of a network that runs now.
    """

    def __init__(self, deviations: Iterable[Deviation] = ()) -> None:
        self.deviations = tuple(deviations)
        self.changed: dict[AnyPart, Form] = {}
        self.touched: set[AnyPart] = set()
        self.taps: dict[str, Any] = {}
        self.turn, self.where = 0, ""
        for deviation in self.deviations:
            for part, change in deviation.patches.items():
                self.changed[part] = change(self.changed.get(part, part.right))

    def next_turn(self) -> int:
        """0, 1, 2, … for the draws of this reference."""
        self.turn += 1
        return self.turn - 1

    def tap(self, name: str, value: T) -> T:
        """Notes an intermediate value and hands it on."""
        self.taps[name] = value
        return value
