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


def concatenated(parts: Sequence[Lazy], axis: int, where: str) -> Lazy:
    """Arrays one after the other along an axis. Raises CheckpointError unless they agree along the others."""
    first, rest = parts[0], [p.shape[:axis] + p.shape[axis + 1 :] for p in parts]
    if any(len(p.shape) != len(first.shape) or len(p.shape) <= axis for p in parts) or len(set(rest)) > 1:
        raise CheckpointError(f"{where}: parts of shapes {', '.join(str(p.shape) for p in parts)} do not fit together")
    shape = (*first.shape[:axis], sum(p.shape[axis] for p in parts), *first.shape[axis + 1 :])
    return first if len(parts) == 1 else Lazy(shape, first.dtype, lambda: np.concatenate([p.read() for p in parts], axis))


def cut(a: Lazy, axis: int, lengths: Sequence[int], where: str) -> list[Lazy]:
    """Pieces of these lengths along an axis. Raises CheckpointError unless the lengths sum up to the array's."""
    if len(lengths) == 1:
        return [a]
    if len(a.shape) <= axis or sum(lengths) != a.shape[axis] or min(lengths) < 0:
        raise CheckpointError(f"{where}: an array of shape {a.shape} cannot be cut into {list(lengths)} along axis {axis}")

    def part(start: int, stop: int) -> Lazy:
        shape = (*a.shape[:axis], stop - start, *a.shape[axis + 1 :])
        return Lazy(shape, a.dtype, lambda: np.ascontiguousarray(a.read()[(slice(None),) * axis + (slice(start, stop),)]))

    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [part(end - n, end) for end, n in zip(ends, lengths, strict=True)]


def halves_swapped(a: Lazy) -> Lazy:
    """The second half of the rows before the first."""
    return Lazy(a.shape, a.dtype, lambda: np.concatenate(np.split(a.read(), 2)[::-1]))
