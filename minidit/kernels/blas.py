"""The matrix product as a pluggable function: NumPy's own, or a better BLAS where one is installed.

The environment variable MINIDIT_BLAS chooses: "auto" (the default: Intel's if the extra `mkl` is installed), "numpy" or "mkl".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from minidit.backend import Array, setting
from minidit.kernels.mkl import Mkl, library_path


@dataclass(frozen=True)
class Blas:
    """A library: gemm(a, b, out) writes the product of two-axis float32 arrays."""

    name: str
    gemm: Callable[[Array, Array, Array], Any]
    stacks: bool = False  # gemm takes stacks of matrices, three axes, as well


_blas: ContextVar[Blas | None] = ContextVar("blas", default=None)


def using(blas: Blas) -> AbstractContextManager[None]:
    """`with using(blas):` every `gemm` inside goes to this library."""
    return setting(_blas, blas)


@cache
def mkl() -> Mkl | None:
    """Intel's library, or None where it is not installed or does not load."""
    path = library_path()
    try:
        return None if path is None else Mkl(path)
    except (OSError, AttributeError):  # a wheel for another machine, or too old a library
        return None


@cache
def default_blas() -> Blas:
    """The library that MINIDIT_BLAS asks for. Raises ValueError if it is not available."""
    wanted = os.environ.get("MINIDIT_BLAS", "auto")
    if wanted not in ("auto", "numpy", "mkl"):
        raise ValueError(f"MINIDIT_BLAS={wanted!r} is not one of auto, numpy, mkl")
    intel = None if wanted == "numpy" else mkl()
    if intel is not None:
        return Blas(f"MKL {intel.version}", intel.sgemm)
    if wanted == "mkl":
        raise ValueError("MINIDIT_BLAS=mkl: the library is not installed (pip install 'minidit[mkl]')")
    info: Any = np.show_config(mode="dicts")
    numpys = info["Build Dependencies"]["blas"]
    core = next((f" {library['architecture']}" for library in threadpool_info() if library["internal_api"] == "openblas"), "")
    return Blas(f"{numpys['name']} {numpys['version']}{core} (NumPy's)", lambda a, b, out: np.matmul(a, b, out=out), stacks=True)


def precise(precision: str) -> Blas:
    """The library for "float32", or for "bf16": factors in bfloat16, sums in float32. Raises ValueError where there is none."""
    if precision == "float32":
        return default_blas()
    intel = mkl()
    if precision != "bf16" or intel is None:
        raise ValueError(f"precision {precision!r} on the CPU needs the extra: pip install 'minidit[mkl]'")
    return Blas(f"MKL {intel.version}, bf16 factors", intel.bf16_gemm)


def gemm(a: Array, b: Array, out: Array) -> Array:
    """out = a b for two-axis float32 arrays; a and b may be transposed views."""
    (_blas.get() or default_blas()).gemm(a, b, out)
    return out


def gemms(a: Array, b: Array, out: Array) -> Array:
    """out[k] = a[k] b[k] for three-axis float32 arrays; a[k] and b[k] may be transposed views."""
    blas = _blas.get() or default_blas()
    if blas.stacks:
        blas.gemm(a, b, out)
        return out
    for a_k, b_k, out_k in zip(a, b, out, strict=True):
        blas.gemm(a_k, b_k, out_k)
    return out


def name_of_blas() -> str:
    """The library that computes matrix products at present."""
    return (_blas.get() or default_blas()).name
