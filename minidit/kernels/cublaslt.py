"""Products that end with a bias, with GELU, or with a sum for the gradient of a bias: the epilogues of cublasLt, through ctypes.

Off unless MINIDIT_CUBLASLT is "on", which uses an epilogue wherever the library has it, or "auto", which times it beside a plain
product and one of the package's kernels at the first use of a kind of product, and keeps the faster. A kind of product that the
library refuses, or in which it fails, is not tried again, and one line of the log says so.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from minidit.backend import Array

NAMES = ("libcublasLt.so.13", "libcublasLt.so.12", "cublasLt64_13.dll", "cublasLt64_12.dll")
TRANS_A, TRANS_B, EPILOGUE, BIAS_POINTER, AUX_POINTER, AUX_LD = 3, 4, 7, 8, 11, 12  # cublasLtMatmulDescAttributes_t
BIAS, GELU_BIAS, GELU_AUX_BIAS, GELU_SLOPE, BIAS_GRADIENT = 4, 36, 164, 192, 512  # cublasLtEpilogue_t, with DGELU and BGRADB
EPILOGUES = {
    BIAS: "bias", GELU_BIAS: "GELU", GELU_AUX_BIAS: "GELU, its input kept", GELU_SLOPE: "slope of GELU",
    BIAS_GRADIENT: "gradient of a bias",
}  # fmt: skip
MAX_WORKSPACE = 1  # cublasLtMatmulPreferenceAttributes_t
REAL_32F = 0
WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for Hopper; older devices need less


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t"""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8), ("workspace", ctypes.c_size_t), ("status", ctypes.c_int), ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )  # fmt: skip


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


class Plan:
    """One kind of product: its description, the layouts of its matrices, and the algorithm that the library prefers for it."""

    def __init__(self, description: ctypes.c_void_p, layouts: list[ctypes.c_void_p]) -> None:
        self.description, self.layouts, self.best = description, layouts, Heuristic()


