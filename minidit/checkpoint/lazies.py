"""The operations of which grammars are made: Lazy arrays joined, cut, reshaped and compared before they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minidit.backend import Array
from minidit.checkpoint.files import CheckpointError, Lazy


def joined(parts: Sequence[Lazy], where: str) -> Lazy:
    """Arrays of one shape, concatenated along the first axis. Raises CheckpointError if their shapes differ."""
    first = parts[0]
    if any(p.shape != first.shape or not p.shape for p in parts):
        raise CheckpointError(f"{where}: parts of different shapes {', '.join(str(p.shape) for p in parts)}")
    shape = (len(parts) * first.shape[0], *first.shape[1:])
    return Lazy(shape, first.dtype, lambda: np.concatenate([p.read() for p in parts]))


def piece(a: Lazy, i: int, n: int) -> Lazy:
    """The i-th of n equal pieces of the first axis."""
    rows = a.shape[0] // n
    return Lazy((rows, *a.shape[1:]), a.dtype, lambda: a.read()[i * rows : (i + 1) * rows])


def shaped(a: Lazy, shape: tuple[int, ...]) -> Lazy:
    """The same numbers in another shape."""
    return Lazy(shape, a.dtype, lambda: a.read().reshape(shape))


def agreeing(copies: Mapping[str, Lazy], why: str) -> Lazy:
    """The first of several copies. Reading it raises CheckpointError unless all are equal bit by bit."""
    (name, first), *others = copies.items()

    def read() -> Array:
        a = first.read()
        bits = a.tobytes()
        for other, copy in others:
            b = copy.read()
            if b.shape != a.shape or b.tobytes() != bits:
                far = f"by up to {np.abs(b.astype(float) - a).max():.2g}" if b.shape == a.shape else "in shape"
                raise CheckpointError(f"{other} differs from {name} {far}: {why}")
        return a

    return Lazy(first.shape, first.dtype, read)
