"""Files of pictures become RGB bytes of one size, a block at a time.

A file that cannot be read is one error that names it, or, where that is asked for, one entry of a list.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minidit.data.checks import DENSE, MAX_PICTURE, MAX_PIXELS, DataError, fault, reading
from minidit.data.pixels import WIDE, is_wide, square, to_rgb
from minidit.incoming import DEFLATE, regular_file
from minidit.outgoing import silent

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what a decoder thinks of odd files is not printed
ICON = b"\0\0\1\0"
MAX_TEXTS = 2**22  # bytes of the comments of a picture
LARGEST_COMMON, DEFAULT_SIZE = 64, 32
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA")  # decoded inside Pillow, without another program
MORE, NAMED = 1000, 5  # files that are looked at after one that cannot be read, and how many of these are named
BLOCK = 2**24  # bytes of pictures that are decoded before they are handed on


@dataclass(frozen=True)
class Request:
    """How a folder is read.

    skip_bad : leave out files that cannot be read    leave_out : the relative paths that an earlier reading left out; these
    are left out again, and no others
    """

    size: int | None = None
    channels: int | None = None
    skip_bad: bool = False
    leave_out: frozenset[str] | None = None


@dataclass
class Decoding:
    """One pass over the files of a folder, each picture as RGB bytes of one size, and what is seen on the way."""

    source: Path
    files: list[Path]
    size: tuple[int, int]
    skipped: dict[Path, str] | None  # file -> why it is left out; None: a bad file is an error
    known: dict[Path, str] = field(default_factory=dict)  # the same for files that are left out unread
    brightest: int = 0  # of pictures with 16 bits
    grey: bool = True
    kept: list[int] = field(default_factory=list)  # numbers of the files that could be read
    content: Any = field(default_factory=hashlib.sha256)  # of the digests of these files
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (W, H) of the pictures as they were

    @property
    def rows(self) -> int:
        """The number of pictures in a block."""
        return max(1, min(256, BLOCK // (3 * self.size[0] * self.size[1])))

    def blocks(self, progress: Callable[[str, int, int], None] = silent) -> Iterator[NDArray[np.uint8]]:
        """The pictures, (≤ rows, 3, H, W) at a time."""
        for start in range(0, len(self.files), self.rows):
            part = self.files[start : start + self.rows]
            images = [self._one(start + i, file) for i, file in enumerate(part) if not self.left(file)]
            block = [image for image in images if image is not None]
            progress("pictures", start + len(part), len(self.files))
            if block:
                yield np.stack(block)

    def _one(self, number: int, file: Path) -> NDArray[np.uint8] | None:
        h, w = self.size
        digest = hashlib.sha256()
        with leaving_out(file, self.skipped, self.files[number + 1 : number + 1 + MORE]), opened(file, digest.update) as picture:
            brightest = int(np.max(np.asarray(picture))) if is_wide(picture) else 0
            rgb = to_rgb(picture)
            self.sizes[rgb.size] += 1
            image = np.asarray(rgb if rgb.size == (w, h) else square(rgb, h)).transpose(2, 0, 1)
            self.brightest = max(self.brightest, brightest)
            self.grey = self.grey and bool((image[0] == image[1]).all() and (image[0] == image[2]).all())
            self.kept.append(number)
            self.content.update(digest.digest())
            return image
        return None

    def check(self) -> None:
        """Raises DataError for what only the whole set shows."""
        if 0 < self.brightest < WIDE:
            raise fault(self.source, f"its 16-bit pictures end at {self.brightest} of 65535: values of 12 bits or fewer? "
                                     "Scale them to 16 bits")  # fmt: skip
        if not self.kept:
            raise fault(self.source, "not one of its files is a picture that can be read")

    def left_out(self) -> tuple[tuple[str, str], ...]:
        """(file, reason) of the files that were left out."""
        skipped = self.known | (self.skipped or {})
        return tuple((relative(file, self.source), why.removeprefix(f"{file}: ")) for file, why in skipped.items())

    def resized(self, asked: bool) -> str:
        """What became of pictures of other sizes, one line; "" if all had this one. asked : whether the size was asked for"""
        (h, w), sizes = self.size, self.sizes.most_common()
        if not sizes or [size for size, _ in sizes] == [(w, h)]:
            return ""
        listed = ", ".join(f"{n:,} of {a} x {b}" for (a, b), n in sizes[:NAMED])
        more = f", {sum(n for _, n in sizes[NAMED:]):,} of {len(sizes) - NAMED} other sizes" if len(sizes) > NAMED else ""
        cut = "cut to the largest square in its middle and " if any(a != b for (a, b), _ in sizes) else ""
        w_0, h_0 = sizes[0][0]
        kept = len(sizes) > 1 and w_0 == h_0 <= LARGEST_COMMON and w_0 % 4 == 0
        size = f"{w_0}{' --pixels' * (w_0 % 8 > 0)}"  # autoencoders and patches want a multiple of 8
        hint = "" if asked else f"; --size {size} keeps most as they are" if kept else "; --size N: another size"
        return f"sizes of pictures: {listed}{more}; each is {cut}resampled to {w} x {h}{hint}"

    def left(self, file: Path) -> bool:
        """Whether a file has been left out already."""
        return file in self.known or (self.skipped is not None and file in self.skipped)


def decoding_of(source: Path, files: list[Path], request: Request) -> Decoding:
    """The pass over these files that is asked for: which of them, and at which size."""
    skipped: dict[Path, str] | None = {} if request.skip_bad else None
    if request.leave_out is None:
        h, w = (request.size, request.size) if request.size else common_size(files, skipped)
        return Decoding(source, files, (h, w), skipped)
    out: dict[Path, str] = {f: "was left out before" for f in files if relative(f, source) in request.leave_out}
    h, w = (request.size, request.size) if request.size else common_size(files, dict(out))  # their headers counted then, too
    return Decoding(source, files, (h, w), None, out)


def relative(file: Path, folder: Path) -> str:
    """The path of a file inside a folder, the same on every system."""
    return file.relative_to(folder).as_posix()


@contextmanager
def leaving_out(file: Path, skipped: dict[Path, str] | None, rest: Sequence[Path] = ()) -> Iterator[None]:
    """A file that cannot be read is noted in `skipped`; where that is None, its error is raised, with the way to skip it.

    rest : the files after it, some of which are looked at, so that one error names what one would meet next"""
    try:
        yield
    except DataError as error:
        if skipped is None:
            raise DataError(f"{error}{_more(rest)} (or --skip-bad: leave out files that cannot be read)") from error
        skipped[file] = str(error)


def _more(files: Sequence[Path]) -> str:
    """Which of the files have no header of a picture either, or ""."""
    bad: dict[Path, str] = {}
    for file in files:
        with leaving_out(file, bad), opened(file):
            pass
    names = [str(file) for file in bad]
    if not names:
        return ""
    listed = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"; of the next {len(files)} files these cannot be read either: {listed}"


@contextmanager
def opened(file: Path, look: Callable[[bytes], None] = silent) -> Iterator[Picture]:
    """The picture in a file, not decoded yet. Whatever goes wrong with it inside the block becomes a DataError.

    look : is shown the bytes of the file"""
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    with reading(file), warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # about odd metadata
        if file.is_symlink() and not file.exists():
            raise fault(file, "a link to nothing")
        held = regular_file(file, DataError)
        if held > MAX_PICTURE:
            raise fault(file, f"{held} bytes, above the limit of {MAX_PICTURE}")
        if not held:
            raise fault(file, "an empty file, of 0 bytes: copy it again, move it away, or let its name begin with a dot")
        stack.enter_context(_bound(PngImagePlugin, "MAX_TEXT_MEMORY", MAX_TEXTS))
        with file.open("rb") as raw:
            content = raw.read(held)  # of files Pillow allocates claims
        look(content)
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


def common_size(files: list[Path], skipped: dict[Path, str] | None) -> tuple[int, int]:
    """(H, W) that all pictures share, if it is small and divisible by 4; else 32×32."""
    sizes = set()
    for i, file in enumerate(files):
        with leaving_out(file, skipped, files[i + 1 : i + 1 + MORE]), opened(file) as picture:
            w, h = picture.size
            sizes.add((w, h) if picture.getexif().get(0x0112) in SIDEWAYS else (h, w))
    if len(sizes) == 1:
        h, w = sizes.pop()
        if max(h, w) <= LARGEST_COMMON and h % 4 == w % 4 == 0:
            return h, w
    return DEFAULT_SIZE, DEFAULT_SIZE
