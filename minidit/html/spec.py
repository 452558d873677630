"""Reads SPEC.md and what is tied to it from the text of a checkout: equation -> line of code -> test.

An entry has one form:

    ### X.n — name
    $$ … $$                                              one or more equations
    Source: paper, equation
    Code: `file.py::symbol` [, `twin.py::symbol`] [· Also: `other.py::form`] [· Deviations: M02, …]
    prose: limits of validity, symbols

The code of an entry is its home: a citation (X.n) marks the line that computes it, and no other line may compute the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from minidit.html.sources import CITATION, EQUATION_ID, Citation, Lines, Proof, Source, read_source, read_tests

CHAPTER = re.compile(r"#{1,2} (?:Chapter )?([A-Z0])\s*[—–:.-]\s*(\S.*)")
HEADING = re.compile(r"### ([A-Z])\.([1-9]\d*) — (\S.*)")
FIELD = re.compile(r"(?:^|\s·\s)(Source|Code|Also|Deviations):\s*")
PLACE = re.compile(r"`([^`:\s]+)::([^`:\s]+)`")
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
CODE = (".py", ".cu", ".cuh")


@dataclass(frozen=True)
class Place:
    """A symbol in a file; the path is relative to the package."""

    path: str
    symbol: str

    def __str__(self) -> str:
        return f"{self.path}::{self.symbol}"


@dataclass(frozen=True)
class Entry:
    """One equation of SPEC.md; line: of its heading."""

    id: str
    name: str
    line: int
    equations: tuple[str, ...]
    source: str
    homes: tuple[Place, ...]
    also: tuple[Place, ...]
    deviations: tuple[str, ...]
    prose: str

    @property
    def letter(self) -> str:
        return self.id[0]

    @property
    def number(self) -> int:
        return int(self.id[2:])


@dataclass
class Chapter:
    """A chapter of SPEC.md; intro: the text before its first entry."""

    letter: str
    title: str
    intro: str = ""
    entries: list[Entry] = field(default_factory=list)


@dataclass
class Spec:
    """Everything read from a checkout: chapters, the package's sources, the tests and the residuals they measured."""

    root: Path
    preface: str
    chapters: list[Chapter]
    sources: dict[str, Source]
    proofs: list[Proof]
    recorded: list[Citation]
    texts: dict[str, str]
    residuals: dict[str, dict[str, float]]
    malformed: list[str]

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """id -> entry in reading order; of two with one id, the first."""
        entries: dict[str, Entry] = {}
        for chapter in self.chapters:
            for entry in chapter.entries:
                entries.setdefault(entry.id, entry)
        return entries

    def proofs_of(self, entry: Entry) -> list[Proof]:
        return [p for p in self.proofs if entry.id in p.ids]

    def spans(self, place: Place) -> list[Lines]:
        """The lines of a symbol; empty if it does not exist."""
        source = self.sources.get(f"minidit/{place.path}")
        return source.span(place.symbol) if source else []

    def hits(self, entry: Entry) -> list[tuple[str, int]]:
        """(file, line) of the lines of the entry's homes that compute it; those of docstrings if there are no others."""
        found = list[tuple[str, int, bool]]()
        for place in entry.homes:
            source, spans = self.sources.get(f"minidit/{place.path}"), self.spans(place)
            cited = [c for c in (source.citations if source else ()) if c.id == entry.id and any(c.line in s for s in spans)]
            found += [(c.path, c.line, c.on_code) for c in cited]
        return [(path, line) for path, line, on_code in found if on_code] or [(path, line) for path, line, _ in found]

    def unicode_of(self, entry: Entry) -> str:
        """The equation as a module docstring writes it, that of the home first; "" if none does."""
        homes = [s for p in entry.homes if (s := self.sources.get(f"minidit/{p.path}"))]
        for source in [*homes, *self.sources.values()]:
            for line in source.docstring.splitlines():
                if f"({entry.id})" in line:
                    plain = re.sub(r"\s+(?=[=≈∝←<]|->)", " ", CITATION.sub("", line).strip())  # undo the alignment of columns
                    return re.sub(r"\s{2,}", "    ", plain)
        return ""


# ------------------------------------------------------------------------------------------------ reading SPEC.md


def places_in(text: str) -> tuple[Place, ...]:
    return tuple(Place(*match) for match in PLACE.findall(text))


