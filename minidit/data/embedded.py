"""The data sets inside the package; their sources and licences are beside them in sets/.

    digits     handwritten digits, 8×8, 17 grey levels, 10 classes: 1,797 images, of which a fixed 297 are the test part
    fashion    Fashion-MNIST, 28×28 in a border of 2 pixels, 256 levels, 10 classes: 600 training and 100 test images per class
    emoji      emoji in three styles, 32×32 in colour, with captions instead of classes: emoji.py
    shapes     scenes of two things, 32×32 in colour, with captions; drawn, not stored: shapes.py
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minidit.backend import read_only
from minidit.data.checks import check_part
from minidit.data.dataset import Dataset
from minidit.data.emoji import emoji
from minidit.data.npz import SETS, Arrays, read_arrays
from minidit.data.pixels import fit
from minidit.data.shapes import shapes

DIGITS_TEST = 297  # held out by Dataset.split with seed 0


@lru_cache(maxsize=2)  # the files never change
def _arrays(name: str) -> Arrays:
    return {name: read_only(array) for name, array in read_arrays(SETS / name).items()}


def digits(part: str | None = None) -> Dataset:
    """The UCI digits, the training part (1,500) or with part="test" the other 297: 8×8, one channel, 17 levels."""
    a = _arrays("digits.npz")
    names = tuple(str(s) for s in a["class_names"])
    everything = Dataset("digits", a["images"][:, None], a["labels"].astype(np.int64), names, int(a["levels"]))
    train, test = everything.split(DIGITS_TEST, seed=0)
    return train if check_part(part) == "train" else test


def fashion_unpadded(part: str | None = None) -> Dataset:
    """The embedded part of Fashion-MNIST at 28×28."""
    a, part = _arrays("fashion.npz"), check_part(part)
    names = tuple(str(s) for s in a["class_names"])
    return Dataset("fashion", a[f"{part}_images"][:, None], a[f"{part}_labels"].astype(np.int64), names)


def fashion(part: str | None = None) -> Dataset:
    """6,000 training images of Fashion-MNIST, or with part="test" 1,000 of its test set: 32×32, one channel, crop = 2."""
    return fit(fashion_unpadded(part), 32, None)


EMBEDDED = {"digits": digits, "fashion": fashion_unpadded, "emoji": emoji, "shapes": shapes}
