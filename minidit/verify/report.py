"""What came out: verdicts with their reasons, as text or as plain data for JSON and pages.

A line carries the SPEC id, the topic, the error, what was allowed and why, the verdict, the name of the mistake, what it does,
the correct equation, and where it was met before. What no known mistake explains shows the smallest question that reveals it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidit.shown import card, code, folded
from minidit.verify.bank.dialects import DIALECTS, sharing
from minidit.verify.core.finding import VERDICTS, Finding, Names

FORMAT = 1
COLOURS = {"good": "\033[32m", "bad": "\033[31m", "name": "\033[1m", "weak": "\033[2m"}

SUMMARY = {  # of topics without a name or a reason, by their verdict
    "unknown": "no known mistake explains", "raises": "an error in", "form": "no numbers from",
    "wrapped": "the right answer, and more, from", "unsteady": "wrong when asked twice:",
    "undeclared": "half precision, not declared, in",
}  # fmt: skip


@dataclass
class Report:
    """All findings on one target. `str(report)` is the text; `report.ok` whether everything passed.

    fits: the dialects whose reference gives all answers, where none was declared.
    nearest: otherwise the dialect that explains most topics, and more of them than minidit's own conventions do.
    """

    findings: list[Finding]
    dialect: str = ""
    target: str = ""
    fits: list[str] = field(default_factory=list)
    nearest: str = ""

    @property
    def ok(self) -> bool:
        return all(f.passed for f in self.findings)

    @property
    def mistakes(self) -> list[str]:
        """The ids that explain the failing topics, most probable names only, in order of appearance."""
        named = [d.id for f in self.findings if not f.passed and f.candidates for d in f.candidates[0]]
        return list(dict.fromkeys(named))

    @property
    def summary(self) -> str:
        """One sentence: whose conventions, and by what it differs from them."""
        failed = [f for f in self.findings if not f.passed]
        base = f"dialect {self.dialect}" if self.dialect else "minidit's conventions"
        if not failed:
            return f"matches {base}" + (f" (also {', '.join(self.fits)})" if self.fits and not self.dialect else "")
        if self.fits:
            return f"matches dialect {' or '.join(self.fits)}, not minidit's conventions: {' + '.join(self.mistakes)}"
        habits = DIALECTS[self.nearest].habits if self.nearest else ()
        rest = [i for i in self.mistakes if i not in habits]
        base = f"dialect {self.nearest}" if self.nearest else base
        parts = [f"differs from {base} by {' + '.join(rest)}"] if rest else [f"matches {base} elsewhere"] if self.nearest else []
        parts += [f"in {f.topic.name}: {', and '.join(r.short for r in f.reasons)}" for f in failed if explained(f)]
        for verdict, says in SUMMARY.items():
            names = [f.topic.name for f in failed if not f.candidates and f.verdict == verdict and not explained(f)]
            parts += [f"{says} {', '.join(names)}"] if names else []
        return "; ".join(parts)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        right = sum(f.passed for f in self.findings)
        return f"Report({self.target or 'target'}: {right} right, {len(self.findings) - right} wrong; {self.summary})"

    def _repr_html_(self) -> str:
        return card(repr(self), *(shown_finding(f) for f in self.findings))

    def text(self, *, colour: bool = False) -> str:
        """The report for people: one line per topic, more lines where something is wrong, and the summary."""
        paint = painter(colour)
        n, failed = len(self.findings), [f for f in self.findings if not f.passed]
        halves = sum(f.verdict == "undeclared" for f in failed)
        wrong = len(failed) - halves
        head = f"{self.target or 'target'}: {n} {'topic' if n == 1 else 'topics'}, {n - len(failed)} right, {wrong} wrong"
        head += f", {halves} not declared" if halves else ""
        lines = [line(f, colour=colour) for f in self.findings]
        return "\n".join([paint("name", head), *lines, paint("bad" if failed else "good", f"summary: {self.summary}")])

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values; an infinite error is null, because JSON has no infinity."""
        from minidit.version import __version__

        return {
            "format": FORMAT, "minidit": __version__, "target": self.target, "dialect": self.dialect, "ok": self.ok,
            "summary": self.summary, "fits": self.fits, "topics": [as_dict(f) for f in self.findings],
        }  # fmt: skip


def shown_finding(f: Finding) -> str:
    """One verdict as HTML: a line, which is unfolded where something is wrong."""
    return folded(f"{'✓' if f.passed else '✗'} {f.topic.spec} {f.topic.name}", code(line(f)), unfolded=not f.passed)


def painter(colour: bool) -> Callable[[str, str], str]:
    """paint(kind, text): the text in its colour on a terminal, as it is elsewhere."""
    return lambda kind, text: f"{COLOURS[kind]}{text}\033[0m" if colour else text


def name_of(names: Names) -> str:
    """M02 ALPHA_PREV_INDEX, or two of them."""
    return " with ".join(map(str, names))


def explained(f: Finding) -> bool:
    """Whether the reasons say all there is about a topic that no mistake of the bank explains."""
    return not f.candidates and bool(f.reasons) and (f.verdict == "misfit" or (f.verdict == "unknown" and f.whole))


def headline(f: Finding) -> list[str]:
    """What is wrong where no mistake of the bank explains it, the most important sentence first."""
    if explained(f):
        return f.sentences
    if f.verdict == "raises" and f.note:
        return [f"an error: {f.note}", *f.sentences]
    return [VERDICTS[f.verdict] + ("; what differs:" if f.verdict == "unknown" and f.reasons else ""), *f.sentences]


def size(f: Finding) -> str:
    """How far the answers are off: a number, or why there is none to compare."""
    if math.isfinite(f.worst.error):
        return f"error {f.worst.error:.1e}"
    if f.verdict in ("raises", "misfit"):
        return "no answer"
    return "wrong form" if f.worst.finite else "not finite"


