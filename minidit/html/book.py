"""The book of SPEC.md as web pages: each equation beside the code that computes it and the tests that prove it.

There is one page per chapter, an index with coverage and search, and a page of files; beside the step of all samplers (P.4) there
is its moving picture. Every page is self-contained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from minidit.html.formula import FormulaError, displayed
from minidit.html.line import line_page, walks
from minidit.html.line import script as drawing
from minidit.html.page import beside, document, escape, section, table
from minidit.html.prose import Segment, coloured, inline, markdown, segments
from minidit.html.sources import EQUATION_ID, Lines, Proof
from minidit.html.spec import Chapter, Entry, Place, Spec, measured
from minidit.outgoing import check_writable, write_text

LONG = 46  # lines; a longer symbol shows its cited lines first, and the rest on demand
WIDE = 46  # characters; a longer formula is placed above text and code instead of beside the code
LINE = "P.4"  # the step of all samplers, which has a moving picture
AROUND = 5  # lines shown around a cited line of a long symbol


def address(equation: str) -> str:
    return f"{equation[0]}.html#{equation}"


def links_to(equations: list[str]) -> str:
    return ", ".join(f'<a href="{address(i)}">{i}</a>' for i in equations)


def file_anchor(path: str) -> str:
    return f"code.html#{path}"


@dataclass
class Book:
    """What every page needs: the spec, the coloured text of each file, and which entries mention which."""

    spec: Spec
    lines: dict[str, list[list[Segment]]] = field(default_factory=dict)

    def link(self, equation: str) -> str:
        return address(equation) if equation in self.spec.entries else ""

    def coloured_lines(self, path: str) -> list[list[Segment]]:
        """A file of the package or of the tests as coloured segments, made once."""
        if path not in self.lines:
            text = self.spec.texts.get(path) or self.spec.sources[path].text
            self.lines[path] = segments(text, path.endswith(".py"))
        return self.lines[path]

    def mentions(self, entry: Entry) -> list[str]:
        """The equations that an entry's prose names."""
        known = self.spec.entries
        ids = dict.fromkeys(EQUATION_ID.findall(entry.prose))
        return [i for i in ids if i in known and i != entry.id]

    def mentioned_by(self, entry: Entry) -> list[str]:
        return [e.id for e in self.spec.entries.values() if entry.id in self.mentions(e)]


# ------------------------------------------------------------------------------------------------ code


def rows_of(book: Book, path: str, lines: Lines, hits: set[int]) -> str:
    """Lines of a file as numbered HTML; those in `hits` are highlighted."""
    rows = book.coloured_lines(path)[lines.first - 1 : lines.last]
    texts = ["".join(t for _, t in row) for row in rows]
    indent = min((len(t) - len(t.lstrip(" ")) for t in texts if t.strip()), default=0)
    return "".join(f'<span class="l{" hit" if n in hits else ""}" data-n="{n}">{coloured(row, indent, book.link)}\n</span>'
                   for n, row in enumerate(rows, lines.first))


def excerpt(book: Book, path: str, lines: Lines, hits: set[int]) -> str:
    """A short symbol whole; of a long one the cited lines with some around them, and all of it in a <details>."""
    if lines.last - lines.first < LONG or not hits:
        return f"<pre tabindex=0><code>{rows_of(book, path, lines, hits)}</code></pre>"
    parts: list[Lines] = []
    for n in sorted(hits):
        near = Lines(max(lines.first, n - AROUND), min(lines.last, n + AROUND))
        if parts and near.first <= parts[-1].last + 3:
            near = Lines(parts.pop().first, near.last)
        parts.append(near)
    excerpts = '<span class="gap">⋮</span>'.join(rows_of(book, path, p, hits) for p in parts)
    return (f"<pre tabindex=0><code>{excerpts}</code></pre><details><summary>all {lines.last - lines.first + 1} lines</summary>"
            f"<pre tabindex=0><code>{rows_of(book, path, lines, hits)}</code></pre></details>")


def code_box(book: Book, place: Place, equation: str) -> str:
    """The source of a symbol; the lines that compute the equation are highlighted."""
    path = f"minidit/{place.path}"
    source = book.spec.sources.get(path)
    citations = [c for c in source.citations if c.id == equation] if source else []
    boxes = ""
    for span in book.spec.spans(place):
        inside = [c for c in citations if c.line in span]
        hits = [c for c in inside if c.on_code] or inside  # without a trailing comment, the lines of docstring that cite it
        boxes += excerpt(book, path, span, {c.line for c in hits})
    name = f'<a href="{escape(file_anchor(path))}">{escape(path)}</a> :: <b>{escape(place.symbol)}</b>'
    return f'<div class="source"><header>{name}</header>{boxes}</div>'


def test_box(book: Book, proof: Proof) -> str:
    words = proof.name.removeprefix("test_").replace("_", " ")
    where = f'<a href="{escape(file_anchor(proof.path))}">{escape(proof.path)}</a>:{proof.lines.first}'
    return (f'<details class="source"><summary>{escape(words)}</summary><header>{where}</header>'
            f"<pre tabindex=0><code>{rows_of(book, proof.path, proof.lines, set())}</code></pre></details>")


