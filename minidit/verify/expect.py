"""What is expected of a target that is known not to be perfect: a file of outcomes, and the surprises.

An unexpected failure is a surprise, and so is an unexpected pass: a list that nobody shortens would hide the next mistake.
"""

from __future__ import annotations

import json
from pathlib import Path

from minidit.incoming import Refusal, printable, read_json
from minidit.outgoing import write_text
from minidit.verify.report import FORMAT, Report, outcome


class ExpectError(Refusal):
    """A file that is no expectation; the message is one line and names it."""


def write_expectation(path: str | Path, report: Report) -> None:
    """Writes the outcome of every topic: "pass", ids of mistakes (M02+M34), "unknown" or "raises"."""
    held = {"format": FORMAT, "dialect": report.dialect, "topics": {f.topic.name: outcome(f) for f in report.findings}}
    write_text(path, json.dumps(held, indent=1, ensure_ascii=False) + "\n")


def surprises(path: str | Path, report: Report) -> list[str]:
    """Every difference between the file and the report, one sentence each. A topic that the file lacks is expected to pass.

    Raises ValueError for a file that is no expectation.
    """
    held = read_json(path, ExpectError)
    if not isinstance(held, dict) or not isinstance(held.get("topics"), dict):
        raise ExpectError(f"{path}: not an expectation (it has no topics); --write-expect writes one")
    if held.get("format") != FORMAT:
        raise ExpectError(f"{path}: format {held.get('format')!r:.40}, this version reads {FORMAT}")
    expected = dict(held["topics"])
    differences = []
    if held.get("dialect", "") != report.dialect:
        differences.append(
            f"the file expects dialect {held.get('dialect') or 'none'!r}, declared is {report.dialect or 'none'!r}"
        )
    for finding in report.findings:
        name, now = finding.topic.name, outcome(finding)
        before = expected.pop(name, "pass")
        if now == before:
            continue
        kind = "unexpected pass" if now == "pass" else "unexpected failure" if before == "pass" else "another mistake"
        differences.append(f"{kind}: {name} is {now}, expected {before}")
    differences += [f"not answered: {name}, expected {before}" for name, before in expected.items()]
    return [printable(sentence) for sentence in differences]
