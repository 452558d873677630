"""What every bad input is held to: one clear line that names the file, within a second and 64 MB."""

import os

import numpy as np
from hostile import bounds

from minidit import data
from minidit.incoming import printable


def refused(path, words, *, names=None, **wishes):
    """load(path) raises a DataError of one line that holds the name of the bad file and these words."""
    name = printable(os.path.basename(names or path))
    return bounds.refused(lambda p: data.load(p, **wishes), path, words, name=name, kind="DataError")


def npz_file(folder, **arrays):
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"
