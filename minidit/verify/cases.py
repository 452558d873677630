"""For somebody else's test suite: one case a topic, which fails with the name of the mistake.

    @pytest.mark.parametrize("case", md.verify.cases(["ddim_step"]), ids=str)
    def test_mine(case):
        case.check(my_ddim_step)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minidit.verify.bank import DEVIATIONS
from minidit.verify.bank.dialects import DIALECTS
from minidit.verify.core.check import Finding, Judge, ask, examine
from minidit.verify.core.reference import TOPICS, Probe, Topic
from minidit.verify.report import Report


def topics_named(names: str | Iterable[str] | None) -> list[Topic]:
    """Topics from names of topics or of groups, in the order of the kit. Raises ValueError for a name that is neither."""
    if names is None:
        return list(TOPICS.values())
    names = [names] if isinstance(names, str) else names
    wanted, groups = set(), {t.group for t in TOPICS.values()}
    for name in names:
        if name not in TOPICS and name not in groups:
            near = difflib.get_close_matches(name, [*TOPICS, *sorted(groups)], 1)
            raise ValueError(f"there is no topic {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        wanted |= {t.name for t in TOPICS.values() if name in (t.name, t.group)}
    return [t for t in TOPICS.values() if t.name in wanted]


def judged(
    functions: Mapping[str, Callable[..., Any]],
    topics: Sequence[Topic],
    dialect: str | None = None,
    precision: str | None = None,
    name: str = "",
) -> Report:
    """Asks these functions all questions of these topics, and names what is wrong. Raises ValueError for an unknown dialect."""
    if dialect is not None and dialect not in DIALECTS:
        near = difflib.get_close_matches(dialect, DIALECTS, 1)
        known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DIALECTS) or 'none'}"
        raise ValueError(f"there is no dialect {dialect!r}, {known}")
    base = DIALECTS[dialect].deviations if dialect else ()
    bank = [d for d in DEVIATIONS.values() if d.id not in {b.id for b in base}]
    judge = Judge(base, precision)
    asked = {t.name: ask(functions[t.name], t) for t in topics}
    findings = examine(topics, asked, bank, judge)
    report = Report(findings, dialect or "", name)
    if not report.ok and not dialect:
        passing = {name: _passing(findings, asked, Judge(d.deviations, precision)) for name, d in DIALECTS.items()}
        report.fits = [name for name, n in passing.items() if n == len(findings)]
        if not report.fits and passing:
            best = max(passing, key=lambda name: passing[name])
            right = sum(f.passed for f in findings)  # a dialect is near that explains most of what is not
            report.nearest = best if 2 * (passing[best] - right) > len(findings) - right else ""
    return report


def _passing(findings: Sequence[Finding], asked: Any, judge: Judge) -> int:
    """How many topics are right in a dialect."""
    return sum(judge.explains(f.topic, asked[f.topic.name], (), f.tolerance) for f in findings)


@dataclass(frozen=True)
class Case:
    """One topic with its questions, for a parametrised test; str(case) is the topic's name."""

    topic: Topic
    dialect: str | None = None
    precision: str | None = None

    @property
    def probes(self) -> Sequence[Probe]:
        """The questions, smallest first: names and positional arguments."""
        return self.topic.probes()

    def check(self, function: Callable[..., Any]) -> None:
        """Asks `function` everything. Raises AssertionError that names the mistake, or shows the smallest wrong answer."""
        report = judged({self.topic.name: function}, [self.topic], self.dialect, self.precision)
        if not report.ok:
            from minidit.verify.report import line

            raise AssertionError(line(report.findings[0]))

    def __str__(self) -> str:
        return self.topic.name


def cases(names: Iterable[str] | None = None, *, dialect: str | None = None, precision: str | None = None) -> list[Case]:
    """Cases for these topics or groups of topics (None: all). Raises ValueError for an unknown name."""
    return [Case(t, dialect, precision) for t in topics_named(names)]
