"""Loads a data set by the name of an embedded set, or from a file or folder."""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from pathlib import Path

from minidit.data import cifar, folder, idx, npz
from minidit.data.cache import Cache
from minidit.data.checks import DataError, fault, reading
from minidit.data.clips import clips
from minidit.data.dataset import Dataset
from minidit.data.decode import Request
from minidit.data.embedded import EMBEDDED
from minidit.data.pixels import check_request, fit
from minidit.keywords import meant

CLIPS = "clips"  # moving digits, made by their law of motion
FORMATS = ".npz, IDX (MNIST; plain or .gz), CIFAR binary (.bin), or a folder of pictures"


def load(
    source: str | PathLike[str],
    *,
    size: int | None = None,
    channels: int | None = None,
    frames: int | None = None,
    part: str | None = None,
    skip_bad: bool = False,
    leave_out: Collection[str] | None = None,
    cache: Cache | None = None,
) -> Dataset:
    """The data set of a source.

    source   : "digits", "fashion", "clips" (these names win over a path; ./digits is the path), a file, or a folder
    size     : int, the images become size × size; None: as they are, but the 28×28 images of "fashion" and of IDX files are
               padded to 32×32, and pictures in a folder follow the rule in folder.py
    channels : 1 or 3; None: as they are     frames : of every clip; pictures have none
    part     : "train" (the same as None) or "test" of a source that has both
    skip_bad, leave_out, cache : of a folder of pictures: leave out files that cannot be read, or exactly these (paths inside
               the folder); a large set is decoded into the cache and stays on disk

    Raises DataError, a ValueError of one line, for a source that cannot be used.
    """
    check_request(size, channels)
    if str(source) == CLIPS:
        return fit(clips(part, size=size, frames=frames), None, channels)
    if frames is not None:
        raise DataError(f"{source}: holds pictures, not clips: leave out --frames")
    if str(source) in EMBEDDED:
        data = EMBEDDED[str(source)](part)
        return fit(data, size or _padded(data), channels)
    path = Path(source).expanduser()
    with reading(path):
        if path.is_dir():
            request = Request(size, channels, skip_bad, None if leave_out is None else frozenset(leave_out))
            return _load_folder(path, request, part, cache)
        if path.is_file():
            return _load_file(path, size, channels, part)
        raise fault(path, "neither a file nor a folder" if path.exists() else _missing(str(source)))


def _load_folder(path: Path, request: Request, part: str | None, cache: Cache | None) -> Dataset:
    size, channels = request.size, request.channels
    if idx.holds_idx(path):
        data = idx.read(path, part)
        return fit(data, size or _padded(data), channels)
    if cifar.holds_cifar(path):
        return fit(cifar.read(path, part), size, channels)
    inner = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")][:2]
    if len(inner) == 1 and (idx.holds_idx(inner[0]) or cifar.holds_cifar(inner[0])):  # an archive was unpacked here
        return _load_folder(inner[0], request, part, cache)
    return folder.read(path, part, request, cache)


def _load_file(path: Path, size: int | None, channels: int | None, part: str | None) -> Dataset:
    if path.suffix == ".npz":
        return fit(npz.read(path, part), size, channels)
    if idx.is_idx(path):
        data = idx.read(path, part)
        return fit(data, size or _padded(data), channels)
    if cifar.TEN_FILE.fullmatch(path.name) or cifar.HUNDRED_FILE.fullmatch(path.name):
        return fit(cifar.read(path, part), size, channels)
    cifar.refuse_pickle(path)
    raise fault(path, f"not a data set in a known format: {FORMATS} (unpack an archive first)")


def _padded(data: Dataset) -> int | None:
    """32 for images of 28×28, which an autoencoder could halve only twice; None for other sizes."""
    return 32 if data.size == (28, 28) else None


def _missing(source: str) -> str:
    known = [*EMBEDDED, CLIPS]
    return f"no such file or folder; embedded sets are {', '.join(known)}{meant(source, known)}"


