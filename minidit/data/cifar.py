"""CIFAR-10 and CIFAR-100 in their binary version.

    CIFAR-10     record = label, 3·32·32 bytes                    data_batch_1.bin, …, test_batch.bin
    CIFAR-100    record = coarse label, fine label, 3·32·32 bytes      train.bin and test.bin; the fine labels are used

Pixels are stored channel by channel, row by row: (3, 32, 32). The "python version" of CIFAR is a pickle, which can run any code
when it is loaded: it is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minidit.data.checks import DataError, NoPart, check_no_part, check_part, check_volume, fault, reading
from minidit.data.dataset import Dataset
from minidit.incoming import read_text, regular_file

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32
PICKLED = re.compile(r"(data_batch_[0-9]+|test_batch|batches\.meta|train|test|meta)")
TEN_FILE = re.compile(r"(data_batch_[0-9]+|test_batch)\.bin")
HUNDRED_FILE = re.compile(r"(train|test)\.bin")


def holds_cifar(folder: Path) -> bool:
    """Whether a folder is laid out like CIFAR, in either version."""
    files = {p.name for p in folder.iterdir() if p.is_file()}
    pickled = "data_batch_1" in files or {"train", "test", "meta"} <= files
    return pickled or any(TEN_FILE.fullmatch(n) or HUNDRED_FILE.fullmatch(n) for n in files)


def refuse_pickle(path: Path) -> None:
    """Raises DataError for a file that is a pickle (its first byte is 0x80)."""
    with reading(path), path.open("rb") as file:
        head = file.read(2)
    if head[:1] == b"\x80" and 2 <= head[-1] <= 5:
        raise fault(path, "is a pickle (the python version of CIFAR?), which could run any code and is never loaded: "
                          "use the binary version (data_batch_1.bin, …)")


def read(path: Path, part: str | None = None) -> Dataset:
    """A folder (part "train" unless "test") or one .bin file -> Dataset of 32×32 colour images. Raises DataError."""
    if not path.is_dir():
        check_no_part(path, part)
        return _joined(path, [path], path.parent)
    test = check_part(part) == "test"
    names = sorted((p.name for p in path.iterdir() if p.is_file()), key=lambda n: (len(n), n))  # batch_10 after batch_9
    ten = [n for n in names if TEN_FILE.fullmatch(n)]
    files = [n for n in ten or [n for n in names if HUNDRED_FILE.fullmatch(n)] if n.startswith("test") == test]
    if not files:
        for name in names:
            if PICKLED.fullmatch(name):
                refuse_pickle(path / name)
        raise NoPart(f"{path}: looks like a CIFAR folder, but its {'test' if test else 'training'} file is missing")
    return _joined(path, [path / n for n in files], path)


def _joined(source: Path, files: list[Path], folder: Path) -> Dataset:
    hundred = HUNDRED_FILE.fullmatch(files[0].name) is not None
    names = _names(folder / "fine_label_names.txt", 100) if hundred else _names(folder / "batches.meta.txt", 10)
    check_volume(source, (sum(f.stat().st_size for f in files),))
    records = [_records(f, (20, 100) if hundred else (10,)) for f in files]
    labels, pixels = zip(*records, strict=True)
    return Dataset(str(source), np.concatenate(pixels), np.concatenate(labels), names)


def _records(path: Path, classes: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """One file -> labels (N,), pixels (N, 3, 32, 32).   classes : the number of classes, for each label byte of a record"""
    _check_length(path, len(classes) + PIXELS)
    with reading(path):
        records = np.fromfile(path, np.uint8).reshape(-1, len(classes) + PIXELS)
    for column, k in enumerate(classes):
        worst = int(records[:, column].max())
        if worst >= k:
            raise fault(path, f"label {worst} is out of range: there are {k} classes")
    return records[:, len(classes) - 1].astype(np.int64), records[:, len(classes):].reshape(-1, 3, 32, 32)


def _check_length(path: Path, record: int) -> None:
    """Raises DataError for a file that is not a whole number of records, with another message if it is a pickle."""
    length = regular_file(path, DataError)
    if length == 0 or length % record:
        refuse_pickle(path)
        raise fault(path, f"its length of {length} bytes is not a whole number of records of {record} bytes")


def _names(path: Path, k: int) -> tuple[str, ...]:
    """The class names, from the text file of the distribution if it is there."""
    if not path.is_file():
        return TEN if k == 10 else tuple(str(i) for i in range(k))
    names = tuple(line.strip() for line in read_text(path, DataError).splitlines() if line.strip())
    if len(names) != k:
        raise fault(path, f"names {len(names)} classes, not {k}")
    return names
