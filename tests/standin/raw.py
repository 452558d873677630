"""RawModule for the stand-in: CUDA C compiled by g++ and run on the CPU (tests/kernels/cuda_on_cpu.h), launches counted.

Stricter than CuPy: every argument must have the type that the kernel's signature names (CuPy would pass any eight bytes), and
each array is handed over as a copy between two guards of 0xFF bytes: a read beyond its end is a NaN, a write is an error.
Switched on by `with standin.kernels():`; elsewhere the stand-in has no RawModule and everything runs on the plain text.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from standin import cache
from standin.core import ndarray
from standin.device import COUNTS, Device

HEADER = Path(__file__).parent.parent / "kernels" / "cuda_on_cpu.h"
SIGNATURE = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(([^)]*)\)')
ERRORS = {
    1: "a barrier that not all threads reach", 2: "a write beyond the shared memory", 3: "a block that is no row of warps",
    4: "not aligned",
}  # fmt: skip
TYPES = {
    "float": "float32", "double": "float64", "bf16": "bfloat16", "int": "int32", "unsigned": "uint32", "long long": "int64",
    "unsigned long long": "uint64", "unsigned char": "uint8",
}  # fmt: skip
GUARD = 256
DEFAULT_SHARED = 48 << 10  # bytes per block, without asking


class State:
    """How kernels are run: in which order threads and blocks are served, and which kernels were launched."""

    order = 0
    launched: list = []  # noqa: RUF012


def compiler():
    """The C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def compiled(code, options):
    """The shared library for this text, from the cache if it was made before."""
    if compiler() is None:
        raise RuntimeError("the stand-in needs g++ to run kernels")
    names = [m[0] for m in SIGNATURE.findall(code)]
    text = f'#include "{HEADER.name}"\n{code}\n' + "".join(f"KERNEL_ON_CPU({n})\n" for n in names)
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-x", "c++"]
    flags += [o for o in options if o.startswith("-D")]

    def build(path):
        run = subprocess.run(
            [compiler(), *flags, f"-I{HEADER.parent}", "-", "-o", path], input=text, text=True, capture_output=True
        )
        if run.returncode:
            raise RuntimeError(f"g++: {run.stderr[:2000]}")

    return ctypes.CDLL(str(cache.kept(".so", build, text, HEADER.read_text(), *flags, cache.version_of(compiler()))))


class RawModule:
    """`RawModule(code=, options=)`; `get_function(name)` gives a RawKernel."""

    def __init__(self, *, code, options=(), backend="nvrtc", name_expressions=None, jitify=False):
        if backend != "nvrtc" or name_expressions or jitify:
            raise NotImplementedError('the stand-in compiles plain extern "C" kernels only')
        self.code, self.options, self.library = code, options, None

    def compile(self, log_stream=None):
        if self.library is None:
            self.library = compiled(self.code, self.options)

    def get_function(self, name):
        self.compile()
        signatures = dict(SIGNATURE.findall(self.code))
        if name not in signatures:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: {name}")
        storage = next((o.partition("=")[2] for o in self.options if o.startswith("-DSTORAGE=")), "float")
        return RawKernel(name, getattr(self.library, f"launch_{name}"), parameters(signatures[name], storage))


def parameters(text, storage):
    """[(dtype name, is a pointer, is written)] of a signature."""
    arguments = []
    for part in text.split(","):
        kind = re.sub(r"\b\w+$", "", part.replace("__restrict__", "").strip()).strip()
        base = kind.replace("const", "").replace("*", "").strip()
        arguments.append((TYPES[storage if base == "T" else base], "*" in kind, "*" in kind and "const" not in kind))
    return arguments


class RawKernel:
    """Called as in CuPy: kernel(grid, block, args, shared_mem=bytes)."""

    def __init__(self, name, function, signature):
        self.name, self.function, self.signature = name, function, signature
        self.max_dynamic_shared_size_bytes = DEFAULT_SHARED

    def __call__(self, grid, block, args, *, shared_mem=0):
        if len(args) != len(self.signature):
            raise TypeError(f"{self.name} takes {len(self.signature)} arguments, got {len(args)}")
        for i, (x, (dtype, pointer, _)) in enumerate(zip(args, self.signature, strict=True)):
            null = isinstance(x, np.uint64) and x == 0
            good = (isinstance(x, ndarray) or null) if pointer else isinstance(x, np.generic)
            if not good or (x.dtype.name != dtype and not (pointer and null)):
                raise TypeError(f"{self.name}: argument {i} must be {'an array of ' if pointer else ''}{dtype}, got {x!r:.60}")
        if shared_mem > self.max_dynamic_shared_size_bytes or shared_mem > Device.most_shared:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {self.name} asks for {shared_mem} bytes of shared memory")
        if not all(0 < n < 2**31 for n in grid) or any(n > 65535 for n in grid[1:]):
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {self.name}: grid {grid}")
        grid, block = ((*g, 1, 1)[:3] for g in (grid, block))
        COUNTS.launches += 1
        State.launched.append(self.name)
        call = (grid, block, args, shared_mem)
        capture = Device.capture()
        if capture is None:
            self.run(*call)
        else:
            capture.nodes.append((self.run, call, {}, ()))

    def run(self, grid, block, args, shared):
        guarded, values = {}, []
        for x, (_, pointer, written) in zip(args, self.signature, strict=True):
            if pointer and isinstance(x, ndarray):
                g = guarded.setdefault(x._a.__array_interface__["data"][0], Guarded(x._a))
                g.written |= written
                values.append(ctypes.c_void_p(g.address))
            else:
                values.append((ctypes.c_char * x.nbytes).from_buffer_copy(x.tobytes()))
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.pointer(v), ctypes.c_void_p) for v in values))
        three = ctypes.c_uint * 3
        error = self.function(three(*grid), three(*block), ctypes.c_uint(shared), ctypes.c_uint(State.order), pointers)
        if error:
            raise RuntimeError(f"{self.name}: {ERRORS[error]}")
        for g in guarded.values():
            g.give_back(self.name)


class Guarded:
    """A copy of the memory that an array spans, between two guards."""

    def __init__(self, a):
        low, high = np.lib.array_utils.byte_bounds(a) if a.size else (a.ctypes.data,) * 2
        self.source = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
        memory = np.full(high - low + 2 * GUARD + 64, 0xFF, np.uint8)
        start = GUARD + (low - memory.ctypes.data) % 64  # as well aligned as the array is, and no better
        self.inside = memory[start : start + len(self.source)]
        self.before, self.after = memory[:start], memory[start + len(self.source) :]
        self.inside[...] = self.source
        self.original = self.source.copy()
        self.address = self.inside.ctypes.data + a.__array_interface__["data"][0] - low
        self.written = False

    def give_back(self, name):
        if (self.before != 0xFF).any() or (self.after != 0xFF).any():
            raise RuntimeError(f"{name}: a write beyond an array")
        changed = self.original != self.inside  # another argument may span the same memory: slices of one array
        if changed.any() and not self.written:
            raise RuntimeError(f"{name}: a write through a pointer to const")
        self.source[changed] = self.inside[changed]


@contextmanager
def kernels(order=0):
    """`with kernels():` the stand-in compiles and runs CUDA C. order: 0 as numbered, 1 backwards, n > 1 shuffled by n."""
    import cupy

    if not getattr(cupy, "__standin__", False):  # the real one
        yield State
        return
    before, State.order = State.order, order
    outer = hasattr(cupy, "RawModule")
    cupy.RawModule = RawModule
    try:
        yield State
    finally:
        State.order = before
        if not outer:
            del cupy.RawModule
