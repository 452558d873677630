"""Reverse-mode differentiation: a primitive returns its value and its adjoint, a tape runs the adjoints backwards.

    y = f(x₁, x₂, …)   ->   x̄ᵢ = (∂y/∂xᵢ)ᵀ ȳ            a primitive: (y, vjp)                   (A.1)
    x̄ = Σ over all uses of x of the bar that the use sends back     shared values add up          (A.2)

The tape keeps nodes, never data: what the adjoints need lives in their closures, and each closure dies right after it ran.
Gradients are of first order only.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any, overload

import numpy as np

from minidit.backend import Array, empty, xp_of

Vjp = Callable[..., tuple[Any, ...]]
Pair = Callable[..., tuple[Any, Vjp]]

_recording: ContextVar[bool] = ContextVar("recording", default=True)
_gradients: ContextVar[Gradients | None] = ContextVar("gradients", default=None)
_kernels: ContextVar[bool] = ContextVar("kernels", default=os.environ.get("MINIDIT_KERNELS", "on") != "off")


@contextmanager
def _set(variable: ContextVar[bool], value: bool) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def no_grad() -> Any:
    """`with no_grad():` primitives keep nothing and Tensors remember no history."""
    return _set(_recording, False)


def recording() -> bool:
    """True where an adjoint may be asked for later: the only thing that a kernel knows about the tape."""
    return _recording.get()


def plain_text() -> Any:
    """`with plain_text():` every primitive runs as it reads, without its fast twin (for a process: MINIDIT_KERNELS=off)."""
    return _set(_kernels, False)


def kernels_on() -> bool:
    """True where a primitive or a law may choose its fast twin."""
    return _kernels.get()


# ------------------------------------------------------------------------------------------------ the tape


class Node:
    """One application of a primitive: where its inputs came from, and how to send gradients back to them."""

    __slots__ = ("bars", "leaf", "owned", "parents", "shapes", "vjp", "waiting")

    def __init__(self, parents: Sequence[Parent], vjp: Vjp | None, outputs: Sequence[Array], leaf: object = False):
        self.parents, self.vjp, self.leaf = parents, vjp, bool(leaf)
        self.shapes = [(xp_of(y), y.shape, y.dtype) for y in outputs] if len(outputs) > 1 else []
        self.bars: list[Array] = [None] * max(1, len(outputs))
        self.owned = [False] * max(1, len(outputs))
        self.waiting = 0

    def add(self, k: int, bar: Array) -> None:
        """Adds what one use of output k sends back (A.2). In place only into memory that this node made itself."""
        old = self.bars[k]
        if old is None:
            self.bars[k] = bar
        elif self.owned[k]:
            xp_of(old).add(old, bar, out=old)
        else:  # the first bar may be aliased by somebody else: the first sum goes to fresh memory
            self.bars[k], self.owned[k] = xp_of(old).add(old, bar, out=empty(bar, bar.shape)), True


def whole(y: Array) -> Array:
    """An array also where NumPy made a scalar of a result without axes."""
    return np.asarray(y) if isinstance(y, np.generic) else y


LEAF = Node((), None, (), leaf=True)  # how every leaf was made: not at all


class Tensor:
    """An array that remembers how it was made. Tensor(array) is a leaf: `backward` leaves the gradient in its `grad`.

    data : float array, NumPy or CuPy.     Raises TypeError for integers: labels and rungs stay plain arrays.
    """

    __slots__ = ("__weakref__", "data", "grad", "k", "node")
    __array_ufunc__ = None  # array × Tensor reaches the Tensor

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
        """A Tensor that a primitive made; node None means that nothing is remembered."""
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

    def backward(self, bar: Array = None) -> None:
        """Runs the tape backwards from here; bar is the gradient of this value (1 for a scalar)."""
        backward(self, bar)

    def __dlpack__(self, **options: Any) -> Any: return self.data.__dlpack__(**options)
    def __dlpack_device__(self) -> Any: return self.data.__dlpack_device__()

    def __repr__(self) -> str:
        return f"Tensor({self.data!r})"

    def __float__(self) -> float:
        return float(self.data)

    def __len__(self) -> int:
        return len(self.data)

    # The operators are spelled in ops/, which stands above this file: they are looked up when they are used.
    def __add__(self, other: Any) -> Any: return PRIMITIVES["add"](self, other)
    def __radd__(self, other: Any) -> Any: return PRIMITIVES["add"](other, self)
    def __sub__(self, other: Any) -> Any: return PRIMITIVES["sub"](self, other)
    def __rsub__(self, other: Any) -> Any: return PRIMITIVES["sub"](other, self)
    def __mul__(self, other: Any) -> Any: return PRIMITIVES["mul"](self, other)
    def __rmul__(self, other: Any) -> Any: return PRIMITIVES["mul"](other, self)
    def __truediv__(self, other: Any) -> Any: return PRIMITIVES["div"](self, other)
    def __rtruediv__(self, other: Any) -> Any: return PRIMITIVES["div"](other, self)
    def __matmul__(self, other: Any) -> Any: return PRIMITIVES["matmul"](self, other)
    def __rmatmul__(self, other: Any) -> Any: return PRIMITIVES["matmul"](other, self)
    def __pow__(self, p: float) -> Any: return PRIMITIVES["power"](self, p=p)
    def __neg__(self) -> Any: return PRIMITIVES["neg"](self)
    def __getitem__(self, index: Any) -> Any: return PRIMITIVES["getitem"](self, index=index)

    def reshape(self, *shape: Any) -> Any:
        return PRIMITIVES["reshape"](self, shape=shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def transpose(self, *axes: int) -> Any:
        return PRIMITIVES["transpose"](self, axes=axes)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Any:
        return PRIMITIVES["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Any:
        return PRIMITIVES["mean"](self, axis=axis, keepdims=keepdims)


Parent = tuple["Node | Tensor", int] | None


def source_of(x: Any) -> Parent:
    """What a node remembers of an argument: a leaf itself, but of any other Tensor only its node and which of its outputs
    it is. So a value that no adjoint needs is freed at once; None for what has no history."""
    if not isinstance(x, Tensor) or x.node is None:
        return None
    return (x if x.node.leaf else x.node), x.k


def value(x: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return x.data if isinstance(x, Tensor) else x


# ------------------------------------------------------------------------------------------------ primitives


class Onto(functools.partial[Any]):
    """A bar that adds itself to what other uses sent before it (A.2): f(so_far=None) -> the sum, in memory of its own."""


class NoTwin(Exception):
    """Raised by a twin, before it has done anything, for arguments that it does not serve: the plain text does."""


class Primitive:
    """f(*arrays, **static) -> (y, vjp), lifted to Tensors. On plain arrays it is a plain function that returns y.

    vjp(ȳ) returns one bar per array, in order (A.1); a bar may be None (no gradient) or a function without arguments, which is
    called only if somebody waits for that gradient. Several outputs are a tuple, and vjp takes as many bars.
    """

    def __init__(self, plain: Pair, cpu: Pair | None = None, cuda: Pair | None = None) -> None:
        self.plain, self.cpu, self.cuda = plain, cpu, cuda
        functools.update_wrapper(self, plain)

    def pair(self, *arrays: Array, **static: Any) -> tuple[Any, Vjp]:
        """(y, vjp) on plain arrays, by the fast twin where there is one for this home and it is switched on."""
        x = arrays[0]
        twin = (self.cpu if x.dtype == np.float32 else None) if isinstance(x, np.ndarray) else self.cuda
        if twin is not None and _kernels.get():
            with suppress(NoTwin):
                return twin(*arrays, **static)
        return self.plain(*arrays, **static)

    def __call__(self, *args: Any, **static: Any) -> Any:
        arrays = [a.data if isinstance(a, Tensor) else a for a in args]
        _of_one_kind(self.__name__, arrays)  # type: ignore[attr-defined]
        if any(isinstance(v, Tensor) for v in static.values()):
            raise TypeError(f"{self.__name__}: arrays are passed by position, only static arguments by name")  # type: ignore[attr-defined]
        y, vjp = self.pair(*arrays, **static)
        if not any(isinstance(a, Tensor) for a in args):
            return y
        ys = y if isinstance(y, tuple) else (y,)
        node = None
        if _recording.get() and any(isinstance(a, Tensor) and a.node is not None for a in args):
            node = Node([source_of(a) for a in args], vjp, ys)
        out = tuple(Tensor.made(v, node, k) for k, v in enumerate(ys))
        return out if isinstance(y, tuple) else out[0]


PRIMITIVES: dict[str, Primitive] = {}


@overload
def primitive(plain: Pair) -> Primitive: ...
@overload
def primitive(*, cpu: Pair | None = None, cuda: Pair | None = None) -> Callable[[Pair], Primitive]: ...
def primitive(plain: Pair | None = None, *, cpu: Pair | None = None, cuda: Pair | None = None) -> Any:
    """Registers f(*arrays, **static) -> (y, vjp) as a primitive; cpu and cuda are fast twins of the same signature."""
    if plain is None:
        return functools.partial(primitive, cpu=cpu, cuda=cuda)
    p = PRIMITIVES[plain.__name__] = Primitive(plain, cpu, cuda)
    return p


def _of_one_kind(name: str, arrays: Iterable[Any]) -> None:
    """One readable error instead of a silent copy between homes or a silent promotion to float64."""
    home = dtype = None
    for a in arrays:
        if a is None or isinstance(a, (int, float, np.generic)):
            continue
        if not hasattr(a, "dtype"):
            raise TypeError(f"{name}: expected an array or a Tensor, got {type(a).__name__}")
        if home is not None and type(a) is not home:
            xp_of(*arrays)  # raises: mixed homes
        home = type(a)
        if a.dtype.kind == "f":
            if dtype is not None and a.dtype != dtype:
                raise TypeError(f"{name}: mixed precision, {dtype} with {a.dtype}: cast one of them on purpose")
            dtype = a.dtype
    for a in arrays:  # Python numbers adapt to the array, NumPy's scalars and integer arrays do not
        d = getattr(a, "dtype", dtype)
        if dtype is not None and d != dtype and np.result_type(d, dtype) != dtype:
            what = f"a NumPy {d} scalar" if isinstance(a, np.generic) else f"an array of {d}"
            raise TypeError(f"{name}: {what} would promote {dtype}: use a Python number or cast it on purpose")


# ------------------------------------------------------------------------------------------------ backward


def backward(root: Tensor, bar: Array = None) -> None:
    """Sends gradients from root to every leaf that it was made of (A.2). The graph is used up by it."""
    if root.node is None:
        raise ValueError("backward: this Tensor has no history (made under no_grad, or from plain arrays only)")
    if bar is None:
        if root.data.size != 1:
            raise ValueError(f"backward of a Tensor of shape {root.shape} needs its gradient as argument: only a scalar has 1")
        bar = xp_of(root.data).ones_like(root.data)
    elif tuple(bar.shape) != root.shape:
        raise ValueError(f"backward: the gradient has shape {tuple(bar.shape)}, the Tensor {root.shape}")
    _of_one_kind("backward", (root.data, bar))
    if root.node.leaf:
        _add_to_leaf(root, bar)
        return
    _count_uses(root.node)
    root.node.add(root.k, bar)
    ready = [root.node]
    while ready:
        node = ready.pop()
        vjp, bars, parents = node.vjp, node.bars, node.parents
        assert vjp is not None
        if node.shapes:  # an output that nobody used has the gradient zero
            bars = [xp.zeros(s, d) if b is None else b for b, (xp, s, d) in zip(bars, node.shapes, strict=True)]
        node.vjp, node.bars, node.parents, node.shapes = None, [], (), []
        out = (None,) * len(parents) if bars[0] is None else vjp(*bars)
        del vjp, bars  # what the closure saved is free from here on: the next adjoint may reuse its memory
        for parent, b in zip(parents, out, strict=False):  # bars of arguments that were left out are dropped
            if parent is None:
                continue
            q, k = parent
            if isinstance(b, Onto) and isinstance(q, Node):
                q.bars[k], q.owned[k], b = b(q.bars[k]), True, None
            elif callable(b):
                b = b()
            if isinstance(q, Tensor):
                if b is not None:
                    _add_to_leaf(q, b)
                continue
            if b is not None:
                q.add(k, b)
            q.waiting -= 1
            if q.waiting == 0:
                ready.append(q)
        del out, b


def _count_uses(root: Node) -> None:
    """How many bars each node waits for. Without the count a node shared by two uses would run on the first one's bar alone
    and again on the second's: that is why the tape is walked in topological order. Iterative, because a graph may be deeper
    than Python's stack. Leaves are shared between threads and are never written to here."""
    stack, seen = [root], {id(root)}
    while stack:
        node = stack.pop()
        if node.vjp is None:
            raise ValueError("backward: this graph was already run backwards, and what it saved is gone")
        for parent in node.parents:
            if parent is None or isinstance(parent[0], Tensor):
                continue
            if id(parent[0]) not in seen:
                seen.add(id(parent[0]))
                parent[0].waiting = 0
                stack.append(parent[0])
            parent[0].waiting += 1


