"""What a network of pictures is asked for besides the time: nothing, a class, a caption, or a text encoder's outputs.

    y = null with probability p        so that a network also learns pictures without a condition                (G.7)
    F = network(x, t, left_out(y))     the same batch without it, for guidance                                    (G.1)

The null label is one above the last class, the null caption one word above all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minidit.backend import Array, read_only, resident, xp_of


@dataclass(frozen=True)
class Nothing:
    """No condition: y is None."""

    count: ClassVar[int] = 0
    rows: ClassVar[int] = 0
    null: ClassVar[None] = None
    dropout: ClassVar[float] = 0.0
    shape: ClassVar[tuple[int, ...]] = ()  # of one y
    words: ClassVar[str] = "0 classes"

    def check(self, y: Array | None, samples: int) -> None:
        """Raises ValueError if there are labels."""
        if y is not None:
            raise ValueError("a model of 0 classes takes no label y")

    def left_out(self, y: Array | None) -> Array:
        """Raises ValueError: there is nothing to leave out."""
        raise ValueError("a model without classes has no null label")


@dataclass(frozen=True)
class Classes:
    """y : (B,) ints in 0..count-1, or `null`, the label of a sample whose class is left out.

    null is None if the network was built without label dropout: it has no row for a sample without a class.
    dropout : the probability with which training leaves a class out (G.7)
    """

    count: int
    null: int | None = None
    dropout: float = 0.0

    shape: ClassVar[tuple[int, ...]] = ()

    @property
    def words(self) -> str:
        """The condition as messages name it."""
        return f"{self.count} classes"

    @property
    def rows(self) -> int:
        """The number of labels that the network has, including the null label."""
        return self.count + (self.null is not None)

    @property
    def without(self) -> int:
        """One y without a class. Raises ValueError if the network has no null label."""
        if self.null is None:
            raise ValueError(f"a model of {self.words}, trained without label dropout, has no null label")
        return self.null

    def check(self, y: Array | None, samples: int) -> None:
        """Raises ValueError unless y holds one label per sample. Values are read on the host only: a GPU would have to wait."""
        if y is None:
            raise ValueError(f"a model of {self.count} classes needs a label y")
        check_one_per_sample("y", y, samples)
        if isinstance(y, np.ndarray) and samples and not 0 <= y.min() <= y.max() < self.rows:
            raise ValueError(f"labels go from {y.min()} to {y.max()}, the model knows 0..{self.rows - 1}")

    def left_out(self, y: Array | None) -> Array:
        """The null label for every sample of y. Raises ValueError if the network has none."""
        without = self.without
        if y is None:
            raise ValueError(f"a model of {self.words} needs a label y")
        return xp_of(y).full_like(y, without)


@dataclass(frozen=True)
class Tokens:
    """y : (B, length) ints, a caption per sample: numbers of words in 1..count-1, and 0 behind the last one.

    null : a word above all others; the caption of a sample without one is this word alone. None: see `Classes`.
    dropout : the probability with which training leaves a caption out (G.7)
    word_dropout : the probability with which training makes a word the unknown one (G.8)
    """

    count: int
    length: int
    null: int | None = None
    dropout: float = 0.0
    word_dropout: float = 0.0

    unknown: ClassVar[int] = 1  # the number of a word that the vocabulary does not hold

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one y."""
        return (self.length,)

    @property
    def words(self) -> str:
        """The condition as messages name it."""
        return f"captions of {self.length} words"

    @property
    def rows(self) -> int:
        """The number of words that the network has: that of padding and the null word among them."""
        return self.count + (self.null is not None)

    @cached_property
    def without(self) -> NDArray[np.int64]:
        """One y without words: [null, 0, 0, …], read-only. Raises ValueError if the network has no null word."""
        if self.null is None:
            raise ValueError(f"a model of {self.words}, trained without leaving them out, has no null caption")
        caption = np.zeros(self.length, np.int64)
        caption[0] = self.null
        return read_only(caption)

    def check(self, y: Array | None, samples: int) -> None:
        """Raises ValueError unless y holds one caption per sample. Values are read on the host only."""
        shape = tuple(getattr(y, "shape", ()))
        if y is None or shape != (samples, self.length):
            raise ValueError(f"a model of {self.words} needs y of shape ({samples}, {self.length}), got {shape or y}")
        if isinstance(y, np.ndarray) and samples and not 0 <= y.min() <= y.max() < self.rows:
            raise ValueError(f"words go from {y.min()} to {y.max()}, the model knows 0..{self.rows - 1}")

    def left_out(self, y: Array | None) -> Array:
        """The null caption for every sample of y. Raises ValueError if the network has none."""
        without = self.without
        if y is None:
            raise ValueError(f"a model of {self.words} needs a caption y")
        return xp_of(y).broadcast_to(resident(without, like=y).astype(y.dtype), y.shape)


@dataclass(frozen=True)
class Encoded:
    """y : a pair of a text encoder's outputs, one vector per token (B, M, width) for any M, and one per caption (B, pooled).

    The encoders are not part of this package. What leaves a caption out is their output for the empty text.
    """

    width: int
    pooled: int
    length: int  # tokens, for counts

    count: ClassVar[int] = 0
    rows: ClassVar[int] = 0
    null: ClassVar[None] = None
    dropout: ClassVar[float] = 0.0
    shape: ClassVar[tuple[int, ...]] = ()

    @property
    def words(self) -> str:
        return f"encoded texts of widths {self.width} and {self.pooled}"

    def check(self, y: Any, samples: int) -> None:
        """Raises ValueError unless y holds both outputs for every sample."""
        shapes = [tuple(getattr(a, "shape", ())) for a in y] if isinstance(y, tuple) else []
        ends = [(len(s), *s[:1], *s[-1:]) for s in shapes]
        if ends != [(3, samples, self.width), (2, samples, self.pooled)]:
            expected = f"(({samples}, M, {self.width}), ({samples}, {self.pooled}))"
            raise ValueError(f"a model of {self.words} needs a pair y of shapes {expected}, got {shapes or type(y).__name__}")

    def left_out(self, y: Any) -> Any:
        """Raises ValueError: only the text encoders know."""
        raise ValueError(f"a model of {self.words} leaves a text out by the encoders' output for the empty text: pass it as y")


Condition = Nothing | Classes | Tokens | Encoded


def classes_of(count: int, dropout: float) -> Nothing | Classes:
    """The condition of a network of so many classes, the null label one above the last; 0: nothing."""
    return Classes(count, count if dropout > 0 else None, dropout) if count else Nothing()


def check_dropout(classes: int, dropout: float, word_dropout: float = 0.0) -> None:
    """Raises ValueError, with the name of the setting, for numbers of classes or probabilities that cannot be."""
    if classes < 0:
        raise ValueError(f"num_classes {classes} is out of range: it must be 0 or more")
    for name, p in (("class_dropout_prob", dropout), ("word_dropout_prob", word_dropout)):
        if not 0 <= p < 1:
            raise ValueError(f"{name} {p} is out of range: it must be from 0 to below 1")


def check_one_per_sample(name: str, a: Array, samples: int) -> None:
    """Raises ValueError unless a has the shape (samples,)."""
    shape = tuple(getattr(a, "shape", ()))
    if shape != (samples,):
        raise ValueError(f"{name} has shape {shape}, expected ({samples},), one number per sample")
