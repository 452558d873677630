"""`minidit bench --launches`: how many kernels a training step starts on a GPU, with and without the fast twins.

The figure a block is the difference between networks of one and of two blocks: forward and backward, without the optimiser.
Without a GPU they are counted on the imitation that the repository's tests use.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--launches", action="store_true", help="count kernel launches a block")
    parser.add_argument("--preset", default="digits", help="which DiT (default digits; the count does not depend on its size)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--root", default=".", help="minidit's repository, whose imitation serves without a GPU (default .)")


def run(args: argparse.Namespace) -> int:
    from minidit.backend import cupy_or_reason
    from minidit.models.dit import DIT

    if not args.launches:
        raise ValueError("bench needs --launches, the one thing that it measures")
    if args.preset not in DIT:
        raise ValueError(f"preset {args.preset!r} is not one of {', '.join(DIT)}")
    if args.batch_size < 1:
        raise ValueError("--batch-size must be at least 1")
    cupy, reason = cupy_or_reason()
    with contextlib.nullcontext() if cupy is not None else imitation(Path(args.root), reason):
        for name, (block, rest) in launches_of(DIT[args.preset], args.batch_size).items():
            print(f"{name:12} {block:4} launches a block, {rest:4} around the blocks (forward and backward)")
    return 0


def imitation(root: Path, reason: str) -> contextlib.AbstractContextManager[None]:
    """The repository's imitation of a GPU, for the rest of this process."""
    if not (root / "benchmarks" / "imitation.py").exists():
        raise ValueError(f"launches are counted on a GPU, or without one in minidit's repository (--root), and here: {reason}")
    print(f"no GPU can be used ({reason}): counted on the imitation that the tests use", file=sys.stderr)
    sys.path.insert(0, str(root.resolve()))
    found: contextlib.AbstractContextManager[None] = importlib.import_module("benchmarks.imitation").imitated_gpu()
    return found


def launches_of(config: Any, batch: int) -> dict[str, tuple[int, int]]:
    """{"plain text": (a block, the rest), "twins": …} for the loss and its gradient. Raises ValueError if none can be counted."""
    from minidit.autograd import plain_text
    from minidit.backend import module_of

    cupy = module_of("cuda")
    if not hasattr(cupy, "__launches__") and not hasattr(cupy.cuda.Graph, "debug_dot_str"):
        raise ValueError("this CuPy cannot say what a stream was asked to do")
    found = {}
    for name, setting in (("plain text", plain_text), ("twins", contextlib.nullcontext)):
        with setting():
            try:
                one, two = (_count(cupy, replace(config, depth=depth), batch) for depth in (1, 2))
            except NotImplementedError as error:  # CuPy's own products cannot be captured
                print(f"{name}: {error}", file=sys.stderr)
                continue
        found[name] = (two - one, one - (two - one))
    return found


def _count(cupy: Any, config: Any, batch: int) -> int:
    import numpy as np

    from minidit import ops
    from minidit.autograd import Gradients
    from minidit.models.dit import DiT
    from minidit.random import Philox

    model = DiT(config, Philox(0), device="cuda")
    gradient = cupy.zeros(model.layout.size, np.float32)
    home = Gradients([p.data for p in model.parameters()], model.views(gradient))
    x = cupy.zeros((batch, config.in_channels, *config.size), np.float32)
    target = cupy.zeros((batch, config.out_channels, *config.size), np.float32)
    t = cupy.zeros(batch, np.int64)
    y = cupy.zeros(batch, np.int64) if config.num_classes else None

    def step() -> None:
        with home:
            ops.mse(model(x, t, y), target).mean().backward()

    step()  # compiles what there is to compile
    if hasattr(cupy, "__launches__"):  # a machine without a GPU, which imitates one
        before = cupy.__launches__()
        step()
        return int(cupy.__launches__() - before)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            step()
        finally:
            graph = stream.end_capture()
    return int(graph.debug_dot_str().count("label="))
