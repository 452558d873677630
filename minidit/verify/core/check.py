"""Asks somebody else's implementation every question it offers to answer, and names the mistake where an answer is wrong.

For each topic the target provides: the answers are taken once. If they equal the reference (in the declared dialect) the
topic passes. Else every deviation that reaches the topic's parts is tried, alone and then in pairs: the ones that reproduce
*all* answers are the candidates. Candidates that would have spoilt a topic which passed are dropped: one implementation has
its mistake everywhere. What is left is the name; nothing left: the first wrong equation is reported with its smallest probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import Any

import numpy as np

from minidit.verify.core.compare import TOLERANCE, Difference, allowed, difference, precision_of
from minidit.verify.core.reference import TOPICS, Deviation, Probe, Reference, Topic

Names = tuple[Deviation, ...]
DECLARE = 'declare its precision (precision="float32", --precision float32)'
ROUNDED = 25 * 2.0**-23  # a float64 answer this near was computed in float32


@dataclass(frozen=True)
class Answer:
    """What a target said to one probe: a value, or the error it raised."""

    probe: Probe
    value: Any = None
    error: str = ""
    taps: dict[str, Any] = field(default_factory=dict)
    notes: list[Any] = field(default_factory=list)  # what a denoiser among the arguments was asked


@dataclass
class Finding:
    """The verdict on one topic."""

    topic: Topic
    verdict: str  # equal, rounded (equal in a coarser precision), named, unknown, raises, skipped
    worst: Difference
    tolerance: float
    probe: Probe | None = None  # the smallest one that shows a difference
    candidates: list[Names] = field(default_factory=list)  # each a set of mistakes that explains every answer
    layer: str = ""  # the first diverging intermediate, where the target gave some
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the topic is right in the declared dialect."""
        return self.verdict in ("equal", "rounded", "skipped")


def ask(function: Callable[..., Any], topic: Topic) -> list[Answer]:
    """The target's answers to all probes of a topic, measured where the topic says how. An exception is an answer too."""
    answers = []
    for probe in topic.probes():
        args = _copies(probe.args)
        try:
            with np.errstate(all="ignore"):
                answer = function(*args)
                answer, taps = answer if _has_taps(answer) else (answer, {})
                notes = [a.seen for a in args if hasattr(a, "seen")]
                answers.append(Answer(probe, topic.measure(answer) if topic.measure else answer, "", dict(taps), notes))
        except Exception as error:  # whatever foreign code raises is its answer
            answers.append(Answer(probe, error=f"{type(error).__name__}: {error}"))
    return answers


def _has_taps(answer: Any) -> bool:
    """Whether an answer comes with intermediate values: (answer, {layer: value})."""
    return isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)


def _copies(args: Sequence[Any]) -> list[Any]:
    """Arguments that the target may spoil."""
    return [
        a.copy()
        if isinstance(a, np.ndarray)
        else dict(a)
        if isinstance(a, dict)
        else a.fresh()
        if hasattr(a, "fresh")
        else a
        for a in args
    ]


