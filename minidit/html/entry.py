"""One equation of the book: the formula, its code, its known mistakes, and the tests that prove it."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minidit.html.chapters import StoryChapter
from minidit.html.formula import FormulaError, displayed
from minidit.html.markup import inline, markdown
from minidit.html.mistakes import Mistake, cards
from minidit.html.page import escape
from minidit.html.prose import Segment, coloured, segments
from minidit.html.sources import EQUATION_ID, Lines, Proof
from minidit.html.spec import Entry, Place, Spec, measured

LONG = 46  # lines; a longer symbol shows its cited lines first, and the rest on demand
WIDE = 46  # characters; a longer formula is placed above text and code instead of beside the code
AROUND = 5  # lines shown around a cited line of a long symbol
TWINS = "minidit/kernels/"
AGREES = r"(^|[._])(agree|agrees|same|equal|close|check|assert_\w+|raises)"


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
    mistakes: Mapping[str, Mistake] = field(default_factory=dict)
    story: Sequence[StoryChapter] = ()
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
    return "".join(
        f'<span class="l{" hit" if n in hits else ""}" data-n="{n}">{coloured(row, indent, book.link)}\n</span>'
        for n, row in enumerate(rows, lines.first)
    )


def excerpt(book: Book, path: str, lines: Lines, hits: set[int], *, whole: bool = True) -> str:
    """A short symbol whole; of a long one, or if not `whole`, the cited lines with some around, and all of it in a <details>."""
    size = lines.last - lines.first
    if not hits or (size < LONG if whole else size <= 2 * AROUND):
        return f"<pre tabindex=0><code>{rows_of(book, path, lines, hits)}</code></pre>"
    parts: list[Lines] = []
    for n in sorted(hits):
        near = Lines(max(lines.first, n - AROUND), min(lines.last, n + AROUND))
        if parts and near.first <= parts[-1].last + 3:
            near = Lines(parts.pop().first, near.last)
        parts.append(near)
    excerpts = '<span class="gap">⋮</span>'.join(rows_of(book, path, p, hits) for p in parts)
    return (
        f"<pre tabindex=0><code>{excerpts}</code></pre><details><summary>all {lines.last - lines.first + 1} lines</summary>"
        f"<pre tabindex=0><code>{rows_of(book, path, lines, hits)}</code></pre></details>"
    )


DISPATCH = re.compile(r"\s*@(twins\.|in_large_steps|in_coarse_steps|primitive\(.*\)$)")  # a decorator that names a fast twin


def without_dispatch(book: Book, path: str, span: Lines) -> Lines:
    """The lines of a symbol without the decorators at its head that choose a fast twin: the mathematics comes first."""
    rows, first = book.coloured_lines(path), span.first
    while first < span.last and DISPATCH.match("".join(t for _, t in rows[first - 1])):
        first += 1
    return Lines(first, span.last)


def code_box(book: Book, place: Place, equation: str, anchor: str = "") -> str:
    """The source of a symbol; the lines that compute the equation are highlighted. A twin is shown on demand."""
    path = f"minidit/{place.path}"
    source = book.spec.sources.get(path)
    citations = [c for c in source.citations if c.id == equation] if source else []
    boxes = ""
    for span in book.spec.spans(place):
        inside = [c for c in citations if c.line in span]
        computed = [c for c in inside if c.on_code]
        hits = {c.line for c in computed or inside}  # without a trailing comment, the lines of docstring that cite it
        boxes += excerpt(book, path, without_dispatch(book, path, span), hits, whole=bool(computed))
    name = f'<a href="{escape(file_anchor(path))}">{escape(path)}</a> :: <b>{escape(place.symbol)}</b>'
    if path.startswith(TWINS):
        summary = f"<summary>a fast twin, tested to equal it: {escape(place.symbol)}</summary>"
        return f'<details class="source twin">{summary}<header>{name}</header>{boxes}</details>'
    return f'<div class="source"{anchor}><header>{name}</header>{boxes}</div>'


def decisive_line(text: str) -> str:
    """The last statement of a test that can fail: an assert, a call whose name says that things agree, or a `with raises`."""
    claims = list[tuple[int, str]]()
    for node in ast.walk(ast.parse(textwrap.dedent(text))):
        call = node.value if isinstance(node, ast.Expr) else node.items[0].context_expr if isinstance(node, ast.With) else None
        agrees = isinstance(call, ast.Call) and re.search(AGREES, ast.unparse(call.func))
        if isinstance(node, ast.Assert) or (agrees and isinstance(node, ast.Expr)):
            claims.append((node.lineno, ast.unparse(node)))
        elif agrees and isinstance(node, ast.With) and call is not None:
            claims.append((node.lineno, f"with {ast.unparse(call)}: {'; '.join(map(ast.unparse, node.body))}"))
    line = max(claims)[1] if claims else ""
    return line if len(line) <= 160 else line[:159] + "…"


def test_box(book: Book, proof: Proof) -> str:
    words = proof.name.removeprefix("test_").replace("_", " ")
    where = f'<a href="{escape(file_anchor(proof.path))}">{escape(proof.path)}</a>:{proof.lines.first}'
    rows = book.spec.texts[proof.path].splitlines()[proof.lines.first - 1 : proof.lines.last]
    line = decisive_line("\n".join(rows))
    decisive = f"<code>{escape(line)}</code>" if line else ""
    return (
        f'<details class="source"><summary>{escape(words)}{decisive}</summary><header>{where}</header>'
        f"<pre tabindex=0><code>{rows_of(book, proof.path, proof.lines, set())}</code></pre></details>"
    )


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
    rows += [("Known mistakes", ", ".join(i for i in map(escape, e.deviations) if i not in book.mistakes))]
    rows += [("See", links_to(book.mentions(e))), ("Named by", links_to(book.mentioned_by(e)))]
    return '<ul class="facts">' + "".join(f"<li><b>{k}</b> {v}</li>" for k, v in rows if v) + "</ul>"


def entry_html(book: Book, e: Entry, before: Entry | None, after: Entry | None) -> str:
    """One equation with its code beside it and its tests below the code."""
    proofs = book.spec.proofs_of(e)
    letters = book.spec.unicode_of(e)
    steps = [
        f'<a href="{address(n.id)}" rel="{rel}">{mark}</a>'
        for n, rel, mark in (
            (before, "prev", f"← {before and escape(before.name)}"),
            (after, "next", f"{after and escape(after.name)} →"),
        )
        if n
    ]
    plain = f'<p class="letters" tabindex="0" title="as the code writes it">{escape(letters)}</p>' if letters else ""
    formulas = "".join(f'<div class="equation" tabindex="0">{equation(e, tex)}</div>' for tex in e.equations)
    wide = max((length(math) for tex in e.equations for math in equation(e, tex).split("</math>")), default=0) > WIDE
    text_column = ["" if wide else formulas, plain, markdown(e.prose, book.link), facts(book, e)]
    known = [book.mistakes[i] for i in e.deviations if i in book.mistakes]
    wrong = f'<div class="wrong"><h3>Known mistakes</h3>{cards(known, book.link)}</div>' if known else ""
    boxes = [code_box(book, place, e.id, "" if k else f' id="{e.id}-code"') for k, place in enumerate(e.homes)]
    code_column = [*boxes, f"<h3>{len(proofs)} test{'s' * (len(proofs) != 1)}</h3>", *(test_box(book, p) for p in proofs)]
    return (
        f'<article id="{e.id}"><header><h2><a href="#{e.id}"><span class="id">{e.id}</span></a> {escape(e.name)}</h2>'
        f'{residual_chip(book, e)}<span class="steps">{"".join(steps)}</span></header>'
        f'{formulas if wide else ""}<div class="pair"><div>{"".join(text_column)}</div>'
        f'<div class="tests">{"".join(code_column)}</div>{wrong}</div></article>'
    )


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
