"""The matrix product as a pluggable function: NumPy's own unless a better BLAS is put in its place for a while."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

import numpy as np

from minidit.backend import Array


class Blas:
    """`with blas:` every `gemm` inside goes to this library. gemm(a, b, out) writes the product of two-axis float32 arrays."""

    def __init__(self, name: str, gemm: Callable[[Array, Array, Array], None]) -> None:
        self.name, self.gemm = name, gemm

    def __enter__(self) -> Blas:
        self._token: Token[Blas | None] = _blas.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _blas.reset(self._token)


_blas: ContextVar[Blas | None] = ContextVar("blas", default=None)


def gemm(a: Array, b: Array, out: Array) -> Array:
    """out = a b for two-axis arrays; a and b may be transposed views."""
    blas = _blas.get()
    if blas is None:
        return np.matmul(a, b, out=out)
    blas.gemm(a, b, out)
    return out


def name_of_blas() -> str:
    """Which library computes matrix products here and now."""
    blas = _blas.get()
    if blas is not None:
        return blas.name
    info: Any = np.show_config(mode="dicts")
    found = info["Build Dependencies"]["blas"]
    return f"{found['name']} {found['version']} (NumPy's)"
