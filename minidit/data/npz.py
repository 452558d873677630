"""Data sets in one .npz file: `images`, and for classes `labels` and `class_names`.

    images       uint8 or float, (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3
    labels       whole numbers (N,)
    class_names  text (K,)                     without it each number in labels is a class and its name
    range        (-1, 1) or (0, 1)             for floats: the values of black and white
    levels       one whole number 2..256       for uint8: values are 0..levels-1

Floats need no `range` if their values show it: a negative value means [-1, 1]; whole multiples of 1/255, one of them even, are
bytes over 255 and mean [0, 1], because 2k/255 - 1 = (2k - 255)/255 is always an odd multiple. Anything else is refused, not
guessed. Floats are rounded to bytes (E.8).

Arrays of objects, which could run code when they are read, are never opened. Each header is checked against the limits and
against the length of its member before any data is read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from minidit.data.checks import MAX_VALUES, DataError, check_no_part, check_volume, fault, reading
from minidit.data.dataset import Dataset
from minidit.data.labels import numbered
from minidit.incoming import PACKINGS, opened_zip
from minidit.pictures import to_uint8

Arrays = dict[str, NDArray[Any]]
KNOWN = ("images", "labels", "class_names", "range", "levels")
MAX_LABEL = 65535
MAX_ARRAYS = 64  # in one file
MAX_HEADER = 1024  # bytes of an array's header: NumPy reads a damaged one of ten times as many for seconds
MAX_BYTES = 4 * MAX_VALUES  # of all arrays together: the largest data set as float32
OURS = (*PACKINGS, zipfile.ZIP_LZMA)  # of the sets inside the package
SETS = Path(__file__).with_name("sets")  # where these are
BLOCK = 1024  # images converted to float64 at one time
ROUNDING = 2.0**-10  # float16 beside 1; clipped
ON_GRID = 0.13  # in units of 1/255: float16 is within 0.125 of k/255


def write(path: str | Path, arrays: Mapping[str, NDArray[Any]], method: int = zipfile.ZIP_DEFLATED) -> None:
    """Writes an .npz file whose bytes depend on the arrays alone (np.savez writes the time of day)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            entry.compress_type, entry.external_attr = method, 0o644 << 16
            with archive.open(entry, "w") as member:
                npy.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)


def read_arrays(path: Path, packings: Collection[int] = OURS) -> Arrays:
    """Every array of an .npz file; packings: of a foreign file those that NumPy writes.

    Raises DataError for objects, lying headers, damage, and sets above the limits."""
    arrays: Arrays = {}
    with opened_zip(path, DataError, packings) as archive, reading(path):
        total = sum(entry.file_size for entry in archive.infolist())
        if total > MAX_BYTES:
            raise fault(path, f"unpacks to {total} bytes, above the limit of {MAX_BYTES}")
        if len(archive.infolist()) > MAX_ARRAYS:
            raise fault(path, f"holds {len(archive.infolist())} arrays, above the limit of {MAX_ARRAYS}")
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            with archive.open(entry) as member:
                arrays[name] = _read_member(member, entry.file_size, f"{path}: {name}")
    return arrays


