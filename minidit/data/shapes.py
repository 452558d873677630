"""Scenes that are drawn here: two things in two of four quarters of a white picture, 32 × 32 pixels, and a caption.

    "small red circle top left, large blue cross bottom right"        either of the two may be named first

A thing has a size, a colour and a shape: 2 · 4 · 4. Four pairs of colour and shape are never seen in training, one per colour and
one per shape; every picture of the test part has at least one of them. To draw it, a network has to put together what it learned
apart; and to put each thing in its place it has to read the order of the words, not only which words there are.

`read` is the reader of pictures: in every quarter the thing, or nothing, that is nearest to what stands there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minidit.backend import Array, read_only
from minidit.data.captions import Vocabulary
from minidit.data.checks import check_part
from minidit.data.dataset import Dataset, from_uint8
from minidit.random import Philox

SIZES = {"small": 3.5, "large": 6.5}  # half the width in pixels
COLOURS = {"red": (220, 40, 40), "green": (40, 160, 70), "blue": (50, 90, 220), "yellow": (245, 190, 30)}
SHAPES = ("circle", "square", "triangle", "cross")
PLACES = ("top left", "top right", "bottom left", "bottom right")
NEW_PAIRS = {("red", "circle"), ("green", "square"), ("blue", "triangle"), ("yellow", "cross")}
QUARTER, FINER = 16, 4
TRAINING, TEST = 8000, 600
STREAM = 0x736861


class Thing(NamedTuple):
    """What stands in a quarter."""

    size: str
    colour: str
    shape: str


THINGS = [Thing(size, colour, shape) for size in SIZES for colour in COLOURS for shape in SHAPES]


def mask(shape: str, half: float) -> NDArray[np.bool_]:
    """The points of a quarter that a shape covers : (QUARTER·FINER, QUARTER·FINER)."""
    side = (np.arange(QUARTER * FINER) + 0.5) / FINER - QUARTER / 2
    y, x = side[:, None] / half, side[None] / half  # from -1 to 1 within the shape
    inside: NDArray[np.bool_] = {
        "circle": x**2 + y**2 < 1,
        "square": np.maximum(abs(x), abs(y)) < 0.9,
        "triangle": (y < 0.9) & (abs(x) < (y + 1) / 2),
        "cross": (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    }[shape]
    return inside


@lru_cache(maxsize=1)
def drawings() -> NDArray[np.uint8]:
    """Every thing in its quarter, and last the empty quarter : (33, 3, QUARTER, QUARTER)."""
    out = np.full((len(THINGS) + 1, 3, QUARTER, QUARTER), 255, np.uint8)
    for k, thing in enumerate(THINGS):
        covered = mask(thing.shape, SIZES[thing.size]).reshape(QUARTER, FINER, QUARTER, FINER).mean((1, 3))
        colour = np.array(COLOURS[thing.colour])[:, None, None]
        out[k] = np.rint(255 + covered * (colour - 255))
    return read_only(out)


def drawn(quarters: NDArray[np.int64]) -> NDArray[np.uint8]:
    """quarters : (n, 4), numbers of things, len(THINGS) for none  ->  pictures (n, 3, 32, 32)."""
    tiles = drawings()[quarters].reshape(-1, 2, 2, 3, QUARTER, QUARTER)
    return np.ascontiguousarray(tiles.transpose(0, 3, 1, 4, 2, 5).reshape(-1, 3, 2 * QUARTER, 2 * QUARTER))


def read(x: Array) -> NDArray[np.int64]:
    """Pictures in [-1, 1] : (n, 3, 32, 32)  ->  what stands in each quarter : (n, 4), numbers of things, len(THINGS) for none."""
    tiles = np.asarray(x).reshape(-1, 3, 2, QUARTER, 2, QUARTER).transpose(0, 2, 4, 1, 3, 5).reshape(len(x) * 4, -1)
    known = from_uint8(drawings()).reshape(len(THINGS) + 1, -1)
    gap = (known**2).sum(axis=1) - 2 * tiles @ known.T
    return np.asarray(gap.argmin(axis=1), np.int64).reshape(len(x), 4)


def things(quarters: NDArray[np.int64]) -> list[Thing]:
    """What stands in the quarters of a scene : (4,)."""
    return [THINGS[k] for k in quarters if k < len(THINGS)]


def caption(quarters: NDArray[np.int64], swapped: bool) -> str:
    """The caption of a scene of two things; swapped: the lower or right one is named first."""
    places = [place for k, place in zip(quarters, PLACES, strict=True) if k < len(THINGS)]
    parts = [f"{' '.join(thing)} {place}" for thing, place in zip(things(quarters), places, strict=True)]
    return ", ".join(parts[::-1] if swapped else parts)


class Scenes(NamedTuple):
    """quarters : (n, 4), what stands in each quarter of a scene, and the captions."""

    quarters: NDArray[np.int64]
    captions: list[str]


def scenes(part: str) -> Scenes:
    """The scenes of a part, "train" or "test"; always the same."""
    n, rng = (TRAINING, Philox(0, STREAM)) if part == "train" else (TEST, Philox(1, STREAM))
    new = np.array([(t.colour, t.shape) in NEW_PAIRS for t in THINGS])
    known, all_new, everything = np.flatnonzero(~new), np.flatnonzero(new), np.arange(len(THINGS))
    quarters = np.full((n, 4), len(THINGS))
    two = np.argsort(rng.uniform((n, 4)), axis=1)[:, :2]  # of the quarters
    u = rng.uniform((n, 3))
    first = all_new if part == "test" else known
    for j, choice in enumerate((first, everything if part == "test" else known)):
        quarters[np.arange(n), two[:, j]] = choice[(u[:, j] * len(choice)).astype(int)]
    return Scenes(quarters, [caption(q, bool(s)) for q, s in zip(quarters, u[:, 2] < 0.5, strict=True)])


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """The words of all captions."""
    return Vocabulary.of([*scenes("train").captions, *scenes("test").captions])


def shapes(part: str | None = None) -> Dataset:
    """8,000 scenes without the four new pairs, or with part="test" 600 with at least one of them."""
    quarters, captions = scenes(check_part(part))
    return Dataset("shapes", drawn(quarters), vocabulary().rows(captions), (), vocabulary=vocabulary())


def score(x: Array, quarters: NDArray[np.int64]) -> dict[str, float]:
    """How often each property of a thing is the one asked for, its quarter holds anything, the others stay empty, all is right.

    x : pictures in [-1, 1] that were drawn for scenes of these quarters
    """
    got, there = read(x), quarters < len(THINGS)
    asked, drawn_there = quarters[there], got[there]
    sizes, colours = list(SIZES), list(COLOURS)
    table = np.array([[sizes.index(t.size), colours.index(t.colour), SHAPES.index(t.shape)] for t in THINGS] + [[-1] * 3])
    right = (table[asked] == table[drawn_there]).mean(axis=0)
    return {
        "size": float(right[0]), "colour": float(right[1]), "shape": float(right[2]),
        "place": float((drawn_there < len(THINGS)).mean()),
        "others_empty": float((got[~there] == len(THINGS)).reshape(len(x), 2).all(axis=1).mean()),
        "all_right": float((got == quarters).all(axis=1).mean()),
    }  # fmt: skip
