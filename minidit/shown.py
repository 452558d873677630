"""How objects show themselves in a notebook: pieces of HTML with inline styles and SVG, readable in light and dark.

Text from outside goes through `escape`; arguments named `html` or `parts` are HTML already. `in_time`: durations in words.
"""

from __future__ import annotations

import base64
import html as _html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = Any
COLOURS = ("#2f7fd1", "#d9660f", "#3f9d62", "#9a5bc4")
FONT = "font:13px/1.5 system-ui,sans-serif"
GAP = 10  # between parts of a row
WIDTH, HEIGHT, LEFT, BASE = 300, 150, 48, 126  # of a chart, in pixels


def escape(text: object) -> str:
    """Any value as text that HTML shows literally, in elements and in quoted attributes."""
    return _html.escape(str(text), quote=True)


def in_time(seconds: float) -> str:
    """A duration in seconds, minutes or hours, with one decimal where that says more."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    number, unit = (seconds / 60, "minutes") if seconds < 5400 else (seconds / 3600, "hours")
    return f"{number:.1f} {unit}" if number < 10 else f"{number:,.0f} {unit}"


def card(title: object, *parts: str) -> str:
    """A heading and what belongs to it; the title is text, the parts are HTML."""
    return f'<div style="{FONT}"><div><strong>{escape(title)}</strong></div>{"".join(parts)}</div>'


def facts(rows: Mapping[str, object]) -> str:
    """A table of names and values, both text."""
    cell = 'style="text-align:left;vertical-align:top;padding:1px 14px 1px 0;background:none;border:0"'
    body = "".join(
        f'<tr style="background:none"><th {cell}><span style="opacity:.65;font-weight:400">{escape(name)}</span></th>'
        f"<td {cell}>{escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f'<table style="border-collapse:collapse;margin:2px 0;{FONT}">{body}</table>'


def code(text: str) -> str:
    """Source text as it stands."""
    return f'<pre style="margin:4px 0;padding:6px 8px;overflow-x:auto;line-height:1.35"><code>{escape(text)}</code></pre>'


def folded(summary: object, *parts: str, unfolded: bool = False) -> str:
    """Parts that open at a click on the summary, which is text."""
    state = " open" if unfolded else ""
    return f'<details{state} style="margin-left:1em"><summary>{escape(summary)}</summary>{"".join(parts)}</details>'


def row(*parts: str, width: int = 0) -> str:
    """Parts beside each other, on as many lines as they need; width : in pixels of the screen, at most."""
    most = f"max-width:{width}px;" if width else ""
    return f'<div style="display:flex;flex-wrap:wrap;gap:{GAP}px;align-items:flex-start;{most}">{"".join(parts)}</div>'


def picture(png: bytes, caption: object = "", size: tuple[int, int] | None = None) -> str:
    """A PNG file with its caption below; size : (width, height) in pixels of the screen."""
    shape = f"width:{size[0]}px;height:{size[1]}px;" if size else ""
    words = escape(caption)
    below = f'<figcaption style="text-align:center;max-width:{max(size[0], 64) if size else 480}px">{words}</figcaption>'
    source = base64.b64encode(png).decode("ascii")
    least = f"min-width:{max(size[0], 64)}px" if size else ""
    return (f'<figure style="margin:0;{least}"><img alt="{words}" src="data:image/png;base64,{source}" '
            f'style="{shape}image-rendering:pixelated;display:block;margin:auto">{below if words else ""}</figure>')  # fmt: skip


def chart(title: object, x: Array, series: Mapping[str, Array], *, x_label: str = "") -> str:
    """Lines over common x, as SVG; values that are not finite are left out, and a series without any too."""
    x = np.asarray(x, np.float64)
    lines = {name: np.asarray(y, np.float64) for name, y in series.items()}
    lines = {name: y for name, y in lines.items() if np.isfinite(y).any()}
    if not lines:
        return ""
    values = np.concatenate([y[np.isfinite(y)] for y in lines.values()])
    low, high = float(values.min()), float(values.max())
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    wide = float(x.max() - x.min()) or 1.0
    body = [_text(LEFT - 5, y, f"{v:.2g}", "end") for v, y in ((low, BASE), (high, 28))]
    body += [_text(LEFT, BASE + 15, f"{x.min():.4g}", "start"), _text(WIDTH - 6, BASE + 15, f"{x.max():.4g}", "end")]
    body += [_text((LEFT + WIDTH) / 2, BASE + 15, x_label, "middle"), _text(LEFT, 13, title, "start", bold=True)]
    body.append(f'<path d="M{LEFT} 22V{BASE}H{WIDTH - 6}" fill="none" stroke="currentColor" stroke-opacity=".35"/>')
    for k, (name, y) in enumerate(lines.items()):
        good, colour = np.isfinite(y), COLOURS[k % len(COLOURS)]
        u = LEFT + (x[good] - x.min()) / wide * (WIDTH - 6 - LEFT)
        v = BASE - (y[good] - low) / (high - low) * (BASE - 26)
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(u, v, strict=True))
        body.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        body.append(_text(WIDTH - 6 - 58 * (len(lines) - 1 - k), 13, name, "end", colour=colour))
    return f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(body)}</svg>'


def _text(x: float, y: float, words: object, anchor: str, *, bold: bool = False, colour: str = "currentColor") -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="11" fill="{colour}"{weight}>{escape(words)}</text>'


def levels(title: object, t: Array, alpha: Array, sigma: Array) -> str:
    """The curves of a path from data to noise: its signal α and noise σ at the times t, and their ratio SNR = (α/σ)²."""
    with np.errstate(divide="ignore"):
        snr = 2 * np.log10(np.asarray(alpha, np.float64) / np.asarray(sigma, np.float64))
    both = {"α": alpha, "σ": sigma}
    return card(title, row(chart("signal and noise", t, both, x_label="t"), chart("log₁₀ SNR", t, {"SNR": snr}, x_label="t")))


def words(names: Sequence[object], most: int = 12) -> str:
    """Names in a row, at most so many of them."""
    rest = len(names) - most
    return ", ".join(map(str, names[:most])) + (f", and {rest} more" if rest > 0 else "")