def fields_of(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """(field -> value, the other lines). A field continues over lines until another field or an empty line."""
    fields: dict[str, str] = {}
    rest: list[str] = []
    current = ""
    for line in lines:
        parts = FIELD.split(line)
        if len(parts) == 1 or parts[0].strip():  # no field begins on this line
            continues = current == "Source" or (current and fields[current].endswith((",", "·")))
            if continues and line.strip() and not line.lstrip().startswith("$$"):
                fields[current] += " " + line.strip()
            else:
                current = ""
                rest.append(line)
            continue
        for current, value in zip(parts[1::2], parts[2::2], strict=True):
            fields[current] = value.strip()
    return fields, rest


def entry_of(letter: str, number: str, name: str, line: int, body: list[str]) -> Entry:
    """An entry from its heading and the lines below it. Its equations are those before the first field."""
    first = next((i for i, text in enumerate(body) if FIELD.match(text)), len(body))
    head = "\n".join(body[:first])
    fields, rest = fields_of(body[first:])
    prose = DISPLAY.sub("", head).strip() + "\n\n" + "\n".join(rest).strip()
    return Entry(
        id=f"{letter}.{number}", name=name.strip(), line=line,
        equations=tuple(m.strip() for m in DISPLAY.findall(head)),
        source=fields.get("Source", ""),
        homes=places_in(fields.get("Code", "")), also=places_in(fields.get("Also", "")),
        deviations=tuple(re.findall(r"\bM\d+\w*", fields.get("Deviations", ""))),
        prose=prose.strip(),
    )


def blocks_of(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """(line, heading, lines below it) for each `#`, `##` or `###` heading outside code fences."""
    line, heading, body, fenced = 1, "", list[str](), False
    for n, row in enumerate(text.splitlines(), 1):
        fenced ^= row.startswith("```")
        if not fenced and re.match(r"#{1,3} ", row):
            yield line, heading, body
            line, heading, body = n, row, []
        else:
            body.append(row)
    yield line, heading, body


def parse(text: str) -> tuple[str, list[Chapter], list[str]]:
    """SPEC.md -> (preface, chapters, one readable line per malformed heading)."""
    preface: list[str] = []
    chapters: list[Chapter] = []
    malformed: list[str] = []
    for line, heading, body in blocks_of(text):
        chapter = chapters[-1] if chapters else None
        entry = HEADING.fullmatch(heading)
        if new := CHAPTER.fullmatch(heading):
            chapters.append(Chapter(new[1], new[2].strip(), "\n".join(body).strip()))
        elif entry and chapter:
            chapter.entries.append(entry_of(entry[1], entry[2], entry[3], line, body))
        elif chapter is None:
            preface += [heading, *body]
        elif chapter.letter == "0" and not EQUATION_ID.search(heading):
            chapter.intro += "\n\n" + "\n".join([heading, *body]).strip()
        else:
            malformed.append(f"SPEC.md:{line}: cannot read the heading {heading!r}; an entry is '### {chapter.letter}.7 — name'")
    return "\n".join(preface).strip(), chapters, malformed


# ------------------------------------------------------------------------------------------------ reading a checkout


def missing_from(root: Path) -> str:
    """What the folder lacks to be a checkout, in a few words; "" if it is one."""
    missing = [name for name in ("SPEC.md", "tests", "minidit") if not (root / name).exists()]
    return f"no {' and no '.join(missing)} in {root}" if missing else ""


def files_of(folder: Path, endings: tuple[str, ...], only: str) -> Iterator[Path]:
    """The files with one of these endings; with `only`, those in which this equation is named at all.

    What a wheel carries along below the package, html/checkout, is no code of the package.
    """
    named = re.compile(rf"{re.escape(only)}(?!\d)".encode()) if only else None
    for path in sorted(p for p in folder.rglob("*") if p.suffix in endings):
        if "checkout" not in path.relative_to(folder).parts and (named is None or named.search(path.read_bytes())):
            yield path


def read(root: Path, *, package: Path | None = None, only: str = "") -> Spec:
    """Reads SPEC.md, the package and the tests, and the residuals that came with the package or with a later test session.

    package : of the code, if that is not minidit/ below the root.   only : an equation; whatever does not name it is not read.
    """
    package = package or root / "minidit"
    preface, chapters, malformed = parse((root / "SPEC.md").read_text(encoding="utf-8"))
    spec = Spec(root, preface, chapters, {}, [], [], {}, {}, malformed)
    for path in files_of(package, CODE, only):
        try:
            source = read_source(package.parent, path)
            spec.sources[source.path] = source
        except SyntaxError as error:
            malformed.append(f"{path.relative_to(package.parent)}:{error.lineno}: is not Python: {error.msg}")
    for path in files_of(root / "tests", (".py",), only):
        try:
            proofs, recorded, text = read_tests(root, path)
        except SyntaxError as error:
            malformed.append(f"{path.relative_to(root)}:{error.lineno}: is not Python: {error.msg}")
            continue
        spec.proofs += proofs
        spec.recorded += recorded
        spec.texts[path.relative_to(root).as_posix()] = text
    for residuals in (package / "html/residuals.json", root / "build/residuals.json"):
        if residuals.exists():
            spec.residuals |= json.loads(residuals.read_text(encoding="utf-8"))
    return spec


def measured(spec: Spec, entry: Entry) -> tuple[str, str]:
    """(worst residual, bound) of the last test session as text, "–" where no test recorded one."""
    r = spec.residuals.get(entry.id)
    return (f"{r['residual']:.1e}" if r["residual"] else "0", f"{r['bound']:.0e}" if r["bound"] else "0") if r else ("–", "–")
