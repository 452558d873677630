"""SPEC.md and what is tied to it: equation -> line of code -> test, read from the text of a checkout, and checked.

An entry has one form:

    ### X.n — name
    $$ … $$                                              one equation or more
    Source: paper, equation
    Code: `file.py::symbol` [, `twin.py::symbol`] [· Also: `other.py::form`] [· Deviations: M02, …]
    prose: limits of validity, symbols

The code of an entry is its home: there a citation (X.n) stands, and on no other line that does the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from minidit.html.sources import CITATION, EQUATION_ID, Citation, Lines, Proof, Source, ids_in, read_source, read_tests

CHAPTER = re.compile(r"#{1,2} (?:Chapter )?([A-Z0])\s*[—–:.-]\s*(\S.*)")
HEADING = re.compile(r"### ([A-Z])\.([1-9]\d*) — (\S.*)")
FIELD = re.compile(r"(?:^|\s·\s)(Source|Code|Also|Deviations):\s*")
PLACE = re.compile(r"`([^`:\s]+)::([^`:\s]+)`")
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
CODE = (".py", ".cu", ".cuh")
MAY_REPEAT = ("minidit/kernels/", "minidit/verify/deviations.py")  # fast twins, and equations that are wrong on purpose


@dataclass(frozen=True)
class Place:
    """A symbol in a file; the path is relative to the package."""

    path: str
    symbol: str

    def __str__(self) -> str:
        return f"{self.path}::{self.symbol}"


@dataclass(frozen=True)
class Entry:
    """One equation of SPEC.md, and the line where its heading stands."""

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
    """A letter, a title, the text before the first entry, the entries."""

    letter: str
    title: str
    intro: str = ""
    entries: list[Entry] = field(default_factory=list)


@dataclass
class Spec:
    """A checkout, read: chapters and entries, the package's sources, the tests, the residuals they measured."""

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
        found: dict[str, Entry] = {}
        for chapter in self.chapters:
            for entry in chapter.entries:
                found.setdefault(entry.id, entry)
        return found

    def proofs_of(self, entry: Entry) -> list[Proof]:
        return [p for p in self.proofs if entry.id in p.ids]

    def spans(self, place: Place) -> list[Lines]:
        """Where a symbol stands; nothing if it does not exist."""
        source = self.sources.get(f"minidit/{place.path}")
        return source.span(place.symbol) if source else []

    def unicode_of(self, entry: Entry) -> str:
        """The equation as a module docstring writes it, the home's own first; "" if none does."""
        homes = [s for p in entry.homes if (s := self.sources.get(f"minidit/{p.path}"))]
        for source in [*homes, *self.sources.values()]:
            for line in source.docstring.splitlines():
                if f"({entry.id})" in line:
                    plain = re.sub(r"\s+(?=[=≈∝←<]|->)", " ", CITATION.sub("", line).strip())  # columns were aligned there
                    return re.sub(r"\s{2,}", "    ", plain)
        return ""


# ------------------------------------------------------------------------------------------------ reading SPEC.md


def places_in(text: str) -> tuple[Place, ...]:
    return tuple(Place(*match) for match in PLACE.findall(text))


