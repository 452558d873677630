"""A folder of pictures. Its sub-folders are the classes, in alphabetical order; without sub-folders there are no classes.

    folder/cat/1.png  folder/cat/more/2.jpg  folder/dog/3.png      classes cat, dog; below a class every depth is searched
    folder/1.png  folder/2.jpg                                     unconditional
    folder/metadata.jsonl  folder/1.png  folder/more/2.jpg         captions, whatever the sub-folders are: captioned.py

Pictures are PNG, JPEG, GIF, BMP, TIFF, WEBP, PPM, ICO or TGA of any mode and size: palettes, grey, 16 bits, transparency (on
white), EXIF orientation; of an animation the first frame is read. Links are followed. The size is the one asked for; else the
common size of all pictures if its sides are at most 64 and divisible by 4; else 32. The channels are those asked for; else 1 if
every picture is grey; else 3.

A set of more bytes than `Cache.least` is decoded into a cache on disk, and its pictures stay there (cache.py).

Nothing is skipped silently; skip_bad leaves out files that cannot be read, and lists them. Ignored are only hidden files and
folders (.name), and README, LICENSE (these two also as .txt and .md), COPYING, credits.txt, Thumbs.db, desktop.ini, index.theme
and __MACOSX, in upper or lower case. Any other file that is not a picture, an empty class, and pictures beside class folders are
errors that name the file or folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minidit.data.cache import Cache
from minidit.data.cached import from_cache, into_cache
from minidit.data.captioned import NAMES, captions_file, read_captions
from minidit.data.captions import Vocabulary
from minidit.data.checks import MAX_FILES, check_no_part, check_volume, fault, reading
from minidit.data.dataset import Dataset
from minidit.data.decode import Decoding, Request, decoding_of
from minidit.data.pixels import check_request, to_channels
from minidit.data.rows import Rows
from minidit.outgoing import silent

HARMLESS = ("readme", "readme.txt", "readme.md", "license", "license.txt", "license.md", "copying", "credits.txt",
            "thumbs.db", "desktop.ini", "index.theme", "__macosx")
LONGEST = 80  # letters of a caption that a message repeats
PARTS = {"train", "training", "test", "val", "valid", "validation"}
Skipped = tuple[tuple[str, str], ...]  # files that were left out, and why
# pictures, the numbers of their files, what was left out, and what became of files of other sizes
Read = tuple[NDArray[np.uint8] | Rows, Sequence[int] | NDArray[np.int64], Skipped, str]


def read(path: Path, part: str | None = None, request: Request | None = None, cache: Cache | None = None) -> Dataset:
    """A folder of pictures -> Dataset. Raises DataError (one line, with the file) for anything not described above."""
    check_no_part(path, part)
    request = request or Request()
    check_request(request.size, request.channels)
    captions = captions_file(path)
    if captions is None and not request.skip_bad:
        check_no_texts(path, [p for p in _entries(path) if p.is_file()])
    classes = classes_of(path) if captions is None else {"": [f for f in _files_below(path, set()) if f != captions]}
    files = [file for members in classes.values() for file in members]
    if not request.skip_bad:
        check_no_texts(path, files)  # of classes
    if len(files) > MAX_FILES:
        raise fault(path, f"holds {len(files)} files, above the limit of {MAX_FILES}")
    labels = np.repeat(np.arange(len(classes)), [len(members) for members in classes.values()])
    names, vocabulary = () if "" in classes else tuple(classes), None
    if captions is not None:
        texts = read_captions(captions, files)
        vocabulary = Vocabulary.of(texts)
        labels = vocabulary.rows(texts)
    return _dataset(path, *_pictures(path, files, request, cache), labels, names, vocabulary)


def check_no_texts(path: Path, files: Sequence[Path]) -> None:
    """Raises DataError for a caption in a file of its own, 1.txt beside 1.png, with the line that says the same here."""
    pictures = {file.with_suffix(""): file for file in files if file.suffix.lower() not in (".txt", ".caption", "")}
    for file in files:
        picture = pictures.get(file.with_suffix(""))
        if picture is None or file.suffix.lower() not in (".txt", ".caption"):
            continue
        with reading(file), open(file, encoding="utf-8", errors="replace") as text:
            caption = " ".join(text.read(LONGEST).split()) or "a red disc"
        line = json.dumps({"file_name": picture.relative_to(path).as_posix(), "text": caption}, ensure_ascii=False)
        raise fault(file, f"captions belong in {path / NAMES[0]}, one line for each picture: {line}")


def _pictures(path: Path, files: list[Path], request: Request, cache: Cache | None) -> Read:
    """The pictures of the files, from the cache, into it, or in memory if they are few."""
    if cache is not None and (entry := from_cache(path, files, request, cache)):
        return entry
    decoding = decoding_of(path, files, request)
    h, w = decoding.size
    if cache is not None and len(files) * (request.channels or 3) * h * w > cache.least:
        return into_cache(decoding, request, cache)
    images = _in_memory(decoding, request, silent if cache is None else cache.progress)
    return images, decoding.kept, decoding.left_out(), decoding.resized(request.size is not None)


def _in_memory(decoding: Decoding, request: Request, progress: Callable[[str, int, int], None]) -> NDArray[np.uint8]:
    n, (h, w) = len(decoding.files), decoding.size
    check_volume(decoding.source, (n, 3, h, w))
    images = np.empty((n, 3, h, w), np.uint8)
    for block in decoding.blocks(progress):
        images[len(decoding.kept) - len(block) : len(decoding.kept)] = block
    decoding.check()
    images = images[: len(decoding.kept)]
    images = images[:, :1].copy() if decoding.grey else images
    return to_channels(images, request.channels or images.shape[1])


def _dataset(
    path: Path, images: NDArray[np.uint8] | Rows, kept: Sequence[int] | NDArray[np.int64],
    skipped: Skipped, resized: str, labels: NDArray[np.int64], names: tuple[str, ...], vocabulary: Vocabulary | None,
) -> Dataset:  # fmt: skip
    """The pictures of the kept files with their labels. Raises DataError for a class without any."""
    if vocabulary is not None:
        return Dataset(str(path), images, labels[np.asarray(kept)], (), skipped=skipped, vocabulary=vocabulary, resized=resized)
    if not names:
        return Dataset(str(path), images, None, (), skipped=skipped, resized=resized)
    labels = labels[np.asarray(kept)].astype(np.int64)
    empty = [name for name, count in zip(names, np.bincount(labels, minlength=len(names)), strict=True) if not count]
    if empty:
        raise fault(path / empty[0], "not one picture of this class can be read")
    return Dataset(str(path), images, labels, names, skipped=skipped, resized=resized)


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