class Judge:
    """Compares answers with references; every reference's own answers are made once."""

    def __init__(self, base: Iterable[Deviation] = (), precision: str | None = None) -> None:
        self.base, self.precision = tuple(base), precision
        self._made: dict[tuple[Any, ...], Any] = {}
        self._reach: dict[tuple[str, ...], set[str]] = {}
        self._with: dict[Names, Reference] = {}

    def reference(self, names: Names) -> Reference:
        """The declared dialect with these mistakes."""
        if names not in self._with:
            self._with[names] = Reference((*self.base, *names))
        return self._with[names]

    def expected(self, topic: Topic, probe: Probe, names: Names = ()) -> Any:
        """The reference's (measured) answer with these mistakes in it; an Exception object where it raises."""
        key = (topic.name, probe.name, *(d.id for d in names))
        if key in self._made:
            return self._made[key]
        kept = len(names) < 2  # thousands of pairs are asked once each: their answers would fill the memory
        R = self.reference(names) if kept else Reference((*self.base, *names))
        R.touched.clear()
        made: Any
        try:
            with np.errstate(all="ignore"):
                answer = getattr(R, topic.name)(*_copies(probe.args))
                made = topic.measure(answer) if topic.measure else answer
        except Exception as error:  # a mistake may well raise: M06 leaves the table
            made = error.with_traceback(None)
        if kept:
            self._made[key] = made
            self._reach.setdefault((topic.name, *(d.id for d in names)), set()).update(R.touched)
        R.taps.clear()
        return made

    def reached(self, topic: Topic) -> set[str]:
        """The parts that a topic's answers run through."""
        for probe in topic.probes():
            self.expected(topic, probe)
        return self._reach[topic.name,]

    def path(self, topic: Topic, deviation: Deviation) -> set[str]:
        """The parts that answers with this mistake ran through, as far as it was tried."""
        return self._reach.get((topic.name, deviation.id), set())

    def opened(self, topic: Topic, bank: Sequence[Deviation]) -> Iterable[Names]:
        """Pairs of which the first leads to a part that the second changes, and that right answers never meet."""
        for a in self.near(topic, bank):
            parts = self.path(topic, a) - self.reached(topic)
            yield from ((a, b) for b in bank if b is not a and b.patches.keys() & parts)

    def gap(self, topic: Topic, answer: Answer, names: Names = ()) -> Difference:
        """How far an answer is from the reference's with these mistakes; two refusals count as equal."""
        want = self.expected(topic, answer.probe, names)
        if isinstance(want, Exception) or answer.error:
            agree = isinstance(want, Exception) and bool(answer.error)
            return Difference(
                0.0 if agree else np.inf, what=answer.error or f"gave an answer, expected a refusal: {want}"
            )
        try:
            return difference(answer.value, want, relative=not topic.allowed)
        except Exception as error:  # whatever an answer of foreign objects does when it is read
            return Difference(np.inf, what=f"not numbers: {error}")

    def tolerance(self, topic: Topic, answers: Sequence[Answer]) -> float:
        """What the topic allows in the declared precision, or in that of the answers."""
        said = [precision_of(a.value) for a in answers if not a.error]
        coarsest = self.precision or next((p for p in ("bfloat16", "float16", "float32") if p in said), "float64")
        return allowed(topic, coarsest)

    def explains(self, topic: Topic, answers: Sequence[Answer], names: Names, tolerance: float) -> bool:
        """Whether the reference with these mistakes gives all of these answers."""
        return all(self.gap(topic, a, names).error <= tolerance for a in answers)

    def near(self, topic: Topic, bank: Iterable[Deviation]) -> list[Deviation]:
        """The deviations that could change this topic's answers."""
        reached = self.reached(topic)
        return [d for d in bank if d.patches.keys() & reached]

    def judge(self, topic: Topic, answers: Sequence[Answer], bank: Sequence[Deviation], *, depth: int = 2) -> Finding:
        """One topic's verdict by itself; depth 1 tries single mistakes only."""
        tolerance = self.tolerance(topic, answers)
        gaps = [self.gap(topic, a) for a in answers]
        worst = max(gaps, key=lambda g: g.error)
        if worst.error <= tolerance:
            return Finding(topic, "equal", worst, tolerance)
        plain = self.precision is None and not topic.allowed
        rounding, seen = min(ROUNDED * topic.tol, 1e-4) if plain else 0.0, [k for k, g in enumerate(gaps) if g.error > tolerance]
        everywhere = topic.group == "network" and len(seen) == len(gaps)
        coarse = everywhere and gaps[0].error <= rounding < worst.error  # float32 in a layer, and behind it a mistake
        shown = next(k for k in seen if gaps[k].error > rounding) if coarse else seen[0]
        finding = Finding(topic, "unknown", gaps[shown], tolerance, answers[shown].probe)
        blunt = TOLERANCE["float32"] * topic.tol if coarse else tolerance
        finding.layer = self._first_layer(topic, answers[shown], blunt) or self._first_step(topic, answers[shown], blunt)
        bank = self.near(topic, bank)
        self.explain(finding, answers, ((d,) for d in bank))
        if not finding.candidates and worst.error <= rounding:
            finding.verdict, finding.note = "rounded", f"equal to float32 rounding only: {DECLARE}"
            return finding
        if not finding.candidates and depth > 1:
            self.explain(finding, answers, _orders(combinations(bank, 2)))
        if not finding.candidates:
            raised = [a for a in answers if a.error and not isinstance(self.expected(topic, a.probe), Exception)]
            finding.verdict, finding.note = ("raises", raised[0].error) if raised else ("unknown", "")
        return finding

    def explain(self, finding: Finding, answers: Sequence[Answer], guesses: Iterable[Names]) -> bool:
        """Looks for guesses that give all answers of a finding's topic; whether there are any."""
        topic = finding.topic
        if all(a.error for a in answers):  # nothing but refusals is no evidence for any particular mistake
            return False
        order = sorted(
            answers, key=lambda a: a.probe is not finding.probe
        )  # what a guess most likely gets wrong, first
        limit, found = max(finding.tolerance, self.loose(finding)), []
        for names in guesses:
            error = 0.0
            for a in order:
                error = max(error, self.gap(topic, a, names).error)
                if error > limit:
                    break
            else:
                found.append((names, error))
        exact = [names for names, error in found if error <= finding.tolerance]
        alike: dict[frozenset[str], Names] = {}
        for names in exact or [names for names, _ in found]:
            alike.setdefault(frozenset(d.id for d in names), names)
        finding.candidates = list(alike.values())
        if found:
            finding.verdict, finding.note = "named", "" if exact else f"to float32 rounding: {DECLARE}"
        return bool(found)

    def loose(self, finding: Finding) -> float:
        """How far a name may be from float64 answers that were computed in float32, where the mistake is much larger."""
        loose = TOLERANCE["float32"] * finding.topic.tol
        plain = self.precision is None and not finding.topic.allowed
        return loose if plain and finding.worst.error > 10 * loose else 0.0

    def plausible(self, finding: Finding, answers: Sequence[Answer], near: Sequence[Deviation]) -> Iterable[Names]:
        """Pairs that may explain the smallest wrong answer: both change it, or one alone explains it, or they meet in a part."""
        shown = next(a for a in answers if a.probe is finding.probe)
        value = self.expected(finding.topic, shown.probe)
        right = Answer(shown.probe, value, "refused" if isinstance(value, Exception) else "")
        seen = {d: self.gap(finding.topic, right, (d,)).error > 0 for d in near}
        alone = {d: self.gap(finding.topic, shown, (d,)).error <= finding.tolerance for d in near}
        for a, b in combinations(near, 2):
            if (seen[a] and seen[b]) or alone[a] or alone[b] or a.patches.keys() & b.patches.keys():
                yield a, b
        if finding.topic.group not in (
            "network",
            "squares",
            "training",
        ):  # one makes room for the other: many, so cheap topics only
            yield from ((a, b) for a, b in combinations(near, 2) if seen[a] != seen[b])

    def _first_layer(self, topic: Topic, answer: Answer, tolerance: float) -> str:
        """For a target that hands out intermediate values: the first that differs, in the order of computation."""
        if not answer.taps:
            return ""
        R = self.reference(())
        R.taps.clear()
        getattr(R, topic.name)(*_copies(answer.probe.args))
        for name, want in R.taps.items():
            if name in answer.taps:
                gap = difference(answer.taps[name], want)
                if gap.error > tolerance:
                    return f"{name}{gap.where}: {gap.what}"
        agree = [name for name in R.taps if name in answer.taps]
        return f"what follows {agree[-1]}: all layers that were handed out are right" if agree else ""

    def _first_step(self, topic: Topic, answer: Answer, tolerance: float) -> str:
        """For a sampler run with a denoiser that takes notes: the first step that differs, and which of its coefficients."""
        from minidit.verify.topics.chains import coefficients, first_wrong_step

        place = next((k for k, a in enumerate(answer.probe.args) if hasattr(a, "seen")), None)
        if place is None or answer.error or topic.allowed:
            return ""
        args = _copies(answer.probe.args)
        z = args[-1] if getattr(args[-1], "ndim", 0) == getattr(args[1], "ndim", 0) + 1 else None
        try:
            right = getattr(self.reference(()), topic.name)(*args)
            mine = coefficients(answer.notes[0], answer.value, z)
            return first_wrong_step(mine, coefficients(args[place].seen, right, z), tolerance)
        except (ValueError, IndexError, TypeError, np.linalg.LinAlgError) as error:
            return f"its steps cannot be read off ({error})"


