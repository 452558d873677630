"""The CPU stand-in for a GPU that the tests use: the GPU benchmarks can be rehearsed on a machine without one."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"


@contextlib.contextmanager
def imitated_gpu() -> Iterator[None]:
    """`with imitated_gpu():` arrays of "cuda" live in the stand-in. Its kernels and its cuBLAS need g++."""
    sys.path.insert(0, str(TESTS))
    standin = importlib.import_module("standin")
    standin.install()
    with contextlib.ExitStack() as stack:
        if importlib.import_module("standin.raw").compiler() is not None:
            stack.enter_context(standin.kernels())
            stack.enter_context(importlib.import_module("standin.cublas").imitated_cublas())
        yield
