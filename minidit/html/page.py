"""The frame of every page: escaped text, one style sheet for light and dark, one document skeleton.

A page is a single file. The policy in its head forbids the browser to fetch anything, so a page looks the same on every machine.
Text from outside goes through `escape`; arguments that are HTML are used as they are.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

CSS = """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1c1b19; --muted: #68645d; --line: #dedad3; --code: #f1eee9;
  --c0: #1f5fa8; --c1: #c2540a; --c2: #2f7d4f; --c3: #8a4baf; --c4: #b0305c; --c5: #6b6a12; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #151618; --card: #1d1f22; --ink: #e9e7e3; --muted: #a3a09a; --line: #36393e; --code: #24272b;
  --c0: #7fb2f0; --c1: #f2a15f; --c2: #79c99a; --c3: #c79be6; --c4: #ef8fb0; --c5: #cfca62; } }
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: break-word; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.7rem, 1.2rem + 2vw, 2.4rem); line-height: 1.15; letter-spacing: -.02em; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; line-height: 1.25; letter-spacing: -.01em; margin: 0 0 .6rem; }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--c0); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--c0); outline-offset: 2px; border-radius: 3px; }
code, pre, kbd { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .9em; }
code { background: var(--code); border-radius: 4px; padding: .08em .32em; }
pre { background: var(--code); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; }
pre code { background: none; padding: 0; }
section { margin: 2.6rem 0 0; padding: 1.6rem 0 0; border-top: 1px solid var(--line); }
img, svg, canvas { max-width: 100%; height: auto; }
.muted, figcaption { color: var(--muted); font-size: .92rem; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: baseline; }
thead th { color: var(--muted); font-weight: 600; font-size: .86rem; white-space: nowrap; }
tbody th { font-weight: 500; }
td.number, th.number { text-align: right; white-space: nowrap; }
figure { margin: 1rem 0 0; }
summary { cursor: pointer; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--muted); font-size: .9rem; }
@media print { section { break-inside: avoid; } }
"""

POLICY = ("default-src 'none'; img-src data:; media-src data:; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'")


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


def document(title: str, body: str, *, css: str = "", script: str = "", language: str = "en") -> str:
    """The whole page: `title` is text, `body` is HTML with its own <main>, `css` and `script` are added to the frame."""
    scripts = f"<script>\n{script}\n</script>\n" if script else ""
    return (f'<!DOCTYPE html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>{CSS}{css}</style>\n</head>\n<body>\n{body}\n{scripts}</body>\n</html>\n")