class CublasLt(Library):
    """A handle, its workspace, and one plan per kind of product."""

    def __init__(self, library: Any, cupy: Any) -> None:
        super().__init__(library, cupy)
        self.handle = self._make("cublasLtCreate")
        self.preference = self._make("cublasLtMatmulPreferenceCreate")
        size = ctypes.c_uint64(WORKSPACE)
        attribute = (ctypes.c_int(MAX_WORKSPACE), ctypes.byref(size), ctypes.c_size_t(8))
        self._check("cublasLtMatmulPreferenceSetAttribute", self.preference, *attribute)
        self.plans: dict[Any, Plan | None] = {}  # None: the library refused

    def _make(self, name: str, *args: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._check(name, ctypes.byref(made), *args)
        return made

    def _set(self, description: ctypes.c_void_p, attribute: int, value: Any) -> None:
        size = ctypes.c_size_t(ctypes.sizeof(value))
        self._check("cublasLtMatmulDescSetAttribute", description, ctypes.c_int(attribute), ctypes.byref(value), size)

    def _layout(self, kind: int, rows: int, cols: int, ld: int) -> ctypes.c_void_p:
        sizes = (ctypes.c_uint64(rows), ctypes.c_uint64(cols), ctypes.c_int64(ld))
        return self._make("cublasLtMatrixLayoutCreate", ctypes.c_int(kind), *sizes)

    def _plan(self, left: Any, right: Any, out: Any, k: int, compute: int, epilogue: int, vector: Array, aux: Array) -> Plan:
        (_, op_a, lda, ta), (_, op_b, ldb, tb), (_, m, n, ldc, tc) = left, right, out
        description = self._make("cublasLtMatmulDescCreate", ctypes.c_int(compute), ctypes.c_int(REAL_32F))
        for attribute, value in ((TRANS_A, op_a), (TRANS_B, op_b), (EPILOGUE, epilogue)):
            self._set(description, attribute, ctypes.c_int32(value))
        layout_a = self._layout(ta, k, m, lda) if op_a else self._layout(ta, m, k, lda)
        layout_b = self._layout(tb, n, k, ldb) if op_b else self._layout(tb, k, n, ldb)
        layout_c = self._layout(tc, m, n, ldc)
        plan, count = Plan(description, [layout_a, layout_b, layout_c, layout_c]), ctypes.c_int()
        if aux is not None:
            self._set(description, AUX_LD, ctypes.c_int64(m))
        self._point(plan, vector, aux)  # the library reads their alignment
        wanted = (ctypes.c_int(1), ctypes.byref(plan.best), ctypes.byref(count))
        self._check("cublasLtMatmulAlgoGetHeuristic", self.handle, description, *plan.layouts, self.preference, *wanted)
        if count.value < 1 or plan.best.status:
            raise RuntimeError("the library has no algorithm for it")
        return plan

    def _point(self, plan: Plan, vector: Array, aux: Array) -> None:
        if vector is not None:
            self._set(plan.description, BIAS_POINTER, ctypes.c_void_p(vector.data.ptr))
        if aux is not None:
            self._set(plan.description, AUX_POINTER, ctypes.c_void_p(aux.data.ptr))

    def _run(self, plan: Plan, pointers: list[int]) -> None:
        a, b, c, memory = (ctypes.c_void_p(p) for p in pointers)
        la, lb, lc, ld = plan.layouts
        stream = ctypes.c_void_p(self.cupy.cuda.get_current_stream().ptr)
        factors = (ctypes.byref(self.one), a, la, b, lb, ctypes.byref(self.zero), c, lc, c, ld)
        rest = (ctypes.byref(plan.best.algorithm), memory, ctypes.c_size_t(WORKSPACE), stream)
        self._check("cublasLtMatmul", self.handle, plan.description, *factors, *rest)

    def product(
        self, left: Any, right: Any, out: Any, k: int, compute: int, epilogue: int, vector: Array, aux: Array = None
    ) -> bool:
        """out = left right, column by column, with an epilogue that reads or writes `vector` (or none); False if it refuses.

        left, right : (array, operation, leading dimension, type);  out : (array, rows, columns, leading dimension, type)
        aux : where the input of GELU is kept, or read, an array like out
        """
        arrays = [x for x in (left[0], right[0], out[0], vector, aux) if x is not None]
        if any(x.data.ptr % 16 for x in arrays):  # the algorithm was chosen for aligned arrays
            return False
        key = (*left[1:], *right[1:], *out[1:], k, compute, epilogue)
        try:
            if key not in self.plans:
                self.plans[key] = self._plan(left, right, out, k, compute, epilogue, vector, aux)
            plan = self.plans[key]
            if plan is None:
                return False
            self._point(plan, vector, aux)
            self._run(plan, [left[0].data.ptr, right[0].data.ptr, out[0].data.ptr, self.workspace.data.ptr])
            return True
        except RuntimeError as error:
            self.plans[key] = None
            what = f"{out[2]} x {out[1]} x {k} with the epilogue {EPILOGUES[epilogue]!r}"
            logging.getLogger("minidit").warning("cublasLt does not multiply %s, the package's kernels do: %s", what, error)
            return False


def first_that_loads(names: tuple[str, ...], cupy: Any, load: Callable[[str], Any]) -> Any:
    """A library of one of these names, CuPy's CUDA version first, because the machine may have another as well; or None."""
    major = str(cupy.cuda.runtime.runtimeGetVersion() // 1000)
    for name in sorted(names, key=lambda name: major not in name):
        with suppress(OSError):  # the next name may load
            return load(name)
    return None


def setting() -> str:
    """What the environment asks for: "on", "auto" or "off"."""
    return os.environ.get("MINIDIT_CUBLASLT", "off")


def handle(load: Callable[[str], Any] = ctypes.CDLL) -> CublasLt | None:
    """The handle of the current device, or None where the library does not load or is not switched on."""
    if setting() not in ("on", "auto"):
        return None
    cupy = sys.modules["cupy"]
    imitated = getattr(cupy, "imitated_cublas", None)  # in the tests, on a machine without a GPU
    key = (cupy.ndarray, cupy.cuda.runtime.getDevice(), imitated)
    if key not in _loaded:
        library = imitated or first_that_loads(NAMES, cupy, load)
        _loaded[key] = None if library is None else CublasLt(library, cupy)
    lt: CublasLt | None = _loaded[key]
    return lt
