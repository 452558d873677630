"""`@twin("mix")` above a law: on a GPU its kernel of that name in kernels/cuda_laws.py runs, wherever that serves.

The law's text stays the reference; with `plain_text()` or MINIDIT_KERNELS=off it runs everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from minidit.autograd import NoTwin
from minidit.kernels import cuda_laws

P = ParamSpec("P")
R = TypeVar("R")


def twin(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Gives a law, whose first argument is an array, the twin `name` of kernels/cuda_laws.py, of the same signature."""

    def decorated(plain: Callable[P, R]) -> Callable[P, R]:
        kernel: Callable[P, R] = getattr(cuda_laws, name)

        @functools.wraps(plain)
        def law(*args: P.args, **static: P.kwargs) -> R:
            if cuda_laws.on_device(args[0]):
                with suppress(NoTwin):
                    return kernel(*args, **static)
            return plain(*args, **static)

        return law

    return decorated
