"""Which way a target is asked: by position, by the names of its arguments, or without those that it lacks.

A target that is right by position is asked by position. Where it is not, and its names say that position is not what it means,
it is asked again by name; a remark says so, or says what was passed where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidit.verify.core.calls import by_name, called, lacking, passed
from minidit.verify.core.finding import Answers, Declared, Finding, answer_to, ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import AnyTopic, Deviation

Function = Callable[..., Any]
SPARE = ("eta", "z")  # what a target may lack and still answer the questions where η = 0, without fresh noise


def best_way(function: Function, topic: AnyTopic, judge: Judge) -> tuple[Function, Answers, str]:
    """(the target as it is asked from now on, its answers, a remark on how it was asked)."""
    answers = ask(function, topic)
    if judge.explains(topic, answers, (), judge.tolerance(topic, answers)):
        return function, answers, ""
    raised = any(a.error and not isinstance(judge.expected(topic, a.probe), Exception) for a in answers)
    inner = function.function if isinstance(function, Declared) else function
    if (named := by_name(inner, topic.parameters)) is not None:
        other = Declared(named, function.precision) if isinstance(function, Declared) else named
        again = ask(other, topic)
        if named.sure or raised or judge.explains(topic, again, (), judge.tolerance(topic, again)):
            return other, again, str(named)
    return function, answers, "" if answers[0].misfit else passed(inner, topic.parameters, always=raised)


def without(function: Function, finding: Finding, judge: Judge, bank: Sequence[Deviation]) -> str:
    """What the answers are worth of a target that lacks arguments which do not matter in some questions; "" elsewhere."""
    topic = finding.topic
    lacks = lacking(function, topic.parameters)
    if finding.verdict != "misfit" or "eta" not in lacks or not set(lacks) <= {*SPARE}:
        return ""
    keep = [k for k, n in enumerate(topic.parameters) if n not in lacks]
    names = [topic.parameters[k] for k in keep]
    eta = topic.parameters.index("eta")
    probes = [p for p in topic.probes() if p.args[eta] == 0]
    answers = [answer_to(lambda *args: called(function, names, [args[k] for k in keep]), topic, p) for p in probes]
    of = f"asked without {' and '.join(lacks)} in the {len(probes)} questions where eta is 0, "
    if any(a.error for a in answers):
        return ""
    part = judge.judge(topic, answers, bank, depth=1)
    if part.passed:
        others = len(topic.probes()) - len(probes)
        return f"{of}it is right; the {others} others, with s = -1 among them, need {' and '.join(lacks)}: add them"
    known = " or ".join(" with ".join(map(str, names)) for names in part.candidates)
    return of + (f"it equals {topic.spec} with {known}" if known else "; ".join(["it is wrong", *part.sentences]))
