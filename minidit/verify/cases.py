"""Asks a target and reports; and for somebody else's test suite: one case per topic, which fails with the name of the mistake.

@pytest.mark.parametrize("case", md.verify.cases(["ddim_step"]), ids=str)
def test_mine(case):
    case.check(my_ddim_step)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minidit.keywords import meant
from minidit.verify.bank import DEVIATIONS, HABITS
from minidit.verify.bank.dialects import DIALECTS
from minidit.verify.bank.fits import beyond
from minidit.verify.core.alone import does_not_broadcast, mixes_samples
from minidit.verify.core.compare import TOLERANCE
from minidit.verify.core.finding import SETTLED, Asked, Finding, Reason, copies
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import AnyTopic, Probe
from minidit.verify.core.search import examine
from minidit.verify.core.ways import best_way, without
from minidit.verify.elsewhere import topics_meant
from minidit.verify.report import Report, line
from minidit.verify.topics import TOPICS

Functions = Mapping[str, Callable[..., Any]]  # topic name -> what the target answers with


def check(
    target: object, *, topics: str | Iterable[str] | None = None, dialect: str | None = None, precision: str | None = None
) -> Report:
    """Asks `target` (a mapping topic -> callable, a module, or an object) and returns the Report.

    topics: only these (names of topics, or of groups such as "samplers"); dialect: whose conventions count as right;
    precision: float64, float32, bfloat16 or float16, if the answers' own type does not tell. Raises ValueError for an unknown
    topic or dialect, for a target that answers to none, and for one that lacks a topic asked for by its own name.
    """
    if precision not in (None, *TOLERANCE):
        raise ValueError(f"precision {precision!r} is not one of {', '.join(TOLERANCE)}")
    functions = functions_of(target)
    name = getattr(target, "__name__", "") or ("" if isinstance(target, dict) else type(target).__name__)
    return judged(functions, answered(functions, topics, "the target"), dialect, precision, name)


def topics_named(names: str | Iterable[str] | None) -> list[AnyTopic]:
    """Topics from names of topics or of groups, in the order of the kit. Raises ValueError for a name that is neither."""
    if names is None:
        return list(TOPICS.values())
    names = [names] if isinstance(names, str) else list(names)
    groups = {t.group for t in TOPICS.values()}
    for name in names:
        if name not in TOPICS and name not in groups:
            raise ValueError(f"there is no topic {name!r}{meant(name, [*TOPICS, *sorted(groups)])}")
    return [t for t in TOPICS.values() if t.name in names or t.group in names]


def answered(functions: Collection[str], names: str | Iterable[str] | None, who: str) -> list[AnyTopic]:
    """The topics of these names that a target has a function for. Raises ValueError where it lacks one, or has none."""
    asked = [names] if isinstance(names, str) else None if names is None else list(names)
    chosen = [t for t in topics_named(asked) if t.name in functions]
    lacking = [name for name in asked or () if name in TOPICS and name not in functions]
    if lacking or not chosen:
        raise ValueError(f"{who} does not answer {', '.join(lacking or asked or ['any topic'])}")
    return chosen


def question(topic: str, name: str) -> list[Any]:
    """The arguments of one question, as a report names it; they are the caller's own. Raises ValueError for an unknown one."""
    (chosen,) = topics_named([topic])
    probes = {p.name: p for p in chosen.probes()}
    if name not in probes:
        raise ValueError(f"{topic} has no question {name!r}{meant(name, probes) or ': it has ' + ', '.join(probes)}")
    return copies(probes[name].args)


def functions_of(target: object) -> dict[str, Callable[..., Any]]:
    """topic name -> callable, from a mapping, a module or an object. Raises ValueError for an unknown topic, or for none."""
    if isinstance(target, Mapping):
        for name in target:
            if name not in TOPICS:
                raise ValueError(f"there is no topic {name!r}{meant(str(name), TOPICS)}")
        return dict(target)
    functions = {name: getattr(target, name) for name in TOPICS if callable(getattr(target, name, None))}
    if not functions:
        mine = (n for n in dir(target) if not n.startswith("_") and callable(getattr(target, n, None)))
        near = [f"{topic} (for your {name})" for name, topic in topics_meant(mine).items()]
        alike = f" as the topics are: {', '.join(near[:4])}" if near else f" like {', '.join(list(TOPICS)[:5])}, …"
        name = getattr(target, "__name__", repr(target))
        raise ValueError(f"{name} answers to no topic: it needs callables named{alike}; minidit verify --list shows all topics")
    return functions


def judged(
    functions: Functions, topics: Sequence[AnyTopic], dialect: str | None = None, precision: str | None = None, name: str = ""
) -> Report:
    """Asks these functions all questions of these topics, and names what is wrong. Raises ValueError for an unknown dialect."""
    if dialect is not None and dialect not in DIALECTS:
        known = ", ".join(DIALECTS)
        raise ValueError(f"there is no dialect {dialect!r}{meant(dialect, DIALECTS) or f', there are {known}'}")
    base = DIALECTS[dialect].deviations if dialect else ()
    bank, judge = [d for d in DEVIATIONS.values() if d not in base], Judge(base, precision, HABITS, beyond)
    ways = {t.name: best_way(functions[t.name], t, judge) for t in topics}
    functions, asked = {name: way[0] for name, way in ways.items()}, {name: way[1] for name, way in ways.items()}
    findings = examine(topics, asked, bank, judge)
    for f in findings:
        judge.confirm(f, functions[f.topic.name], asked[f.topic.name], bank)
        more = [ways[f.topic.name][2]] if f.verdict == "raises" else []
        f.reasons += [Reason(words) for words in (*more, does_not_broadcast(f)) if words]
        f.remarks += filter(None, [] if more else [ways[f.topic.name][2]])
        f.remarks += filter(None, [without(functions[f.topic.name], f, judge, bank)])
    law = Judge(base).reference(())
    for f in findings:  # whatever is still unclear may be a matter of the batch
        if f.verdict == "unknown" and not f.whole and (words := mixes_samples(functions[f.topic.name], f, f.topic.by(law))):
            f.reasons.insert(0, Reason(words))
    report = Report(findings, dialect or "", name)
    if not report.ok and not dialect:
        passing = {name: _passing(findings, asked, Judge(d.deviations, precision)) for name, d in DIALECTS.items()}
        report.fits = [name for name, n in passing.items() if n == len(findings)]
        if not report.fits:
            best = max(passing, key=lambda name: passing[name])
            right = sum(f.passed for f in findings)  # a dialect is near that explains most of what is not
            report.nearest = best if 2 * (passing[best] - right) > len(findings) - right else ""
    return report


def _passing(findings: Sequence[Finding], asked: Asked, judge: Judge) -> int:
    """How many topics are right in a dialect."""
    return sum(f.verdict not in SETTLED and judge.explains(f.topic, asked[f.topic.name], (), f.tolerance) for f in findings)


@dataclass(frozen=True)
class Case:
    """One topic with its questions, for a parametrised test; str(case) is the topic's name."""

    topic: AnyTopic
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
            raise AssertionError(line(report.findings[0]))

    def __str__(self) -> str:
        return self.topic.name


def cases(names: Iterable[str] | None = None, *, dialect: str | None = None, precision: str | None = None) -> list[Case]:
    """Cases for these topics or groups of topics (None: all). Raises ValueError for an unknown name."""
    return [Case(t, dialect, precision) for t in topics_named(names)]
