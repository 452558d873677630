"""What an implementation answered, and the verdict on one topic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidit.verify.core.compare import Difference
from minidit.verify.core.denoiser import Call, Linear
from minidit.verify.core.reference import AnyTopic, Deviation, Probe

Names = tuple[Deviation, ...]  # mistakes made together, in the order in which they change the parts


@dataclass(frozen=True)
class Answer:
    """An implementation's answer to one probe: a value, or the error that it raised."""

    probe: Probe
    value: Any = None
    error: str = ""
    taps: Mapping[str, Any] = field(default_factory=dict)  # intermediate values, where the target hands them out
    notes: Sequence[Sequence[Call]] = ()  # what each denoiser among the arguments was asked


Answers = Sequence[Answer]
Asked = Mapping[str, Answers]  # topic name -> its answers


@dataclass
class Finding:
    """The verdict on one topic."""

    topic: AnyTopic
    verdict: str  # equal, rounded (equal in a coarser precision), named, unknown, raises
    worst: Difference
    tolerance: float
    probe: Probe | None = None  # the smallest one that shows a difference
    candidates: list[Names] = field(default_factory=list)  # each a set of mistakes that explains every answer
    layer: str = ""  # the first diverging intermediate, where the target gave some
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the topic is right in the declared dialect."""
        return self.verdict in ("equal", "rounded")


def ask(function: Callable[..., Any], topic: AnyTopic) -> list[Answer]:
    """The target's answers to all probes of a topic, measured where the topic says how. An exception is an answer too."""
    answers = []
    for probe in topic.probes():
        args = copies(probe.args)
        try:
            with np.errstate(all="ignore"):
                answer, taps = with_taps(function(*args))
                notes = [a.seen for a in args if isinstance(a, Linear)]
                answers.append(Answer(probe, topic.measure(answer) if topic.measure else answer, "", dict(taps), notes))
        except Exception as error:  # whatever foreign code raises is its answer
            answers.append(Answer(probe, error=f"{type(error).__name__}: {error}"))
    return answers


def with_taps(answer: Any) -> tuple[Any, Mapping[str, Any]]:
    """(answer, {layer: value}), from a target that hands out intermediate values or from one that does not."""
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping):
        return answer
    return answer, {}


def copies(args: Sequence[Any]) -> list[Any]:
    """Arguments that the target may spoil."""

    def copy(a: Any) -> Any:
        if isinstance(a, np.ndarray):
            return a.copy()
        return dict(a) if isinstance(a, dict) else a.fresh() if isinstance(a, Linear) else a

    return [copy(a) for a in args]


def as_answer(probe: Probe, value: Any) -> Answer:
    """The reference's value as an answer; an Exception object stands for a refusal."""
    return Answer(probe, error=str(value) or "refused") if isinstance(value, Exception) else Answer(probe, value)
