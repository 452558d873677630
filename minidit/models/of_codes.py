"""What networks that write codes say of themselves to a run: the shape of a sample, their condition, their memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self, cast

from minidit.models.condition import Condition, classes_of
from minidit.nn.memory import HOMES, SampleMemory


class OfCodes:
    """The base of the sizes of a transformer on codes; a dataclass says how many codes there are, and of what."""

    vocabulary: int
    hidden_size: int
    depth: int
    num_heads: int
    class_dropout_prob: float
    num_classes: int
    learn_sigma: ClassVar[bool] = False
    multiple: ClassVar[int] = 1  # any map of codes will do
    stored: ClassVar[tuple[float, float]]  # numbers that the adjoint of a block keeps: per token and channel, per inner channel

    @property
    def tokens(self) -> int:
        """The codes of one picture."""
        raise NotImplementedError

    @property
    def inner_size(self) -> int:
        """The width of a feed-forward layer."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: a sequence of numbers."""
        return (self.tokens,)

    @property
    def condition(self) -> Condition:
        """The null label is one above the last class."""
        return classes_of(self.num_classes, self.class_dropout_prob)

    def map_of(self, shape: tuple[int, ...], classes: int, **more: Any) -> Self:
        """The same network for so many classes, and vectors of this shape. Raises ValueError for clips."""
        if len(shape) != 3:
            raise ValueError("networks of codes draw pictures, and the data are clips: add --process rectified_flow")
        return cast(Self, replace(cast(Any, self), num_classes=classes, **more))

    def captioned(self, vocabulary: int, length: int) -> Self:
        """Raises ValueError: these networks read no captions."""
        raise ValueError("the pictures have captions, which networks of codes do not read: leave out --process raster or scales")

    def step_memory(self, home: str, precision: str) -> SampleMemory:
        """The memory of a training update per sample on "cpu" or "cuda"."""
        n, D, inner, at = self.tokens, self.hidden_size, self.inner_size, HOMES[home]
        size = 2 if home == "cuda" and precision == "bf16" else 4
        block = size * n * (self.stored[0] * D + self.stored[1] * inner) + at.attention(n, self.num_heads)
        working = size * n * (at.working * D + at.inner_made * inner) + 4 * 4 * n * self.vocabulary
        return SampleMemory(self.depth * block, block, self.depth * size * n * D, working, size)
