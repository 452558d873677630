"""Matrix products on a GPU: every twin calls `gemm`.

    precision   factors                  sums       by
    float32     float32                  float32    the package's cuBLAS handle, or CuPy's product where cuBLAS does not load
    tf32        float32, 10 bits kept    float32    the package's cuBLAS handle
    bf16        rounded to bfloat16      float32    the package's cuBLAS handle

CuPy refuses to call cuBLAS while a stream is captured, and its products of bfloat16 round the result. So the package calls the
library through ctypes. Before a call on another stream than the last one, it sets the handle's stream and then its workspace,
which is what a capture needs.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from typing import Any

from minidit.autograd import NoTwin
from minidit.backend import Array, empty, setting
from minidit.kernels import cublaslt
from minidit.kernels.cuda_launch import Bounded
from minidit.kernels.cuda_rows import converted

PRECISIONS = ("float32", "tf32", "bf16")
OP_N, OP_T, DEFAULT_ALGORITHM = 0, 1, -1  # the names and numbers of cublas_api.h and library_types.h
REAL = {"float32": 0, "bfloat16": 14}
COMPUTE_32F, COMPUTE_32F_FAST_TF32 = 68, 77
LIBRARIES = ("libcublas.so.13", "libcublas.so.12", "cublas64_13.dll", "cublas64_12.dll")

Work = Callable[[], object]
AGREE, RUNS = 2.0**-5, 5  # of the largest number: a few roundings to bfloat16; how often each of two ways is timed

_precision: ContextVar[str] = ContextVar("cuda_precision", default="float32")
_handles: dict[Any, Any] = {}
_faster = Bounded()


def precision() -> str:
    """The precision of products in the surrounding `with`: "float32", "tf32" or "bf16"."""
    return _precision.get()


def using_precision(name: str) -> AbstractContextManager[None]:
    """`with using_precision("bf16"):` for every product of the twins, attention included. Raises ValueError for other names."""
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is not one of {', '.join(PRECISIONS)}")
    return setting(_precision, name)


def laid_out(x: Array) -> tuple[Array, int, int]:
    """(array, OP_T if it is stored by columns, its leading dimension) of the last two axes; a copy if neither axis is dense."""
    rows, cols = (s // x.itemsize for s in x.strides[-2:])
    m, n = x.shape[-2:]
    if (cols == 1 or n == 1) and (rows >= n or m == 1):
        return x, OP_N, max(rows, n, 1)
    if (rows == 1 or m == 1) and (cols >= m or n == 1):
        return x, OP_T, max(cols, m, 1)
    return sys.modules["cupy"].ascontiguousarray(x), OP_N, max(1, n)


class CuBlas(cublaslt.Library):
    """A cuBLAS handle, made before any capture."""

    def __init__(self, library: Any, cupy: Any) -> None:
        super().__init__(library, cupy)
        self.stream: int | None = None
        self.handle = ctypes.c_void_p()
        self._check("cublasCreate_v2", ctypes.byref(self.handle))

    def _follow(self) -> None:
        """Moves the handle to CuPy's current stream. Setting the stream resets the workspace, so the workspace is set second."""
        stream = self.cupy.cuda.get_current_stream().ptr
        if stream != self.stream:
            self._check("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))
            memory = ctypes.c_void_p(self.workspace.data.ptr)
            self._check("cublasSetWorkspace_v2", self.handle, memory, ctypes.c_size_t(cublaslt.WORKSPACE))
            self.stream = stream

    def gemm(self, a: Array, b: Array, out: Array, compute: int) -> None:
        """out = a b. cuBLAS stores matrices by columns and we by rows, so it makes outᵀ = bᵀ aᵀ. Three axes: a batch."""
        self._follow()
        (a, op_a, lda), (b, op_b, ldb), (m, n), k = laid_out(a), laid_out(b), out.shape[-2:], a.shape[-1]
        ldc = out.strides[-2] // out.itemsize
        i, q, p = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
        operands = (b, ldb), (a, lda), (out, max(ldc, n))
        left, right, target = ((p(x.data.ptr), i(REAL[x.dtype.name]), i(ld)) for x, ld in operands)
        alpha, beta = ctypes.byref(self.one), ctypes.byref(self.zero)
        head = (self.handle, i(op_b), i(op_a), i(n), i(m), i(k), alpha)
        tail = (i(compute), i(DEFAULT_ALGORITHM))
        if out.ndim == 2:
            self._check("cublasGemmEx", *head, *left, *right, beta, *target, *tail)
            return
        step = [q(x.strides[0] // x.itemsize) for x in (b, a, out)]
        batch = i(len(out))
        name = "cublasGemmStridedBatchedEx"
        self._check(name, *head, *left, step[0], *right, step[1], beta, *target, step[2], batch, *tail)


def handle() -> CuBlas | None:
    """The package's handle for the current device, or None where the library does not load."""
    cupy = sys.modules["cupy"]
    key = (cupy.ndarray, cupy.cuda.runtime.getDevice())
    if key not in _handles:
        library = _library(cupy)
        _handles[key] = None if library is None else CuBlas(library, cupy)
    blas: CuBlas | None = _handles[key]
    return blas


def _library(cupy: Any) -> Any:
    if hasattr(cupy, "imitated_cublas"):  # a machine without a GPU
        return cupy.imitated_cublas
    with suppress(ImportError, AttributeError):  # an attribute: so CuPy looks into the wheels; loaded, a name is enough
        _ = importlib.import_module("cupy_backends.cuda.libs").cublas
    return cublaslt.first_that_loads(LIBRARIES, cupy, ctypes.CDLL)


def bfloat16() -> Any:
    """The type, which NumPy and CuPy have from ml_dtypes. Raises NoTwin where that is not installed."""
    try:
        return importlib.import_module("ml_dtypes").bfloat16
    except ImportError:
        raise NoTwin("bfloat16 needs ml_dtypes") from None


def to_bfloat16(x: Array) -> Array:
    """x rounded, by the package's kernel where it serves."""
    with suppress(NoTwin):
        return converted(x, bfloat16())
    return x.astype(bfloat16())


_rounded: ContextVar[tuple[Array, Array] | None] = ContextVar("rounded_weights", default=None)


def rounded_once(flat: Array, copy: Array = None) -> AbstractContextManager[None]:
    """`with rounded_once(flat):` under bf16 the buffer is rounded once, and its views are factors from that copy.

    copy : the rounded buffer, if somebody has it already
    """
    applies = precision() == "bf16" and flat.dtype.name == "float32"
    return setting(_rounded, (flat, to_bfloat16(flat) if copy is None else copy) if applies else None)


def rounded(x: Array) -> Array:
    """x in bfloat16."""
    if x.dtype.name == "bfloat16":
        return x
    once = _rounded.get()
    if once is None or x.data.mem is not once[0].data.mem:
        return to_bfloat16(x)
    flat, copy = once
    start = (x.data.ptr - flat.data.ptr) // x.itemsize
    return sys.modules["cupy"].lib.stride_tricks.as_strided(copy[start:], x.shape, tuple(n // 2 for n in x.strides))


def entered(a: Array, b: Array) -> tuple[Array, Array, int]:
    """Both factors in the type that the precision asks for, and cuBLAS's number of the compute type."""
    if "bfloat16" in (a.dtype.name, b.dtype.name) or precision() == "bf16":
        return rounded(a), rounded(b), COMPUTE_32F
    return a, b, COMPUTE_32F_FAST_TF32 if precision() == "tf32" else COMPUTE_32F


def gemm(a: Array, b: Array, out: Array) -> Array:
    """out = a b for two-axis arrays, or three-axis ones with a common first axis; a and b may be transposed views.

    float32 and bfloat16 in any mixture; sums in float32. Raises NoTwin where this precision is not available.
    """
    a, b, compute = entered(a, b)
    blas = handle()
    if blas is not None:
        blas.gemm(a, b, out, compute)
    elif compute == COMPUTE_32F and a.dtype.name == "float32":
        sys.modules["cupy"].matmul(a, b, out=out)
    else:
        raise NoTwin(f"{precision()} products need cuBLAS")
    return out


def with_epilogue(a: Array, b: Array, out: Array, epilogue: int, vector: Array, aux: Array = None) -> bool:
    """out = a b in one kernel with an epilogue of cublasLt; False, with nothing done, where that is not possible.

    epilogue : BIAS adds the vector to every row of out;  BIAS_GRADIENT writes the sum of each row of a into it;  GELU_BIAS and
    GELU_AUX_BIAS, of out + vector, which the second keeps in aux;  GELU_SLOPE multiplies by the slope at aux, without a vector.
    A bias is rounded to the type of out.
    """
    lt = cublaslt.handle() if handle() is not None else None  # cublasLt comes with cuBLAS
    if lt is None or (vector is not None and vector.dtype.name != "float32") or (aux is not None and out.shape[1] % 8):
        return False
    a, b, compute = entered(a, b)
    if out.dtype.name != "float32" and vector is not None:
        if epilogue == cublaslt.BIAS_GRADIENT:
            return False
        vector = rounded(vector)
    (a, op_a, lda), (b, op_b, ldb) = laid_out(a), laid_out(b)
    left, right = (b, op_b, ldb, REAL[b.dtype.name]), (a, op_a, lda, REAL[a.dtype.name])  # outᵀ = bᵀ aᵀ, as in CuBlas.gemm
    (m, n), ldc = out.shape, out.strides[0] // out.itemsize
    made = (out, n, m, max(ldc, n), REAL[out.dtype.name])
    return lt.product(left, right, made, a.shape[1], compute, epilogue, vector, aux)


def fused(
    a: Array, b: Array, out: Array, epilogue: int, vector: Array, plain: Work, aux: Array = None,
    *, later: Work | None = None, rest: Work | None = None,
) -> bool:  # fmt: skip
    """`with_epilogue` if it is possible, agrees and, under "auto", is not slower, and True; else `plain()`: several kernels.

    later, rest : what other kernels still have to do after `plain()`, or after the epilogue; it is timed as well
    """

    def run() -> bool:
        return with_epilogue(a, b, out, epilogue, vector, aux)

    lt = cublaslt.handle() if handle() is not None else None
    if lt is not None:
        key = (lt, epilogue, precision(), *((x.dtype.name, x.shape, x.strides) for x in (a, b, out)))
        if key not in _faster and not lt.cupy.cuda.get_current_stream().is_capturing():  # both wait, which a recording forbids
            written = (out, vector) if epilogue == cublaslt.BIAS_GRADIENT else (out,)
            ways = [in_turn(work, more) if more else work for work, more in ((run, rest), (plain, later))]
            _faster[key] = agreeing(run, ways[1], written) and (cublaslt.setting() == "on" or faster(lt.cupy, *ways))
        if not _faster.get(key):
            plain()
            return False
    if run():
        return True
    plain()
    return False


def in_turn(*works: Work) -> Work:
    def run() -> None:
        for work in works:
            work()

    return run


def agreeing(run: Callable[[], bool], plain: Work, written: tuple[Array, ...]) -> bool:
    """Whether `run` succeeds and writes what `plain` writes within a few roundings."""
    if not run():
        return False
    first = [x.astype("float32") for x in written]
    plain()
    sizes = [max(float(abs(f).max()), 1e-30) for f in first]
    off = [float(abs(f - x.astype("float32")).max()) / size for f, x, size in zip(first, written, sizes, strict=True)]
    if not max(off) <= AGREE:
        say = "an epilogue of cublasLt is not used: it differs by %.1e of the largest number"
        logging.getLogger("minidit").warning(say, max(off))
    return max(off) <= AGREE


def faster(cupy: Any, new: Work, plain: Work) -> bool:
    """Whether `new` takes less time."""
    times = []
    for f in (new, plain):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        for _ in range(RUNS):
            f()
        end.record()
        end.synchronize()
        times.append(float(cupy.cuda.get_elapsed_time(start, end)))
    return times[0] < times[1]


def product(a: Array, b: Array) -> Array:
    """a b in new memory of a's type."""
    return gemm(a, b, empty(a, (*a.shape[:-1], b.shape[-1])))
