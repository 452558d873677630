"""Where gradients are stored: in the `grad` of a leaf, or in a flat buffer that holds those of a whole network."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import Protocol

import numpy as np

from minidit.backend import Array, xp_of

_gradients: ContextVar[Gradients | None] = ContextVar("gradients", default=None)


class Leaf(Protocol):
    """A Tensor that was not computed: a parameter, or an input whose gradient is needed."""

    data: Array
    grad: Array


class Gradients:
    """The destination of the gradients of some leaves inside `with gradients:`: views into one flat buffer.

    The first contribution to a view is written and later ones are added, so that nothing needs zeroing before an update; views
    that were not written are zero at the end. The object belongs to one thread.
    """

    def __init__(self, arrays: Sequence[Array], views: Sequence[Array]) -> None:
        self.views = {id(a): v for a, v in zip(arrays, views, strict=True)}
        self.arrays = list(arrays)  # while they live, no other array can have their ids
        self.written: set[int] = set()

    def add(self, array: Array, bar: Array) -> bool:
        """Adds a bar to the view of this leaf's array; False if it has none."""
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


def collecting() -> bool:
    """Whether the gradients of a whole network are being collected: a training loop of this package is at work."""
    return _gradients.get() is not None


def home_of_gradient(w: Array) -> Array | None:
    """The view of w's gradient in the flat buffer, while that is still unwritten: an adjoint may compute directly into it."""
    gradients = _gradients.get()
    return None if gradients is None or id(w) in gradients.written else gradients.views.get(id(w))


def add_to_leaf(leaf: Leaf, bar: Array) -> None:
    """Adds a bar where the gradient of this leaf goes (A.2)."""
    gradients = _gradients.get()
    if gradients is not None and gradients.add(leaf.data, bar):
        return
    if leaf.grad is None:  # a copy: the bar may be the caller's, another leaf's too, or a read-only view of a smaller array
        leaf.grad = xp_of(bar).array(bar, copy=True)
    else:
        leaf.grad = whole(leaf.grad + bar)  # never in place: other code may hold the first one


def whole(y: Array) -> Array:
    """An array, even if NumPy made a scalar of a result without axes."""
    return np.asarray(y) if isinstance(y, np.generic) else y
