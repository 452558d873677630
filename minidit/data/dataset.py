"""Images or clips and their classes or captions, as grey levels: in memory, or of a large set on disk.

    x_0 = 2k/(L-1) - 1          k = 0..L-1 a stored grey level, L levels          into [-1, 1]
    k   = round((x + 1)/2 · (L-1)), ties to even, clipped                         and back: pictures.to_uint8 for L = 256 (E.8)

Levels are kept as bytes, so a data set is small and exact; floats are made one batch at a time. The two maps are inverse to each
other on the levels, and no other rounding is used anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minidit.backend import Array
from minidit.data.captions import Vocabulary
from minidit.data.checks import DataError
from minidit.data.rows import Index, Rows, prints_of
from minidit.frames import frames_of
from minidit.images import Pictures
from minidit.incoming import UNPRINTABLE
from minidit.random import Philox
from minidit.shown import card, facts, words

SPLIT_STREAM = 0x64617461  # the Philox stream that chooses the held-out images


def from_uint8(k: Array, levels: int = 256, dtype: DTypeLike = np.float32) -> Array:
    """Grey levels k : uint8 in 0..levels-1, any shape  ->  2k/(levels-1) - 1 in [-1, 1], the same shape."""
    return (2.0 * np.arange(levels) / (levels - 1) - 1.0).astype(dtype)[k]  # rounded once, per level


@dataclass(frozen=True, eq=False)
class Dataset:
    """A set of images or of clips, with classes, with captions, or without.

    images      : uint8 (N, C, H, W), or clips (N, C, T, H, W), values 0..levels-1; Rows: they stay on disk, and sub-sets too
    labels      : int64 (N,) in 0..num_classes-1; with a vocabulary (N, length), captions; or None: unconditional
    class_names : one name per class, () when there are none
    crop        : width in pixels of the padding; measures (PSNR …) are taken on `inner(images)`
    skipped     : (file, reason) of the files that could not be read and were left out
    vocabulary  : the words of the captions, if labels are captions
    resized     : what became of files of other sizes, one line; "" if there were none

    Raises DataError where these do not fit together.
    """

    name: str
    images: NDArray[np.uint8] | Rows
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    levels: int = 256
    crop: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    vocabulary: Vocabulary | None = None
    resized: str = ""

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim not in (4, 5):
            raise self._fault(f"images must be uint8 (N, C, H, W), or clips (N, C, T, H, W), got {images.dtype} {images.shape}")
        if 0 in images.shape:
            raise self._fault(f"holds no images: {images.shape}")
        if not 2 <= self.levels <= 256:
            raise self._fault(f"levels must be in 2..256, got {self.levels}")
        if self.levels < 256 and (brightest := int(np.asarray(images).max())) >= self.levels:
            raise self._fault(f"holds grey level {brightest}, levels are 0..{self.levels - 1}")
        if not 0 <= 2 * self.crop < min(self.size):
            raise self._fault(f"crop {self.crop} leaves nothing of {self.size[0]}×{self.size[1]}")
        if labels is None:
            if self.class_names or self.vocabulary:
                raise self._fault(f"has {len(self.class_names)} class names or a vocabulary but no labels")
            return
        if len(labels) != len(images):
            raise self._fault(f"{len(labels)} labels for {len(images)} images")
        if self.vocabulary is not None:
            self._check_captions(labels, self.vocabulary)
            return
        if labels.dtype != np.int64 or labels.ndim != 1:
            raise self._fault(f"labels must be int64 (N,), got {labels.dtype} {labels.shape}")
        if any(UNPRINTABLE.search(name) for name in self.class_names):
            raise self._fault("a class name holds control characters: rename the class")
        if len(set(self.class_names)) != len(self.class_names):
            raise self._fault("two classes have the same name")
        outside = labels[(labels < 0) | (labels >= self.num_classes)]
        if len(outside):
            raise self._fault(f"label {outside[0]} is out of range: there are {self.num_classes} classes")

    def _check_captions(self, labels: NDArray[np.int64], vocabulary: Vocabulary) -> None:
        """Raises DataError unless the labels are captions of this vocabulary."""
        if self.class_names:
            raise self._fault("has both classes and captions")
        if labels.dtype != np.int64 or labels.shape[1:] != (vocabulary.length,):
            what = f"{labels.dtype} {labels.shape}"
            raise self._fault(f"captions of {vocabulary.length} words must be int64 (N, {vocabulary.length}), got {what}")
        if labels.min() < 0 or labels.max() >= len(vocabulary):
            raise self._fault(f"words go from {labels.min()} to {labels.max()}, the vocabulary has 0..{len(vocabulary) - 1}")

    def _fault(self, why: str) -> DataError:
        return DataError(f"{self.name}: {why}")

    def __len__(self) -> int:
        return len(self.images)

    def facts(self) -> dict[str, str]:
        """Name -> value, of what is worth knowing of a set, as text."""
        one = " × ".join(map(str, self.shape)) + (f", of which {self.crop} on each side are padding" if self.crop else "")
        rows = {self.words: f"{len(self):,}", "each": one, "grey levels": str(self.levels)}
        if self.num_classes and self.labels is not None:
            counts = np.bincount(self.labels, minlength=self.num_classes)
            rows["classes"] = words([f"{name} ({n:,})" for name, n in zip(self.class_names, counts, strict=True)])
        if self.vocabulary is not None:
            rows["captions"] = f"{self.vocabulary.length} words out of {len(self.vocabulary):,}"
        return rows | ({"left out": f"{len(self.skipped)} files that could not be read"} if self.skipped else {})

    def __repr__(self) -> str:
        kind = f", {self.num_classes} classes" if self.num_classes else ", captions" if self.vocabulary else ""
        return f"Dataset({self.name!r}, {len(self):,} {self.words} of {' × '.join(map(str, self.shape))}{kind})"

    def _repr_html_(self) -> str:
        return card(self.name, facts(self.facts()), self.examples()._repr_html_() or "")

    def examples(self) -> Pictures:
        """A picture of every class, 20 at most, or the first ten, with their names: what a notebook shows."""
        if self.num_classes and self.labels is not None:
            index = np.unique(self.labels, return_index=True)[1][:20]
            names = [self.class_names[k] for k in self.labels[index]]
        else:
            index = np.arange(min(10, len(self)))
            names = [] if self.vocabulary is None or self.labels is None else self.vocabulary.texts(self.labels[index])
        return Pictures(self.inner(self.x_0(index)), names)

    @property
    def num_classes(self) -> int:
        """0 without classes."""
        return len(self.class_names)

    @property
    def captions(self) -> NDArray[np.int64]:
        """The captions : (N, length). Raises DataError for a set without."""
        if self.vocabulary is None or self.labels is None:
            raise self._fault("has no captions")
        return self.labels

    @property
    def channels(self) -> int:
        """1 grey, 3 colour."""
        return int(self.images.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), padding included."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W), or (C, T, H, W) of clips."""
        return tuple(map(int, self.images.shape[1:]))

    @property
    def words(self) -> str:
        """The samples as messages name them."""
        noun = f"{self.noun}{'s' * (len(self) != 1)}"
        return noun if len(self.shape) == 3 else f"{noun} of {self.shape[1]} frames"

    @property
    def noun(self) -> str:
        """What one of them is."""
        return "picture" if len(self.shape) == 3 else "clip"

    def pictures(self) -> Dataset:
        """The set of pictures that these are: of clips all frames, with the labels of their clips."""
        if len(self.shape) == 3:
            return self
        labels = None if self.labels is None else np.repeat(self.labels, self.shape[1], axis=0)
        return replace(self, images=frames_of(self.images), labels=labels)

    def x_0(self, index: Index = slice(None), dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """The images of an index (int, slice, array of ints or bools) as (B, *shape) floats in [-1, 1]."""
        images = self.images[index]
        return np.asarray(from_uint8(images if images.ndim == self.images.ndim else images[None], self.levels, dtype))

    def inner(self, x: Array) -> Array:
        """Without the padding: x (..., H, W)  ->  (..., H - 2 crop, W - 2 crop)."""
        c, (h, w) = self.crop, self.size
        return x[..., c : h - c, c : w - c]

    def take(self, index: Index) -> Dataset:
        """The subset of an index (int, slice, array of ints or bools), in that order."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        images = self.images.take(rows) if isinstance(self.images, Rows) else self.images[rows]
        return replace(self, images=images, labels=None if self.labels is None else self.labels[rows])

    @property
    def key(self) -> str:
        """A name of exactly these pictures on disk; "" for pictures in memory."""
        return self.images.key if isinstance(self.images, Rows) else ""

    @cached_property
    def prints(self) -> NDArray[np.uint64]:
        """(N,) fingerprints: equal pictures have equal ones."""
        return prints_of(self.images)

    def split(self, held_out: float | int, seed: int = 0) -> tuple[Dataset, Dataset]:
        """(train, held-out): two disjoint parts that together are the whole set, each in its order.

        held_out : a count (int) or a share (float) of the images. Every class gives its share, to within one image; the seed
        alone decides which images these are. Images that are equal byte for byte stay on one side, which may make the held-out
        part smaller. Raises DataError unless both parts have an image.
        """
        n = len(self)
        count = held_out if isinstance(held_out, int) else round(held_out * n)
        if isinstance(held_out, bool) or not 0 < count < n:
            raise self._fault(f"cannot hold out {held_out} of {n} images")
        order = Philox(seed, SPLIT_STREAM).permutation(n)
        labels = self.labels if self.num_classes and self.labels is not None else np.zeros(n, np.int64)
        place = np.empty(n)
        for c in np.unique(labels):
            members = order[labels[order] == c]
            place[members] = (np.arange(len(members)) + 0.5) / len(members)  # each class spread evenly over (0, 1)
        group = np.unique(self.prints, return_inverse=True)[1].reshape(-1)
        chosen = _whole_groups(group[order[np.argsort(place[order], kind="stable")]], count)
        if not len(chosen):
            raise self._fault(f"cannot hold out {held_out} of {n} images: they are all the same")
        in_held_out = np.isin(group, chosen)
        return self.take(~in_held_out), self.take(in_held_out)


def _whole_groups(sequence: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The groups, in the order of the sequence, that hold at most `count` of its members together; never none, never all.

    sequence : (n,), the group of every member
    """
    sizes = np.bincount(sequence)
    chosen, room = [], count
    for g in sequence[np.sort(np.unique(sequence, return_index=True)[1])]:
        if sizes[g] <= room:
            chosen.append(g)
            room -= sizes[g]
        if not room:
            break
    if not chosen and len(sizes) > 1:
        chosen = [int(sizes.argmin())]
    return np.asarray(chosen, np.int64)
