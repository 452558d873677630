"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

    00 00 08 r   n_1 ... n_r (32 bits, big-endian)   Π n_i bytes          r = 3: images (N, H, W);  r = 1: labels (N,)

A folder holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-… and t10k-labels-… (also with a dot instead of the
dash before idx, also with .gz). Of a single images file, the labels are looked for beside it (images → labels, idx3 → idx1);
without them it is unconditional. Never more of a gzipped file is unpacked than its header announces.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from minidit.data.checks import DataError, NoPart, check_no_part, check_part, check_volume, fault, reading
from minidit.data.dataset import Dataset
from minidit.data.labels import numbered
from minidit.incoming import DEFLATE, is_bomb, regular_file

STEMS = {"train": "train", "test": "t10k"}
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def read_array(path: Path, rank: int) -> NDArray[np.uint8]:
    """One IDX file of that rank (1: labels, 3: images). Raises DataError for anything but exactly what its header announces."""
    what = {1: "labels", 3: "images"}[rank]
    with reading(path), _open(path) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or not 8 <= head[2] <= 14:
            raise fault(path, f"not an IDX file (it starts with {head.hex(' ')}, expected 00 00 08 {rank:02x})")
        if head[2] != 8 or head[3] != rank:
            raise fault(path, f"IDX type {head[2]:#04x} of rank {head[3]}; {what} are type 0x08 (bytes) of rank {rank}")
        dims = file.read(4 * rank)
        if len(dims) < 4 * rank:
            raise fault(path, "truncated: the header is not complete")
        shape = tuple(int.from_bytes(dims[4 * i : 4 * i + 4], "big") for i in range(rank))
        expected = check_volume(path, shape)
        if not expected:
            raise fault(path, f"holds no {what}: {shape}")
        size, zipped = path.stat().st_size, isinstance(file, gzip.GzipFile)
        room = size * DEFLATE if zipped else size - file.tell()
        if expected > room:
            most = " at most" if zipped else ""
            raise fault(path, f"its header announces {expected} bytes {shape}, but truncated: it holds {room}{most}")
        if zipped and is_bomb(expected, size):
            raise fault(path, f"unpacks {size} bytes to {expected}: no data are that empty")
        data = file.read(expected + 1)
    if len(data) != expected:
        problem = f"truncated: it holds {len(data)}" if len(data) < expected else "it holds more"
        raise fault(path, f"its header announces {expected} bytes {shape}, but {problem}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _open(path: Path) -> IO[bytes]:
    regular_file(path, DataError)
    file = path.open("rb")
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not zipped:
        return file
    file.close()
    return cast(IO[bytes], gzip.open(path, "rb"))


def is_idx(path: Path) -> bool:
    """Whether the file, unpacked if it is gzipped, starts like an IDX file of any type and rank."""
    with reading(path), _open(path) as file:
        head = file.read(4)
    return len(head) == 4 and head[:2] == b"\0\0" and 8 <= head[2] <= 14


def find(folder: Path, stem: str, what: str) -> Path | None:
    """The file "train-images-idx3-ubyte" or one of its other spellings, for stem "train" and what "images" or "labels"."""
    rank = {"labels": 1, "images": 3}[what]
    spellings = (f"{stem}-{what}{dot}idx{rank}-ubyte{end}" for dot in "-." for end in ("", ".gz"))
    return next((folder / name for name in spellings if (folder / name).is_file()), None)


def holds_idx(folder: Path) -> bool:
    """Whether a folder is laid out like MNIST."""
    return any(find(folder, stem, what) for stem in STEMS.values() for what in ("images", "labels"))


def read(path: Path, part: str | None = None) -> Dataset:
    """A folder (part "train" unless "test") or one images file -> Dataset, unpadded. Raises DataError."""
    if path.is_dir():
        return _read_folder(path, STEMS[check_part(part)])
    check_no_part(path, part)
    beside = path.name.replace("images", "labels").replace("idx3", "idx1")
    candidates = (path.with_name(n) for n in (beside, beside.removesuffix(".gz"), beside + ".gz") if "images" in path.name)
    labels = next((p for p in candidates if p.is_file()), None)
    return _joined(path, path, labels, path.parent)


def _read_folder(folder: Path, stem: str) -> Dataset:
    images, labels = find(folder, stem, "images"), find(folder, stem, "labels")
    if images is None or labels is None:
        missing = f"{stem}-images-idx3-ubyte" if images is None else f"{stem}-labels-idx1-ubyte"
        raise NoPart(f"{folder}: looks like an MNIST folder, but {missing} (or .gz) is missing")
    other = next((p for s in STEMS.values() if s != stem and (p := find(folder, s, "labels"))), None)
    return _joined(folder, images, labels, folder, other)


def _joined(source: Path, images: Path, labels: Path | None, folder: Path, other: Path | None = None) -> Dataset:
    """other : the labels of the other part, so that both parts get the same classes."""
    x = read_array(images, 3)[:, None]
    if labels is None:
        return Dataset(str(source), x, None, ())
    y = read_array(labels, 1)
    if len(y) != len(x):
        raise fault(labels, f"{len(y)} labels for {len(x)} images")
    others = [read_array(other, 1)] if other else []
    top = max(int(a.max()) for a in (y, *others))
    folders = {p.name.lower().replace("-", "").replace("_", "") for p in (folder, folder.absolute().parent)}
    known = "fashionmnist" in folders and top < len(FASHION)
    return Dataset(str(source), x, *((y.astype(np.int64), FASHION) if known else numbered(y, *others)))
