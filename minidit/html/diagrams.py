"""The diagrams of the story as inline SVG: every box leads to its equation, its small print to the code that computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minidit.html.page import escape
from minidit.html.spec import Spec

Point = tuple[float, float]


@dataclass
class Drawing:
    """A picture of boxes and arrows. link : equation -> its address;  line : equation -> (name of its line, address)."""

    name: str
    width: int
    height: int
    label: str
    link: Callable[[str], str]
    line: Callable[[str], tuple[str, str]]
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, w: float, text: str, equation: str = "", *, h: float = 46, kind: str = "") -> None:
        """A box with its top left at (x, y); with an equation, two links. kind: a class for its colour."""
        shape = f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="7" class="{kind}"/>'
        if not equation or not self.link(equation):
            self.parts.append(f'<g class="box">{shape}{_text(x + w / 2, y + h / 2 + 5, text)}</g>')
            return
        name, address = self.line(equation)
        title = _text(x + w / 2, y + h / 2 - 2, text)
        below = _text(x + w / 2, y + h / 2 + 15, f"{equation} · {name}" if name else equation, "small")
        self.parts.append(
            f'<g class="box"><a href="{escape(self.link(equation))}" aria-label="{escape(f"{text}: equation {equation}")}">'
            f'{shape}{title}</a><a href="{escape(address or self.link(equation))}">{below}</a></g>'
        )

    def arrow(self, *points: Point, kind: str = "") -> None:
        """A line through the points with a head at the last."""
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'<path class="arrow {kind}" d="{path}" marker-end="url(#{self.name}-head)"/>')

    def text(self, x: float, y: float, text: str, kind: str = "", *, at: str = "middle") -> None:
        self.parts.append(_text(x, y, text, kind, at))

    def __str__(self) -> str:
        head = (
            f'<defs><marker id="{self.name}-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
            ' orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        )
        return (
            f'<div class="scroll diagram" tabindex="0" role="region" aria-label="{escape(self.label)}">'
            f'<svg viewBox="0 0 {self.width} {self.height}" style="min-width:{min(self.width, 620)}px;max-width:{self.width}px"'
            f' role="group">{head}{"".join(self.parts)}</svg></div>'
        )


def _text(x: float, y: float, text: str, kind: str = "", at: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{at}" class="{kind}">{escape(text)}</text>'


def column(d: Drawing, x: float, y: float, w: float, boxes: Sequence[tuple[str, str, str]], gap: float = 22) -> list[float]:
    """Boxes (text, equation, kind) below each other with arrows between; the heights of their middles."""
    middles = []
    for k, (text, equation, kind) in enumerate(boxes):
        top = y + k * (46 + gap)
        d.box(x, top, w, text, equation, kind=kind)
        middles.append(top + 23)
        if k + 1 < len(boxes):
            d.arrow((x + w / 2, top + 46), (x + w / 2, top + 46 + gap))
    return middles


def block(d: Drawing) -> None:
    """The DiT block: two branches on the left, the six vectors on the right."""
    d.text(150, 18, "tokens x : (B, N, D)", "shape")
    d.arrow((150, 24), (150, 44))
    names = [
        ("layer norm, × (1 + γ₁), + β₁", "A.15", "mod"),
        ("attention among N tokens", "N.3", "main"),
        ("× gate g₁, + x", "A.21", "mod"),
        ("layer norm, × (1 + γ₂), + β₂", "A.15", "mod"),
        ("MLP: D → 4D → D", "N.5", "main"),
        ("× gate g₂, + x", "A.21", "mod"),
    ]
    middles = column(d, 30, 44, 240, names)
    for first, last in ((0, 2), (3, 5)):  # the way around a branch
        top = middles[first] - 34
        d.arrow((150, top), (14, top), (14, middles[last]), (30, middles[last]), kind="skip")
    d.arrow((150, middles[-1] + 23), (150, middles[-1] + 48))
    d.text(150, middles[-1] + 66, "tokens x : (B, N, D)", "shape")
    d.text(540, 18, "the condition : (B, D)", "shape")
    d.arrow((540, 24), (540, 44))
    d.box(430, 44, 220, "SiLU", "A.4")
    d.arrow((540, 90), (540, 112))
    d.box(430, 112, 220, "linear D → 6 D, zero at first", "T.7", kind="main")
    d.arrow((540, 158), (540, 180))
    d.box(430, 180, 220, "cut in six : (B, D) each", "T.4")
    for k, (name, row) in enumerate((("β₁ γ₁", 0), ("g₁", 2), ("β₂ γ₂", 3), ("g₂", 5))):
        x = 452 + 58 * k
        d.arrow(
            (x, 226),
            (x, 246 + 24 * k),
            (400 - 14 * k, 246 + 24 * k),
            (400 - 14 * k, middles[row]),
            (272, middles[row]),
            kind="six",
        )
        d.text(x + 4, 262 + 24 * k, name, "shape", at="start")
    d.box(430, 372, 220, "the whole block", "T.5", kind="main")


def patchify(d: Drawing) -> None:
    """From a latent to tokens and back, with shapes."""
    names = [
        ("latent (B, 4, 8, 8)", "", ""),
        ("cut into 2 × 2 patches", "T.1", "main"),
        ("linear 16 → D", "N.9", ""),
        ("+ place of the patch", "N.7", "mod"),
    ]
    for k, (text, equation, kind) in enumerate(names):
        d.box(10 + 195 * k, 14, 168, text, equation, kind=kind)
        if k:
            d.arrow((10 + 195 * k - 27, 37), (10 + 195 * k, 37))
    d.arrow((679, 60), (679, 92))
    d.text(690, 82, "(B, 16, D)", "shape", at="start")
    d.box(595, 92, 168, "6 blocks", "T.5", kind="main")
    back = [("last layer D → 16", "T.6", ""), ("patches to places", "T.2", "main"), ("answer (B, 4, 8, 8)", "", "")]
    for k, (text, equation, kind) in enumerate(back):
        d.arrow((595 - 195 * k, 115), (568 - 195 * k, 115))
        d.box(400 - 195 * k, 92, 168, text, equation, kind=kind)


def streams(d: Drawing) -> None:
    """MM-DiT's joint block on the left, FLUX's single block on the right."""
    d.text(185, 18, "MM-DiT: two streams, one attention", "shape")
    for x, text in ((10, "words : (B, M, D)"), (200, "picture : (B, N, D)")):
        d.box(x, 30, 160, text, kind="")
        d.arrow((x + 80, 76), (x + 80, 98))
        d.box(x, 98, 160, "its norm, q, k, v", "T.22", kind="mod")
        d.arrow((x + 80, 144), (x + 80, 166))
        d.arrow((x + 80, 212), (x + 80, 234))
        d.box(x, 234, 160, "its gate and MLP", "T.23", kind="mod")
    d.box(10, 166, 350, "one attention among all M + N tokens", "N.14", kind="main")
    d.text(575, 18, "FLUX: after such blocks, one stream", "shape")
    d.box(420, 30, 310, "one list of both : (B, M + N, D)")
    d.arrow((575, 76), (575, 98))
    d.box(420, 98, 310, "one norm, shift and scale", "T.27", kind="mod")
    d.arrow((495, 144), (495, 166))
    d.arrow((655, 144), (655, 166))
    d.box(420, 166, 150, "attention, rotated", "A.30", kind="main")
    d.box(580, 166, 150, "MLP beside it", "T.27", kind="main")
    d.arrow((495, 212), (495, 234))
    d.arrow((655, 212), (655, 234))
    d.box(420, 234, 310, "one gate, added to the stream", "T.27", kind="mod")


TAPE = {"x": (2.0, 64.0), "w": (3.0, 32.0), "p": (6.0, 16.0), "q": (8.0, 16.0), "L": (64.0, 1.0)}  # value, adjoint


def tape(d: Drawing) -> None:
    """L = (w x + x)²: values from left to right, adjoints from right to left."""
    places = {"w": (10, 14), "x": (10, 134), "p": (220, 14), "q": (420, 74), "L": (610, 74)}
    texts = {"x": ("x", "A.2"), "w": ("w", ""), "p": ("p = w x", "A.1"), "q": ("q = p + x", "A.3"), "L": ("L = q²", "A.1")}
    for name, (x, y) in places.items():
        d.box(x, y, 140, texts[name][0], texts[name][1], kind="main" if name == "L" else "")
        value, adjoint = TAPE[name]
        d.text(x + 70, y + 62, f"{name} = {value:g}", "value")
        d.text(x + 70, y + 80, f"{name}\u0304 = {adjoint:g}", "adjoint")
    for a, b in (
        ((150, 37), (220, 37)),
        ((150, 150), (220, 45)),
        ((360, 37), (420, 90)),
        ((150, 165), (420, 105)),
        ((560, 97), (610, 97)),
    ):
        d.arrow(a, b)
    d.text(375, 225, "forward: values, left to right", "value", at="middle")
    d.text(375, 245, "backward: adjoints, right to left; x̄ = w p̄ + q̄ = 3·16 + 16, as x is used twice", "adjoint", at="middle")


DIAGRAMS: dict[str, tuple[Callable[[Drawing], None], int, int, str]] = {
    "block": (block, 670, 490, "The DiT block: shapes, and the six vectors that the condition makes"),
    "patchify": (patchify, 775, 150, "From a latent to tokens, through the blocks, and back"),
    "streams": (streams, 745, 292, "How words and picture meet in MM-DiT and in FLUX"),
    "tape": (tape, 765, 256, "The tape of L = (w x + x)², with values and adjoints"),
}


def diagram(name: str, spec: Spec, link: Callable[[str], str]) -> str:
    """One diagram as a <figure>."""
    draw, width, height, label = DIAGRAMS[name]

    def line(equation: str) -> tuple[str, str]:
        entry = spec.entries.get(equation)
        hits = spec.hits(entry) if entry else []
        if not hits:
            return "", ""
        path, number = hits[0]
        return f"{path.rpartition('/')[2]}:{number}", f"{link(equation)}-code"

    d = Drawing(name, width, height, label, link, line)
    draw(d)
    caption = f"{label}. Every box leads to its equation, the small print to its line."
    return f'<figure class="drawn">{d}<figcaption>{escape(caption)}</figcaption></figure>'
