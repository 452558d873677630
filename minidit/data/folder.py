"""A folder of pictures. Its sub-folders are the classes, in alphabetical order; without sub-folders there are no classes.

    folder/cat/1.png  folder/cat/more/2.jpg  folder/dog/3.png      classes cat, dog; below a class every depth is searched
    folder/1.png  folder/2.jpg                                     unconditional

Pictures are PNG, JPEG, GIF, BMP, TIFF, WEBP, PPM, ICO or TGA of any mode and size: palettes, grey, 16 bits, transparency (on
white), EXIF orientation; of an animation the first frame is read. Links are followed. The size is the one asked for; else the
common size of all pictures if its sides are at most 64 and divisible by 4; else 32. The channels are those asked for; else 1 if
every picture is grey; else 3.

Nothing is skipped silently. Ignored are only hidden files and folders (.name), and README, LICENSE (these two also as .txt and
.md), COPYING, credits.txt, Thumbs.db, desktop.ini, index.theme and __MACOSX, in upper or lower case. Any other file that is not a
picture, an empty class, and pictures beside class folders are errors that name the file or folder.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minidit.data.checks import DENSE, MAX_FILES, MAX_PICTURE, MAX_PIXELS, DataError, check_no_part, check_volume, fault, reading
from minidit.data.dataset import Dataset
from minidit.data.pixels import WIDE, check_request, is_wide, square, to_channels, to_rgb
from minidit.incoming import DEFLATE, regular_file

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what a decoder thinks of odd files is not printed
HARMLESS = ("readme", "readme.txt", "readme.md", "license", "license.txt", "license.md", "copying", "credits.txt",
            "thumbs.db", "desktop.ini", "index.theme", "__macosx")
PARTS = {"train", "training", "test", "val", "valid", "validation"}
ICON = b"\0\0\1\0"
MAX_TEXTS = 2**22  # bytes of the comments of a picture
LARGEST_COMMON, DEFAULT_SIZE = 64, 32
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA")  # decoded inside Pillow, without another program


def read(path: Path, part: str | None = None, size: int | None = None, channels: int | None = None) -> Dataset:
    """A folder of pictures -> Dataset. Raises DataError (one line, with the file) for anything not described above."""
    check_no_part(path, part)
    check_request(size, channels)
    classes = classes_of(path)
    files = [file for members in classes.values() for file in members]
    if len(files) > MAX_FILES:
        raise fault(path, f"holds {len(files)} files, above the limit of {MAX_FILES}")
    h, w = (size, size) if size else _common_size(files)
    check_volume(path, (len(files), 3, h, w))
    images, brightest = np.empty((len(files), 3, h, w), np.uint8), 0
    for n, file in enumerate(files):
        with opened(file) as picture:
            if is_wide(picture):
                brightest = max(brightest, int(np.max(np.asarray(picture))))
            rgb = to_rgb(picture)
            images[n] = np.asarray(rgb if rgb.size == (w, h) else square(rgb, h)).transpose(2, 0, 1)
    if 0 < brightest < WIDE:
        raise fault(path, f"its 16-bit pictures end at {brightest} of 65535: values of 12 bits or fewer? Scale them to 16 bits")
    grey = bool((images[:, 0] == images[:, 1]).all() and (images[:, 0] == images[:, 2]).all())
    images = images[:, :1].copy() if grey else images
    images = to_channels(images, channels or images.shape[1])
    if "" in classes:
        return Dataset(str(path), images, None, ())
    labels = np.repeat(np.arange(len(classes)), [len(members) for members in classes.values()])
    return Dataset(str(path), images, labels.astype(np.int64), tuple(classes))


def classes_of(path: Path) -> dict[str, list[Path]]:
    """{class name: its files}, both sorted; {"": files} for a folder without sub-folders."""
    entries = _entries(path)
    folders = [p for p in entries if p.is_dir()]
    files = [p for p in entries if not p.is_dir()]
    if not entries:
        raise fault(path, "holds no pictures")
    if not folders:
        return {"": files}
    if files:
        raise fault(files[0], f"a file beside the class folders of {path.name} ({folders[0].name}, ...): move it into a class")
    if len(folders) > 1 and {p.name.lower() for p in folders} <= PARTS:
        raise fault(path, f"its sub-folders are parts ({', '.join(p.name for p in folders)}), not classes: name one of them")
    classes = {p.name: list(_files_below(p, {path.resolve()})) for p in folders}
    for name, members in classes.items():
        if not members:
            raise fault(path / name, "the folder of this class holds no pictures")
    return classes


def _files_below(folder: Path, above: set[Path]) -> Iterator[Path]:
    """Every file at any depth, in order.   above : the folders that contain this one, to notice links that lead in a circle"""
    resolved = folder.resolve()
    if resolved in above:
        raise fault(folder, "is a link to a folder that contains it")
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _files_below(entry, above | {resolved})
        else:
            yield entry


def _entries(folder: Path) -> list[Path]:
    with reading(folder):
        return sorted((p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in HARMLESS),
                      key=lambda p: p.name)


@contextmanager
def opened(file: Path) -> Iterator[Picture]:
    """The picture in a file, not decoded yet. Whatever goes wrong with it inside the block becomes a DataError."""
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    with reading(file), warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # about odd metadata
        if file.is_symlink() and not file.exists():
            raise fault(file, "a link to nothing")
        held = regular_file(file, DataError)
        if held > MAX_PICTURE:
            raise fault(file, f"{held} bytes, above the limit of {MAX_PICTURE}")
        stack.enter_context(_bound(PngImagePlugin, "MAX_TEXT_MEMORY", MAX_TEXTS))
        with file.open("rb") as raw:
            content = raw.read(held)  # of files Pillow allocates claims
        if content[:4] == ICON:  # the picture inside is decoded at once
            stack.enter_context(_bound(Image, "MAX_IMAGE_PIXELS", DENSE // 2))
        try:
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            known = f"not a picture in a format that is read here ({', '.join(FORMATS)})"
            raise fault(file, f"{known}: convert it, move it away, or let its name begin with a dot") from None
        with picture:
            w, h = picture.size
            if w * h > MAX_PIXELS:
                raise fault(file, f"{w}×{h} is {w * h} pixels, above the limit of {MAX_PIXELS}")
            if w * h > DENSE and w * h > DEFLATE * held:
                raise fault(file, f"{w}×{h} is {w * h} pixels in a file of {held} bytes: no picture is that empty")
            yield picture


@contextmanager
def _bound(module: object, name: str, value: int) -> Iterator[None]:
    """One of Pillow's own bounds, another one inside the block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _common_size(files: list[Path]) -> tuple[int, int]:
    """(H, W) that all pictures share, if it is small and divisible by 4; else 32×32."""
    sizes = set()
    for file in files:
        with opened(file) as picture:
            w, h = picture.size
            sizes.add((w, h) if picture.getexif().get(0x0112) in SIDEWAYS else (h, w))
    if len(sizes) == 1:
        h, w = sizes.pop()
        if max(h, w) <= LARGEST_COMMON and h % 4 == w % 4 == 0:
            return h, w
    return DEFAULT_SIZE, DEFAULT_SIZE
