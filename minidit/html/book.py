"""The book of SPEC.md as web pages: the story, and each equation beside the code that computes it and the tests that prove it.

There are the chapters of the story, one page per chapter of SPEC.md, an index with coverage and search, the known mistakes, and a
page of files; beside the step of all samplers (P.4) there is its moving picture. Every page is self-contained.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from minidit.backend import Array
from minidit.data import fashion
from minidit.html import moving, story
from minidit.html.chapters import chapters
from minidit.html.entry import Book, address, entry_html, links_to
from minidit.html.line import line_page, walks
from minidit.html.line import script as drawing
from minidit.html.markup import markdown
from minidit.html.mistakes import Mistake, cards
from minidit.html.page import beside, document, escape, section, table
from minidit.html.spec import Chapter, Entry, Spec, measured
from minidit.outgoing import check_writable, write_text

LINE = "P.4"  # the step of all samplers, which has a moving picture


def top(book: Book, current: str) -> str:
    """The bar above every page: the parts of the book in words, the chapters on demand, and search."""
    def item(page: str, title: str) -> str:
        mark = " aria-current=page" if page == current else ""
        return f'<li><a href="{page}.html"{mark}>{escape(title)}</a></li>'

    letters = "".join(item(c.letter, short(c.title)) for c in book.spec.chapters)
    others = [("story", "Story", bool(book.story)), ("line", "One line", LINE in book.spec.entries),
              ("mistakes", "Mistakes", bool(book.mistakes)), ("code", "Files", True)]
    items = "".join(item(page, title) for page, title, there in others if there)
    return (f'<nav class="top"><div><a class="home" href="index.html">minidit SPEC</a>'
            f'<details class="menu"><summary>Chapters</summary><ul>{letters}</ul></details><ul>{items}</ul>'
            '<div class="search" role="search"><input type="search" placeholder="Search   /" aria-label="Search the equations" '
            'autocomplete="off" spellcheck="false"><ol></ol></div></div></nav>')


def short(title: str) -> str:
    """A chapter in a few words: its title without what stands in brackets."""
    return title.partition(" (")[0]


def search_index(book: Book) -> str:
    """The entries as JSON for the search, safe inside a <script>."""
    rows = [{"id": e.id, "name": e.name, "url": address(e.id), "code": str(e.homes[0]) if e.homes else "",
             "text": words_of(book, e)} for e in book.spec.entries.values()]
    return json.dumps(rows, ensure_ascii=False).replace("<", "\\u003c")


def words_of(book: Book, e: Entry) -> str:
    """What a search finds an entry by besides its name; each word once, because every page carries the index of all."""
    names = [p.name.replace("_", " ") for p in book.spec.proofs_of(e)]
    text = " ".join([e.source, *map(str, e.homes), *e.deviations, book.spec.unicode_of(e), *e.equations, *names]).lower()
    return " ".join(dict.fromkeys(text.split()))


def contents(entries: list[Entry]) -> str:
    """The contents of a chapter, which a narrow page shows on demand."""
    items = "".join(f'<li><a href="{address(e.id)}"><b>{e.id}</b><span>{escape(e.name)}</span></a></li>' for e in entries)
    return f'<details class="contents" open><summary>{len(entries)} equations</summary><ul class="toc">{items}</ul></details>'


def turn(spec: Spec, chapter: Chapter) -> str:
    """The way to the chapters before and after, in words."""
    i, last = spec.chapters.index(chapter), len(spec.chapters) - 1
    before, after = spec.chapters[i - 1] if i else None, spec.chapters[i + 1] if i < last else None
    back = f'<a rel="prev" href="{before.letter}.html">← {escape(short(before.title))}</a>' if before else ""
    on = f'<a rel="next" href="{after.letter}.html">{escape(short(after.title))} →</a>' if after else ""
    middle = '<a href="index.html">All chapters</a>'
    return f'<nav class="turn" aria-label="chapters"><span>{back}</span>{middle}<span>{on}</span></nav>'


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
    return "\n".join([*parts, turn(book.spec, chapter)])


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
             f'<p class="muted">{len(spec.entries)} equations, {tests} tests that prove them. A residual is the largest '
             "difference that these tests met; – where they compare without a tolerance.</p>",
             '<p>New to diffusion? <a href="story.html">The story</a> begins with a picture and some noise.</p>'
             if book.story else "",
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


def mistakes_page(book: Book) -> str:
    """All known mistakes, by the chapter of the equation that they break."""
    parts = ["<h1>Known mistakes</h1>", f"<p>{len(book.mistakes)} ways to get one of these equations wrong, most of them met in "
             "published code. <code>minidit verify</code> asks an implementation for numbers, and names the mistake that gives "
             "the same.</p>"]
    for chapter in book.spec.chapters:
        inside = [m for m in book.mistakes.values() if m.spec.partition(".")[0] == chapter.letter]
        if inside:
            parts.append(section(f"mistakes-{chapter.letter}", chapter.title, cards(inside, book.link, anchors=True)))
    letters = {c.letter for c in book.spec.chapters}
    if others := [m for m in book.mistakes.values() if m.spec.partition(".")[0] not in letters]:
        parts.append(section("mistakes-others", "Others", cards(others, book.link, anchors=True)))
    return "\n".join(parts)


def story_pages(book: Book) -> Iterator[tuple[str, str, str, str]]:
    """(name, title, body, script) of the chapters of the story, the list of them first."""
    if not book.story:
        return
    yield "story", "The story", story.contents_page(book.story), ""
    for i, chapter in enumerate(book.story):
        before, after = book.story[i - 1] if i else None, book.story[i + 1] if i + 1 < len(book.story) else None
        body = story.story_page(book, chapter, before, after)
        yield chapter.page, chapter.title, body, moving.script(first_shoe()) if 'class="moving"' in body else ""


def first_shoe() -> Array:
    """The first sneaker of the shipped pictures : (32, 32) uint8."""
    data = fashion()
    return data.images[data.labels == data.class_names.index("Sneaker")][0, 0]


def pages(spec: Spec, mistakes: Iterable[Mistake] = ()) -> Iterator[tuple[str, str]]:
    """(file name, HTML) of each page of the book."""
    book = Book(spec, {m.id: m for m in mistakes}, chapters(spec.root / "docs/story"))
    css, script = beside("book.css"), f"const INDEX = {search_index(book)};\n{beside('book.js')}"

    def page(name: str, title: str, body: str, more: str = "") -> tuple[str, str]:
        return f"{name}.html", document(title, f"{top(book, name)}\n<main>\n{body}\n</main>", css=css, script=script + more)

    yield page("index", "minidit SPEC: the equations, their code, their proof", index_page(book))
    for name, title, body, more in story_pages(book):
        yield page(name, f"{title} · minidit SPEC", body, f"\n{more}")
    if LINE in spec.entries:
        frames, rows = walks()
        more = f"\n{drawing(frames)}\n{beside('line.js')}"
        yield page("line", "One line, five samplers · minidit SPEC", line_page(book.link, rows), more)
    for chapter in spec.chapters:
        yield page(chapter.letter, f"{chapter.letter} {chapter.title} · minidit SPEC", chapter_page(book, chapter))
    if book.mistakes:
        yield page("mistakes", "Known mistakes · minidit SPEC", mistakes_page(book))
    yield page("code", "Files and their equations · minidit SPEC", code_page(book))


def write_book(spec: Spec, folder: Path, mistakes: Iterable[Mistake] = ()) -> list[Path]:
    """Writes the book into a folder and returns its pages, the index first.

    Raises ModuleNotFoundError without latex2mathml, FormulaError for LaTeX that it cannot read.
    """
    check_writable(folder / "index.html")
    contents_of = dict(pages(spec, mistakes))  # all of them before the first is written
    for name, text in contents_of.items():
        write_text(folder / name, text)
    return [folder / name for name in contents_of]
