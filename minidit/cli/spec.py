"""`minidit spec`: the coverage of SPEC.md, one equation with its code and its tests, or everything as a book.

Works everywhere: an installed package carries SPEC.md, the tests and the story along. Exit status: 0; 1 if there are problems
(an equation without code or test, a citation of an unknown equation); 2 for an unknown equation, if there is no checkout at
--root, or no library to write the book with.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from minidit.html.sources import Lines
from minidit.html.spec import Chapter, Entry, Spec, measured, missing_from, parse, read
from minidit.keywords import alike

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent  # unless only the package is installed:
LIBRARIES = {"markdown_it": "markdown-it-py", "latex2mathml": "latex2mathml"}  # of the book: import name -> package
SHOWN = 6  # other equations that are named below one
CARRIED = PACKAGE / "html/checkout"  # SPEC.md, tests and story in a wheel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `minidit spec`."""
    parser.add_argument(
        "what", nargs="*", metavar="WHAT",
        help="one equation with its code, its tests and its residual: by its id (D.7), its title, a function (q_sample), or a "
        "topic of minidit verify (ddim_step); else all of a chapter (D), or with some words (noise)",
    )  # fmt: skip
    parser.add_argument("--html", metavar="DIR", type=Path, help="write the book of equations, code and tests as web pages")
    parser.add_argument("--problems", action="store_true", help="print only equations without code or test, and wrong citations")
    parser.add_argument("--root", metavar="DIR", type=Path, help="another checkout than the package's own")


def place(root: Path | None) -> tuple[Path, Path]:
    """(the folder with SPEC.md and tests, that of the package). Raises FileNotFoundError for a root that is no checkout."""
    if root is None and missing_from(CHECKOUT) and (CARRIED / "SPEC.md").exists():
        return CARRIED, PACKAGE
    root = root or (CHECKOUT if not missing_from(CHECKOUT) else Path("."))
    if missing := missing_from(root):
        raise FileNotFoundError(f"needs a checkout of minidit, but there is {missing} (name one with --root DIR)")
    return root, root / "minidit"


def run(args: argparse.Namespace) -> int:
    """Prints or writes what the flags ask for; returns the exit status."""
    try:
        root, package = place(args.root)
    except FileNotFoundError as error:
        print(f"minidit spec: {error}", file=sys.stderr)
        return 2
    if args.what and args.html is None:
        return show(root, package, " ".join(args.what))
    spec = read(root, package=package)
    if args.html is not None:
        return html(spec, args.html)
    from minidit.html.ties import problems

    lines = problems(spec)
    if not args.problems:
        print(coverage(spec))
        print("\ncode: the function that is the equation, and +N other forms; residual: the largest error that tests measured")
        print(f"\n{len(spec.entries)} equations, {len(spec.proofs)} tests, {len(lines)} problems"
              + ("" if spec.residuals else "; no residuals yet (run pytest)"))
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


def show(root: Path, package: Path, wanted: str) -> int:
    """Prints one entry, or the titles of all that may be meant. Reads the files that name it and no others."""
    _, chapters, _ = parse((root / "SPEC.md").read_text(encoding="utf-8"))
    entries = {e.id: e for chapter in chapters for e in chapter.entries}
    if wanted.upper() not in entries and re.fullmatch(r"[MXC]\d+[A-Z]?", wanted.upper()):
        print(f"minidit spec: {as_a_mistake(wanted[:1].upper() + wanted[1:], entries)}", file=sys.stderr)
        return 2
    ids = wanted.upper().split()
    if len(ids) > 1 and all(i in entries for i in ids):
        spec = read(root, package=package)
        print(*(one_entry(spec, spec.entries[i]) for i in ids), sep="\n\n")
        return 0
    meant = matching(wanted, chapters)
    if not meant:
        near = [f"{i} ({entries[i].name})" for i in alike(wanted, entries, 3, 0.7)]
        more = f": did you mean {' or '.join(near)}?" if near else " (minidit spec lists them)"
        print(f"minidit spec: there is no equation {wanted!r}{more}", file=sys.stderr)
        return 2
    if len(meant) > 1:
        print(*(f"{e.id:5s}  {e.name}" for e in meant), sep="\n")
        print(f"\n{len(meant)} equations; minidit spec {meant[0].id} shows one")
        return 0
    spec = read(root, package=package, only=meant[0].id)
    print(one_entry(spec, spec.entries[meant[0].id]))
    around = {e.id: f"{c.title} {c.intro} {e.name} {e.prose} {e.source}" for c in chapters for e in c.entries}
    others = [e for e in entries.values() if e.id != meant[0].id and says(around[e.id], wanted)]
    if others and meant[0].id.lower() != wanted.lower():
        more = f", and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        print(f"\nOthers with these words: {', '.join(f'{e.id} ({e.name})' for e in others[:SHOWN])}{more}")
    return 0


