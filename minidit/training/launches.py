"""The number of kernels that a GPU starts for the loss of a DiT and its gradient, with and without the fast twins.

The launches per block are the difference between a network of two blocks and one of one. The optimiser is not counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

import numpy as np

from minidit import ops
from minidit.autograd import Gradients, plain_text
from minidit.backend import module_of
from minidit.models.dit import DiT, DiTConfig
from minidit.random import Philox

Count = Callable[[Callable[[], None]], int]  # counts the kernels that a function starts


class Launches(NamedTuple):
    """Kernels of a forward and a backward pass."""

    per_block: int
    around: int  # launches of the embedders, the last layer and the loss

    def __str__(self) -> str:
        return f"{self.per_block:4} launches per block, {self.around:4} around the blocks (forward and backward)"


def launches_of(config: DiTConfig, batch: int, count: Count | None = None) -> dict[str, Launches | str]:
    """{"plain text": …, "twins": …}, the launches of each, or the reason why they cannot be counted.

    count : counts the launches of a function; None: by capturing it. Raises ValueError if this CuPy cannot list what it captured.
    """
    cupy = module_of("cuda")
    counts: dict[str, Launches | str] = {}
    for name, setting in (("plain text", plain_text), ("twins", contextlib.nullcontext)):
        with setting():
            try:
                one, two = (_count(cupy, replace(config, depth=depth), batch, count) for depth in (1, 2))
            except NotImplementedError as error:  # CuPy's own matrix products cannot be captured
                counts[name] = f"not counted: {error}"
                continue
        counts[name] = Launches(two - one, one - (two - one))
    return counts


def _count(cupy: ModuleType, config: DiTConfig, batch: int, count: Count | None) -> int:
    """The launches of one forward and backward pass."""
    model = DiT(config, Philox(0), device="cuda")
    buffers = Gradients([p.data for p in model.parameters()], model.views(cupy.zeros(model.layout.size, np.float32)))
    x = cupy.zeros((batch, config.in_channels, *config.size), np.float32)
    target = cupy.zeros((batch, config.out_channels, *config.size), np.float32)
    t = cupy.zeros(batch, np.int64)
    y = cupy.zeros(batch, np.int64) if config.num_classes else None
    share = cupy.full(batch, 1 / batch, np.float32)

    def forward_and_backward() -> None:
        with buffers:
            ops.mse(model(x, t, y), target).backward(share)

    forward_and_backward()  # the first pass compiles kernels
    return (captured if count is None else count)(forward_and_backward)


def captured(f: Callable[[], None]) -> int:
    """The number of kernels that f starts, counted by recording them."""
    cupy = module_of("cuda")
    if not hasattr(cupy.cuda.Graph, "debug_dot_str"):
        raise ValueError("this CuPy cannot list the kernels of a recorded stream")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            f()
        finally:
            graph = stream.end_capture()
    return int(graph.debug_dot_str().count("label="))
