"""Twins of `concat` and `split` that copy nothing where the parts are neighbours in memory.

    y = [x₁ | x₂ | …]      x̄ₖ the k-th part of ȳ            no copy where the xₖ are neighbours in a flat buffer
    (y₁, y₂, …) = cut x    x̄ = [ȳ₁ | ȳ₂ | …]                no copy where each ȳₖ was written into its place of x̄

An adjoint asks `home_of_bar` (for a piece) or `home_of_gradient` (for a weight) for the memory to write its bar to. It gets the
right place in the larger array where there is one, and fresh memory otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

from minidit import autograd
from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty, side_by_side

_cut: WeakValueDictionary[int, Pieces] = WeakValueDictionary()  # by the id of a piece, while the split's adjoint lives
_joined: WeakValueDictionary[int, Joined] = WeakValueDictionary()  # by the id of y


def cut(x: Array, parts: int) -> list[Array]:
    """Equal views of x along its last axis. A single one is a view, too: CuPy's `split` would return x itself."""
    width = x.shape[-1] // parts
    return [x[..., k * width : (k + 1) * width] for k in range(parts)]


class Pieces:
    """The pieces of x along its last axis, and the places of their bars in one array."""

    def __init__(self, x: Array, parts: int) -> None:
        self.x, self.parts, self.places, self.bar = x, parts, list[Array](), None
        self.ys = cut(x, parts)  # while they live, no other array can have their ids
        self.free = {id(y): k for k, y in enumerate(self.ys)}
        for y in self.ys:
            _cut[id(y)] = self

    def _make(self) -> None:
        if not self.places:
            self.bar = home_of_bar(self.x)
            self.places = cut(self.bar, self.parts)

    def home(self, y: Array) -> Array:
        """The place of y's bar at the first call; fresh memory at later ones, because a second use sends a bar of its own."""
        k = self.free.pop(id(y), None)
        self._make()
        return empty(y, y.shape) if k is None else self.places[k]

    def whole(self, bars: Sequence[Array]) -> Array:
        """The bar of x. A piece's bar that was written elsewhere is copied to its place."""
        self._make()
        for bar, place in zip(bars, self.places, strict=True):
            if bar is not place:
                place[...] = bar
        return self.bar


def home_of_bar(y: Array) -> Array:
    """Memory for the bar of y: beside the bars of the other pieces if y is a piece, else fresh."""
    pieces = _cut.get(id(y))
    return empty(y, y.shape) if pieces is None else pieces.home(y)


def split(x: Array, *, parts: int | tuple[int, ...], axis: int = -1) -> tuple[tuple[Array, ...], Vjp]:
    if axis not in (-1, x.ndim - 1) or x.ndim != 2 or not isinstance(parts, int):
        raise NoTwin("cut along another axis than the last of two, or into pieces of different lengths")
    pieces = Pieces(x, parts)
    return tuple(pieces.ys), lambda *bars: (pieces.whole(bars),)


class Joined:
    """Arrays that are neighbours in memory, seen as one array y, and the places of their gradients."""

    def __init__(self, xs: Sequence[Array], y: Array) -> None:
        self.xs, self.y, self.homes, self.whole = xs, y, list[Array](), None
        _joined[id(y)] = self

    def home(self) -> Array:
        """Memory for the gradient of y: the places of the parts' gradients if those are neighbours too, else fresh."""
        self.homes = [autograd.home_of_gradient(x) for x in self.xs]
        self.whole = None if any(h is None for h in self.homes) else side_by_side(self.homes)
        return empty(self.y, self.y.shape) if self.whole is None else self.whole

    def bars(self, y_bar: Array) -> tuple[Array, ...]:
        if y_bar is self.whole:
            return tuple(self.homes)
        ends, bars = 0, list[Array]()
        for x in self.xs:
            bars.append(y_bar[ends : ends + len(x)])
            ends += len(x)
        return tuple(bars)


def home_of_gradient(w: Array) -> Array:
    """Memory for the gradient of w: its view in the flat buffer while that is unwritten, else fresh."""
    if id(w) in _joined:
        return _joined[id(w)].home()
    view = autograd.home_of_gradient(w)
    return empty(w, w.shape) if view is None else view


def concat(*xs: Array, axis: int = -1) -> tuple[Array, Vjp]:
    y = side_by_side(xs) if axis == 0 else None
    if y is None:
        raise NoTwin("the arrays are not neighbours in memory")
    parts = Joined(xs, y)
    return y, lambda y_bar: parts.bars(y_bar)
