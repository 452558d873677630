"""How a part is changed: something else instead of it, or something done before or after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

F = Callable[..., Any]


def instead(f: F) -> Callable[[F], F]:
    """f(R, ...) in its place."""
    return lambda original: f


def then(f: F) -> Callable[[F], F]:
    """f of its answer."""
    return lambda original: lambda R, *args: f(original(R, *args))


def arguments(f: F) -> Callable[[F], F]:
    """The part with f(*arguments) for its arguments."""
    return lambda original: lambda R, *args: original(R, *f(*args))


def at(place: str, f: F) -> Callable[[F], F]:
    """f(R, ...) where the part is called for this place (its last argument), unchanged elsewhere."""
    here: Any = lambda args: isinstance(args[-1], str) and args[-1] == place
    return lambda original: lambda R, *args: f(R, *args) if here(args) else original(R, *args)