def _add_to_leaf(leaf: Tensor, bar: Array) -> None:
    gradients = _gradients.get()
    if gradients is not None and gradients.add(leaf.data, bar):
        return
    leaf.grad = whole(bar if leaf.grad is None else leaf.grad + bar)  # never in place: the first bar may be aliased


class Gradients:
    """Where the gradients of some leaves go inside `with gradients:`: views into one flat buffer.

    The first contribution to a view is written and later ones are added, so that nothing needs zeroing before a step; views
    that nobody wrote are zero at the end. The object belongs to one thread.
    """

    def __init__(self, arrays: Sequence[Array], views: Sequence[Array]) -> None:
        self.views = {id(a): v for a, v in zip(arrays, views, strict=True)}
        self.arrays = list(arrays)  # keeps the ids valid
        self.written: set[int] = set()

    def add(self, array: Array, bar: Array) -> bool:
        view = self.views.get(id(array))
        if view is None:
            return False
        if id(array) in self.written:
            xp_of(view).add(view, bar, out=view)
        else:
            if bar is not view:
                view[...] = bar
            self.written.add(id(array))
        return True

    def __enter__(self) -> Gradients:
        self.written.clear()
        self._token: Token[Gradients | None] = _gradients.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _gradients.reset(self._token)
        for key, view in self.views.items():
            if key not in self.written:
                view[...] = 0


def home_of_gradient(w: Array) -> Array | None:
    """The view of w's gradient in the flat buffer, while that is still unwritten."""
    gradients = _gradients.get()
    return None if gradients is None or id(w) in gradients.written else gradients.views.get(id(w))
