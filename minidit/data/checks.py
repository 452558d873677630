"""What every reader of foreign files promises: one clear line that names the file, and no more memory than a stated limit.

Nothing is unpickled, nothing is skipped silently, and no buffer is allocated on the word of a header alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MAX_VALUES = 2**31  # bytes that one data set may take when decoded (images × channels × height × width)
MAX_PIXELS = 2**26  # pixels of one picture file (8192 × 8192)


class DataError(ValueError):
    """A data set that cannot be used. The message is one line and names the file."""


def fault(path: object, why: object) -> DataError:
    """The error to raise for a file: "path: why" on one line."""
    return DataError(f"{path}: {why}".replace("\n", " ").replace("\r", " "))


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Whatever a decoder trips over inside, the caller is told which file it was (the decoder's own error is the cause)."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # zlib, lzma, zip and picture decoders each have several exceptions of their own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise fault(path, f"cannot be read: {reason}") from error


def check_volume(path: object, shape: Sequence[int]) -> int:
    """The number of values of a uint8 array of that shape. Raises DataError above MAX_VALUES, before anything is allocated."""
    values = math.prod(int(n) for n in shape)
    if values > MAX_VALUES:
        raise fault(path, f"{tuple(shape)} is {values} values, above the limit of {MAX_VALUES}")
    return values


def check_no_part(path: Path, part: str | None) -> None:
    """Refuses a part ("train", "test") of a source that comes in one piece."""
    if part is not None:
        raise fault(path, f"has no separate {part!r} part: it comes in one piece (Dataset.split holds some out)")


def check_part(part: str | None) -> str:
    """"train" or "test"; None is the training part."""
    if part not in (None, "train", "test"):
        raise DataError(f"part must be 'train' or 'test', got {part!r}")
    return part or "train"
