"""Sizes and channels: a picture of any kind becomes RGB bytes, and a data set gets the size and channels asked for.

    Y = round(0.299 R + 0.587 G + 0.114 B)      colour to grey (ITU-R BT.601)
    c = α c + (1 - α) · 255                     transparent pixels, on white

To change a picture's size, its largest centred square is cut out and resampled once (Lanczos), in bytes. A picture that already
has the size keeps every byte. Pillow is imported only where it is needed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minidit.data.checks import DataError, check_volume
from minidit.data.dataset import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_SIZE = 4096
WIDE = 2**12  # a value that 12 bits cannot hold


def is_wide(picture: Picture) -> bool:
    """Whether its values have 16 bits."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")


def to_rgb(picture: Picture) -> Picture:
    """A picture of any Pillow mode -> mode RGB, upright, on white. Raises ValueError where the range of its values is unknown."""
    from PIL import Image, ImageOps

    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _from_wide(picture)
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _from_wide(picture: Picture) -> Picture:
    """16-bit grey -> 8 bits, k → round(255 k / 65535), its one transparent value (if any) to white."""
    from PIL import Image

    if not is_wide(picture):
        raise ValueError(f"pixels of mode {picture.mode!r} have no known range: convert it to 8 or 16 bits")
    k = np.asarray(picture).astype(np.int64)
    grey = np.rint(k * (255 / 65535)).astype(np.uint8)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey[k == clear] = 255
    out = Image.fromarray(grey)
    out.info["exif"] = picture.info.get("exif", b"")
    return out


def square(picture: Picture, size: int) -> Picture:
    """The largest centred square of a picture, resampled to size × size; the picture itself if it has that size."""
    from PIL import Image

    w, h = picture.size
    if w == h == size:
        return picture
    side = min(w, h)
    left, top = (w - side) // 2, (h - side) // 2
    middle = picture.crop((left, top, left + side, top + side))  # resize(box=...) would read beyond its edge
    return middle.resize((size, size), Image.Resampling.LANCZOS)


def to_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """(N, 1 or 3, H, W)  ->  (N, channels, H, W): grey is repeated, colour becomes Y."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.repeat(3, axis=1)
    out = np.empty((len(images), 1, *images.shape[2:]), np.uint8)
    for n, (r, g, b) in enumerate(images):  # one at a time: as floats the whole set would take eight times the memory
        out[n, 0] = np.rint(0.299 * r + 0.587 * g + 0.114 * b)
    return out


def check_request(size: int | None, channels: int | None) -> None:
    """Raises DataError unless size is in 1..MAX_SIZE and channels is 1 or 3 (None: as it is)."""
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_SIZE):
        raise DataError(f"size must be a whole number in 1..{MAX_SIZE}, got {size!r}")
    if channels not in (None, 1, 3):
        raise DataError(f"channels must be 1 or 3, got {channels!r}")


def fit(data: Dataset, size: int | None, channels: int | None) -> Dataset:
    """The data set at size × size with that many channels (None: as it is).

    28×28 becomes 32×32 by a black border of two pixels (crop = 2), not by resampling; resampled images have 256 levels.
    """
    images = np.asarray(data.images)
    if channels is not None:
        images = to_channels(images, channels)
        data = replace(data, images=images)
    if size is None or data.size == (size, size):
        return data
    check_volume(data.name, (len(data), data.channels, size, size))
    if size == 32 and data.size == (28, 28):
        return replace(data, images=np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))), crop=2)
    return replace(data, images=_resampled(data, size), levels=256)


def _resampled(data: Dataset, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    byte_of: NDArray[np.uint8] = np.rint(np.arange(data.levels) * (255 / (data.levels - 1))).astype(np.uint8)
    out = np.empty((len(data), data.channels, size, size), np.uint8)
    for n, image in enumerate(np.asarray(data.images)):
        for c, plane in enumerate(image):
            out[n, c] = np.asarray(square(Image.fromarray(byte_of[plane]), size))
    return out