EACH_WEIGHT = {"zero_start"}  # parts that are asked weight by weight: two forms of a mistake may spoil two weights


def rivals(a: Deviation, b: Deviation) -> bool:
    """Whether two are forms of one mistake (M81b, M81c) in one place, where nobody makes both."""
    return a.id[:3] == b.id[:3] and bool((a.patches.keys() & b.patches.keys()) - EACH_WEIGHT)


def _orders(sets: Iterable[Names]) -> Iterable[Names]:
    """Sets of mistakes that can be made together, in every order where they change the same part."""
    for names in sets:
        if any(rivals(a, b) for a, b in combinations(names, 2)):
            continue
        shared = any(a.patches.keys() & b.patches.keys() for a, b in combinations(names, 2))
        yield from permutations(names) if shared else [names]


def examine(
    topics: Sequence[Topic],
    asked: Mapping[str, Sequence[Answer]],
    bank: Sequence[Deviation],
    judge: Judge,
    *,
    depth: int = 2,
) -> list[Finding]:
    """All topics of one target together: what one topic names is tried first where another has no single explanation."""
    findings = [judge.judge(t, asked[t.name], bank, depth=1) for t in topics]
    if depth > 1:
        _pairs(findings, asked, bank, judge)
    named = dict.fromkeys(names for f in findings for names in f.candidates)
    for f in findings:  # refusals name nothing by themselves, but a name found elsewhere may foretell them
        if not f.passed and all(a.error for a in asked[f.topic.name]):
            f.candidates = [n for n in named if judge.explains(f.topic, asked[f.topic.name], n, f.tolerance)]
            f.verdict = "named" if f.candidates else f.verdict
    narrowed(findings, asked, judge)
    return findings


