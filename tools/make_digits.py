"""Writes minidit/data/sets/digits.npz from scikit-learn's copy of the UCI digits (no download).

    python tools/make_digits.py [minidit/data/sets/digits.npz]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from minidit.data import npz

OUT = Path(__file__).parent.parent / "minidit" / "data" / "sets" / "digits.npz"


def arrays() -> dict[str, np.ndarray]:
    """images uint8 (1797, 8, 8) in 0..16, labels uint8 (1797,), in the order of the source."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images = source.images.astype(np.uint8)
    assert (images == source.images).all(), "the digits are whole numbers"
    names = np.array([str(i) for i in range(10)])
    return {"images": images, "labels": source.target.astype(np.uint8), "class_names": names, "levels": np.array(17)}


if __name__ == "__main__":
    npz.write(sys.argv[1] if len(sys.argv) > 1 else OUT, arrays())
