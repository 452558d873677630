"""Markdown as HTML, read by markdown-it-py: with formulas, equation ids that become links, and tables that scroll.

Added to CommonMark and its tables: $inline$ and $$display$$ formulas, subscripts of single letters (x_0, ᾱ_{t-1}), and ids such
as D.7. A link is kept if it is a web address, an anchor, or known to `pages.address`; pictures are what `pages.picture` makes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from minidit.html.formula import displayed, mathml
from minidit.html.page import escape
from minidit.html.prose import Link, linked

BELOW = re.compile(r"(?<!\w)([^\W\d_][\u0300-\u036f]*)_(?:([A-Za-z0-9]{1,3})(?!\w)|\{([^{}]+)\})")  # x_0, ᾱ_{t-1}: letter, index
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)


class Pages(Protocol):
    """How a text meets the pages around it."""

    def link(self, equation: str) -> str:
        """The address of an equation, "" if there is none."""

    def address(self, target: str) -> str:
        """The address that a relative link of the text becomes, "" for none."""

    def picture(self, target: str, text: str) -> str:
        """The HTML of a picture; text : its description."""


def plain(text: str, link: Link) -> str:
    """Text without Markdown, with its ids linked and its indices as subscripts."""
    return BELOW.sub(r"\1<sub>\2\3</sub>", linked(text, link))


def formula(state: StateInline, silent: bool) -> bool:
    """The rule that reads $…$ before anything else does."""
    end = state.src.find("$", state.pos + 1)
    if state.src[state.pos] != "$" or end <= state.pos + 1:
        return False
    if not silent:
        state.push("formula", "", 0).content = state.src[state.pos + 1 : end]
    state.pos = end + 1
    return True


class Writer(RendererHTML):
    """Tokens as HTML; env holds the link, and the pages if there are any."""

    def text(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        return plain(tokens[i].content, env["link"])

    def formula(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        return mathml(tokens[i].content)

    def image(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        target = str(tokens[i].attrGet("src") or "")
        return str(env["pages"].picture(target, tokens[i].content)) if env["pages"] else escape(tokens[i].content)

    def table_open(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        end = next(k for k in range(i, len(tokens)) if tokens[k].type == "thead_close")
        label = " · ".join(t.content for t in tokens[i:end] if t.type == "inline")
        return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0"><table>\n'

    def table_close(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        return "</table></div>\n"


def reader() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}, renderer_cls=Writer).enable("table")
    made.inline.ruler.before("escape", "formula", formula)
    return made


READER = reader()


def arranged(tokens: Sequence[Token], pages: Pages | None) -> None:
    """The first cell of a row becomes its heading, the first heading an h2; links to nowhere become text."""
    for i, token in enumerate(tokens):
        if token.type == "td_open" and tokens[i - 1].type == "tr_open":
            token.tag, token.attrs = "th", {"scope": "row"}
            tokens[i + 2].tag = "th"
        elif token.type in ("heading_open", "heading_close"):
            token.tag = f"h{max(2, int(token.tag[1]))}"
        elif token.type == "inline":
            closing = list[bool]()
            for child in token.children or ():
                if child.type == "link_open":
                    target = str(child.attrGet("href"))
                    outside = target.startswith(("https://", "http://", "#"))
                    address = target if outside else pages.address(target) if pages else ""
                    child.hidden = not address
                    child.attrs = {"href": address}
                    closing.append(child.hidden)
                elif child.type == "link_close":
                    child.hidden = closing.pop()
                child.nesting, child.tag = (0, "") if child.hidden else (child.nesting, child.tag)


def _rendered(text: str, link: Link, pages: Pages | None) -> str:
    env = {"link": link, "pages": pages}
    tokens = READER.parse(text, env)
    arranged(tokens, pages)
    for token in tokens:
        token.children = [c for c in token.children if not c.hidden] if token.children else token.children
    return str(READER.renderer.render(tokens, READER.options, env)).strip()


def markdown(text: str, link: Link, pages: Pages | None = None) -> str:
    """A text with blocks. A $$formula$$ stands between paragraphs, wherever it is written."""
    out = []
    for k, part in enumerate(FENCED.split(text)):
        if k % 2:
            out.append(_rendered(part, link, pages))
            continue
        for j, piece in enumerate(DISPLAYED.split(part)):
            if j % 2:
                out.append(f'<div class="equation" tabindex="0">{displayed(piece)}</div>')
            elif piece.strip():
                out.append(_rendered(piece, link, pages))
    return "\n".join(out)


def inline(text: str, link: Link) -> str:
    """A text of one line, without blocks."""
    env = {"link": link, "pages": None}
    tokens = READER.parseInline(text, env)
    arranged(tokens, None)
    children = [c for token in tokens for c in token.children or () if not c.hidden]
    renderer = READER.renderer
    assert isinstance(renderer, RendererHTML)
    return renderer.renderInline(children, READER.options, env)
