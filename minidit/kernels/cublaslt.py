"""Matrix products that add a bias, or sum the gradient of one, in the same kernel: the epilogues of cublasLt, through ctypes.

Off unless MINIDIT_CUBLASLT=on. A kind of product that the library refuses is not tried again: a plain product and one of the
package's kernels do it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from minidit.backend import Array

NAMES = ("libcublasLt.so.13", "libcublasLt.so.12", "cublasLt64_13.dll", "cublasLt64_12.dll")
TRANS_A, TRANS_B, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8  # cublasLtMatmulDescAttributes_t
BIAS, BIAS_GRADIENT = 4, 512  # cublasLtEpilogue_t: BIAS over the rows of D, BGRADB over the columns of B
REAL_32F, NOT_SUPPORTED = 0, 15
WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for Hopper; older devices need less

_loaded: dict[Any, Any] = {}


class Library:
    """C functions that return a status (ctypes, or an imitation in the tests), with a workspace and the factors of a product."""

    def __init__(self, library: Any, cupy: Any) -> None:
        self.library, self.cupy = library, cupy
        self.workspace = cupy.empty(WORKSPACE, np.uint8)
        self.one, self.zero = ctypes.c_float(1.0), ctypes.c_float(0.0)

    def _check(self, name: str, *args: Any) -> None:
        status = getattr(self.library, name)(*args)
        if status:
            raise RuntimeError(f"{name} failed with status {status}")


class CublasLt(Library):
    """A handle, its workspace, and one plan per kind of product."""

    def __init__(self, library: Any, cupy: Any) -> None:
        super().__init__(library, cupy)
        self.handle = self._make("cublasLtCreate")
        self.plans: dict[Any, Any] = {}

    def _make(self, name: str, *args: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._check(name, ctypes.byref(made), *args)
        return made

    def _set(self, plan: ctypes.c_void_p, attribute: int, value: Any) -> None:
        size = ctypes.c_size_t(ctypes.sizeof(value))
        self._check("cublasLtMatmulDescSetAttribute", plan, ctypes.c_int(attribute), ctypes.byref(value), size)

    def _layout(self, kind: int, rows: int, cols: int, ld: int) -> ctypes.c_void_p:
        sizes = (ctypes.c_uint64(rows), ctypes.c_uint64(cols), ctypes.c_int64(ld))
        return self._make("cublasLtMatrixLayoutCreate", ctypes.c_int(kind), *sizes)

    def product(self, left: Any, right: Any, out: Any, k: int, compute: int, epilogue: int, vector: Array) -> bool:
        """out = left right, column by column, with an epilogue that reads or writes `vector`; False if the library refuses.

        left, right : (array, operation, leading dimension, type);  out : (array, rows, columns, leading dimension, type)
        """
        (a, op_a, lda, ta), (b, op_b, ldb, tb), (c, m, n, ldc, tc) = left, right, out
        key = (op_a, lda, ta, op_b, ldb, tb, m, n, k, ldc, tc, compute, epilogue)
        plan = self.plans.get(key)
        if plan is None:
            desc = self._make("cublasLtMatmulDescCreate", ctypes.c_int(compute), ctypes.c_int(REAL_32F))
            for attribute, value in ((TRANS_A, op_a), (TRANS_B, op_b), (EPILOGUE, epilogue)):
                self._set(desc, attribute, ctypes.c_int32(value))
            layout_a = self._layout(ta, k, m, lda) if op_a else self._layout(ta, m, k, lda)
            layout_b = self._layout(tb, n, k, ldb) if op_b else self._layout(tb, k, n, ldb)
            plan = self.plans[key] = [desc, layout_a, layout_b, self._layout(tc, m, n, ldc), True]
        desc, layout_a, layout_b, layout_c, good = plan
        if not good:
            return False
        self._set(desc, BIAS_POINTER, ctypes.c_void_p(vector.data.ptr))
        at_a, at_b, at_c, memory = (ctypes.c_void_p(x.data.ptr) for x in (a, b, c, self.workspace))
        factors = (ctypes.byref(self.one), at_a, layout_a, at_b, layout_b, ctypes.byref(self.zero))
        stream = ctypes.c_void_p(self.cupy.cuda.get_current_stream().ptr)
        rest = (at_c, layout_c, at_c, layout_c, None, memory, ctypes.c_size_t(WORKSPACE), stream)
        status = self.library.cublasLtMatmul(self.handle, desc, *factors, *rest)
        if status == NOT_SUPPORTED:
            plan[-1] = False
            return False
        if status:
            raise RuntimeError(f"cublasLtMatmul failed with status {status}")
        return True


def first_that_loads(names: tuple[str, ...], cupy: Any, load: Callable[[str], Any]) -> Any:
    """A library of one of these names, CuPy's CUDA version first, because the machine may have another as well; or None."""
    major = str(cupy.cuda.runtime.runtimeGetVersion() // 1000)
    for name in sorted(names, key=lambda name: major not in name):
        with suppress(OSError):  # the next name may load
            return load(name)
    return None


def handle(load: Callable[[str], Any] = ctypes.CDLL) -> CublasLt | None:
    """The handle of the current device, or None where the library does not load or is not switched on."""
    if os.environ.get("MINIDIT_CUBLASLT") != "on":
        return None
    cupy = sys.modules["cupy"]
    imitated = getattr(cupy, "imitated_cublas", None)  # in the tests, on a machine without a GPU
    key = (cupy.ndarray, cupy.cuda.runtime.getDevice(), imitated)
    if key not in _loaded:
        library = imitated or first_that_loads(NAMES, cupy, load)
        _loaded[key] = None if library is None else CublasLt(library, cupy)
    lt: CublasLt | None = _loaded[key]
    return lt
