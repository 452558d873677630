"""`@twin(kernel)` above a law: on a GPU that kernel of kernels/cuda_laws.py runs instead, wherever it applies.

The law's text stays the reference; with `plain_text()` or MINIDIT_KERNELS=off it runs everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from minidit.autograd import NoTwin
from minidit.kernels import cuda_laws
from minidit.kernels.cuda_laws import mix, walk_step

__all__ = ["mix", "twin", "walk_step"]

P = ParamSpec("P")
R = TypeVar("R")


def twin(kernel: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Gives a law, whose first argument is an array and is passed by position, a kernel of the same signature."""

    def decorated(plain: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(plain)
        def law(*args: P.args, **static: P.kwargs) -> R:
            if cuda_laws.on_device(args[0]):
                with suppress(NoTwin):
                    return kernel(*args, **static)
            return plain(*args, **static)

        return law

    return decorated
