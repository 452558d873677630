"""Curves in common axes, as a picture: round numbers at the axes, a moving average through the values.

The same numbers give the same picture. The page of a run draws its charts with the same ticks (html/chart.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidit.pictures import FINE, INK, MUTED, PAPER, text_mask

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Pen

Array = Any
LINE = (224, 224, 224)  # of the grid
COLOURS = ((31, 95, 168), (194, 84, 10), (47, 125, 79), (138, 75, 175), (176, 48, 92), (107, 106, 18))


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About `about` round numbers (1, 2 or 5 times a power of ten apart) in [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if rough <= m * power * 1.0001)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high] > 0; also 2 and 5 times these if there are fewer than four."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = [10.0**p for p in powers if low <= 10.0**p <= high]
    return decades if len(decades) > 3 else [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def number(value: float) -> str:
    """A number as the ticks of an axis show it: 0.25, 1500, 20k, 1.5M, 1e-05."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4):
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def smoothed(values: Array, span: float | None = None) -> Array:
    """A centred moving average with Gaussian weights of standard deviation `span` (default: 1/60 of the values)."""
    values = np.asarray(values, np.float64)
    span = span or max(1.0, len(values) / 60)
    reach = min(math.ceil(3 * span), len(values) - 1)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / span) ** 2)
    inner = slice(reach, reach + len(values))  # near the ends the weights are cut off and renormalised
    return np.convolve(values, bell)[inner] / np.convolve(np.ones(len(values)), bell)[inner]


def curves(series: Mapping[str, tuple[Array, Array]], title: str, *, log: bool = False, smooth: bool = True,
           x_label: str = "step", size: tuple[int, int] = (720, 400)) -> Picture:
    """Lines {name: (steps, values)} in common axes; smooth: a moving average over the values, which are drawn faintly.

    Values that are not finite, or not positive if `log`, are left out. Raises ValueError if no value is left.
    """
    from PIL import Image, ImageDraw

    clean = {name: _finite(steps, values, log) for name, (steps, values) in series.items()}
    clean = {name: xy for name, xy in clean.items() if len(xy[0])}
    if not clean:
        raise ValueError(f"no finite value to draw in {title!r}")
    (x_low, x_high), (y_low, y_high) = _range([x for x, _ in clean.values()], False), _range([y for _, y in clean.values()], log)
    box = (62, 46, size[0] - 18, size[1] - 44)  # left, top, right, bottom of the frame of the plot
    bend = np.log10 if log else np.asarray

    def at(x: Array, y: Array) -> Array:
        u = (np.asarray(x) - x_low) / (x_high - x_low)
        v = (bend(y) - bend(y_low)) / (bend(y_high) - bend(y_low))
        return np.stack([box[0] + u * (box[2] - box[0]), box[3] - v * (box[3] - box[1])], -1) * FINE

    sheet = Image.new("RGB", (size[0] * FINE, size[1] * FINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    x_ticks, y_ticks = ticks(x_low, x_high, 7), log_ticks(y_low, y_high) if log else ticks(y_low, y_high)
    for y in y_ticks:
        draw.line([tuple(at(x_low, y)), tuple(at(x_high, y))], fill=LINE, width=FINE)
    draw.line([tuple(at(x_low, y_low)), tuple(at(x_high, y_low))], fill=MUTED, width=FINE)
    for i, (x, y) in enumerate(clean.values()):
        colour = COLOURS[i % len(COLOURS)]
        faint = tuple(round(0.3 * c + 0.7 * p) for c, p in zip(colour, PAPER, strict=True))
        average = smooth and len(y) >= 20
        _polyline(draw, at(x, y), faint if average else colour, 1 if average else 2)
        if average:
            _polyline(draw, at(x, smoothed(y)), colour, 2)
    picture = sheet.reduce(FINE)
    picture.paste(INK, (14, 12), text_mask(title, 15))
    for x in x_ticks:
        _write(picture, number(x), at(x, y_low) / FINE + (0, 14), 0.5)
    for y in y_ticks:
        _write(picture, number(y), at(x_low, y) / FINE - (8, 0), 1.0)
    _write(picture, x_label, np.array([box[2], size[1] - 11]), 1.0)
    _legend(picture, list(clean), box)
    return picture


def _finite(steps: Array, values: Array, log: bool) -> tuple[Array, Array]:
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"a curve needs as many steps as values, got {x.shape} and {y.shape}")
    good = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not log))
    return x[good], y[good]


def _range(arrays: Sequence[Array], log: bool) -> tuple[float, float]:
    low, high = float(min(a.min() for a in arrays)), float(max(a.max() for a in arrays))
    if log:
        return (low / 1.1, high * 1.1)
    return (low, high) if high > low else (low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))


def _polyline(draw: Pen, points: Array, colour: tuple[int, ...], width: int) -> None:
    if len(points) == 1:
        draw.ellipse((*(points[0] - 3 * FINE), *(points[0] + 3 * FINE)), fill=colour)
    else:
        draw.line([tuple(p) for p in points], fill=colour, width=width * FINE, joint="curve")


def _write(picture: Picture, text: str, at: Array, anchor: float) -> None:
    mask = text_mask(text, 12)
    picture.paste(MUTED, (round(at[0] - anchor * mask.width), round(at[1] - mask.height / 2)), mask)


def _legend(picture: Picture, names: Sequence[str], box: tuple[int, int, int, int]) -> None:
    from PIL import ImageDraw

    masks = [text_mask(name) for name in names]
    x = box[2] - sum(m.width + 34 for m in masks) + 12
    for i, mask in enumerate(masks):
        ImageDraw.Draw(picture).rectangle((x, 22, x + 13, 24), fill=COLOURS[i % len(COLOURS)])
        picture.paste(INK, (x + 18, 23 - mask.height // 2), mask)
        x += mask.width + 34