# ------------------------------------------------------------------------------------------------ an entry


def residual_chip(book: Book, entry: Entry) -> str:
    residual, bound = measured(book.spec, entry)
    if bound == "–":
        return ""
    r = book.spec.residuals[entry.id]
    good = "good" if r["residual"] <= r["bound"] else "bad"
    return f'<span class="chip {good}" title="worst residual that the tests measured, and its bound">{residual} ≤ {bound}</span>'


def facts(book: Book, e: Entry) -> str:
    """A short list of the source, other forms, known mistakes and related equations."""
    rows = [("Source", inline(e.source, lambda _: ""))]
    rows += [("Also", ", ".join(f"<code>{escape(p)}</code>" for p in e.also))]
    rows += [("Known mistakes", ", ".join(map(escape, e.deviations)))]
    rows += [("See", links_to(book.mentions(e))), ("Named by", links_to(book.mentioned_by(e)))]
    return '<ul class="facts">' + "".join(f"<li><b>{k}</b> {v}</li>" for k, v in rows if v) + "</ul>"


def entry_html(book: Book, e: Entry, before: Entry | None, after: Entry | None) -> str:
    """One equation with its code beside it and its tests below the code."""
    proofs = book.spec.proofs_of(e)
    letters = book.spec.unicode_of(e)
    steps = [f'<a href="{address(n.id)}" rel="{rel}" title="{escape(n.name)}">{mark}</a>'
             for n, rel, mark in ((before, "prev", f"← {before and before.id}"), (after, "next", f"{after and after.id} →")) if n]
    plain = f'<p class="letters" tabindex="0" title="as the code writes it">{escape(letters)}</p>' if letters else ""
    formulas = "".join(f'<div class="equation" tabindex="0">{equation(e, tex)}</div>' for tex in e.equations)
    wide = max((length(math) for tex in e.equations for math in equation(e, tex).split("</math>")), default=0) > WIDE
    text_column = ["" if wide else formulas, plain, markdown(e.prose, book.link), facts(book, e)]
    code_column = [*(code_box(book, place, e.id) for place in e.homes),
             f"<h3>{len(proofs)} test{'s' * (len(proofs) != 1)}</h3>", *(test_box(book, p) for p in proofs)]
    return (f'<article id="{e.id}"><header><h2><a href="#{e.id}"><span class="id">{e.id}</span></a> {escape(e.name)}</h2>'
            f'{residual_chip(book, e)}<span class="steps">{"".join(steps)}</span></header>'
            f'{formulas if wide else ""}<div class="pair"><div>{"".join(text_column)}</div>'
            f'<div class="tests">{"".join(code_column)}</div></div></article>')


def length(formula: str) -> int:
    """About how many characters wide a formula is; a space of one em counts as two."""
    spaces = sum(float(em) for em in re.findall(r'<mspace width="([\d.]+)em"', formula))
    return len(re.sub(r"<[^>]*>", "", formula)) + round(2 * spaces)


def equation(e: Entry, tex: str) -> str:
    """The MathML of an entry's equation, one <math> per piece. Raises FormulaError, which names the entry."""
    try:
        return displayed(tex)
    except FormulaError as error:
        raise FormulaError(f"SPEC.md:{e.line}: {e.id}: {error}") from error


# ------------------------------------------------------------------------------------------------ pages


def top(book: Book, current: str) -> str:
    """The bar above every page: chapters and search."""
    def item(name: str, title: str) -> str:
        mark = " aria-current=page" if name == current else ""
        return f'<li><a href="{name}.html" title="{escape(title)}"{mark}>{name}</a></li>'

    items = "".join(item(c.letter, c.title) for c in book.spec.chapters) + item("code", "files and tests")
    if LINE in book.spec.entries:
        items = item("line", "one line, five samplers") + items
    return (f'<nav class="top"><div><a class="home" href="index.html">minidit SPEC</a><ul>{items}</ul>'
            '<div class="search" role="search"><input type="search" placeholder="Search   /" aria-label="Search the equations" '
            'autocomplete="off" spellcheck="false"><ol></ol></div></div></nav>')


def search_index(book: Book) -> str:
    """The entries as JSON for the search, safe inside a <script>."""
    rows = [{"id": e.id, "name": e.name, "url": address(e.id), "code": str(e.homes[0]) if e.homes else "",
             "text": " ".join([e.source, *map(str, e.homes), *e.deviations, book.spec.unicode_of(e), *e.equations,
                               *(p.name.replace("_", " ") for p in book.spec.proofs_of(e))]).lower()}
            for e in book.spec.entries.values()]
    return json.dumps(rows, ensure_ascii=False).replace("<", "\\u003c")


