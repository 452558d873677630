"""The Tensor: an array that remembers how it was made, and the operators that may be written with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np

from minidit.autograd.gradients import add_to_leaf, whole
from minidit.autograd.kinds import check_one_kind
from minidit.autograd.tape import LEAF, Node, Parent, run_backwards
from minidit.backend import Array, xp_of

Operator: TypeAlias = Callable[["Tensor", Any], Any]


def both_sides(name: str) -> tuple[Operator, Operator]:
    """The methods for `a ∘ b` and for `b ∘ a` of a Tensor a, by the primitive of this name."""
    return (lambda a, b: a.primitives[name](a, b)), (lambda a, b: a.primitives[name](b, a))


class Tensor:
    """An array that remembers how it was made. Tensor(array) is a leaf: `backward` leaves the gradient in its `grad`.

    data : float array, NumPy or CuPy.     Raises TypeError for integers: labels and rungs stay plain arrays.
    The array is not copied, and the adjoints read it when `backward` runs: if it was changed in place in between, backward
    raises ValueError. (Of large arrays some numbers are compared, and on a GPU none.)
    """

    __slots__ = ("__weakref__", "data", "grad", "k", "node")
    __array_ufunc__ = None  # array × Tensor reaches the Tensor, and np.exp(Tensor) is a TypeError
    primitives: ClassVar[Mapping[str, Callable[..., Any]]] = {}  # defined in ops/, which imports this file

    def __init__(self, data: Array) -> None:
        if isinstance(data, (float, list, tuple)) and not isinstance(data, np.generic):
            data = np.asarray(data, np.float32)
        if isinstance(data, Tensor) or getattr(getattr(data, "dtype", None), "kind", "") not in ("f", "V"):
            what = getattr(data, "dtype", type(data).__name__) if not isinstance(data, Tensor) else "a Tensor"
            raise TypeError(f"a Tensor holds floating-point numbers, got {what}: labels and rungs stay plain arrays")
        self.data: Array = data
        self.node: Node | None = LEAF
        self.k = 0
        self.grad: Array = None

    @classmethod
    def made(cls, data: Array, node: Node | None, k: int = 0) -> Tensor:
        """A Tensor that a primitive made; node None means that nothing is recorded."""
        t = object.__new__(Tensor)
        t.data, t.node, t.k, t.grad = whole(data), node, k, None
        return t

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def ndim(self) -> int:
        return int(self.data.ndim)

    @property
    def size(self) -> int:
        return int(self.data.size)

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError("NumPy would compute with a Tensor and forget its history: take .data, or an operation of minidit.ops")

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        """What NumPy's functions ask first: np.mean would call the method `mean` with arguments that it does not have."""
        if function in (np.shape, np.ndim, np.size) and len(args) == 1:
            return getattr(self, function.__name__)
        return self.__array__()

    def __bool__(self) -> bool:
        return bool(self.data)

    def backward(self, bar: Array = None) -> None:
        """Runs the tape backwards from here; bar is the gradient of this value (1 for a scalar)."""
        backward(self, bar)

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    def __repr__(self) -> str:
        if self.data is None:
            return "Tensor(not built)"
        history = "constant" if self.node is None else "leaf" if self.node.leaf else "recorded"
        numbers = f", {self.data.tolist()}" if self.size <= 8 else ""
        return f"Tensor({self.shape} {self.dtype}, {history}{'' if self.grad is None else ' with a gradient'}{numbers})"

    def __float__(self) -> float:
        return float(self.data)

    def __len__(self) -> int:
        return len(self.data)

    __add__, __radd__ = both_sides("add")
    __sub__, __rsub__ = both_sides("sub")
    __mul__, __rmul__ = both_sides("mul")
    __truediv__, __rtruediv__ = both_sides("div")
    __matmul__, __rmatmul__ = both_sides("matmul")

    def __pow__(self, p: float) -> Value:
        return self.primitives["power"](self, p=p)

    def __neg__(self) -> Value:
        return self.primitives["neg"](self)

    def __getitem__(self, index: Any) -> Value:
        return self.primitives["getitem"](self, index=index)

    def reshape(self, *shape: Any) -> Value:
        return self.primitives["reshape"](self, shape=shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def transpose(self, *axes: int) -> Value:
        return self.primitives["transpose"](self, axes=axes)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        return self.primitives["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        return self.primitives["mean"](self, axis=axis, keepdims=keepdims)


Value: TypeAlias = Tensor | Array  # the values of networks: on plain arrays nothing is recorded


def source_of(x: Value) -> Parent:
    """The parent that a node records for an argument: a leaf itself, but of any other Tensor only its node and the output's
    number. So a value that no adjoint needs is freed at once; None without a history."""
    if not isinstance(x, Tensor) or x.node is None:
        return None
    return (x if x.node.leaf else x.node), x.k


def value(x: Value) -> Array:
    """The array of a Tensor; anything else as it is."""
    return x.data if isinstance(x, Tensor) else x


def backward(root: Tensor, bar: Array = None) -> None:
    """Sends gradients from root to every leaf that it was made of (A.2). This consumes the graph."""
    if root.node is None:
        raise ValueError("backward: this Tensor has no history (made under no_grad, or from plain arrays only)")
    if bar is None:
        if root.data.size != 1:
            raise ValueError(f"backward of a Tensor of shape {root.shape} needs its gradient as argument: only a scalar has 1")
        bar = xp_of(root.data).ones_like(root.data)
    elif tuple(bar.shape) != root.shape:
        raise ValueError(f"backward: the gradient has shape {tuple(bar.shape)}, the Tensor {root.shape}")
    check_one_kind("backward", (root.data, bar))
    if root.node.leaf:
        add_to_leaf(root, bar)
    else:
        run_backwards(root.node, root.k, bar)