def _pairs(
    findings: Sequence[Finding], asked: Mapping[str, Sequence[Answer]], bank: Sequence[Deviation], judge: Judge
) -> None:
    """For findings without a name: two to four mistakes named elsewhere, then one of those with any other, then any two."""
    searched: list[
        set[str]
    ] = []  # parts that have a mistake no pair explains: no topic that runs through them can have a name
    for wide in (False, True):
        for f in sorted(
            (f for f in findings if not f.passed and not f.candidates), key=lambda f: len(judge.near(f.topic, bank))
        ):
            near = judge.near(f.topic, bank)
            known = {d.id for g in findings for names in g.candidates[:3] for d in names}
            paths = judge.reached(f.topic).union(*(judge.path(f.topic, d) for d in near if d.id in known))
            suspects = [d for d in bank if d.id in known and d.patches.keys() & paths]
            tries: list[Iterable[Names]] = [combinations(suspects, 2), *(combinations(suspects[:8], n) for n in (3, 4))]
            if wide and not any(parts <= judge.reached(f.topic) for parts in searched):
                tries.append((a, b) for a in suspects for b in near if b not in suspects)
                tries.append(judge.plausible(f, asked[f.topic.name], near))
                tries.append(judge.opened(f.topic, bank))
                tries.append((*two, b) for two in combinations(suspects[:6], 2) for b in near if b not in two)
            if not any(judge.explain(f, asked[f.topic.name], _orders(guesses)) for guesses in tries) and wide:
                searched.append(judge.reached(f.topic))


def _meets(names: Names, finding: Finding, judge: Judge) -> bool:
    """Whether an exact topic that was asked runs through what these mistakes change."""
    return not finding.topic.allowed and any(d.patches.keys() & judge.reached(finding.topic) for d in names)


def narrowed(findings: Sequence[Finding], asked: Mapping[str, Sequence[Answer]], judge: Judge) -> None:
    """One implementation has its mistakes everywhere: candidates that other topics contradict are dropped, if others remain.

    First what spoils a passing topic, then whatever explains fewer topics than another candidate does.
    """
    passed = [f for f in findings if f.verdict == "equal"]
    for finding in findings:
        kept = [
            names
            for names in finding.candidates
            if all(
                judge.explains(f.topic, asked[f.topic.name], names, f.tolerance)
                for f in passed
                if any(d.patches.keys() & judge.reached(f.topic) for d in names)
            )
        ]
        finding.candidates = kept or finding.candidates
        if finding.topic.allowed and len(findings) > 1:  # statistics alone name nothing that exact answers do not
            exact = [names for f in findings if not f.topic.allowed for names in f.candidates]
            finding.candidates = [n for n in kept if n in exact or not any(_meets(n, f, judge) for f in findings)]
            finding.verdict = finding.verdict if finding.candidates or finding.verdict != "named" else "unknown"
    votes: dict[frozenset[str], int] = {}
    for finding in findings:
        for names in finding.candidates:
            key = frozenset(d.id for d in names)
            votes[key] = votes.get(key, 0) + 1
    for finding in findings:
        ranks = [(len(names), -votes[frozenset(d.id for d in names)]) for names in finding.candidates]
        finding.candidates = [
            names for names, rank in zip(finding.candidates, ranks, strict=True) if rank == min(ranks)
        ]


def functions_of(target: Any) -> dict[str, Callable[..., Any]]:
    """topic name -> callable, from a mapping, a module or an object. Raises ValueError for an unknown topic, or for none."""
    import difflib

    if isinstance(target, Mapping):
        for name in target:
            if name not in TOPICS:
                near = difflib.get_close_matches(str(name), TOPICS, 1)
                raise ValueError(f"there is no topic {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        return dict(target)
    found = {name: getattr(target, name) for name in TOPICS if callable(getattr(target, name, None))}
    if not found:
        near = [m for name in dir(target) for m in difflib.get_close_matches(name, TOPICS, 1, 0.8)]
        meant = f" as the topics are: {near[0]}?" if near else f" like {', '.join(list(TOPICS)[:5])}, …"
        raise ValueError(f"{getattr(target, '__name__', repr(target))} answers to no topic: it needs callables named{meant}")
    return found
