"""All topics of one target together: an implementation has its mistakes everywhere.

What one topic names is tried first where another has no single explanation; then sets of mistakes, likely ones first. At the end
candidates that other topics contradict are dropped. What is left is the name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from minidit.verify.core.finding import SETTLED, Answers, Asked, Finding, Names, as_answer
from minidit.verify.core.judge import Judge, ids, orders
from minidit.verify.core.reference import AnyPart, AnyTopic, Deviation

LONG = ("network", "squares", "chains")  # groups in which nothing is looked for beside a mistake
SLOW = ("network", "squares", "training")  # groups whose answers take long: fewer pairs are tried


def examine(
    topics: Sequence[AnyTopic], asked: Asked, bank: Sequence[Deviation], judge: Judge, *, depth: int = 2
) -> list[Finding]:
    """The findings on all topics that were asked. depth: 1 tries single mistakes only."""
    findings = [judge.judge(t, asked[t.name], bank, depth=1) for t in topics]
    if depth > 1:
        _search(findings, asked, bank, judge)
        for f in findings:
            _sharpen(f, asked[f.topic.name], bank, judge)
        for f in findings:
            if f.verdict == "unknown" and not f.candidates and not f.whole and f.topic.group not in LONG:
                judge.beside(f, asked[f.topic.name], bank)
    named = dict.fromkeys(names for f in findings for names in f.candidates)
    for f in findings:  # refusals name nothing by themselves, but a name from another topic may foretell them
        if not f.passed and f.verdict not in SETTLED and all(a.error for a in asked[f.topic.name]):
            f.candidates = [n for n in named if judge.explains(f.topic, asked[f.topic.name], n, f.tolerance)]
            f.verdict = "named" if f.candidates else f.verdict
    _narrow(findings, asked, judge)
    return findings


# ------------------------------------------------------------------------------------------------ several mistakes at once


@dataclass(frozen=True)
class Guesses:
    """Sets of mistakes that may explain one topic, in the order in which they are worth a try.

    near: all mistakes that could change the topic's answers; suspects: those that other topics named.
    """

    judge: Judge
    finding: Finding
    answers: Answers
    bank: Sequence[Deviation]
    near: Sequence[Deviation]
    suspects: Sequence[Deviation]

    def familiar(self) -> list[Iterable[Names]]:
        return [combinations(self.suspects, 2), *(combinations(self.suspects[:8], n) for n in (3, 4))]

    def wide(self) -> list[Iterable[Names]]:
        """Everything else: mistakes that no topic named by themselves."""
        return [self.beside_one_suspect(), self.plausible(), self.opened(), self.beside_two_suspects()]

    def beside_one_suspect(self) -> Iterator[Names]:
        return ((a, b) for a in self.suspects for b in self.near if b not in self.suspects)

    def beside_two_suspects(self) -> Iterator[Names]:
        return ((*two, b) for two in combinations(self.suspects[:6], 2) for b in self.near if b not in two)

    def plausible(self) -> Iterator[Names]:
        """Pairs that may explain the smallest wrong answer: both change it, or one alone explains it, or they meet in a part.

        In topics that are quickly asked also those of which one alone changes it: it may make room for the other.
        """
        topic = self.finding.topic
        shown = next(a for a in self.answers if a.probe is self.finding.probe)
        right = as_answer(shown.probe, self.judge.expected(topic, shown.probe))
        changes = {d: self.judge.gap(topic, right, (d,)).error > 0 for d in self.near}
        alone = {d: self.judge.gap(topic, shown, (d,)).error <= self.finding.tolerance for d in self.near}
        for a, b in combinations(self.near, 2):
            if (changes[a] and changes[b]) or alone[a] or alone[b] or a.patches.keys() & b.patches.keys():
                yield a, b
        if topic.group not in SLOW:
            yield from ((a, b) for a, b in combinations(self.near, 2) if changes[a] != changes[b])

    def opened(self) -> Iterator[Names]:
        """Pairs of which the first leads to a part that the second changes, and that right answers never meet."""
        for a in self.near:
            parts = self.judge.path(self.finding.topic, a) - self.judge.reached(self.finding.topic)
            yield from ((a, b) for b in self.bank if b is not a and b.patches.keys() & parts)


def _search(findings: Sequence[Finding], asked: Asked, bank: Sequence[Deviation], judge: Judge) -> None:
    """For findings without a name: first sets of what other topics named, then everything; few possibilities come first.

    What other topics named is tried even where the coefficients say all there is: two names say why.
    """
    hopeless: list[
        set[AnyPart]
    ] = []  # the parts of topics that no set explains: what runs through all of them has no name either
    for wide in (False, True, False):  # what everything named is tried once more
        nameless = [f for f in findings if not (f.passed or f.candidates or f.verdict in SETTLED)]
        nameless = [f for f in nameless if not wide or judge.weak(f, asked[f.topic.name])]
        for f in sorted(nameless, key=lambda f: len(judge.near(f.topic, bank))):
            answers, reached = asked[f.topic.name], judge.reached(f.topic)
            near = judge.possible(f, answers, bank) if wide else judge.near(f.topic, bank)
            guesses = Guesses(judge, f, answers, bank, near, _suspects(f, findings, bank, judge))
            tries = guesses.familiar()
            if wide and not any(parts <= reached for parts in hopeless):
                tries += guesses.wide()
            if not any(judge.name(f, answers, orders(sets)) for sets in tries) and wide:
                hopeless.append(reached)


def _sharpen(finding: Finding, answers: Answers, bank: Sequence[Deviation], judge: Judge) -> None:
    """Where one mistake explains answers to float32 rounding only, another one beside it may explain them to the last digit."""
    if finding.verdict != "named" or finding.exact or len(finding.candidates) != 1:
        return
    (names,) = finding.candidates
    near = [d for d in judge.near(finding.topic, bank) if d not in names]
    for both in orders((*names, d) for d in near):
        if judge.explains(finding.topic, answers, both, finding.tolerance):
            finding.candidates, finding.note, finding.exact = [both], "", True
            return


def _suspects(finding: Finding, findings: Sequence[Finding], bank: Sequence[Deviation], judge: Judge) -> list[Deviation]:
    """Mistakes that other topics named, as far as they change what this topic runs through, alone or behind another of them."""
    known = {d.id for f in findings for names in f.candidates[:3] for d in names}
    near = judge.near(finding.topic, bank)
    paths = judge.reached(finding.topic).union(*(judge.path(finding.topic, d) for d in near if d.id in known))
    return [d for d in bank if d.id in known and d.patches.keys() & paths]


# ------------------------------------------------------------------------------------------------ what other topics contradict


def _narrow(findings: Sequence[Finding], asked: Asked, judge: Judge) -> None:
    """Drops candidates that other topics contradict, where others remain.

    First what would have spoilt a topic that passed; then whatever explains fewer topics than another candidate does, or as many
    by changing more parts.
    """
    right = [f for f in findings if f.verdict == "equal"]

    def spoils_nothing(names: Names) -> bool:
        met = (f for f in right if judge.meets(names, f.topic))
        return all(judge.explains(f.topic, asked[f.topic.name], names, f.tolerance) for f in met)

    for finding in findings:
        kept = [names for names in finding.candidates if spoils_nothing(names)]
        finding.candidates = kept or finding.candidates
        if finding.topic.allowed and len(findings) > 1:  # statistics alone name nothing that exact answers do not
            exact = [f for f in findings if not f.topic.allowed]
            named = list(chain.from_iterable(f.candidates for f in exact))
            finding.candidates = [n for n in kept if n in named or not any(judge.meets(n, f.topic) for f in exact)]
            finding.verdict = finding.verdict if finding.candidates or finding.verdict != "named" else "unknown"
    votes = Counter(ids(names) for f in findings for names in f.candidates)
    for finding in findings:
        rank = {
            names: (
                len(names), -votes[ids(names)], -sum(votes[frozenset({d.id})] for d in names), sum(len(d.patches) for d in names),
            )
            for names in finding.candidates
        }  # fmt: skip
        finding.candidates = [names for names in finding.candidates if rank[names] == min(rank.values())]
