"""The story in eight chapters: docs/story as pages, with the parts that move, the diagrams, and what each chapter used.

A chapter is Markdown. Three comments, each on a line of its own, are instructions:

    <!-- moving: slider -->       the picture above, with its caption, becomes a part that moves (moving.py)
    <!-- diagram: block -->       the sketch above becomes a diagram (diagrams.py)
    <!-- uses: D.1 P.4 -->        the equations, lines and tests of the chapter, which end it
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from minidit.html import moving
from minidit.html.chapters import StoryChapter
from minidit.html.diagrams import diagram
from minidit.html.entry import Book, address, file_anchor
from minidit.html.markup import markdown
from minidit.html.page import data_uri, escape
from minidit.html.prose import coloured
from minidit.html.spec import Entry

INSTRUCTION = re.compile(r"^<!-- (moving|diagram|uses): (.*?) -->$", re.MULTILINE)
PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)\s*(?:\*[^*]+\*\s*)?$")  # at the end of a text, with its caption
SKETCH = re.compile(r"^```text\n[^`]*```\s*$(?![\s\S])", re.MULTILINE)  # the same in plain text, for readers of the file
TESTS = 3  # named per equation at the end of a chapter


@dataclass(frozen=True)
class Surroundings:
    """How the text of a chapter meets the book."""

    book: Book
    chapter: StoryChapter

    def link(self, equation: str) -> str:
        return self.book.link(equation)

    def address(self, target: str) -> str:
        """The page of another chapter, or of a file of the checkout; "" for any other file."""
        file, _, _ = target.partition("#")
        if found := re.fullmatch(r"(\d)-[\w-]+\.md", file):
            return f"story{found[1]}.html"
        path = file.removeprefix("../../")
        if path == "SPEC.md":
            return "index.html"
        return file_anchor(path) if path in self.book.spec.sources else ""

    def picture(self, target: str, text: str) -> str:
        content = (self.chapter.path.parent / target).read_bytes()
        return f'<img src="{data_uri(content, "image/png")}" alt="{escape(text)}">'


def story_page(book: Book, chapter: StoryChapter, before: StoryChapter | None, after: StoryChapter | None) -> str:
    """The body of a chapter."""
    around = Surroundings(book, chapter)
    pieces = INSTRUCTION.split(chapter.text)
    out, still = [f'<p class="muted">Chapter {chapter.number} of the story</p><h1>{escape(chapter.title)}</h1>'], ""
    for k in range(0, len(pieces), 3):
        text = pieces[k]
        kind, argument = pieces[k + 1 : k + 3] if k + 1 < len(pieces) else ("", "")
        if kind == "moving" and (last := PICTURE.search(text)):
            text, still = text[: last.start()], markdown(last[0], book.link, around)
        if kind == "diagram":
            text = SKETCH.sub("", text)
        out.append(markdown(text, book.link, around))
        if kind == "moving":
            out.append(moving.part(argument, still))
        elif kind == "diagram":
            out.append(diagram(argument, book.spec, book.link))
        elif kind == "uses":
            out.append(uses(book, argument.split()))
            break  # what stands below is for readers of the file
    return f'<div class="story">{"".join(out)}</div>{steps(before, after)}'


def steps(before: StoryChapter | None, after: StoryChapter | None) -> str:
    """The way to the chapters before and after."""
    back = f'<a rel="prev" href="{before.page}.html">← {before.number}. {escape(before.title)}</a>' if before else ""
    on = f'<a rel="next" href="{after.page}.html">{after.number}. {escape(after.title)} →</a>' if after else ""
    middle = '<a href="story.html">All chapters</a>'
    return f'<nav class="turn" aria-label="chapters of the story"><span>{back}</span>{middle}<span>{on}</span></nav>'


def uses(book: Book, ids: list[str]) -> str:
    """The equations of a chapter: each with the lines that compute it and some tests that prove it."""
    entries = [book.spec.entries[i] for i in ids if i in book.spec.entries]
    return (
        '<section class="uses" aria-labelledby="uses-title">'
        '<h2 id="uses-title">The equations, lines and tests of this chapter</h2>'
        + "".join(use(book, e) for e in entries)
        + "</section>"
    )


def use(book: Book, e: Entry) -> str:
    hits = book.spec.hits(e)
    path = hits[0][0] if hits else ""
    rows = [book.coloured_lines(file)[line - 1] for file, line in hits if file == path][:4]
    code = "".join(f'<span class="l">{coloured(row, len(_indent(row)), book.link)}\n</span>' for row in rows)
    proofs = book.spec.proofs_of(e)
    names = [p.name.rpartition(".")[2].removeprefix("test_").replace("_", " ") for p in proofs[:TESTS]]
    links = [f'<a href="{file_anchor(p.path)}">{escape(name)}</a>' for p, name in zip(proofs, names, strict=False)]
    tests = "".join(f"<li>{link}</li>" for link in links)
    more = f"<li>and {len(proofs) - TESTS} more</li>" if len(proofs) > TESTS else ""
    source = f'<header><a href="{address(e.id)}-code">{escape(path)}</a></header>' if hits else ""
    return (
        f'<div class="use"><h3><a href="{address(e.id)}"><span class="id">{e.id}</span> {escape(e.name)}</a></h3>'
        f'<div class="source">{source}<pre tabindex=0><code>{code}</code></pre></div><p>Tests: </p><ul>{tests}{more}</ul></div>'
    )


def _indent(row: list[tuple[str, str]]) -> str:
    text = "".join(t for _, t in row)
    return text[: len(text) - len(text.lstrip())]


def contents_page(story: Sequence[StoryChapter]) -> str:
    """The list of the chapters."""
    items = "".join(
        f'<li><a href="{c.page}.html"><b>{escape(c.title)}</b></a> {escape(SUMMARY.get(c.number, ""))}</li>' for c in story
    )
    return (
        "<h1>The story</h1><p>How a picture comes out of noise, in eight short chapters, for whoever knows Python and has not "
        "met diffusion. They take about forty minutes. Each ends with the equations, lines of code and tests that it used.</p>"
        f'<ol class="chapters">{items}</ol>'
    )


SUMMARY = {
    1: "How a picture is destroyed, in one line of arithmetic.",
    2: "What the network receives, what it returns, and how it learns.",
    3: "Remove a little of the noise: the one line of all samplers.",
    4: "Repeat it, and why some samplers need few calls.",
    5: "How a label is obeyed, and what that costs.",
    6: "Why the network works on something smaller than a picture.",
    7: "What is inside the network: patches, tokens, attention, adaLN-Zero.",
    8: "Why this is not a picture that is fed back again and again.",
}
