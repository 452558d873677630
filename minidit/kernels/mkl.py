"""Intel's matrix product, if the extra `mkl` is installed: the PyPI wheel's library through ctypes, without any binding.

float32: cblas_sgemm.  bf16: both factors rounded to bfloat16 (nearest, ties to even), products and sums in float32
(cblas_gemm_bf16bf16f32); several times faster on CPUs with matrix units, with a rounding error of about 2⁻⁹ per factor.
One thread per call: a batch is already cut into one shard per core.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import Array

ROW_MAJOR, NO_TRANS, TRANS, SEQUENTIAL = 101, 111, 112, 1
NAMES = ("lib/libmkl_rt.so.3", "lib/libmkl_rt.so.2", "Library/bin/mkl_rt.3.dll", "Library/bin/mkl_rt.2.dll")


def library_path() -> Path | None:
    """The library of the wheel in this environment, or None."""
    return next((p for name in NAMES if (p := Path(sys.prefix) / name).exists()), None)


class Mkl:
    """The loaded library; sgemm and bf16_gemm write a b into out."""

    def __init__(self, path: Path) -> None:
        lib = ctypes.CDLL(str(path))
        lib.MKL_Set_Threading_Layer(SEQUENTIAL)  # no threads of its own: safe to fork
        i, f, p = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
        shape: Any = [i, i, i, i, i, i, f, p, i, p, i, f, p, i]
        self._sgemm, self._bf16 = lib.cblas_sgemm, lib.cblas_gemm_bf16bf16f32
        self._sgemm.argtypes = self._bf16.argtypes = shape
        self._sgemm.restype = self._bf16.restype = None
        text = ctypes.create_string_buffer(200)
        lib.MKL_Get_Version_String(text, 200)
        self.version = text.value.decode().split("Version", 1)[-1].split("Product")[0].strip(" -")

    def sgemm(self, a: Array, b: Array, out: Array) -> None:
        self._call(self._sgemm, a, b, out)

    def bf16_gemm(self, a: Array, b: Array, out: Array) -> None:
        self._call(self._bf16, to_bf16(a), to_bf16(b), out)

    def _call(self, function: Any, a: Array, b: Array, out: Array) -> None:
        a, trans_a, lda = _laid_out(a)
        b, trans_b, ldb = _laid_out(b)
        target = out if out.strides[1] == out.itemsize else np.empty(out.shape, out.dtype)
        ldc = max(1, target.strides[0] // target.itemsize)
        m, n, k = out.shape[0], out.shape[1], a.shape[1]
        pointers = a.ctypes.data, b.ctypes.data, target.ctypes.data
        function(ROW_MAJOR, trans_a, trans_b, m, n, k, 1.0, pointers[0], lda, pointers[1], ldb, 0.0, pointers[2], ldc)
        if target is not out:
            out[...] = target


def _laid_out(a: Array) -> tuple[Array, int, int]:
    """(array, whether BLAS must transpose it, its leading dimension); copied only if neither axis is contiguous."""
    rows, cols = (s // a.itemsize for s in a.strides)
    if cols == 1 and rows >= a.shape[1]:
        return a, NO_TRANS, rows
    if rows == 1 and cols >= a.shape[0]:
        return a, TRANS, cols
    a = np.ascontiguousarray(a)
    return a, NO_TRANS, a.shape[1]


def to_bf16(a: Array) -> Array:
    """float32  ->  the upper halves of the words, rounded to the nearest, ties to even, as uint16; axes laid out as before."""
    turned = a.T if a.strides[0] == a.itemsize else a
    words = np.ascontiguousarray(turned).view(np.uint32)
    half = ((words + (((words >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)
    return half.T if turned is not a else half
