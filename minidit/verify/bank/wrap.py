"""How a part is changed: something else instead of it, or something done to its answer or its arguments."""

from __future__ import annotations

from minidit.verify.core.reference import Change, Form


def instead(f: Form) -> Change:
    """f(R, ...) in its place."""
    return lambda original: f


def then(f: Form) -> Change:
    """f(answer) for its answer."""
    return lambda original: lambda R, *args: f(original(R, *args))


def reordered(*order: int) -> Change:
    """Its parts in another order."""
    return then(lambda parts: tuple(parts[i] for i in order))


def arguments(f: Form) -> Change:
    """The part with f(*arguments) for its arguments."""
    return lambda original: lambda R, *args: original(R, *f(*args))


def at(place: str, f: Form) -> Change:
    """f(R, ...) where the part is called for this place (its last argument), unchanged elsewhere."""

    def change(original: Form) -> Form:
        return lambda R, *args: (f if isinstance(args[-1], str) and args[-1] == place else original)(R, *args)

    return change
