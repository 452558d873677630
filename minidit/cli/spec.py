"""`minidit spec`: the coverage of SPEC.md, one equation with its code and its tests, or everything as a book.

Works from a checkout, where SPEC.md and the tests are next to the package. Exit status: 0; 1 if there are problems (an equation
without code or test, a citation of an unknown equation); 2 if there is no checkout, or no library to write the book with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minidit.html.sources import Lines
from minidit.html.spec import Entry, Spec, measured, missing_from, read
from minidit.html.ties import problems

CHECKOUT = Path(__file__).resolve().parents[2]  # unless only the package is installed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `minidit spec`."""
    parser.add_argument("id", nargs="?", help="show one equation: its code, its tests, its residual (for example D.7)")
    parser.add_argument("--html", metavar="DIR", type=Path, help="write the book of equations, code and tests as web pages")
    parser.add_argument("--problems", action="store_true", help="print only equations without code or test, and wrong citations")
    parser.add_argument("--root", metavar="DIR", type=Path, help="the checkout (default: the package's own, or this folder)")


def run(args: argparse.Namespace) -> int:
    """Prints or writes what the flags ask for; returns the exit status."""
    root = args.root or (CHECKOUT if not missing_from(CHECKOUT) else Path("."))
    if missing := missing_from(root):
        print(f"minidit spec: needs a checkout of minidit, but there is {missing} (name one with --root DIR)", file=sys.stderr)
        return 2
    spec = read(root)
    if args.html is not None:
        return html(spec, args.html)
    if args.id is not None:
        return show(spec, args.id)
    lines = problems(spec)
    if not args.problems:
        print(coverage(spec))
        print(f"\n{len(spec.entries)} equations, {len(spec.proofs)} tests, {len(lines)} problems"
              + ("" if spec.residuals else "; no residuals yet (run pytest)"))
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


def show(spec: Spec, identifier: str) -> int:
    """Prints one entry."""
    entry = spec.entries.get(identifier.upper())
    if entry is None:
        print(f"minidit spec: SPEC.md has no equation {identifier!r} (minidit spec lists them)", file=sys.stderr)
        return 2
    print(one_entry(spec, entry) + ("" if spec.residuals else "\n(residuals are measured by pytest)"))
    return 0


def html(spec: Spec, folder: Path) -> int:
    """Writes the book."""
    from minidit.verify.bank import DEVIATIONS

    try:
        from minidit.html.book import write_book
        from minidit.html.formula import FormulaError
        from minidit.html.mistakes import Mistake
    except ModuleNotFoundError as error:
        print(f"minidit spec: the book needs {error.name} (pip install {error.name}, or the extra test)", file=sys.stderr)
        return 2
    mistakes = [Mistake(d.id, d.name, d.spec, d.wrong, d.right, d.seen) for d in DEVIATIONS.values()]
    try:
        pages = write_book(spec, folder, mistakes)
    except ModuleNotFoundError as error:
        print(f"minidit spec: the book needs {error.name} (pip install {error.name}, or the extra test)", file=sys.stderr)
        return 2
    except FormulaError as error:
        print(f"minidit spec: {error}", file=sys.stderr)
        return 1
    print(f"{len(pages)} pages, open {pages[0]}")
    return 0


def coverage(spec: Spec) -> str:
    """The table id, name, code, tests, worst residual, bound, as text."""
    rows = [("id", "equation", "code", "tests", "residual", "bound")]
    for e in spec.entries.values():
        code = f"{e.homes[0]}{f' +{len(e.homes) - 1}' if e.homes[1:] else ''}" if e.homes else "–"
        rows.append((e.id, e.name, code, str(len(spec.proofs_of(e))), *measured(spec, e)))
    widths = [min(56, max(len(r[i]) for r in rows)) for i in range(6)]

    def line(row: tuple[str, ...]) -> str:
        return "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))

    return "\n".join(map(line, rows))


def listing(text: str, lines: Lines) -> str:
    """Lines of a file with their numbers."""
    rows = text.splitlines()[lines.first - 1 : lines.last]
    return "\n".join(f"{n:5d}  {row}".rstrip() for n, row in enumerate(rows, lines.first))


def one_entry(spec: Spec, e: Entry) -> str:
    """An equation, its code with line numbers, its tests, its residual, as text."""
    parts = [f"{e.id} — {e.name}", *(f"  {tex}" for tex in e.equations)]
    if plain := spec.unicode_of(e):
        parts.append(f"  {plain}")
    parts.append(f"Source: {e.source}")
    for place in e.homes:
        text = spec.sources[f"minidit/{place.path}"].text if spec.spans(place) else ""
        parts += [f"\nminidit/{place}", *(listing(text, span) for span in spec.spans(place))]
    parts += [f"Also: {place}" for place in e.also]
    parts.append("\nTests:" if spec.proofs_of(e) else "\nTests: none")
    parts += [f"  {p.name}  {p.path}:{p.lines.first}" for p in spec.proofs_of(e)]
    residual, bound = measured(spec, e)
    parts.append(f"Residual: {residual}   bound: {bound}")
    if e.deviations:
        parts.append(f"Deviations: {', '.join(e.deviations)}")
    return "\n".join([*parts, *(["", e.prose] if e.prose else [])])
