"""Primitives: functions on arrays that return their value and their adjoint, lifted to Tensors and registered by name.

    y = f(x₁, x₂, …)   ->   x̄ᵢ = (∂y/∂xᵢ)ᵀ ȳ            a primitive: (y, vjp)                   (A.1)
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, ParamSpec, overload

import numpy as np

from minidit import shown
from minidit.autograd.kinds import check_one_kind
from minidit.autograd.switches import kernels_on, recording
from minidit.autograd.tape import Node, Vjp
from minidit.autograd.tensor import Tensor, source_of
from minidit.autograd.watch import watcher
from minidit.backend import Array

P = ParamSpec("P")  # the arguments of a primitive, which are those of its plain text
Pair = Callable[..., tuple[Any, Vjp]]
Check = Callable[..., None]  # raises ValueError for arguments that neither the plain text nor a twin can handle


class NoTwin(Exception):
    """A fast twin raises this, before it has done anything, for arguments that it cannot handle; then the plain text runs."""


class Primitive(Generic[P]):
    """f(*arrays, **static) -> (y, vjp), lifted to Tensors. On plain arrays it is a plain function that returns y.

    vjp(ȳ) returns one bar per array, in order (A.1); a bar may be None (no gradient) or a function without arguments, which is
    called only if that gradient is needed. Several outputs are a tuple, and vjp takes as many bars.
    """

    __name__: str

    def __init__(
        self, plain: Callable[P, tuple[Any, Vjp]], cpu: Pair | None = None, cuda: Pair | None = None, check: Check | None = None
    ) -> None:
        self.plain, self.cpu, self.cuda, self.check = plain, cpu, cuda, check
        functools.update_wrapper(self, plain)

    def __repr__(self) -> str:
        return f"<primitive {self.__name__}{inspect.signature(self.plain)}>"

    def _repr_html_(self) -> str:
        twins = [home for home, twin in (("CPU", self.cpu), ("CUDA", self.cuda)) if twin is not None]
        beside = f"fast twins: {', '.join(twins)}" if twins else "no fast twin"
        text = textwrap.dedent(inspect.getsource(inspect.unwrap(self.plain)))
        return shown.card(f"{self.__name__}: the value, and the adjoint that it returns", shown.code(text), shown.escape(beside))

    def pair(self, *arrays: Array, **static: Any) -> tuple[Any, Vjp]:
        """(y, vjp) on plain arrays, by the fast twin if there is one for this home and it is switched on."""
        if self.check is not None:
            self.check(*arrays, **static)
        x = arrays[0]
        twin = (self.cpu if x.dtype == np.float32 else None) if isinstance(x, np.ndarray) else self.cuda
        if twin is not None and kernels_on():
            with suppress(NoTwin):
                return twin(*arrays, **static)
        return self.plain(*arrays, **static)

    def __call__(self, *args: P.args, **static: P.kwargs) -> Any:
        arrays = [a.data if isinstance(a, Tensor) else a for a in args]
        check_one_kind(self.__name__, arrays)
        if any(isinstance(v, Tensor) for v in static.values()):
            raise TypeError(f"{self.__name__}: arrays are passed by position, only static arguments by name")
        y, vjp = self.pair(*arrays, **static)
        if (watch := watcher()) is not None:
            vjp = watch.pair(self.__name__, y, vjp)
        if not any(isinstance(a, Tensor) for a in args):
            return y
        ys = y if isinstance(y, tuple) else (y,)
        node = None
        if recording() and any(isinstance(a, Tensor) and a.node is not None for a in args):
            node = Node([source_of(a) for a in args], vjp, ys)
        out = tuple(Tensor.made(v, node, k) for k, v in enumerate(ys))
        return out if isinstance(y, tuple) else out[0]


PRIMITIVES: dict[str, Primitive[...]] = {}
Tensor.primitives = PRIMITIVES  # called by the operators of a Tensor


@overload
def primitive(plain: Callable[P, tuple[Any, Vjp]]) -> Primitive[P]: ...
@overload
def primitive(
    *, cpu: Pair | None = None, cuda: Pair | None = None, check: Check | None = None
) -> Callable[[Callable[P, tuple[Any, Vjp]]], Primitive[P]]: ...
def primitive(
    plain: Pair | None = None, *, cpu: Pair | None = None, cuda: Pair | None = None, check: Check | None = None
) -> Any:
    """Registers f(*arrays, **static) -> (y, vjp) as a primitive; cpu and cuda are fast twins of the same signature.

    check takes the same arguments and runs before them.
    """
    if plain is None:
        return functools.partial(primitive, cpu=cpu, cuda=cuda, check=check)
    p = PRIMITIVES[plain.__name__] = Primitive(plain, cpu, cuda, check)
    return p
