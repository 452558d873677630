"""Checks that every equation of SPEC.md is tied to its code and to a test, and that every citation is of such an equation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from minidit.html.sources import ids_in
from minidit.html.spec import Place, Spec

TWINS = "minidit/kernels/"  # may compute an equation again: tests hold each against its home


def wrong_order(spec: Spec) -> Iterator[str]:
    """Ids are unique, increase within a chapter, and carry its letter."""
    line_of: dict[str, int] = {}
    for chapter in spec.chapters:
        last = 0
        for e in chapter.entries:
            if e.id in line_of:
                yield f"SPEC.md:{e.line}: {e.id} is defined twice, first in line {line_of[e.id]}"
            elif e.letter != chapter.letter:
                yield f"SPEC.md:{e.line}: {e.id} stands in chapter {chapter.letter}"
            elif e.number < last:
                yield f"SPEC.md:{e.line}: {e.id} stands after {e.letter}.{last}; ids increase within a chapter"
            line_of.setdefault(e.id, e.line)
            last = max(last, e.number)


def incomplete(spec: Spec) -> Iterator[str]:
    """Every entry has its equation, its source, code that exists and cites it, and a test."""
    for e in spec.entries.values():
        entry = f"SPEC.md:{e.line}: {e.id} ({e.name})"
        if not e.equations:
            yield f"{entry} has no $$ equation $$ above its fields"
        if not e.source:
            yield f"{entry} has no `Source:` line"
        if not e.homes:
            yield f"{entry} has no code: no line 'Code: `file.py::symbol`'"
        if not spec.proofs_of(e):
            yield f"{entry} has no test: none is marked @spec(\"{e.id}\")"
        for place in (*e.homes, *e.also):
            if not spec.spans(place):
                missing = "symbol" if f"minidit/{place.path}" in spec.sources else "file"
                yield f"{entry} names {place}, but there is no such {missing}"
            elif place in e.homes and not cites(spec, place, e.id):
                yield f"{entry} names {place}, but that does not cite ({e.id})"


def cites(spec: Spec, place: Place, equation: str) -> bool:
    """Whether the lines of the symbol, or the whole file if it is not Python, cite the equation."""
    source = spec.sources[f"minidit/{place.path}"]
    lines = [c.line for c in source.citations if c.id == equation]
    if not place.path.endswith(".py"):
        return bool(lines)
    return any(line in span for span in spec.spans(place) for line in lines)


def cited_but_unknown(spec: Spec) -> Iterator[str]:
    """Every citation, mark and recorded residual is of an equation in SPEC.md."""
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
    """A trailing comment (X.n) says "this line computes it"; only the code that the entry names may say so."""
    known = spec.entries
    for source in spec.sources.values():
        for c in source.citations:
            if not c.on_code or c.id not in known or c.path.startswith(TWINS):
                continue
            e = known[c.id]
            places = [p for p in (*e.homes, *e.also) if f"minidit/{p.path}" == c.path]
            if not any(c.line in span for p in places for span in spec.spans(p)):
                home = ", ".join(map(str, e.homes)) or "not named"
                yield (f"{c.path}:{c.line}: computes {c.id} outside its home ({home}); call that, or name this place in the "
                       "entry's `Also:` line if a test proves the two equal")


CHECKS: tuple[Callable[[Spec], Iterable[str]], ...] = (wrong_order, incomplete, cited_but_unknown, second_homes)


def problems(spec: Spec) -> list[str]:
    """One readable line per problem; empty when every equation has its code and its test."""
    return [*spec.malformed, *(line for check in CHECKS for line in check(spec))]
