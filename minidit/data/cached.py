"""The pictures of a folder in the cache: decoded once, at the size and with the channels that were asked for.

    key        request, paths, sizes and times of the files        changes with any of them
    outline    the same without the times                          files that were only copied or touched have the same content
    content    SHA-256 of the bytes of all files                   and it is found under the outline, not decoded again
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minidit.data.cache import Cache, Entry, Facts, Writer, key_of
from minidit.data.checks import reading
from minidit.data.decode import Decoding, Request, relative
from minidit.data.pixels import to_channels
from minidit.data.rows import Rows, prints_of

# pictures, the numbers of their files, what was left out, and what became of files of other sizes
Cached = tuple[Rows, NDArray[np.int64], tuple[tuple[str, str], ...], str]


def keys_of(source: Path, files: list[Path], request: Request) -> tuple[str, str]:
    """(key, outline) of a folder's pictures."""
    with reading(source):
        status = [(relative(f, source), f.lstat() if f.is_symlink() and not f.exists() else f.stat()) for f in files]
    settings = [request.size, request.channels, request.skip_bad, sorted(request.leave_out or ()), request.leave_out is None]
    sizes = [[name, s.st_size] for name, s in status]
    times = [(s.st_mtime_ns, s.st_ctime_ns) for _, s in status]  # whoever replaces a file can set the first, not the second
    return key_of(settings, sizes, times), key_of(settings, sizes)


def from_cache(source: Path, files: list[Path], request: Request, cache: Cache) -> Cached | None:
    """The pictures, if they are in the cache. A request to leave out files finds the entry that skipped exactly these."""
    first = Request(request.size, request.channels, skip_bad=True)
    for wish in [request] if request.leave_out is None else [first, request]:
        key, outline = keys_of(source, files, wish)
        entry = cache.find(key) or _adopt(key, outline, source, files, cache)
        if entry is None:
            continue
        pictures = _pictures(entry)
        if request.leave_out is None or {file for file, _ in pictures[2]} == request.leave_out:
            return pictures
    return None


def into_cache(decoding: Decoding, request: Request, cache: Cache) -> Cached:
    """The pictures, decoded into the cache."""
    key, outline = keys_of(decoding.source, decoding.files, request)
    channels, (h, w), n = request.channels or 3, decoding.size, len(decoding.files)

    def fill(writer: Writer) -> Facts:
        prints: list[NDArray[np.uint64]] = []  # eight bytes per picture

        def printed(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
            prints.append(prints_of(images))
            return images

        for block in decoding.blocks(cache.progress):
            writer.append("images", printed(to_channels(block, channels)))
        decoding.check()
        if decoding.grey and request.channels is None:
            prints.clear()
            writer.rewrite("images", lambda images: printed(images[:, :1]), decoding.rows)
        writer.append("prints", np.concatenate(prints))
        writer.append("kept", np.asarray(decoding.kept, np.int64))
        return {"outline": outline, "content": decoding.content.hexdigest(), "skipped": decoding.left_out(),
                "resized": decoding.resized(request.size is not None)}  # fmt: skip

    return _pictures(cache.entry(key, str(decoding.source), n * (channels * h * w + 16), fill))


def _pictures(entry: Entry) -> Cached:
    images, prints, kept = (entry.arrays[name] for name in ("images", "prints", "kept"))
    skipped = tuple((file, why) for file, why in entry.facts["skipped"])
    resized = str(entry.facts.get("resized", ""))  # entries of earlier versions have none
    return Rows.of(images, entry.digests["images"], np.asarray(prints)), np.asarray(kept), skipped, resized


def _adopt(key: str, outline: str, source: Path, files: list[Path], cache: Cache) -> Entry | None:
    """The entry of files with the same names, sizes and content, but other times; it gets the new key."""
    for old, facts in cache.similar(outline):
        skipped = {file for file, _ in facts["skipped"]}
        if _content([f for f in files if relative(f, source) not in skipped]) == facts["content"]:
            with contextlib.suppress(OSError):  # another process did the same at the same time
                cache.adopt(old, key)
            return cache.find(key)
    return None


def _content(files: list[Path]) -> str:
    """The SHA-256 of the digests of files, as a Decoding computes it."""
    content = hashlib.sha256()
    for file in files:
        with reading(file), open(file, "rb") as opened:
            content.update(hashlib.file_digest(opened, "sha256").digest())
    return content.hexdigest()
