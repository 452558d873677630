"""Less memory for more work: a part of a network keeps its inputs only, and runs again when its gradient is needed.

    y = f(x₁, x₂, …)   keeps x₁, x₂, …            then, for ȳ:   f runs again on a tape of its own, and that tape backwards

Inside `with recomputing():` a network that calls its blocks by `run` holds the tape of one block at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from minidit.autograd import Node, Tensor, Value, backward, no_grad, recording, source_of
from minidit.backend import setting

_on: ContextVar[bool] = ContextVar("recomputing", default=False)


def recomputing(on: bool = True) -> AbstractContextManager[None]:
    """`with recomputing():` every `run` inside keeps its inputs only."""
    return setting(_on, on)


def recomputes() -> bool:
    """Whether a `run` here keeps its inputs only."""
    return _on.get() and recording()


def run(f: Callable[..., Any], *xs: Any) -> Any:
    """f(*xs), one Tensor from Tensors and other values. f reads nothing else but parameters, and draws nothing."""
    sources = [source_of(x) for x in xs]
    if not recomputes() or not any(sources):
        return f(*xs)
    with no_grad():
        y = f(*xs).data
    values = [Tensor.made(x.data, None) if isinstance(x, Tensor) else x for x in xs]  # without their history
    tracked = [source is not None for source in sources]

    def vjp(y_bar: Any) -> tuple[Any, ...]:
        bars: list[Any] = [None] * len(values)
        entrances = [entrance(x, k, bars) if tracked[k] else x for k, x in enumerate(values)]
        backward(f(*entrances), y_bar)  # gradients of parameters are added here
        return tuple(bars)

    return Tensor.made(y, Node(sources, vjp, (y,)))


def entrance(x: Value, k: int, bars: list[Any]) -> Tensor:
    """x as the output of a node whose adjoint stores the bar in bars[k]. Not a leaf: nodes sum bars in place, leaves do not."""

    def vjp(bar: Any) -> tuple[Any, ...]:
        bars[k] = bar
        return (None,)

    return Tensor.made(x.data, Node((None,), vjp, (x.data,)))