def _read_member(member: IO[bytes], length: int, where: str) -> NDArray[Any]:
    version = npy.read_magic(member)
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in headers:
        raise fault(where, f"npy version {version} holds records, not an array of numbers")
    shape, fortran, dtype = headers[version](member, max_header_size=MAX_HEADER)
    if dtype.hasobject:
        raise fault(where, "holds Python objects (a pickle), which are never loaded")
    nbytes = check_volume(where, shape) * dtype.itemsize
    if nbytes != length - member.tell():
        raise fault(where, f"its header announces {nbytes} bytes {shape} {dtype}, the file holds {length - member.tell()}")
    data = member.read(nbytes)  # reading the last byte also verifies the checksum
    if len(data) != nbytes:
        raise fault(where, f"truncated: {len(data)} of {nbytes} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def read(path: Path, part: str | None = None) -> Dataset:
    """An .npz file -> Dataset. Raises DataError (one line, with the file) for anything not described above."""
    check_no_part(path, part)
    arrays = read_arrays(path, PACKINGS)
    unknown = sorted(set(arrays) - set(KNOWN))
    if "images" not in arrays or unknown:
        raise fault(path, f"holds {', '.join(sorted(arrays)) or 'nothing'}; expected images, and perhaps {', '.join(KNOWN[1:])}")
    levels = _levels(path, arrays)
    images = _channels_first(path, arrays["images"])
    if images.dtype.kind == "f":
        images = _bytes_of(path, images, arrays.get("range"))
    elif images.dtype != np.uint8:
        raise fault(path, f"images are {images.dtype}; expected uint8 or float")
    elif "range" in arrays:
        raise fault(path, "has a range, but its images are uint8")
    with reading(path):
        labels, names = _classes(path, arrays, len(images))
    return Dataset(str(path), images, labels, names, levels)


def _channels_first(path: Path, images: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W), (N, C, H, W) or (N, H, W, C)  ->  (N, C, H, W)."""
    if images.size == 0:
        raise fault(path, f"holds no images: {images.shape}")
    if images.ndim == 3 and images.shape[2] in (1, 3):
        raise fault(path, f"images are {images.shape}: one picture (H, W, C)? Write (1, H, W, C); grey ones are (N, 1, H, W)")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise fault(path, f"images are {images.shape}; expected (N, H, W), (N, C, H, W) or (N, H, W, C)")
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if first == last:
        why = "both the second and the last axis could be the channels" if first else "no axis has 1 or 3 channels"
        raise fault(path, f"images are {images.shape}: {why}")
    return images if first else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _bytes_of(path: Path, x: NDArray[Any], limits: NDArray[Any] | None) -> NDArray[np.uint8]:
    """Floats in [-1, 1] or [0, 1]  ->  the nearest bytes."""
    if not (finite := np.isfinite(x)).all():
        raise fault(path, f"{np.count_nonzero(~finite)} values of images are not finite")
    low, high = float(x.min()), float(x.max())
    if low < -1 - ROUNDING or high > 1 + ROUNDING:
        where = f"these lie in [{low:.9g}, {high:.9g}] (bytes must be uint8)"
        raise fault(path, f"float images must lie in [-1, 1] or [0, 1], {where}")
    if limits is None:
        black = -1 if low < -ROUNDING else _zero_if_bytes_over_255(path, x)
    elif limits.dtype.kind in "iuf" and limits.shape == (2,) and tuple(limits) in ((-1, 1), (0, 1)):
        black = int(limits[0])
    else:
        raise fault(path, f"range is {limits.tolist()}; expected (-1, 1) or (0, 1)")
    if low < black - ROUNDING:
        raise fault(path, f"range is (0, 1), but the lowest value of images is {low:g}")
    out = np.empty(x.shape, np.uint8)
    for n in range(0, len(x), BLOCK):
        block = x[n : n + BLOCK].astype(np.float64)
        out[n : n + BLOCK] = to_uint8(block if black < 0 else 2 * block - 1)
    return out


def _zero_if_bytes_over_255(path: Path, x: NDArray[Any]) -> int:
    """The value 0 of black, for floats ≥ 0 that are k/255 and cannot be 2k/255 - 1. Raises DataError for others."""
    even = False
    for n in range(0, len(x), BLOCK):
        k = x[n : n + BLOCK].astype(np.float64) * 255
        nearest = np.rint(k)
        if float(np.abs(k - nearest).max()) > ON_GRID:
            break
        even = even or bool((nearest % 2 == 0).any())
    else:
        if even:
            return 0
    raise fault(path, "float images without a negative value: [0, 1] or [-1, 1]? Add an array `range`, (0, 1) or (-1, 1)")


def _levels(path: Path, arrays: Arrays) -> int:
    levels = arrays.get("levels", np.array(256))
    if levels.size != 1 or levels.dtype.kind not in "iu":
        raise fault(path, f"levels must be one whole number, got {levels.dtype} {levels.shape}")
    if "levels" in arrays and arrays["images"].dtype.kind == "f":
        raise fault(path, "has levels, but its images are floats")
    return int(levels.item())


def _classes(path: Path, arrays: Arrays, n: int) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    names = arrays.get("class_names")
    if names is not None and (names.dtype.kind not in "US" or names.ndim != 1 or names.size == 0):
        raise fault(path, f"class_names must be a list of text, got {names.dtype} {names.shape}")
    words = () if names is None else tuple(s.decode() if isinstance(s, bytes) else s for s in names.tolist())
    if "labels" not in arrays:
        return None, words
    labels = arrays["labels"]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise fault(path, f"labels must be whole numbers (N,), got {labels.dtype} {labels.shape}")
    if len(labels) != n:
        raise fault(path, f"{len(labels)} labels for {n} images")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > MAX_LABEL:
        raise fault(path, f"label {low if low < 0 else high} is out of range: 0..{MAX_LABEL} at most")
    return (labels.astype(np.int64), words) if words else numbered(labels)
