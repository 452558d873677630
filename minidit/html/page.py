"""The frame of every page: escaped text, one style sheet for light and dark, one document skeleton.

A page is a single file. The policy in its head forbids the browser to fetch anything, so a page looks the same on every machine.
Text from outside goes through `escape`; arguments that are HTML are used as they are.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

POLICY = ("default-src 'none'; img-src data:; media-src data:; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'")


def beside(name: str) -> str:
    """The text of a style sheet or script that lies beside this file."""
    return Path(__file__).with_name(name).read_text("utf-8")


def escape(text: object) -> str:
    """Any value as text that HTML shows literally, in elements and in quoted attributes."""
    return html.escape(str(text), quote=True)


def data_uri(content: bytes, kind: str) -> str:
    """The bytes of a file as a data: address. kind: a media type such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def section(identifier: str, heading: str, *parts: str) -> str:
    """One part of a page with its heading; `heading` is text, `parts` are HTML."""
    name = escape(identifier)
    inner = "\n".join(parts)
    title = f'<h2 id="{name}-title">{escape(heading)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{title}\n{inner}\n</section>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = (), label: str) -> str:
    """A table that scrolls inside its own box on a narrow screen.

    header : text;  rows : HTML cells, the first is the row's heading;  numbers : columns aligned right;  label : accessible name
    """
    def classed(i: int) -> str:
        return ' class="number"' if i in numbers else ""

    def cell(i: int, content: str) -> str:
        return f'<th scope="row">{content}</th>' if i == 0 else f"<td{classed(i)}>{content}</td>"

    head = "".join(f'<th scope="col"{classed(i)}>{escape(h)}</th>' for i, h in enumerate(header))
    body = "\n".join("<tr>" + "".join(cell(i, c) for i, c in enumerate(row)) + "</tr>" for row in rows)
    return (f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0"><table>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>")


def document(title: str, body: str, *, css: str = "", script: str = "", language: str = "en", head: str = "") -> str:
    """The whole page: `title` is text, `body` is HTML with its own <main>, `css`, `script` and `head` are added to the frame."""
    scripts = f"<script>\n{script}\n</script>\n" if script else ""
    return (f'<!DOCTYPE html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"{head}<title>{escape(title)}</title>\n<style>\n{beside('page.css')}{css}</style>\n</head>\n<body>\n{body}\n{scripts}</body>\n</html>\n")
