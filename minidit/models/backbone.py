"""The interface of a network for training and sampling: the shape of a sample, its condition, and two calls.

    F = network(x, t, y)                 the output (answer) for every sample, its time and condition
    F = network(x, t, network.null(y))   the same samples with the condition left out, for guidance (G.1)

A backbone knows nothing of paths, noise levels or losses, and no process or loop knows the class of a backbone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from minidit.autograd import Tensor, Value
from minidit.backend import Array, resident, xp_of
from minidit.nn.memory import SampleMemory
from minidit.nn.module import Trainable


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
        caption.setflags(write=False)
        return caption

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


class OfPictures:
    """What the sizes of every network of pictures say: the shapes of its samples, and its condition. The base of a dataclass."""

    input_size: int | tuple[int, int]
    in_channels: int
    num_classes: int
    class_dropout_prob: float
    learn_sigma: bool

    @property
    def size(self) -> tuple[int, int]:
        H, W = (self.input_size, self.input_size) if isinstance(self.input_size, int) else self.input_size
        return H, W

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W), or (C, T, H, W) of a network for clips."""
        return (self.in_channels, *self.size)

    def fitted(self, shape: tuple[int, ...], classes: int) -> Self:
        """The same network for samples of this shape and `classes` classes. Raises ValueError for clips."""
        if len(shape) != 3:
            sample = " x ".join(map(str, shape))
            raise ValueError(f"this model draws pictures, and the data are clips of {sample}: add --model spacetime")
        C, H, W = shape
        more: dict[str, Any] = {"input_size": H if H == W else (H, W), "in_channels": C, "num_classes": classes}
        fitted: Self = replace(cast(Any, self), **more)
        return fitted

    @property
    def condition(self) -> Condition:
        """The null label is one above the last class."""
        if not self.num_classes:
            return Nothing()
        return Classes(self.num_classes, self.num_classes if self.class_dropout_prob > 0 else None, self.class_dropout_prob)

    def captioned(self, vocabulary: int, length: int) -> Self:
        """The same network for captions of so many words, out of so many. Raises ValueError for a network that reads none."""
        raise ValueError("the pictures have captions, which this network does not read: add --model mmdit, or dit")


def check_one_per_sample(name: str, a: Array, samples: int) -> None:
    """Raises ValueError unless a has the shape (samples,)."""
    shape = tuple(getattr(a, "shape", ()))
    if shape != (samples,):
        raise ValueError(f"{name} has shape {shape}, expected ({samples},), one number per sample")


def check_backbone(network: object, *more: str) -> None:
    """Raises TypeError, naming all missing attributes, unless the network is a `Backbone` and has these as well."""
    names = ("shape", "condition", "second_half", "device", "dtype", "null", *more)
    missing = [name for name in names if not hasattr(network, name)]
    if missing:
        hint = "see models/backbone.py; device and dtype come with self.build(rng) at the end of __init__"
        raise TypeError(f"{type(network).__name__} is not a backbone: it has no {', '.join(missing)} ({hint})")


class Backbone(Protocol):
    """A network that training and sampling can use: DiT is one.

    To write your own: subclass nn.Module; in __init__ set shape, condition (`Nothing()` or `Classes(count)`), second_half = False
    and config = None, make the layers, and end with self.build(rng); write forward(x, t, y=None); null(y) may be
    `return self.condition.left_out(y)`. For `minidit train --model NAME` add a BackboneConfig and a row in models/kinds.py.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W), or (C, T, H, W) of a network for clips."""

    @property
    def condition(self) -> Condition:
        """The condition, which says what y must be."""

    @property
    def second_half(self) -> bool:
        """Whether the output has twice the channels of a sample: the second half is for the variance (DiT's learn_sigma)."""

    @property
    def device(self) -> str:
        """The device of the weights: "cpu" or "cuda"."""

    @property
    def dtype(self) -> Any:
        """The type of the weights, and of the samples that the network takes."""

    def __call__(self, x: Value, t: Array, y: Array | None = None) -> Tensor:
        """x : (B, *shape), t : (B,) as the path gives it (0..T-1 on a ladder), y as `condition` says  ->  (B, C or 2C, …)."""

    def null(self, y: Array | None) -> Array:
        """The labels of the same batch with the condition left out. Raises ValueError if the network has no null label."""


class TrainedBackbone(Backbone, Trainable, Protocol):
    """A backbone whose weights can be trained here."""

    @property
    def config(self) -> BackboneConfig | None:
        """Its sizes, used to say what would fit if memory runs out; None: unknown."""


class BackboneConfig(Protocol):
    """Facts about a network that is not built yet: its sizes and the cost of a training update.

    It is a frozen dataclass whose fields all have defaults; network(config, rng, *, device, dtype) builds the network. What the
    data decide is called input_size, in_channels and num_classes; every other field becomes a flag of `minidit train`, so its
    name must be free there. macs, parameters and step_memory are asked for where memory runs out, and by `minidit info`.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W), or (C, T, H, W) of a network for clips."""

    @property
    def condition(self) -> Condition:
        """The condition, which says what y must be."""

    @property
    def multiple(self) -> int:
        """Height and width of a sample must be multiples of this."""

    def fitted(self, shape: tuple[int, ...], classes: int) -> Self:
        """The same network for samples of this shape and `classes` classes (0: none), as the data of a run require.

        Raises ValueError for samples that it cannot draw.
        """

    def captioned(self, vocabulary: int, length: int) -> Self:
        """The same network for captions of so many words, out of so many. Raises ValueError for a network that reads none."""

    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample."""

    def parameters(self) -> int:
        """Numbers in the checkpoint, buffers included."""

    def step_memory(self, home: str, precision: str) -> SampleMemory:
        """The memory of a training update per sample on "cpu" or "cuda"."""