def outcome(finding: Finding) -> str:
    """A verdict in one word, or the ids of the mistakes: what an expectation is compared with."""
    if finding.passed:
        return "pass"
    if finding.candidates:
        return " or ".join(sorted("+".join(sorted(d.id for d in names)) for names in finding.candidates))
    return "raises" if finding.verdict == "misfit" else finding.verdict


def line(finding: Finding, *, colour: bool = False) -> str:
    """One verdict, with its explanation on more lines where something is wrong."""
    paint, f = painter(colour), finding
    head = f"{f.topic.spec:5} {f.topic.name:24} {size(f):14}{_allowed(f)}".rstrip()
    if f.passed:
        rows = [f"{paint('good', 'ok   ')} {head}" + (f"  {f.verdict}: {f.note}" if f.verdict != "equal" else "")]
        return "\n      ".join(rows + f.remarks)
    rows = [f"{paint('bad', 'WRONG') if f.verdict != 'undeclared' else paint('name', 'HALF ')} {head}"]
    if f.candidates:
        rows += _named(f, paint)
    else:
        rows += [paint("name", sentence) for sentence in headline(f)] + _shown(f)
    said = f.verdict in ("raises", "misfit") and not f.candidates  # by the headline
    what = " ".join(s for s in (f.worst.where, f.worst.what) if s)
    place = "" if math.isinf(f.worst.error) and not f.worst.where else "worst place: "
    rows += [f"{place}{what}"] if what and f.verdict != "unsteady" and not said else []
    rows += [f.note] if f.note and not said else []
    return "\n      ".join(rows + f.remarks)


def _allowed(f: Finding) -> str:
    """What error is allowed and why, where there is a number to compare with it."""
    if math.isinf(f.worst.error):
        return ""
    unit = "" if f.precision == "float64" or f.topic.allowed else f" in {f.precision}"
    limit = f"{f.tolerance:g} {f.topic.because}" if f.topic.allowed else f"{f.tolerance:.0e}{unit}: {f.topic.because}"
    return f" (allowed {limit})"


def _shown(f: Finding) -> list[str]:
    """The right equation, and the smallest question that shows the difference, or what the topic takes where none was asked."""
    rows = [f"right: {f.topic.equation} ({f.topic.spec})"]
    rows += [f"takes: {f.topic.takes}"] if f.verdict == "misfit" else []
    rows += [f"first to differ: {f.layer}"] if f.layer else []
    if f.probe is not None:
        rows += [f"smallest question that shows it: {f.probe.name}"]
        rows += [f"  {name} = {text}" for name, text in question(f).items()]
        if f.probe in f.topic.probes():
            names = ", ".join(f.topic.parameters) if len(f.topic.parameters) > 1 else f"({f.topic.parameters[0]},)"
            rows.append(f'ask it again: import minidit as md; {names} = md.verify.question("{f.topic.name}", "{f.probe.name}")')
    return rows


def _named(f: Finding, paint: Callable[[str, str], str]) -> list[str]:
    """The mistakes that explain a topic: what each does, what is right, where it was seen."""
    rows = [paint("name", f"equals {f.topic.spec} with " + "\n         or with ".join(map(name_of, f.candidates)))]
    for d in {d.id: d for names in f.candidates for d in names}.values():
        shared = sharing(d.id)
        rows.append(f"{d.id} does: {d.wrong}" + (f" (a habit of {', '.join(shared)})" if shared else ""))
        rows.append(f"    right: {d.right} ({d.spec})")
        rows += [paint("weak", f"    seen in: {d.seen}")] if d.seen else []
    return rows


def question(finding: Finding) -> dict[str, str]:
    """The smallest question that shows the difference: argument -> what it is, in one short line."""
    if finding.probe is None:
        return {}
    return {name: in_short(arg) for name, arg in zip(finding.topic.parameters, finding.probe.args, strict=False)}


def in_short(argument: Any) -> str:
    """An argument in one short line: small arrays whole, large ones by their shape and ends."""
    if isinstance(argument, np.ndarray):
        kind = f"{argument.dtype} {argument.shape}"
        if argument.size <= 8:
            return f"{kind} {np.array2string(argument, precision=6, separator=', ', max_line_width=1000)}".replace("\n", "")
        flat = argument.reshape(-1)
        return f"{kind} [{flat[0]:.6g}, {flat[1]:.6g}, …, {flat[-1]:.6g}]"
    if isinstance(argument, dict):
        return f"a dictionary of {len(argument)}: {', '.join(list(map(str, argument))[:4])}, …"
    text = " ".join(str(argument).split())
    return text if len(text) < 100 else f"{text[:97]}…"


def as_dict(finding: Finding) -> dict[str, Any]:
    f = finding
    return {
        "topic": f.topic.name, "spec": f.topic.spec, "group": f.topic.group, "passed": f.passed, "verdict": f.verdict,
        "outcome": outcome(f), "error": f.worst.error if math.isfinite(f.worst.error) else None, "tolerance": f.tolerance,
        "because": f.topic.because, "right": f.topic.equation,
        "where": f.worst.where, "what": f.worst.what, "note": f.note, "layer": f.layer,
        "headline": [] if f.passed or f.candidates else headline(f), "size": size(f),
        "reasons": f.sentences, "precision": f.precision, "remarks": list(f.remarks),
        "probe": f.probe.name if f.probe else "", "reveals": f.probe.reveals if f.probe else "",
        "question": question(f),
        "candidates": [[
            {"id": d.id, "name": d.name, "spec": d.spec, "wrong": d.wrong, "right": d.right, "seen": d.seen,
             "dialects": sharing(d.id)} for d in names] for names in f.candidates],
    }  # fmt: skip
