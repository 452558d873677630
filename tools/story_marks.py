"""Pictures that point at what their sentence says: tiles in colour with a frame around the part that is meant, and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minidit import pictures
from minidit.backend import Array

FINE = 4  # drawn this many times larger, then reduced
PAPER, INK, MUTED, LINE = (251, 250, 248), (28, 27, 25), (106, 102, 96), (222, 218, 211)
INKS = ((31, 95, 168), (194, 84, 10), (47, 125, 79), (138, 75, 175), (176, 48, 92))
BLUE, ORANGE = INKS[:2]

Box = tuple[float, float, float, float]  # left, top, right, bottom, as parts of a tile
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def tiles(rows: Sequence[Sequence[Array | None]], scale: int, marks: Mapping[tuple[int, int], Box] | None = None) -> Array:
    """Grey pictures (1, H, W), each pixel a square of scale × scale, as one batch in colour.

    None: an empty place.   marks : {(row, column): the part of the tile that is framed}
    """
    like = next(tile for line in rows for tile in line if tile is not None)
    empty = np.full((3, like.shape[1] * scale, like.shape[2] * scale), 255, np.uint8)
    out = []
    for i, line in enumerate(rows):
        for j, tile in enumerate(line):
            big = empty if tile is None else pictures.to_uint8(tile).repeat(scale, 1).repeat(scale, 2).repeat(3, 0)
            out.append(framed(big, marks[i, j]) if marks and (i, j) in marks else big)
    return np.stack(out)


def framed(tile: Array, box: Box) -> Array:
    """The tile with an orange frame around a part of it. tile : (3, H, W) uint8"""
    image = Image.fromarray(np.ascontiguousarray(tile.transpose(1, 2, 0)))
    w, h = image.width - 1, image.height - 1
    ImageDraw.Draw(image).rectangle((box[0] * w, box[1] * h, box[2] * w, box[3] * h), outline=(240, 120, 30), width=3)
    return np.asarray(image).transpose(2, 0, 1)


class Sheet:
    """A sheet of paper of some width and height, on which points are given in pixels."""

    def __init__(self, width: int, height: int, paper: tuple[int, int, int] = PAPER) -> None:
        self.image = Image.new("RGB", (width * FINE, height * FINE), paper)
        self.pen = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[tuple[float, float]], ink: tuple[int, int, int], width: float = 1.0) -> None:
        fine = [(x * FINE, y * FINE) for x, y in points]
        self.pen.line(fine, fill=ink, width=round(width * FINE), joint="curve")

    def dashes(self, start: tuple[float, float], end: float, ink: tuple[int, int, int], dash: float = 5.0) -> None:
        """A dashed line to the right."""
        for x in np.arange(start[0], end, 2 * dash):
            self.line([(x, start[1]), (min(x + dash, end), start[1])], ink)

    def disc(
        self, x: float, y: float, r: float, ink: tuple[int, int, int] | None, edge: tuple[int, int, int] | None = None
    ) -> None:
        box = ((x - r) * FINE, (y - r) * FINE, (x + r) * FINE, (y + r) * FINE)
        self.pen.ellipse(box, fill=ink, outline=edge, width=round(1.5 * FINE))

    def arrow(self, start: tuple[float, float], end: tuple[float, float], ink: tuple[int, int, int]) -> None:
        """An arrow to the left or to the right."""
        back = 7 if start[0] > end[0] else -7
        self.line([start, end], ink, 1.5)
        self.line([(end[0] + back, end[1] - 4), end, (end[0] + back, end[1] + 4)], ink, 1.5)

    def text(
        self, x: float, y: float, text: str, ink: tuple[int, int, int] = INK, size: float = 13, anchor: str = "lm"
    ) -> None:  # anchor: l, m or r, then a (above), m (middle) or s (on the line)
        self.pen.text((x * FINE, y * FINE), text, fill=ink, font=ImageFont.load_default(size * FINE), anchor=anchor)

    def drawn(self) -> Image.Image:
        return self.image.reduce(FINE)
