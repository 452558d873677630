"""Data sets: those inside the package, clips made of them, and readers of the usual formats.

    data.load("fashion")          or "digits"; "emoji" and "shapes" have captions
    data.load("~/pictures", size=64)          data.load("mnist/", part="test")
    data.load("clips", frames=6)  digits that move on a torus
    data.load("~/pictures", cache=data.Cache())     a set larger than memory stays on disk
"""

from minidit.data.cache import Cache
from minidit.data.checks import DataError
from minidit.data.clips import clips, moving
from minidit.data.dataset import Dataset, from_uint8
from minidit.data.embedded import digits, fashion
from minidit.data.labels import parse_labels
from minidit.data.order import batch_indices
from minidit.data.source import load
from minidit.pictures import to_uint8

__all__ = [
    "Cache", "DataError", "Dataset", "batch_indices", "clips", "digits", "fashion", "from_uint8", "load", "moving",
    "parse_labels", "to_uint8",
]  # fmt: skip
