"""What an implementation answered, and the verdict on one topic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minidit.verify.core.calls import Misfit, called
from minidit.verify.core.compare import Difference
from minidit.verify.core.denoiser import Call, Linear
from minidit.verify.core.forms import NOTHING, Odd, coarsest, owned, precision_of
from minidit.verify.core.reference import AnyTopic, Deviation, Kind, Probe

Names = tuple[Deviation, ...]  # mistakes made together, in the order in which they change the parts


@dataclass(frozen=True)
class Answer:
    """An implementation's answer to one probe: a value (the kit's own copy, measured where the topic says how), or the error."""

    probe: Probe
    value: Any = None
    error: str = ""
    taps: Mapping[str, Any] = field(default_factory=dict)  # intermediate values, where the target hands them out
    notes: Sequence[Sequence[Call]] = ()  # what each denoiser among the arguments was asked
    again: bool = False  # asked once more at the end: the same question, to a second object where the topic asks for objects
    changed: tuple[str, ...] = ()  # the arguments that the target changed
    declared: str = ""  # the precision that the target says it computes in
    precision: str = ""  # the coarsest type among its numbers, as they came
    draw: Any = None  # of random answers: the numbers themselves, before they were measured
    misfit: bool = False  # whether it could not even be called


@dataclass(frozen=True)
class Declared:
    """A function that says what precision its answers are computed in: float32, bfloat16 or float16."""

    function: Callable[..., Any]
    precision: str

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


Answers = Sequence[Answer]
Asked = Mapping[str, Answers]  # topic name -> its answers


PASSED = ("equal", "rounded", "habit")
SETTLED = ("undeclared", "unsteady", "form", "wrapped", "misfit")  # no mistake of the bank is behind these
VERDICTS = {  # what each means, as a report says it
    "equal": "",
    "rounded": "equal to float32 rounding",
    "habit": "equal but for a small number that some library adds",
    "named": "explained by mistakes of the bank",
    "unknown": "no known mistake explains this",
    "raises": "raises an error",
    "undeclared": "half precision, which nobody declared",
    "unsteady": "wrong when it is asked twice",
    "form": "no numbers that could be compared",
    "wrapped": "the right answer is a part of it",
    "misfit": "cannot be called as the topic is asked",
}


@dataclass(frozen=True)
class Reason:
    """One sentence on what is different, and what sort of explanation it is."""

    text: str
    kind: Kind = Kind.MEASURED
    law: str = ""  # what equals the right law but for this
    numbers: str = ""  # that it was read off

    def __str__(self) -> str:
        return self.short + (f" ({self.numbers})" if self.numbers else "")

    @property
    def short(self) -> str:
        """Without its numbers."""
        return (f"equals {self.law} with " if self.law else "") + self.text


@dataclass
class Finding:
    """The verdict on one topic."""

    topic: AnyTopic
    verdict: str  # one of VERDICTS
    worst: Difference
    tolerance: float
    probe: Probe | None = None  # the smallest one that shows a difference
    candidates: list[Names] = field(default_factory=list)  # each a set of mistakes that explains every answer
    layer: str = ""  # the first diverging intermediate in words, where the target gave some
    layer_name: str = ""  # and by its name
    note: str = ""
    exact: bool = True  # whether the candidates give the answers to the last digit
    precision: str = "float64"  # what it was judged as
    reasons: list[Reason] = field(default_factory=list)  # what is different, where no mistake of the bank explains it
    nearly: list[Names] = field(default_factory=list)  # mistakes that explain the shown question, and not all others
    whole: bool = False  # whether the reasons reproduce all answers
    remarks: list[str] = field(default_factory=list)  # what else is worth a word, also of right answers

    def __repr__(self) -> str:
        names = " or ".join("+".join(d.id for d in names) for names in self.candidates)
        return f"Finding({self.topic.spec} {self.topic.name}: {self.verdict}{f' {names}' if names else ''})"

    @property
    def sentences(self) -> list[str]:
        """The reasons as a report says them."""
        return list(map(str, self.reasons))

    @property
    def passed(self) -> bool:
        """Whether the topic is right in the declared dialect."""
        return self.verdict in PASSED


# ------------------------------------------------------------------------------------------------ precisions

HALVES = ("bfloat16", "float16")


def types_of(answers: Answers) -> str:
    """The coarsest type among the numbers of these answers."""
    return coarsest(a.precision or precision_of(a.value) for a in answers if not a.error) or "float64"


def not_half(precision: str) -> str:
    """Nothing below float32 is allowed its own rounding unless somebody declares it."""
    return "float32" if precision in HALVES else precision


# ------------------------------------------------------------------------------------------------ asking


def ask(function: Callable[..., Any], topic: AnyTopic) -> list[Answer]:
    """The target's answers to all probes of a topic, and to one of them again. An exception is an answer too.

    What draws by a seed is asked the last question again, and with another seed; everything else the first one.
    """
    probes = topic.probes()
    answers = [answer_to(function, topic, p) for p in probes]
    if any(a.error for a in answers) or not probes:
        return answers
    probe = probes[-1 if topic.draws == "seed" else 0]
    answers.append(replace(answer_to(function, topic, probe), again=True))
    if topic.draws == "seed":
        place = topic.parameters.index("seed")
        args = (*probe.args[:place], probe.args[place] + 1, *probe.args[place + 1 :])
        answers.append(answer_to(function, topic, Probe(f"{probe.name}-another-seed", args, probe.reveals)))
    return answers


def answer_to(function: Callable[..., Any], topic: AnyTopic, probe: Probe) -> Answer:
    """The target's answer to one question."""
    args = copies(probe.args)
    declared, function = (function.precision, function.function) if isinstance(function, Declared) else ("", function)
    try:
        with np.errstate(all="ignore"):
            raw, taps = with_taps(called(function, topic.parameters, args))
            precision = precision_of(raw)
            changed = tuple(n for n, a, b in zip(topic.parameters, probe.args, args, strict=False) if not _same(a, b))
            answer = owned(raw)
            if isinstance(answer, Odd) and answer.kind == NOTHING:
                parts = {f"its argument {n}, changed in place,": owned(args[topic.parameters.index(n)]) for n in changed}
                answer = Odd(NOTHING, parts)
            value = owned(topic.measure(raw if isinstance(answer, Odd) else answer)) if topic.measure else answer
            notes = [a.seen for a in args if isinstance(a, Linear)]
            draw = answer if topic.draws else None
            return Answer(probe, value, "", owned(taps), notes, False, changed, declared, precision, draw)
    except Misfit as error:
        return Answer(probe, error=str(error), declared=declared, misfit=True)
    except Exception as error:  # whatever foreign code raises is its answer
        return Answer(probe, error=f"{type(error).__name__}: {error}", declared=declared)


