"""Is an answer right, and if not: which known mistakes give exactly these answers?

For each topic that the target provides, the answers are taken once. If they equal the reference (in the declared dialect) the
topic passes. Otherwise every deviation that reaches the topic's parts is tried, alone and then in pairs (search.py): those that
reproduce *all* answers are the candidates. Where there are none, the finding shows the smallest probe and the first wrong layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from string import ascii_lowercase
from typing import Any

import numpy as np

from minidit.verify.core.compare import TOLERANCE, Difference, allowed, difference, rounded_like
from minidit.verify.core.expected import Expected
from minidit.verify.core.explain import Found, explain, in_another_order
from minidit.verify.core.finding import HALVES, SETTLED, Answer, Answers, Finding, Names, Reason, as_answer, types_of
from minidit.verify.core.forms import Odd, right_part
from minidit.verify.core.further import contradicted, more_answers
from minidit.verify.core.places import first_layer, first_step, leaves_alone
from minidit.verify.core.reference import AnyTopic, Deviation, Kind
from minidit.verify.core.twice import unsteady
from minidit.verify.core.where import only_where

DECLARE = 'declare its precision (precision="float32", --precision float32)'
ROUNDED = 25 * 2.0**-23  # a float64 answer this near was computed in float32


@dataclass(frozen=True)
class Evidence:
    """Which answer shows a mistake, and how far right layers may be off in it.

    Networks often take the sine of a float32 angle inside and say nothing of it: every answer is a little off, and behind that
    one of them shows the mistake. Then rounding alone is no evidence, and layers are compared as float32.
    """

    shown: int  # index of the smallest question that is beyond rounding
    layer_tolerance: float


class Judge(Expected):
    """Verdicts on topics."""

    def judge(self, topic: AnyTopic, answers: Answers, bank: Sequence[Deviation], *, depth: int = 2) -> Finding:
        """One topic's verdict by itself; depth 1 tries single mistakes only."""
        finding = self._judge(topic, answers, bank, depth)
        finding.precision = self.precision_of(answers)
        changed = sorted({name for a in answers for name in a.changed})
        if changed:
            finding.remarks.append(f"it changes its argument{'s' * (len(changed) > 1)} {', '.join(changed)}")
        return finding

    def _judge(self, topic: AnyTopic, answers: Answers, bank: Sequence[Deviation], depth: int) -> Finding:
        tolerance = self.tolerance(topic, answers)
        gaps = [self.gap(topic, a) for a in answers]
        worst = max(gaps, key=lambda g: g.error)
        if worst.error <= tolerance:
            doubt = unsteady(topic, answers)
            return Finding(topic, "unsteady" if doubt else "equal", worst, tolerance, note=doubt)
        rounding = min(ROUNDED * topic.tol, 1e-4) if self.undeclared(topic) else 0.0
        evidence = self._evidence(topic, gaps, tolerance, rounding)
        answer = answers[evidence.shown]
        finding = Finding(topic, "unknown", gaps[evidence.shown], tolerance, answer.probe)
        if self._settled(finding, answer, answers, gaps):
            return finding
        finding.layer_name, finding.layer = first_layer(topic, self.reference(()), answer, evidence.layer_tolerance)
        finding.layer = finding.layer or first_step(topic, self.reference(()), answer, evidence.layer_tolerance)
        bank = self.near(topic, bank)
        self.name(finding, answers, ((d,) for d in bank))
        both = [(a.value, self.expected(topic, a.probe)) for a in answers] if finding.candidates else []
        finding.remarks += filter(None, [in_another_order(both, tolerance)])
        if not finding.candidates and (worst.error <= rounding or self._half(topic, answers, worst)):
            self._only_rounded(finding, answers, bank, worst)
            return finding
        if not finding.candidates:
            finding.reasons, finding.whole = self.reasons(topic, answers, bank, tolerance)
        if not finding.candidates and not finding.whole and depth > 1:
            self.name(finding, answers, orders(combinations(bank, 2)))
        if not finding.candidates:
            raised = [a for a in answers if a.error and not isinstance(self.expected(topic, a.probe), Exception)]
            if not finding.reasons and (part := self._partly(finding, answers)):
                finding.reasons = [Reason(part)]
            finding.verdict, note = ("raises", raised[0].error) if raised else ("unknown", "")
            finding.note = note or finding.note
            some = bool(finding.reasons) and finding.reasons[0].kind is Kind.COEFFICIENT  # maybe wrong at some places only
            if (some or not finding.whole) and (words := self._where(finding, answers)):
                finding.reasons.append(Reason(words, Kind.WHERE))
        return finding

    def weak(self, finding: Finding, answers: Answers) -> bool:
        """Whether two known mistakes would say more than what was found: nothing, another law, a coefficient of few questions."""
        if not finding.whole:
            return True
        kind = finding.reasons[0].kind
        return kind is Kind.LAW or (kind is Kind.COEFFICIENT and bool(self._where(finding, answers)))

    def _where(self, finding: Finding, answers: Answers) -> str:
        """Which of the questions are wrong, where one of their arguments tells them from the others."""
        once = [a for a in answers if not a.again]
        off = [self.gap(finding.topic, a).error > finding.tolerance for a in once]
        wrong, right = ([a.probe.args for a, o in zip(once, off, strict=True) if o is side] for side in (True, False))
        return only_where(finding.topic.parameters, wrong, right)

    def reasons(self, topic: AnyTopic, answers: Answers, bank: Sequence[Deviation], tolerance: float) -> Found:
        """What is different about answers that no mistake of the bank explains, and whether that is all there is."""
        if topic.plain is not None:
            shown = max(answers, key=lambda a: self.gap(topic, a).error)
            said = shown.draw if topic.draws else shown.value
            right = self.expected(topic, shown.probe)
            return [] if said is None else [Reason(words) for words in topic.plain(said, shown.probe.args, right)], False
        wants = [self.expected(topic, a.probe) for a in answers]
        sentences, whole = explain(topic, answers, wants, topic.by(self.reference(())), tolerance)
        if not whole and not any(a.error for a in answers) and not topic.allowed:
            likely = sorted(answers, key=lambda a: self.gap(topic, a).error <= tolerance)  # a wrong answer tells most
            for d in self.near(topic, self.beyond(topic, bank)):
                if self.explains(topic, likely, (d,), tolerance):
                    return [Reason(d.name, d.kind, topic.spec)], True
        return sentences, whole

    def possible(self, finding: Finding, answers: Answers, bank: Iterable[Deviation]) -> list[Deviation]:
        """The mistakes that could change a topic, less those that would spoil a layer which the target shows to be right."""
        near = self.near(finding.topic, bank)
        shown = next((a for a in answers if a.probe is finding.probe), None)
        if shown is None or not shown.taps or not finding.layer:
            return near
        limit = max(finding.tolerance, TOLERANCE["float32"] * finding.topic.tol)
        return [d for d in near if leaves_alone(finding.topic, self.reference((d,)), shown, finding.layer_name, limit)]

    def confirm(self, finding: Finding, function: Callable[..., Any], answers: Answers, bank: Sequence[Deviation]) -> None:
        """Holds what is said of wrong answers against further questions; what they contradict is not said."""
        if finding.passed or not (finding.candidates or finding.reasons) or types_of(answers) != "float64":
            return
        more = more_answers(function, finding.topic, self)
        if more and finding.candidates:
            contradicted(finding, more, self)
        if more and not finding.candidates and finding.verdict == "unknown":
            reasons, whole = self.reasons(finding.topic, [*answers, *more], bank, finding.tolerance)
            of_two = finding.whole and finding.reasons[0].kind is Kind.BESIDE
            if finding.whole or whole:  # what is no explanation of all answers was only measured, and stays
                finding.reasons = [*reasons, *(r for r in finding.reasons if r.kind is Kind.WHERE)]
                finding.whole = whole
            if of_two and not whole:
                self.beside(finding, [*answers, *more], bank)

    def beside(self, finding: Finding, answers: Answers, bank: Sequence[Deviation]) -> None:
        """Looks for a mistake of the bank and something simple beside it, where no set of mistakes explains the answers."""
        topic, tolerance = finding.topic, finding.tolerance
        shown = next(a for a in answers if a.probe is finding.probe)
        right = as_answer(shown.probe, self.expected(topic, shown.probe))
        for d in self.near(topic, bank):
            if self.gap(topic, right, (d,)).error <= tolerance:
                continue  # it does not touch the question that shows the difference
            wants = [self.expected(topic, a.probe, (d,)) for a in answers]
            reasons, whole = explain(topic, answers, wants, topic.by(self.reference((d,))), tolerance, f"that of {d.id}")
            if whole and [r.kind for r in reasons] in ([Kind.RELATION], [Kind.ARGUMENT]):
                finding.reasons = [Reason(f"{d}, and {reasons[0].text}", Kind.BESIDE, topic.spec)]
                finding.whole = True
                return

    def _partly(self, finding: Finding, answers: Answers) -> str:
        """Which mistake of the bank explains most of the answers, and what is left with it in; "" where none explains half."""
        once = [a for a in answers if not a.again]
        wrong = [a for a in once if self.gap(finding.topic, a).error > finding.tolerance]
        best, count = None, 0
        for names in finding.nearly:
            n = sum(self.gap(finding.topic, a, names).error <= finding.tolerance for a in once)
            if n > count:
                best, count = names, n
        if best is None or 2 * count <= len(once) or count <= len(once) - len(wrong):
            return ""
        left = next(a for a in once if self.gap(finding.topic, a, best).error > finding.tolerance)
        layer, _ = first_layer(finding.topic, self.reference(best), left, finding.tolerance)
        rest = f"with it in, the first difference is {layer}" if layer else f"not {left.probe.name!r}"
        return f"{best[0]} explains {count} of {len(once)} questions; {rest}"

    def _settled(self, finding: Finding, answer: Answer, answers: Answers, gaps: Sequence[Difference]) -> bool:
        """Whether no mistake of the bank need be looked for: no numbers came, or other ones than the first time."""
        topic, tolerance = finding.topic, finding.tolerance
        if answer.misfit:  # the numbers of a question say nothing about a call that was not made
            finding.verdict, finding.reasons, finding.probe = "misfit", [Reason(answer.error)], None
            return True
        first = next(k for k, a in enumerate(answers) if a.probe is answer.probe)
        if answer.again and gaps[first].error <= tolerance:
            what = "a second object answers otherwise than the first" if topic.measure else "two answers to one question differ"
            finding.verdict, finding.note = "unsteady", f"{what}: {answer.error or 'the second one is wrong'}"
        elif np.isinf(finding.worst.error) and not answer.error:
            want = self.expected(topic, answer.probe)
            right = lambda part: difference(part, want, relative=not topic.allowed).error <= tolerance
            odd = isinstance(answer.value, Odd)
            measured = topic.measure is not None and not odd  # whose parts are the kit's own
            part, finding.note = (False, "") if isinstance(want, Exception) or measured else right_part(answer.value, right)
            finding.verdict = "form" if odd else "wrapped" if part else "unknown"
        return finding.verdict in SETTLED

    def _half(self, topic: AnyTopic, answers: Answers, worst: Difference) -> str:
        """The half precision that explains the answers though nobody declared it; "" where none does."""
        kind = types_of(answers) if self.precision is None and not any(a.declared for a in answers) else ""
        return kind if kind in HALVES and not topic.allowed and worst.error <= allowed(topic, kind) else ""

    def _only_rounded(self, finding: Finding, answers: Answers, bank: Sequence[Deviation], worst: Difference) -> None:
        """A difference as small as rounding: a habit of some library, an answer in half precision, or float32."""
        topic, half = finding.topic, self._half(finding.topic, answers, worst)
        habit = next((d for d in self.near(topic, self.habits) if self.explains(topic, answers, (d,), finding.tolerance)), None)
        if habit:
            finding.verdict, finding.note = "habit", f"{habit}: it {habit.wrong} ({habit.seen})"
        elif not half:
            finding.verdict, finding.note = "rounded", f"equal to float32 rounding only: {DECLARE}"
        else:
            exact = [n for n in [(), *((d,) for d in bank)] if self._rounds_to(topic, answers, n)]
            finding.candidates = [] if () in exact else exact
            finding.verdict, finding.exact = "named" if finding.candidates else "undeclared", False
            what = f"equals {topic.spec} rounded to {half}" if () in exact else f"right to {half} rounding only"
            finding.note = f"{'rounded to ' + half if finding.candidates else what}: {DECLARE.replace('float32', half)}"

    def _rounds_to(self, topic: AnyTopic, answers: Answers, names: Names) -> bool:
        """Whether these answers are the reference's numbers (with these mistakes), rounded to the answers' own type."""
        wants = [self.expected(topic, a.probe, names) for a in answers]
        return all(
            not isinstance(want, Exception) and not a.error and difference(a.value, rounded_like(want, a.value)).error <= 1e-12
            for a, want in zip(answers, wants, strict=True)
        )

    def _evidence(self, topic: AnyTopic, gaps: Sequence[Difference], tolerance: float, rounding: float) -> Evidence:
        errors = [g.error for g in gaps]
        everywhere = topic.group == "network" and min(errors) > tolerance
        if everywhere and errors[0] <= rounding < max(errors):  # float32 in a layer, and behind it a mistake
            return Evidence(next(k for k, e in enumerate(errors) if e > rounding), TOLERANCE["float32"] * topic.tol)
        return Evidence(next(k for k, e in enumerate(errors) if e > tolerance), tolerance)

    def name(self, finding: Finding, answers: Answers, guesses: Iterable[Names]) -> bool:
        """Looks for guesses that give all answers of a finding's topic; whether there are any.

        Guesses that explain the answers to float32 rounding only count where no guess explains them better.
        """
        topic = finding.topic
        if all(a.error for a in answers):  # nothing but refusals is no evidence for any particular mistake
            return False
        first = sorted(answers, key=lambda a: a.probe is not finding.probe)  # what a guess most likely gets wrong comes first
        limit, fits, near = max(finding.tolerance, self._loose(finding)), [], []
        for names in guesses:
            error = 0.0
            for a in first:
                error = max(error, self.gap(topic, a, names).error)
                if error > limit:
                    if a.probe is not finding.probe:
                        near.append(names)
                    break
            else:
                fits.append((names, error))
        finding.nearly = finding.nearly or [names for names in near if len(names) == 1]
        exact = [names for names, error in fits if error <= finding.tolerance]
        alike: dict[frozenset[str], Names] = {}  # one order of the same mistakes
        for names in exact or [names for names, _ in fits]:
            alike.setdefault(ids(names), names)
        finding.candidates = list(alike.values())
        if fits:
            finding.verdict, finding.exact = "named", bool(exact)
            finding.note = "" if exact else f"to float32 rounding: {DECLARE}"
        return bool(fits)

    def _loose(self, finding: Finding) -> float:
        """How far a name may be from float64 answers that were computed in float32, where the mistake is much larger."""
        loose = TOLERANCE["float32"] * finding.topic.tol
        return loose if self.undeclared(finding.topic) and finding.worst.error > 10 * loose else 0.0


def ids(names: Names) -> frozenset[str]:
    """Which mistakes, in whatever order."""
    return frozenset(d.id for d in names)


def number(deviation: Deviation) -> str:
    """The id without the letter of its form: M81 of M81b."""
    return deviation.id.rstrip(ascii_lowercase)


def rivals(a: Deviation, b: Deviation) -> bool:
    """Whether two are forms of one mistake (M81b, M81c) in one place, where nobody makes both."""
    return number(a) == number(b) and any(not part.each_weight for part in a.patches.keys() & b.patches.keys())


def orders(sets: Iterable[Names]) -> Iterator[Names]:
    """Sets of mistakes that can be made together, in every order where they change the same part."""
    for names in sets:
        if any(rivals(a, b) for a, b in combinations(names, 2)):
            continue
        shared = any(a.patches.keys() & b.patches.keys() for a, b in combinations(names, 2))
        yield from permutations(names) if shared else [names]