def fields_of(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """(field -> value, the lines that are none). A field runs on over lines until another field or an empty line."""
    fields: dict[str, str] = {}
    rest: list[str] = []
    current = ""
    for line in lines:
        parts = FIELD.split(line)
        if len(parts) == 1 or parts[0].strip():  # no field begins on this line
            runs_on = current == "Source" or (current and fields[current].endswith((",", "·")))
            if runs_on and line.strip() and not line.lstrip().startswith("$$"):
                fields[current] += " " + line.strip()
            else:
                current = ""
                rest.append(line)
            continue
        for current, value in zip(parts[1::2], parts[2::2], strict=True):
            fields[current] = value.strip()
    return fields, rest


def entry_of(letter: str, number: str, name: str, line: int, body: list[str]) -> Entry:
    """An entry from its heading and the lines below it: the equations are those that stand before the first field."""
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
    """(line, heading, lines below it) for each `#`, `##` or `###` heading; code fences are passed over."""
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
    """SPEC.md -> (preface, chapters, what is malformed, a readable line each)."""
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
    """Why the folder is no checkout, in a few words; "" if it is one."""
    missing = [name for name in ("SPEC.md", "tests", "minidit") if not (root / name).exists()]
    return f"no {' and no '.join(missing)} in {root}" if missing else ""


def read(root: Path) -> Spec:
    """Reads SPEC.md, minidit/ and tests/ below the root, and build/residuals.json if a test session has left one."""
    preface, chapters, malformed = parse((root / "SPEC.md").read_text(encoding="utf-8"))
    spec = Spec(root, preface, chapters, {}, [], [], {}, {}, malformed)
    for path in sorted(p for p in (root / "minidit").rglob("*") if p.suffix in CODE):
        try:
            source = read_source(root, path)
            spec.sources[source.path] = source
        except SyntaxError as error:
            malformed.append(f"{path.relative_to(root)}:{error.lineno}: is not Python: {error.msg}")
    for path in sorted((root / "tests").rglob("*.py")):
        try:
            proofs, recorded, text = read_tests(root, path)
        except SyntaxError as error:
            malformed.append(f"{path.relative_to(root)}:{error.lineno}: is not Python: {error.msg}")
            continue
        spec.proofs += proofs
        spec.recorded += recorded
        spec.texts[path.relative_to(root).as_posix()] = text
    measured = root / "build" / "residuals.json"
    if measured.exists():
        spec.residuals = json.loads(measured.read_text(encoding="utf-8"))
    return spec


# ------------------------------------------------------------------------------------------------ checking


def wrong_order(spec: Spec) -> Iterator[str]:
    """Ids are unique, go up within a chapter, and carry its letter."""
    seen: dict[str, int] = {}
    for chapter in spec.chapters:
        last = 0
        for e in chapter.entries:
            if e.id in seen:
                yield f"SPEC.md:{e.line}: {e.id} is defined twice, first in line {seen[e.id]}"
            elif e.letter != chapter.letter:
                yield f"SPEC.md:{e.line}: {e.id} stands in chapter {chapter.letter}"
            elif e.number < last:
                yield f"SPEC.md:{e.line}: {e.id} stands after {e.letter}.{last}; ids go up within a chapter"
            seen.setdefault(e.id, e.line)
            last = max(last, e.number)


def incomplete(spec: Spec) -> Iterator[str]:
    """Every entry has its equation, its source, code that exists and cites it, and a test."""
    for e in spec.entries.values():
        here = f"SPEC.md:{e.line}: {e.id} ({e.name})"
        if not e.equations:
            yield f"{here} has no $$ equation $$ above its fields"
        if not e.source:
            yield f"{here} has no `Source:` line"
        if not e.homes:
            yield f"{here} has no code: no line 'Code: `file.py::symbol`'"
        if not spec.proofs_of(e):
            yield f"{here} has no test: none is marked @spec(\"{e.id}\")"
        for place in (*e.homes, *e.also):
            if not spec.spans(place):
                what = "symbol" if f"minidit/{place.path}" in spec.sources else "file"
                yield f"{here} names {place}, but there is no such {what}"
            elif place in e.homes and not cites(spec, place, e.id):
                yield f"{here} names {place}, but that does not cite ({e.id})"


def cites(spec: Spec, place: Place, equation: str) -> bool:
    """Whether the symbol's own lines, or the whole file if it is not Python, mention the equation."""
    source = spec.sources[f"minidit/{place.path}"]
    lines = [c.line for c in source.citations if c.id == equation]
    if not place.path.endswith(".py"):
        return bool(lines)
    return any(line in span for span in spec.spans(place) for line in lines)


def cited_in_vain(spec: Spec) -> Iterator[str]:
    """Nothing cites an equation that is not in SPEC.md."""
    known = spec.entries
    for e in known.values():
        for i, _ in ids_in(e.prose):
            if i not in known:
                yield f"SPEC.md:{e.line}: {e.id} ({e.name}) mentions ({i}), which is no equation of SPEC.md"
    for source in spec.sources.values():
        for c in source.citations:
            if c.id not in known:
                yield f"{c.path}:{c.line}: cites ({c.id}), which is no equation of SPEC.md"
    for p in spec.proofs:
        for i in p.ids:
            if i not in known:
                yield f"{p.path}:{p.lines.first}: {p.name} is marked with {i!r}, which is no equation of SPEC.md"
    for c in spec.recorded:
        if c.id not in known:
            yield f"{c.path}:{c.line}: records a residual of {c.id!r}, which is no equation of SPEC.md"


def second_homes(spec: Spec) -> Iterator[str]:
    """A trailing comment (X.n) says "this line does it"; only the entry's own code may say so."""
    known = spec.entries
    for source in spec.sources.values():
        for c in source.citations:
            if not c.on_code or c.id not in known or c.path.startswith(MAY_REPEAT):
                continue
            e = known[c.id]
            own = [p for p in (*e.homes, *e.also) if f"minidit/{p.path}" == c.path]
            if not any(c.line in span for p in own for span in spec.spans(p)):
                home = ", ".join(map(str, e.homes)) or "not named"
                yield (f"{c.path}:{c.line}: does {c.id} outside its home ({home}); call that, or name this place in the entry's "
                       "`Also:` line if a test proves the two equal")


CHECKS: tuple[Callable[[Spec], Iterable[str]], ...] = (wrong_order, incomplete, cited_in_vain, second_homes)


def problems(spec: Spec) -> list[str]:
    """Everything that is untied, one readable line each; empty when each equation has its code and its test."""
    return [*spec.malformed, *(line for check in CHECKS for line in check(spec))]


def measured(spec: Spec, entry: Entry) -> tuple[str, str]:
    """(worst residual, bound) of the last test session as text, "–" where no test recorded one."""
    r = spec.residuals.get(entry.id)
    return (f"{r['residual']:.1e}" if r["residual"] else "0", f"{r['bound']:.0e}" if r["bound"] else "0") if r else ("–", "–")
