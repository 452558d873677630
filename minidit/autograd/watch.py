"""Finds the primitive that gives the first number that is not finite, and the layer that it stands in.

    with watching(network): loss.backward()        raises Anomaly: "exp in blocks.2.attn gives nan"

Every primitive is looked at, forwards and backwards, so this is for finding a fault, not for every day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from minidit.backend import Array, setting, to_host, xp_of


class Anomaly(ArithmeticError):
    """A number that is not finite. The message names the primitive, the layer, and whether it was forwards or backwards."""


class Watch:
    """names : the dotted name of every module, by its identity."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names, self.layers = names, [""]

    @contextmanager
    def inside(self, module: object) -> Iterator[None]:
        """What happens inside belongs to this module."""
        self.layers.append(self.names.get(id(module), self.layers[-1]))
        try:
            yield
        finally:
            self.layers.pop()

    def look(self, arrays: Any, what: str, layer: str) -> None:
        """Raises Anomaly unless all numbers are finite; None and what is computed later are passed over."""
        for a in arrays:
            if hasattr(a, "dtype") and a.dtype.kind == "f" and not bool(xp_of(a).isfinite(a).all()):
                raise Anomaly(f"{what} in {layer or 'the loss'} gives {first_of(a)}")

    def pair(self, name: str, y: Any, vjp: Callable[..., Any]) -> Callable[..., Any]:
        """Looks at the value of a primitive  ->  its adjoint, which is looked at when it runs."""
        layer = self.layers[-1]
        self.look(y if isinstance(y, tuple) else (y,), name, layer)

        def looked_at(*bars: Array) -> Any:
            back = [bar() if callable(bar) else bar for bar in vjp(*bars)]
            self.look(back, f"the adjoint of {name}", layer)
            return tuple(back)

        return looked_at


def first_of(a: Array) -> str:
    """The first number that is not finite, as a text."""
    host = to_host(a).ravel()
    return str(next(float(v) for v in host if not abs(float(v)) < float("inf")))


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


def watcher() -> Watch | None:
    """The watch of this piece of code, if there is one."""
    return _watch.get()


@contextmanager
def watching(network: Any) -> Iterator[None]:
    """`with watching(network):` the first number that is not finite raises Anomaly."""
    modules = network.named_modules() if hasattr(network, "named_modules") else []
    with setting(_watch, Watch({id(module): name or type(module).__name__ for name, module in modules})):
        yield
