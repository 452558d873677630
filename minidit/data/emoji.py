"""Emoji with their names: 1,594 emoji and 1,545 of their skin tones, each drawn in three styles, 32 × 32 pixels in colour.

    "red apple, noto"        "woman scientist, dark skin tone, twemoji"        "frog, fluent"

The test part holds pictures that a network can draw only by putting together what it learned apart:

    style    one style of about 24 % of the emoji, all tones of it: seen in the two other styles only
    tone     about 8 % of the combinations (emoji, skin tone), in all three styles: seen in other tones only

Which these are, a hash of the name decides. Sources and licences are in sets/emoji.LICENSE.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from minidit.data.captions import Vocabulary
from minidit.data.checks import check_part
from minidit.data.dataset import Dataset
from minidit.data.npz import SETS, read_arrays

STYLES = ("noto", "twemoji", "fluent")
TONES = ("", "light", "medium-light", "medium", "medium-dark", "dark")
PARTS_OF = 10_000
STYLE_HELD_OUT, TONE_HELD_OUT = 2_400, 800  # of PARTS_OF


@dataclass(frozen=True, eq=False)
class Emoji:
    """All pictures: images (N, 3, 32, 32) uint8 with their captions.

    names : of the emoji   emoji, tone, style : (N,), numbers in names, TONES and STYLES
    new_style, new_tone : (N,), whether a picture is held out for its style, or for its tone; both may be
    """

    images: NDArray[np.uint8]
    captions: tuple[str, ...]
    names: tuple[str, ...]
    emoji: NDArray[np.int64]
    tone: NDArray[np.int64]
    style: NDArray[np.int64]
    new_style: NDArray[np.bool_]
    new_tone: NDArray[np.bool_]

    @property
    def held_out(self) -> NDArray[np.bool_]:
        return self.new_style | self.new_tone

    def where(self, part: str) -> NDArray[np.int64]:
        """The numbers of the pictures of a part, "train" or "test"."""
        return np.flatnonzero(self.held_out == (part == "test"))


def caption(name: str, tone: int, style: int) -> str:
    """The caption of a picture: name, skin tone if it has one, style."""
    return ", ".join([name, *([f"{TONES[tone]} skin tone"] if tone else []), STYLES[style]])


def lot(text: str) -> int:
    """A number that is a function of a text alone, as good as drawn by chance."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@lru_cache(maxsize=1)
def everything() -> Emoji:
    """All pictures of the embedded set, both parts."""
    a = read_arrays(SETS / "emoji.npz")
    names = tuple(str(name) for name in a["names"])
    n = len(a["emoji"])
    emoji, tone = (np.tile(a[key].astype(np.int64), len(STYLES)) for key in ("emoji", "tone"))
    style = np.repeat(np.arange(len(STYLES)), n)
    images = np.concatenate([a[f"{word}_palette"][a[word]] for word in STYLES]).transpose(0, 3, 1, 2)
    lots = np.array([lot(f"style {name}") for name in names], np.uint64)
    chosen = np.where(lots % PARTS_OF < STYLE_HELD_OUT, lots // PARTS_OF % len(STYLES), len(STYLES)).astype(np.int64)
    pairs = {(e, t): lot(f"tone {names[e]} {t}") % PARTS_OF < TONE_HELD_OUT for e, t in zip(emoji, tone, strict=True) if t}
    new_tone = np.array([pairs.get((e, t), False) for e, t in zip(emoji, tone, strict=True)])
    captions = tuple(caption(names[e], int(t), int(s)) for e, t, s in zip(emoji, tone, style, strict=True))
    images = np.ascontiguousarray(images)
    for array in (images, emoji, tone, style, new_tone):
        array.setflags(write=False)
    return Emoji(images, captions, names, emoji, tone, style, chosen[emoji] == style, new_tone)


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """The words of all names, tones and styles."""
    return Vocabulary.of(everything().captions)


def emoji(part: str | None = None) -> Dataset:
    """The training part, or with part="test" the combinations that are held out: 32×32, three channels, with captions."""
    whole, words = everything(), vocabulary()
    rows = whole.where(check_part(part))
    labels = words.rows([whole.captions[k] for k in rows])
    return Dataset("emoji", whole.images[rows], labels, (), vocabulary=words)
