"""An imitation of the few functions of cuBLAS that the package calls, on the memory of the stand-in.

They take what the C functions take, column by column, and are as strict: leading dimensions, types, and the workspace, which a
new stream forgets. Switched on by `with imitated_cublas():`; elsewhere no handle of the package loads, and CuPy multiplies.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager

import numpy as np

from standin.device import COUNTS, Device

ITEM = {0: np.dtype(np.float32), 14: None}  # CUDA_R_32F, CUDA_R_16BF


def matrix(pointer, kind, rows, cols, ld):
    """The column-major matrix at an address."""
    assert ld >= max(1, rows), f"leading dimension {ld} below {rows} rows"
    dtype = ITEM[kind]
    if dtype is None:
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    memory = (ctypes.c_char * (((cols - 1) * ld + rows) * dtype.itemsize)).from_address(pointer)
    return np.ndarray((rows, cols), dtype, memory, strides=(dtype.itemsize, ld * dtype.itemsize))


def tf32(x):
    """Rounded to 10 bits of mantissa."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def slope_of_gelu(x):
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x * x)


class Cublas:
    """One handle's state, and the names of the products that were asked for."""

    def __init__(self):
        self.stream, self.workspace, self.calls, self.things, self.epilogues = None, None, [], [], []
        self.refuse = self.fail = False  # whether cublasLt knows no algorithm, or fails in every product

    def cublasCreate_v2(self, handle):
        handle._obj.value = 1
        return 0

    def cublasSetStream_v2(self, handle, stream):
        self.stream, self.workspace = stream.value or 0, None
        return 0

    def cublasSetWorkspace_v2(self, handle, pointer, size):
        self.workspace = pointer.value
        return 0

    def cublasGemmEx(self, handle, op_a, op_b, m, n, k, alpha, A, at, lda, B, bt, ldb, beta, C, ct, ldc, compute, algorithm):
        zero = ctypes.c_longlong(0)
        rest = (beta, C, ct, ldc, zero, ctypes.c_int(1), compute, algorithm)
        self.calls.append("gemm")
        return self._product(op_a, op_b, m, n, k, alpha, A, at, lda, zero, B, bt, ldb, zero, *rest)

    def cublasGemmStridedBatchedEx(self, handle, *args):
        self.calls.append("batched")
        return self._product(*args)

    def _product(self, *args):
        if self.workspace is None:
            return 13  # our rule, not cuBLAS's: without a workspace of ours a capture would allocate
        current = Device.streams[-1].ptr if Device.streams else 0
        assert self.stream == current, "a product on another stream than CuPy's"
        values = [a._obj.value if hasattr(a, "_obj") else a.value for a in args]
        COUNTS.launches += 1
        if Device.capture() is None:
            self._run(*values)
        else:
            Device.capture().nodes.append((self._run, values, {}, ()))
        return 0

    def _run(self, op_a, op_b, m, n, k, alpha, A, at, lda, sa, B, bt, ldb, sb, beta, C, ct, ldc, sc, batch, compute, algorithm):
        assert compute in (68, 77) and algorithm == -1 and beta == 0 and (compute == 68 or at == bt == 0)
        size = lambda kind: 2 if kind == 14 else 4
        for i in range(batch):
            a = matrix(A + i * sa * size(at), at, *((k, m) if op_a else (m, k)), lda)
            b = matrix(B + i * sb * size(bt), bt, *((n, k) if op_b else (k, n)), ldb)
            c = matrix(C + i * sc * size(ct), ct, m, n, ldc)
            a, b = (np.ascontiguousarray(x.T if op else x).astype(np.float32) for x, op in ((a, op_a), (b, op_b)))
            if compute == 77:
                a, b = tf32(a), tf32(b)
            c[...] = alpha * (a @ b)


    # ---- cublasLt: descriptors are numbers, and what they describe lies in a list

    def _new(self, handle, thing):
        self.things.append(thing)
        handle._obj.value = len(self.things)
        return 0

    def cublasLtCreate(self, handle):
        return self._new(handle, "lt")

    def cublasLtMatmulPreferenceCreate(self, handle):
        return self._new(handle, {})

    def cublasLtMatmulPreferenceSetAttribute(self, preference, attribute, value, size):
        assert attribute.value == 1 and size.value == 8  # the most bytes of workspace; without it, none
        self.things[preference.value - 1][1] = value._obj.value
        return 0

    def cublasLtMatmulDescCreate(self, handle, compute, scale):
        assert scale.value == 0
        return self._new(handle, {"compute": compute.value})

    def cublasLtMatmulDescSetAttribute(self, desc, attribute, value, size):
        assert size.value == (8 if attribute.value in (8, 11, 12) else 4)
        self.things[desc.value - 1][attribute.value] = value._obj.value
        return 0

    def cublasLtMatrixLayoutCreate(self, handle, kind, rows, cols, ld):
        assert ld.value >= rows.value
        return self._new(handle, (kind.value, rows.value, cols.value, ld.value))

    def cublasLtMatmulAlgoGetHeuristic(self, lt, desc, la, lb, lc, ld, preference, wanted, results, count):
        description = self.things[desc.value - 1]
        assert self.things[lt.value - 1] == "lt" and wanted.value == 1 and description.get(8, 0) % 16 == 0
        assert self.things[preference.value - 1][1] == 32 << 20
        if self.refuse:
            return 15
        count._obj.value, results._obj.status, results._obj.algorithm[0] = 1, 0, desc.value
        return 0

    def cublasLtMatmul(self, lt, desc, alpha, A, la, B, lb, beta, C, lc, D, ld, algorithm, memory, size, stream):
        assert self.things[lt.value - 1] == "lt" and memory.value and size.value and C.value == D.value and beta._obj.value == 0
        assert algorithm._obj[0] == desc.value, "an algorithm that was chosen for another product"
        assert all(p.value % 16 == 0 for p in (A, B, D))
        if self.fail:
            return 13
        self.calls.append("lt")
        self.epilogues.append(self.things[desc.value - 1][7])
        COUNTS.launches += 1
        layouts = [self.things[x.value - 1] for x in (la, lb, ld)]
        values = (dict(self.things[desc.value - 1]), [x.value for x in (A, B, D)], layouts)
        if Device.capture() is None:
            self._run_lt(*values)
        else:
            Device.capture().nodes.append((self._run_lt, values, {}, ()))
        return 0

    def _run_lt(self, desc, pointers, layouts):
        """BIAS (4), GELU (32), its input kept (128), DGELU (192): over the rows of D, in D's type; BGRADB (512) sums B over k."""
        a, b, d = (matrix(p, *layout) for p, layout in zip(pointers, layouts, strict=True))
        a, b = (np.ascontiguousarray(x.T if desc[op] else x).astype(np.float32) for x, op in ((a, 3), (b, 4)))
        kind = desc[7]
        assert a.shape[1] == b.shape[0] and d.shape == (a.shape[0], b.shape[1]) and kind in (4, 36, 164, 192, 512)
        if desc["compute"] == 77:
            a, b = tf32(a), tf32(b)
        n, product = d.shape[1] if kind == 512 else d.shape[0], a @ b
        if kind != 192:
            vector = matrix(desc[8], layouts[2][0], n, 1, n)[:, 0]
        if kind == 512:
            vector[...] = b.sum(axis=0)
        elif kind != 192:
            product += vector[:, None].astype(np.float32)
        if kind & 128:
            assert desc[12] % 8 == 0 and desc[12] >= d.shape[0] and desc[11] % 16 == 0
            aux = matrix(desc[11], layouts[2][0], *d.shape, desc[12])
        if kind == 192:
            product *= slope_of_gelu(aux.astype(np.float32))
        elif kind & 128:
            aux[...] = product
        if kind & 32:
            product *= 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (product + 0.044715 * product**3)))
        d[...] = product


@contextmanager
def imitated_cublas():
    """`with imitated_cublas() as library:` the package's own handle finds this library."""
    import cupy

    from minidit.kernels import cuda_blas

    if not getattr(cupy, "__standin__", False):
        raise RuntimeError("an imitation cannot read the memory of a real GPU")
    before = dict(cuda_blas._handles)
    cuda_blas._handles.clear()
    cupy.__dict__["imitated_cublas"] = Cublas()
    try:
        yield cupy.imitated_cublas
    finally:
        del cupy.imitated_cublas
        cuda_blas._handles.clear()
        cuda_blas._handles.update(before)
