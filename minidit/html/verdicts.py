"""One page about one verification: which equations hold, and for each that does not, the mistake and the correct equation.

The page is made from `Report.as_dict()`. It is a single file that loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minidit.html.page import beside, document, escape, section, table
from minidit.outgoing import write_text

Finding = Mapping[str, Any]  # a report, one of its topics or one of its mistakes, as Report.as_dict() writes them


def write_verdicts(path: str | Path, report: Finding) -> Path:
    """Writes the page of a report. The same report gives the same bytes."""
    path = Path(path)
    write_text(path, page_of(report))
    return path


def page_of(report: Finding) -> str:
    topics: Sequence[Finding] = report["topics"]
    wrong, right = [t for t in topics if not t["passed"]], [t for t in topics if t["passed"]]
    parts = [head(report, len(topics), len(wrong))]
    if wrong:
        parts.append(section("wrong", "What does not hold", *map(explained, wrong)))
    if right:
        rows = [(escape(t["topic"]), spec(t), number(t["error"]), number(t["tolerance"]), escape(reason(t))) for t in right]
        columns = ("topic", "equation", "error", "allowed", "because")
        parts.append(section("right", "What holds", table(columns, rows, numbers=(2, 3), label="topics that are right")))
    note = f"minidit {report['minidit']}. An error is relative to the largest entry of the right answer."
    parts.append(f"<footer>{escape(note)} This page is one file and loads nothing from anywhere.</footer>")
    name = report["target"] or "target"
    return document(f"{name}: verified by minidit", "<main>\n" + "\n".join(parts) + "\n</main>", css=beside("verdicts.css"))


def head(report: Finding, topics: int, wrong: int) -> str:
    """The target, the summary, and the most important numbers."""
    verdict = '<span class="good">right</span>' if report["ok"] else '<span class="bad">wrong</span>'
    tiles = {"verdict": verdict, "topics": str(topics), "right": str(topics - wrong), "wrong": str(wrong)}
    tiles["conventions"] = escape(report["dialect"] or "minidit")
    facts = "".join(f"<div><dt>{name}</dt><dd>{html}</dd></div>" for name, html in tiles.items())
    summary = report["summary"][:1].upper() + report["summary"][1:]
    return (f'<header>\n<h1>{escape(report["target"] or "target")}</h1>\n<p class="lead">{escape(summary)}.</p>\n'
            f'<dl class="facts">{facts}</dl>\n</header>')


def explained(t: Finding) -> str:
    """One wrong topic: the known mistakes that explain it, or else the smallest question that shows it."""
    title = f'<h3 id="{escape(t["topic"])}"><span class="spec">{escape(t["spec"])}</span> {escape(t["topic"])}</h3>'
    top = f'<header>{title}<span class="bad">{escape(t["size"])}</span>'
    if t["error"] is not None:  # where there is no number, none is allowed
        top += f'<span class="muted">allowed {t["tolerance"]:.0e}: {escape(t["because"])}</span>'
    top += "</header>"
    names = [escape(" with ".join(f"{d['id']} {d['name']}" for d in names)) for names in t["candidates"]]
    sentences = [f"<p>Equals {escape(t['spec'])} with <strong>" + "</strong>, or with <strong>".join(names) + "</strong>.</p>"]
    if not names:
        sentences = [f"<p><strong>{escape(_sentence(text))}</strong></p>" for text in t["headline"]]
    known = {d["id"]: d for names in t["candidates"] for d in names}
    worst = shortened(" ".join(filter(None, (t["where"], t["what"]))))
    rows = {"right": "" if names else f"{t['right']} ({t['spec']})", "first layer that differs": t["layer"]}
    if names or t["verdict"] not in ("raises", "misfit"):  # whose error is the headline
        rows |= {"worst place": worst, "note": t["note"]}
    rows["and"] = "; ".join(t["remarks"])
    if not names and t["probe"]:
        rows["smallest question"] = t["probe"]
        rows |= {f"its {name}": value for name, value in t["question"].items()}
    return "\n".join(["<article>", top, *sentences, *map(mistake, known.values()), listed(rows), "</article>"])


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(":") else ".")


def mistake(d: Finding) -> str:
    """What one mistake computes, what is right, and who makes it."""
    rows = {"does": d["wrong"], "right": f"{d['right']} ({d['spec']})", "seen in": d["seen"]}
    rows["habit of"] = ", ".join(d["dialects"])
    return f"<h4>{escape(d['id'])} {escape(d['name'])}</h4>{listed(rows)}"


def listed(rows: Mapping[str, str]) -> str:
    """A list of names with their texts, without those that have none."""
    inside = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows.items() if text)
    return f"<dl>{inside}</dl>" if inside else ""


def spec(t: Finding) -> str:
    return f'<span class="spec">{escape(t["spec"])}</span>'


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def reason(t: Finding) -> str:
    """The reason for the tolerance, and the note if there is one."""
    return f"{t['because']}; {t['note']}" if t["note"] else str(t["because"])


def shortened(text: str, most: int = 300) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else text[: most - 1] + "…"
