"""The interface of a network for training and sampling: the shape of a sample, its condition, and two calls.

    F = network(x, t, y)                 the output (answer) for every sample, its time and condition
    F = network(x, t, network.null(y))   the same samples with the condition left out, for guidance (G.1)

A backbone knows nothing of paths, noise levels or losses, and no process or loop knows the class of a backbone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, Self, cast

from minidit.autograd import Tensor, Value
from minidit.backend import Array
from minidit.models.condition import Condition, check_one_per_sample, classes_of
from minidit.nn.memory import SampleMemory
from minidit.nn.module import Module, Parameter, Trainable
from minidit.nn.stack import modulations_first


class Indivisible(ValueError):
    """A size of samples that a network cannot cut into patches.   field : that says it, multiple : of what it must be one"""

    def __init__(self, field: str, multiple: int, text: str) -> None:
        super().__init__(text)
        self.field, self.multiple = field, multiple


class OfPictures:
    """What the sizes of every network of pictures say: the shapes of its samples, and its condition. The base of a dataclass."""

    input_size: int | tuple[int, int]
    in_channels: int
    num_classes: int
    class_dropout_prob: float
    learn_sigma: bool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        H, W = (self.input_size, self.input_size) if isinstance(self.input_size, int) else self.input_size
        return H, W

    @property
    def out_channels(self) -> int:
        """Channels of the output: those of a sample, or twice as many."""
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
        return classes_of(self.num_classes, self.class_dropout_prob)

    def captioned(self, vocabulary: int, length: int) -> Self:
        """The same network for captions of so many words, out of so many. Raises ValueError for a network that reads none."""
        raise ValueError("the pictures have captions, which this network does not read: add --model mmdit, or dit")


class OfPatches(OfPictures):
    """What the sizes of every transformer on the patches of pictures say. The base of a dataclass."""

    patch_size: int
    hidden_size: int
    num_heads: int
    mlp_ratio: float

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.size[0] // self.patch_size, self.size[1] // self.patch_size

    @property
    def tokens(self) -> int:
        """Patches of one sample."""
        return self.grid[0] * self.grid[1]

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of the patch."""
        return self.patch_size

    def check_sizes(self, *more: float) -> None:
        """Raises ValueError for sizes that conflict, or are not positive. more : further ones that must be positive."""
        (H, W), p, D = self.size, self.patch_size, self.hidden_size
        if min(H, W, p, self.in_channels, D, self.num_heads, self.mlp_ratio, *more) <= 0:
            raise ValueError(f"every size must be positive: {self}")
        if H % p or W % p:
            raise Indivisible("input_size", p, f"input_size {H} x {W} is not divisible by patch_size {p}")
        if D % self.num_heads or D % 4:
            raise ValueError(f"hidden_size {D} must be divisible by num_heads {self.num_heads} and by 4")


def check_inputs(network: Inputs, x: Value, t: Array, y: Any) -> None:
    """Raises ValueError unless x are samples of the network's shape, with one time and one condition per sample."""
    if tuple(x.shape[1:]) != network.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {', '.join(map(str, network.shape))})")
    check_one_per_sample("t", t, len(x))
    network.condition.check(y, len(x))


def check_backbone(network: object, *more: str) -> None:
    """Raises TypeError, naming all missing attributes, unless the network is a `Backbone` and has these as well."""
    names = ("shape", "condition", "second_half", "device", "dtype", "null", *more)
    missing = [name for name in names if not hasattr(network, name)]
    if missing:
        hint = "see models/backbone.py; device and dtype come with self.build(rng) at the end of __init__"
        raise TypeError(f"{type(network).__name__} is not a backbone: it has no {', '.join(missing)} ({hint})")


class PictureNetwork(Module):
    """The base of the networks of pictures and clips here: facts, the condition left out, and the order of weights.

    In __init__ set config, shape, condition and second_half, make the layers, and end with self.build(rng).
    """

    config: Any  # its sizes, a BackboneConfig; a network says which
    shape: tuple[int, ...]
    condition: Condition
    second_half: bool

    def facts(self) -> dict[str, str]:
        """What is worth knowing of a network: its samples, condition, size and cost, as text."""
        words = self.condition.words if self.condition.count else "none"
        return {
            "samples": " × ".join(map(str, self.shape)), "condition": words,
            "parameters": f"{self.config.parameters():,}", "MACs per sample": f"{self.config.macs():,}",
        }  # fmt: skip

    def null(self, y: Any) -> Any:
        """The same batch with the condition left out. Raises ValueError if the network cannot do without."""
        return self.condition.left_out(y)

    def layout_order(self, parameters: dict[str, Parameter]) -> list[Parameter]:
        return modulations_first(parameters)


class Inputs(Protocol):
    """What a network says of its inputs."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W), or (C, T, H, W) of a network for clips."""

    @property
    def condition(self) -> Condition:
        """The condition, which says what y must be."""


class Backbone(Inputs, Protocol):
    """A network that training and sampling can use: DiT is one.

    To write your own: subclass nn.Module; in __init__ set shape, condition (`Nothing()` or `Classes(count)`), second_half = False
    and config = None, make the layers, and end with self.build(rng); write forward(x, t, y=None); null(y) may be
    `return self.condition.left_out(y)`. For `minidit train --model NAME` add a BackboneConfig and a row in models/kinds.py.
    """

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