def says(text: str, words: str) -> bool:
    """Whether a text has all the words, singular or plural, or in the genitive; a hyphen is as good as a space."""
    text = text.lower().replace("-", " ")
    return all(word.removesuffix("s") in text for word in bare(words).replace("-", " ").split())


def bare(words: str) -> str:
    """Words in lower case, without a genitive's ending."""
    return re.sub(r"['’]s?\b", "", words.lower())


@functools.cache
def of_topic(word: str) -> set[str]:
    """The equations of a topic of `minidit verify`, by its name or by a name that it has elsewhere."""
    if not re.fullmatch(r"\w*_\w*", word):
        return set()
    from minidit.verify.elsewhere import topics_meant
    from minidit.verify.topics import TOPICS

    topic = word if word in TOPICS else topics_meant([word]).get(word)
    return set(re.findall(r"[A-Z]\.\d+", TOPICS[topic].spec)) if topic else set()


def matching(wanted: str, chapters: Sequence[Chapter]) -> list[Entry]:
    """The equations that somebody may mean: by id, title or function; of a chapter; of a topic of `minidit verify`; with these
    words in title or functions, or else in their text."""
    word = bare(wanted.strip("() ").rpartition("::")[2])
    identifier = re.sub(r"^([a-z])(\d)", r"\1.\2", word)  # d7 is D.7
    entries = [e for chapter in chapters for e in chapter.entries]
    titles = {chapter.letter: chapter.title for chapter in chapters}

    def symbols(e: Entry) -> list[str]:
        return [part.lower() for place in (*e.homes, *e.also) for part in (place.symbol, place.symbol.rpartition(".")[2])]

    readings: list[Callable[[Entry], bool]] = [
        lambda e: e.id.lower() == identifier,
        lambda e: bare(e.name) == word,
        lambda e: word in symbols(e)[: 2 * len(e.homes)],
        lambda e: e.letter.lower() == word,
        lambda e: e.id in of_topic(word),
        lambda e: says(" ".join([e.name, titles[e.letter], *symbols(e)]), word),
        lambda e: len(word) > 2 and says(" ".join([e.name, e.prose]), word),
    ]
    return next((found for reading in readings if (found := [e for e in entries if reading(e)])), [])


def as_a_mistake(identifier: str, entries: dict[str, Entry]) -> str:
    """What to say of M02: where it is explained, and which equations it breaks."""
    broken = [f"{e.id} ({e.name})" for e in entries.values() if identifier in e.deviations]
    return (f"{identifier} is a mistake, not an equation: `minidit verify {identifier}` says what it does"
            + (f"; it is named at {', '.join(broken)}" if broken else ""))


def html(spec: Spec, folder: Path) -> int:
    """Writes the book."""
    from minidit.verify.bank import DEVIATIONS

    absent = [package for module, package in LIBRARIES.items() if importlib.util.find_spec(module) is None]
    if absent:
        print(f"minidit spec: the book needs {' and '.join(absent)}: pip install '.[book]' in a checkout, or pip install "
              + " ".join(absent), file=sys.stderr)
        return 2
    from minidit.html.book import write_book
    from minidit.html.formula import FormulaError
    from minidit.html.mistakes import Mistake

    mistakes = [Mistake(d.id, d.name, d.spec, d.wrong, d.right, d.seen) for d in DEVIATIONS.values()]
    try:
        pages = write_book(spec, folder, mistakes)
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