def contents(entries: list[Entry]) -> str:
    return '<ul class="toc">' + "".join(f'<li><a href="{address(e.id)}"><b>{e.id}</b><span>{escape(e.name)}</span></a></li>'
                                        for e in entries) + "</ul>"


def chapter_page(book: Book, chapter: Chapter) -> str:
    """A chapter: its introduction, its contents, its entries."""
    every = list(book.spec.entries.values())
    entries = [e for e in every if e in chapter.entries]
    letter = f'<span class="id">{chapter.letter}</span> ' if entries else ""
    parts = [f"<h1>{letter}{escape(chapter.title)}</h1>",
             f'<div class="intro">{markdown(chapter.intro, book.link)}</div>', contents(entries) if entries else ""]
    for e in entries:
        i = every.index(e)
        parts.append(entry_html(book, e, every[i - 1] if i else None, every[i + 1] if i + 1 < len(every) else None))
    return "\n".join(parts)


def coverage_row(spec: Spec, e: Entry) -> list[str]:
    code = "<br>".join(f"<code>{escape(p)}</code>" for p in e.homes)
    return [f'<a href="{address(e.id)}"><span class="id">{e.id}</span></a>', f'<a href="{address(e.id)}">{escape(e.name)}</a>',
            code, str(len(spec.proofs_of(e))), *measured(spec, e)]


def index_page(book: Book) -> str:
    """The preface and the coverage: every equation with its code, its tests, its residual."""
    spec = book.spec
    heading, _, preface = spec.preface.partition("\n")
    tests = len({(p.path, p.name) for e in spec.entries.values() for p in spec.proofs_of(e)})
    parts = [f"<h1>{escape(heading.lstrip('# '))}</h1>", markdown(preface, book.link),
             f'<p class="muted">{len(spec.entries)} equations, {tests} tests that prove them.</p>',
             '<p><a href="line.html">One line, five samplers</a>: DDPM, DDIM, rectified flow, EDM and consistency, moving.</p>'
             if LINE in spec.entries else ""]
    for chapter in spec.chapters:
        rows = [coverage_row(spec, e) for e in chapter.entries]
        head = ("id", "equation", "code", "tests", "residual", "bound")
        body = table(head, rows, numbers=(3, 4, 5), label=f"Coverage of chapter {chapter.letter}") if rows else ""
        more = f'<p><a href="{chapter.letter}.html">Read this chapter</a></p>'
        parts.append(section(f"chapter-{chapter.letter}", f"{chapter.letter} · {chapter.title}", more, body))
    return "\n".join(parts)


def code_page(book: Book) -> str:
    """The reverse index: from a file of the package or of the tests to its equations."""
    spec = book.spec
    homes = [(f"minidit/{p.path}", p.symbol, [e.id]) for e in spec.entries.values() for p in (*e.homes, *e.also)]
    proofs = [(p.path, p.name, [i for i in p.ids if i in spec.entries]) for p in spec.proofs]
    parts = ["<h1>Files and their equations</h1>"]
    for title, kind, places in (("Code", "symbol", homes), ("Tests", "test", proofs)):
        inner = []
        for path in sorted({f for f, _, _ in places}):
            symbols: dict[str, list[str]] = {}
            for file, symbol, ids in places:
                if file == path:
                    symbols.setdefault(symbol, []).extend(ids)
            rows = [[f"<code>{escape(s)}</code>", links_to(ids)] for s, ids in symbols.items()]
            inner.append(f'<h3 id="{escape(path)}">{escape(path)}</h3>' + table((kind, "equations"), rows, label=path))
        parts.append(section(title.lower(), title, *inner))
    return "\n".join(parts)


def pages(spec: Spec) -> Iterator[tuple[str, str]]:
    """(file name, HTML) of each page of the book."""
    book = Book(spec)
    css, script = beside("book.css"), f"const INDEX = {search_index(book)};\n{beside('book.js')}"

    def page(name: str, title: str, body: str, more: str = "") -> tuple[str, str]:
        return f"{name}.html", document(title, f"{top(book, name)}\n<main>\n{body}\n</main>", css=css, script=script + more)

    yield page("index", "minidit SPEC: the equations, their code, their proof", index_page(book))
    if LINE in spec.entries:
        frames, rows = walks()
        more = f"\n{drawing(frames)}\n{beside('line.js')}"
        yield page("line", "One line, five samplers · minidit SPEC", line_page(book.link, rows), more)
    for chapter in spec.chapters:
        yield page(chapter.letter, f"{chapter.letter} {chapter.title} · minidit SPEC", chapter_page(book, chapter))
    yield page("code", "Files and their equations · minidit SPEC", code_page(book))


def write_book(spec: Spec, folder: Path) -> list[Path]:
    """Writes the book into a folder and returns its pages, the index first.

    Raises ModuleNotFoundError without latex2mathml, FormulaError for LaTeX that it cannot read.
    """
    check_writable(folder / "index.html")
    contents_of = dict(pages(spec))  # all of them before the first is written
    for name, text in contents_of.items():
        write_text(folder / name, text)
    return [folder / name for name in contents_of]
