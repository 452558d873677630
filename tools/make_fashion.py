"""Writes minidit/data/sets/fashion.npz: the first images of every class of Fashion-MNIST, training and test apart.

    python tools/make_fashion.py FOLDER [minidit/data/sets/fashion.npz]

FOLDER holds train-images-idx3-ubyte.gz and its three companions, as the Debian package dataset-fashion-mnist installs them
(/usr/share/datasets/fashion-mnist). LZMA inside the zip makes 2.6 MB of what deflate makes 3.0.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

from minidit.data import idx, npz

OUT = Path(__file__).parent.parent / "minidit" / "data" / "sets" / "fashion.npz"
PER_CLASS = {"train": 600, "test": 100}


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """{train,test}_images uint8 (N, 28, 28) and _labels uint8 (N,): of each class the first ones, in the order of the source."""
    out = {}
    for part, count in PER_CLASS.items():
        data = idx.read(folder, part)
        rows = np.sort(np.concatenate([np.flatnonzero(data.labels == c)[:count] for c in range(10)]))
        out[f"{part}_images"], out[f"{part}_labels"] = data.images[rows, 0], data.labels[rows].astype(np.uint8)
    return {**out, "class_names": np.array(idx.FASHION)}


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    npz.write(sys.argv[2] if len(sys.argv) > 2 else OUT, arrays(Path(sys.argv[1])), zipfile.ZIP_LZMA)
