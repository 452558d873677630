"""Notices arrays that were changed in place between a computation and its backward: the adjoint would read the new numbers.

An adjoint is a closure, so the arrays that it will read are found in its cells, and a few of their numbers are remembered. This
is for code that people write with Tensors; inside `with Gradients`, where a loop of this package trains, nothing is looked at.
"""

from __future__ import annotations

import functools
import types
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

MOST = 512  # numbers of an array that are looked at
Print = tuple[Any, int]  # an array, and the checksum of its numbers


def prints_of(vjp: Callable[..., Any]) -> list[Print]:
    """The arrays on the host that an adjoint will read, with their checksums."""
    return [(a, checksum(a)) for a in arrays_in(vjp, 3)]


def arrays_in(held: object, depth: int) -> Iterator[Any]:
    """The NumPy arrays in the cells of a function, and in the functions, partials and tuples in those."""
    if isinstance(held, np.ndarray):
        yield held
    elif depth and isinstance(held, types.FunctionType):
        for cell in held.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not set yet
                continue
            yield from arrays_in(content, depth - 1)
    elif depth and isinstance(held, functools.partial):
        yield from arrays_in((held.func, *held.args), depth - 1)
    elif depth and isinstance(held, (tuple, list)):
        for entry in held:
            yield from arrays_in(entry, depth - 1)


def checksum(a: Any) -> int:
    """Of all numbers of a small array, and of some in regular places of a large one."""
    step = -(-a.size // MOST)
    return zlib.crc32(a.tobytes() if step <= 1 else a.flat[::step].tobytes())


def refuse_changed(prints: list[Print]) -> None:
    """Raises ValueError if an array is not what it was."""
    for a, before in prints:
        if checksum(a) != before:
            raise ValueError(
                f"backward: an array of shape {a.shape} was changed in place after it was used, so this gradient would be wrong: "
                "make a new array instead (x = x - 1, not x -= 1), or change it after backward"
            )
