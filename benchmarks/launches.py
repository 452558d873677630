"""Kernel launches of a training step, counted without a GPU: on the CPU stand-in that the tests use.

    python -m benchmarks.launches [--batch-size 2]         on a GPU: minidit bench --launches
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks.imitation import imitated_gpu
from minidit.models.dit import DIT
from minidit.training.launches import launches_of


def counted(f: Callable[[], None]) -> int:
    """The launches of the stand-in while f runs."""
    cupy = sys.modules["cupy"]
    before = cupy.__launches__()
    f()
    return int(cupy.__launches__() - before)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launches", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=2, help="(default 2)")
    args = parser.parse_args()
    with imitated_gpu():
        for name, launches in launches_of(DIT["digits"], args.batch_size, counted).items():
            print(f"{name:12} {launches}")


if __name__ == "__main__":
    main()
