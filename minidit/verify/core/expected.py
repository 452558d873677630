"""What the reference answers, with and without mistakes, and how far an answer is from it.

Every reference is built once, and its answer to a question made once. Pairs, of which there are thousands, are asked and
forgotten.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minidit.verify.core.compare import Difference, allowed, difference
from minidit.verify.core.finding import Answer, Answers, Names, not_half, questions, types_of
from minidit.verify.core.forms import coarsest
from minidit.verify.core.reference import AnyPart, AnyTopic, Deviation, Probe, Reference

Beyond = Callable[[AnyTopic, Sequence[Deviation]], Iterable[Deviation]]


class Expected:
    """Compares answers with references."""

    def __init__(
        self,
        base: Iterable[Deviation] = (),
        precision: str | None = None,
        habits: Iterable[Deviation] = (),
        beyond: Beyond = lambda topic, near: (),
    ) -> None:
        self.base, self.precision, self.habits = tuple(base), precision, tuple(habits)
        self.beyond = beyond  # what is tried beyond the bank
        self._made: dict[tuple[str, ...], Any] = {}
        self._reach: dict[tuple[str, ...], set[AnyPart]] = {}
        self._with: dict[Names, Reference] = {}
        self._asked: set[str] = set()  # the topics whose questions were all asked of the right law

    # ------------------------------------------------------------------------------------------------ right answers

    def reference(self, names: Names) -> Reference:
        """The declared dialect with these mistakes."""
        if names not in self._with:
            self._with[names] = Reference((*self.base, *names))
        return self._with[names]

    def expected(self, topic: AnyTopic, probe: Probe, names: Names = ()) -> Any:
        """The reference's (measured) answer with these mistakes in it; an Exception object where it raises."""
        key = (topic.name, probe.name, *(d.id for d in names))
        if key in self._made:
            return self._made[key]
        kept = len(names) < 2  # thousands of pairs are asked once each: their answers would fill the memory
        R = self.reference(names) if kept else Reference((*self.base, *names))
        R.touched.clear()
        made: Any
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # roots of negative numbers, in what a mistake makes of a question
                answer = topic(R, *questions(probe.args))
                made = topic.measure(answer) if topic.measure else answer
        except Exception as error:  # a mistake may well raise: M06 leaves the table
            made = error.with_traceback(None)
        if kept:
            self._made[key] = made
            self._reach.setdefault((topic.name, *(d.id for d in names)), set()).update(R.touched)
        R.taps.clear()
        return made

    def reached(self, topic: AnyTopic) -> set[AnyPart]:
        """The parts that a topic's answers run through."""
        if topic.name not in self._asked:
            self._asked.add(topic.name)
            for probe in topic.probes():
                self.expected(topic, probe)
        return self._reach[topic.name,]

    def path(self, topic: AnyTopic, deviation: Deviation) -> set[AnyPart]:
        """The parts that answers with this mistake ran through, as far as it was tried."""
        return self._reach.get((topic.name, deviation.id), set())

    def meets(self, names: Names, topic: AnyTopic) -> bool:
        """Whether a topic's right answers run through what one of these mistakes changes."""
        return any(d.patches.keys() & self.reached(topic) for d in names)

    def near(self, topic: AnyTopic, bank: Iterable[Deviation]) -> list[Deviation]:
        """The deviations that could change this topic's answers."""
        return [d for d in bank if self.meets((d,), topic)]

    # ------------------------------------------------------------------------------------------------ comparing

    def gap(self, topic: AnyTopic, answer: Answer, names: Names = ()) -> Difference:
        """How far an answer is from the reference's with these mistakes; two refusals count as equal."""
        want = self.expected(topic, answer.probe, names)
        if isinstance(want, Exception) or answer.error:
            agree = isinstance(want, Exception) and bool(answer.error)
            return Difference(0.0 if agree else np.inf, what=answer.error or f"gave an answer, expected a refusal: {want}")
        try:
            gap = difference(answer.value, want, relative=not topic.allowed)
            return replace(gap, what=f"{topic.unit}: {gap.what}") if topic.unit and gap.where else gap
        except Exception as error:  # whatever an answer of foreign objects does when it is read
            return Difference(np.inf, what=f"not numbers: {error}")

    def precision_of(self, answers: Answers) -> str:
        """What these answers are judged as: the declared precision, or that of their own type; float32 for undeclared halves."""
        return self.precision or coarsest(a.declared for a in answers) or not_half(types_of(answers))

    def tolerance(self, topic: AnyTopic, answers: Answers) -> float:
        """What the topic allows in the declared precision, or in that of the answers."""
        return allowed(topic, self.precision_of(answers))

    def undeclared(self, topic: AnyTopic) -> bool:
        """Whether float64 answers may have been computed in float32 without a word: nothing declared, and exact numbers asked."""
        return self.precision is None and not topic.allowed

    def explains(self, topic: AnyTopic, answers: Answers, names: Names, tolerance: float) -> bool:
        """Whether the reference with these mistakes gives all of these answers."""
        return all(self.gap(topic, a, names).error <= tolerance for a in answers)
