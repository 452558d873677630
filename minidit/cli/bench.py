"""`minidit bench --launches`: the kernels that a training update starts on a GPU, with and without the fast twins."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--launches", action="store_true", help="count kernel launches per block")
    parser.add_argument("--network", default="digits", metavar="NAME", help="a DiT of any size (default: digits)")
    parser.add_argument("--batch-size", type=int, default=2, help="of the update (default: 2)")


def run(args: argparse.Namespace) -> int:
    from minidit.backend import cupy_or_reason
    from minidit.keywords import meant
    from minidit.models.dit import DIT
    from minidit.training.launches import launches_of

    if not args.launches:
        raise ValueError("bench needs --launches, the one thing that it measures")
    if args.network not in DIT:
        raise ValueError(f"--network {args.network!r} is not one of {', '.join(DIT)}{meant(args.network, DIT)}")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {args.batch_size}")
    cupy, reason = cupy_or_reason()
    if cupy is None:
        raise ValueError(f"launches are counted on a GPU, and none can be used: {reason}")
    for name, launches in launches_of(DIT[args.network], args.batch_size).items():
        print(f"{name:12} {launches}")
    return 0
