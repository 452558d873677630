"""Sources of training batches: pixels in memory or on disk, or samples of an autoencoder's posterior.

    z_0 = scale · (μ + σ ε)        a fresh sample each time a picture is used, as in DiT            (L.5)
    y = null with probability p    so that a network also learns "any class"                        (G.7)
    y_m = unknown with probability p', each word of a caption by itself                             (G.8)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minidit.backend import Array, read_only, resident, to_device, xp_of
from minidit.data.cache import IN_MEMORY
from minidit.data.dataset import Dataset, from_uint8
from minidit.training.augment import Augment, flips
from minidit.training.draws import LABEL, Draws

POSTERIOR = 2  # the number of the draw of latents
WORDS = 0x776F7264  # a Philox stream of its own: whether a word is left out

Batch = tuple[Array, Array | None]  # x_0 : (B, ...), y : (B,) labels, (B, length) captions, or None


class Source(Protocol):
    """n pictures with labels (or None), on one device. levels : the number of grey levels (None: any numbers of unit size).

    labels : (N,) classes, or (N, length) captions
    """

    @property
    def labels(self) -> Array | None: ...

    @property
    def levels(self) -> int | None: ...

    def __len__(self) -> int: ...

    def draw(self, index: Array, draws: Draws) -> Batch:
        """The pictures of index : (B,) as this update uses them, and their labels."""


@dataclass
class Pictures:
    """x_0 : (N, C, H, W), or clips (N, C, T, H, W), float in [-1, 1], or any numbers of unit size."""

    x_0: Array
    labels: Array | None = None
    levels: int | None = None

    def __len__(self) -> int:
        return len(self.x_0)

    def part(self, part: slice) -> Array:
        """Some pictures, where they are."""
        return self.x_0[part]

    def draw(self, index: Array, draws: Draws) -> Batch:
        return self.x_0[index], None if self.labels is None else self.labels[index]


@dataclass
class Stored:
    """The pictures of a large set: they stay bytes, in memory or on disk, and become floats one batch at a time."""

    images: Any  # uint8 (N, *shape), an array or Rows
    labels: Array | None
    levels: int
    dtype: Any

    def __post_init__(self) -> None:
        self.floats = read_only(from_uint8(np.arange(self.levels), self.levels, self.dtype))  # one for every level

    def __len__(self) -> int:
        return len(self.images)

    def part(self, part: slice) -> Array:
        """Some pictures as floats, on the host."""
        return self.floats[np.asarray(self.images[part])]

    def draw(self, index: Array, draws: Draws) -> Batch:
        k = draws.rows(self.images, index)
        k = k if draws.device == "cpu" else k.astype(np.int32)  # where 256, the length of the table, is a number too
        return resident(self.floats, like=k)[k], None if self.labels is None else self.labels[index]


@dataclass
class Latents:
    """mean, std : (N, c, h, w), or (N, c, T, h, w) of clips, unscaled; scale : the autoencoder's measured factor.

    mirrored : mean and std of the same pictures, flipped; every sample then uses one of the two, as its update draws
    """

    mean: Array
    std: Array
    scale: float
    labels: Array | None = None
    levels: int | None = None  # latents have none
    mirrored: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return len(self.mean)

    def draw(self, index: Array, draws: Draws) -> Batch:
        mean, std = (draws.rows(a, index) for a in (self.mean, self.std))
        if self.mirrored is not None:
            flip, xp = flips(draws).reshape(-1, *[1] * (mean.ndim - 1)), xp_of(mean)
            mean, std = (xp.where(flip, draws.rows(a, index), b) for a, b in zip(self.mirrored, (mean, std), strict=True))
        z_0 = self.scale * (mean + std * draws.normal(mean.shape, number=POSTERIOR))  # (L.5)
        return z_0, None if self.labels is None else self.labels[index]


def drop_labels(y: Array, u: Array, p: float, null: Any) -> Array:
    """y : (B, ...) ints, u : (B,) uniform  ->  y, with null, of the shape of one y, where u < p: one decision per sample.

    u of more axes decides for each of them.
    """
    return xp_of(y, u).where((u < p).reshape(*u.shape, *[1] * (y.ndim - u.ndim)), null, y)  # (G.7)


@dataclass
class Changed:
    """The base of a source that changes the batches of another one."""

    source: Source

    @property
    def labels(self) -> Array | None:
        return self.source.labels

    @property
    def levels(self) -> int | None:
        return self.source.levels

    def __len__(self) -> int:
        return len(self.source)


@dataclass
class LabelDropout(Changed):
    """A source whose labels are left out with probability p.   null : the null label, or the words of the null caption"""

    p: float
    null: int | Array

    def draw(self, index: Array, draws: Draws) -> Batch:
        x_0, y = self.source.draw(index, draws)
        assert y is not None
        null = self.null if isinstance(self.null, int) else resident(self.null, like=y)
        return x_0, drop_labels(y, draws.uniform(number=LABEL), self.p, null)


@dataclass
class WordDropout(Changed):
    """A source whose captions lose each word with probability p: it becomes the unknown word.

    So no word stands for a whole picture, each says its part whatever else is known, and prompts may hold an unknown word.
    """

    p: float
    unknown: int

    def draw(self, index: Array, draws: Draws) -> Batch:
        x_0, y = self.source.draw(index, draws)
        assert y is not None
        u = replace(draws, stream=WORDS, per=1, taken=set()).uniform(more=y.shape[1:])
        return x_0, xp_of(y, u).where((u < self.p) & (y != 0), self.unknown, y)  # (G.8)


@dataclass
class Augmented(Changed):
    """A source of pictures that are augmented each time they are used."""

    augment: Augment

    def draw(self, index: Array, draws: Draws) -> Batch:
        x, y = self.source.draw(index, draws)
        return self.augment(x, draws), y


@dataclass
class OfShape(Changed):
    """The same pictures, for a network whose samples have this shape: others are refused before they reach it.

    A network of clips (C, T, H, W) takes any number of frames, and pictures.
    """

    shape: tuple[int, ...]

    def draw(self, index: Array, draws: Draws) -> Batch:
        x_0, y = self.source.draw(index, draws)
        fits = tuple(x_0.shape[1:]) == tuple(self.shape)
        if len(self.shape) == 4 and x_0.ndim in (4, 5):
            fits = (x_0.shape[1], *x_0.shape[-2:]) == (self.shape[0], *self.shape[-2:])
        if not fits:
            ours, theirs = (" x ".join(map(str, shape)) for shape in (self.shape, x_0.shape[1:]))
            raise ValueError(f"the data are of {theirs}, and the network takes samples of {ours}")
        return x_0, y


@dataclass
class Unlabelled(Changed):
    """A source for a network that takes no labels."""

    @property
    def labels(self) -> None:
        return None

    def draw(self, index: Array, draws: Draws) -> Batch:
        return self.source.draw(index, draws)[0], None


def stays_stored(data: Any) -> bool:
    """Whether a set is too large to be turned into floats at once."""
    return getattr(data, "key", "") != "" or getattr(getattr(data, "images", None), "nbytes", 0) >= IN_MEMORY


def check_finite(x_0: Array, index: Array) -> None:
    """Raises ValueError, with the first such picture, unless all numbers of some pictures are finite.   index : their places"""
    finite = xp_of(x_0).isfinite(x_0.reshape(len(x_0), -1)).all(axis=1)
    if not bool(finite.all()):
        raise ValueError(f"the data are not finite: picture {int(index[~finite][0])} holds nan or inf")


Data = Dataset | Source | NDArray[Any] | tuple[NDArray[Any], NDArray[Any] | None]  # what a network is trained on


def source_of(data: Any, device: str = "cpu", dtype: Any = np.float32) -> Source:
    """A Source from a Source, a Dataset, an array x_0, or a pair (x_0, labels). Raises ValueError for anything else.

    x_0 : floats (N, C, H, W), or clips (N, C, T, H, W), cast to dtype;  labels : ints (N,), or (N, length) words of captions
    """
    if hasattr(data, "draw"):
        source: Source = data
        return source
    levels = None
    if stays_stored(data):
        return Stored(data.images, None if data.labels is None else to_device(data.labels, device), data.levels, dtype)
    if hasattr(data, "x_0"):
        x_0, labels, levels = data.x_0(dtype=dtype), data.labels, data.levels
    elif isinstance(data, tuple) and len(data) == 2:
        x_0, labels = data
    elif hasattr(data, "shape"):
        x_0, labels = data, None
    else:
        raise ValueError(f"cannot train on {type(data).__name__}: give a Dataset, an array (N, C, H, W) or (images, labels)")
    if getattr(x_0, "ndim", 0) not in (4, 5) or x_0.dtype.kind != "f":
        what = f"{getattr(x_0, 'dtype', type(x_0).__name__)} {getattr(x_0, 'shape', '')}"
        raise ValueError(f"x_0 must be floats (N, C, H, W), or clips (N, C, T, H, W), of unit size; got {what}")
    shape = getattr(labels, "shape", ())
    if labels is not None and (shape[:1] != x_0.shape[:1] or len(shape) > 2 or labels.dtype.kind not in "iu"):
        what = f"{getattr(labels, 'dtype', type(labels).__name__)} {getattr(labels, 'shape', '')}"
        raise ValueError(f"labels must be ints, one per picture: ({len(x_0)},), or captions ({len(x_0)}, length); got {what}")
    x_0 = to_device(x_0, device).astype(dtype, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        total = x_0.sum()  # one pass; the sum of huge numbers may overflow
    if not bool(xp_of(x_0).isfinite(total)):
        check_finite(x_0, xp_of(x_0).arange(len(x_0)))
    return Pictures(x_0, None if labels is None else to_device(labels, device), levels)
