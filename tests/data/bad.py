"""What every bad input is held to: one clear line that names the file."""

import os

import numpy as np
import pytest

from minidit import data
from minidit.incoming import printable


def refused(path, words, *, names=None, **wishes):
    """load(path) raises a DataError of one line that holds the name of the bad file and these words."""
    with pytest.raises(data.DataError, match=words) as caught:
        data.load(path, **wishes)
    line = str(caught.value)
    assert line.isprintable() and printable(os.path.basename(names or path)) in line
    assert isinstance(caught.value, ValueError)
    return line


def npz_file(folder, **arrays):
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"