def _same(question: Any, after: Any) -> bool:
    """Whether an argument is what it was."""
    if isinstance(question, np.ndarray):
        return question.shape == np.shape(after) and np.array_equal(question, after, equal_nan=question.dtype.kind == "f")
    if isinstance(question, dict):
        return question.keys() == after.keys() and all(_same(a, after[k]) for k, a in question.items())
    if isinstance(question, (list, tuple)):
        return len(question) == len(after) and all(map(_same, question, after))
    return True


def with_taps(answer: Any) -> tuple[Any, Mapping[str, Any]]:
    """(answer, {layer: value}), from a target that hands out intermediate values or from one that does not."""
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping):
        return answer
    return answer, {}


def copies(args: Any) -> list[Any]:
    """Arguments that the target may spoil: copies to the last array."""
    return [_copy(a) for a in args]


def _copy(a: Any) -> Any:
    if isinstance(a, np.ndarray):
        return a.copy()
    if isinstance(a, dict):
        return {k: _copy(v) for k, v in a.items()}
    if isinstance(a, (list, tuple)):
        return type(a)(_copy(v) for v in a)
    return a.fresh() if isinstance(a, Linear) else a


def questions(args: Sequence[Any]) -> list[Any]:
    """Arguments for the reference: the arrays of the question themselves, which are read-only."""
    return [dict(a) if isinstance(a, dict) else a.fresh() if isinstance(a, Linear) else a for a in args]


def as_answer(probe: Probe, value: Any) -> Answer:
    """The reference's value as an answer; an Exception object stands for a refusal."""
    return Answer(probe, error=str(value) or "refused") if isinstance(value, Exception) else Answer(probe, value)
