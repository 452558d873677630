"""What every reader of data files promises: errors of one line that name the file, and a limit on memory.

Nothing is unpickled, no file is skipped silently, and no buffer is allocated before a header's claim has been checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from minidit import incoming

MAX_VALUES = 2**31  # bytes of a decoded data set (images × channels × height × width)
MAX_PIXELS = 2**26  # pixels of one picture file: 8192 × 8192


MAX_PICTURE = 2**28  # bytes of one picture file
MAX_FILES = 2**22  # in a folder of pictures
DENSE = 2**22  # pixels of a picture that may be as small a file as it likes


class DataError(incoming.Refusal):
    """A data set that cannot be used. The message is one line and names the file."""


class NoPart(DataError):
    """A set without the part that was asked for."""


def fault(path: object, why: object) -> DataError:
    """The error to raise for a file: "path: why" on one line."""
    return DataError(f"{path}: {why}")


def reading(path: object) -> AbstractContextManager[None]:
    """Turns whatever a decoder raises inside the block into a DataError that names the file, with the original as its cause."""
    return incoming.reading(path, DataError)


def check_volume(path: object, shape: Sequence[int]) -> int:
    """The number of values of a uint8 array of that shape. Raises DataError above MAX_VALUES, before anything is allocated."""
    values = math.prod(int(n) for n in shape)
    if values > MAX_VALUES:
        raise fault(path, f"{tuple(shape)} is {values} values, above the limit of {MAX_VALUES}")
    return values


def check_no_part(path: Path, part: str | None) -> None:
    """Raises DataError for a part ("train", "test") of a source that has no parts."""
    if part is not None:
        raise NoPart(f"{path}: has no separate {part!r} part (Dataset.split makes one)")


def check_part(part: str | None) -> str:
    """The name of a part, "train" or "test"; None means "train". Raises DataError for another name."""
    if part not in (None, "train", "test"):
        raise DataError(f"part must be 'train' or 'test', got {part!r}")
    return part or "train"
