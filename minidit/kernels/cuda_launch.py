"""CUDA sources from the folder cuda/, compiled by NVRTC when they are first used, and launched through CuPy's RawModule.

A variant of a file is its text with some macros defined, such as STORAGE and VEC: each file says which. The package works without
any kernel: where one is not available, `NoTwin` is raised and the plain text runs.
"""

from __future__ import annotations

import re
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from minidit.autograd import NoTwin, kernels_on
from minidit.backend import Array

FOLDER = Path(__file__).parent / "cuda"
STORAGE = {"float32": "float", "bfloat16": "bf16"}
WARP = 32
NULL = np.uint64(0)  # a pointer to nothing
COUNTERS = 1 << 18
DEFAULT_SHARED = 48 << 10  # bytes of shared memory that a block has by default
MULTIPROCESSORS = 16  # a number of cudaDeviceAttr
STREAMING, SUMMING = 16, 8  # blocks per multiprocessor: with only loads and stores, and with partial sums, which cost memory
KERNEL = re.compile(r"__global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(")



class Bounded(dict[Any, Any]):
    """What was decided per shape, for up to MOST shapes; then the oldest is forgotten, and decided again when it returns."""

    MOST = 1024

    def __setitem__(self, key: Any, value: Any) -> None:
        if key not in self and len(self) >= self.MOST:
            del self[next(iter(self))]
        super().__setitem__(key, value)


i32, i64, u32, f32, f64 = np.int32, np.int64, np.uint32, np.float32, np.float64
_kernels: dict[Any, Any] = {}
_modules: dict[Any, Any] = {}
_counters: dict[Any, Array] = {}


@cache
def source(file: str) -> str:
    """The text of cuda/<file>, with its headers put in where they are included."""
    lines = (FOLDER / file).read_text().splitlines()
    parts = (source(line.split('"')[1]) if line.startswith('#include "') else line for line in lines if line != "#pragma once")
    return "\n".join(parts)


def options(defines: dict[str, Any]) -> tuple[str, ...]:
    """The compiler options of a variant."""
    return ("-std=c++17", *(f"-D{name}={value}" for name, value in sorted(defines.items())))


def kernel(file: str, name: str, defines: dict[str, Any]) -> Any:
    """A kernel of a variant of a file. Raises NoTwin where there is no CuPy or no compiler, and warns once with the reason."""
    module = getattr(sys.modules.get("cupy"), "RawModule", None)
    key = (module, file, name, *defines.items())
    f = _kernels.get(key)
    if f is None:
        if module is None:
            raise NoTwin("CuPy is not imported")
        try:
            variant = (module, file, *defines.items())
            if variant not in _modules:  # all kernels of a file are compiled together
                _modules[variant] = module(code=source(f"{file}.cu"), options=options(defines))
            f = _modules[variant].get_function(name)
        except Exception as error:  # whatever fails, the plain text runs instead, and a warning gives the reason
            warnings.warn(f"no kernel {name}: {error}", RuntimeWarning, stacklevel=2)
            f = NoTwin(f"{name} does not compile")
        _kernels[key] = f
    if isinstance(f, NoTwin):
        raise NoTwin(*f.args)
    return f


def available(name: str) -> bool:
    """Whether the kernels of cuda/<name>.cu can be used here and are switched on."""
    try:
        kernel(name, KERNEL.findall(source(f"{name}.cu"))[0], {})
    except NoTwin:
        return False
    return kernels_on()


def launch(
    file: str, name: str, grid: tuple[int, ...], threads: int, args: tuple[Any, ...], shared: int = 0, **defines: Any
) -> None:
    """Starts a kernel on the current stream. args: arrays, NULL, and NumPy scalars of the types in the kernel's signature."""
    f = kernel(file, name, defines)
    if shared > DEFAULT_SHARED:
        f.max_dynamic_shared_size_bytes = shared
    f(grid, (threads,), args, shared_mem=shared)


def counters(like: Array, n: int) -> Array:
    """n counters that are zero, and that kernels leave zero. One set per device, for one stream at a time."""
    if n > COUNTERS:
        raise NoTwin(f"{n} counters")
    cupy = sys.modules["cupy"]
    key = (cupy.ndarray, cupy.cuda.runtime.getDevice())
    if key not in _counters:
        _counters[key] = cupy.zeros(COUNTERS, np.uint32)
    return _counters[key]


def storage(x: Array) -> str:
    """The type of activations like x in CUDA. Raises NoTwin for what the kernels do not store, such as float64."""
    if x.dtype.name not in STORAGE:
        raise NoTwin(f"{x.dtype} has no kernels")
    return STORAGE[x.dtype.name]


def vector(width: int, *arrays: Array) -> int:
    """How many numbers a thread loads at once: 8 (of 16 bits), 4 or 1, so that no row of this width is cut or badly aligned."""
    for v in (8, 4) if any(a.itemsize == 2 for a in arrays) else (4,):
        starts = ((n, min(16, v * a.itemsize)) for a in arrays for n in (a.data.ptr, *a.strides[:-1]))
        if width % v == 0 and all(n % bytes_ == 0 for n, bytes_ in starts):
            return v
    return 1


def ceil(a: int, b: int) -> int:
    return -(-a // b)


@cache
def _attribute(cupy: Any, device: int, number: int) -> int:
    return int(cupy.cuda.runtime.deviceGetAttribute(number, device))


def blocks(per_multiprocessor: int) -> int:
    """Blocks that fill the current device."""
    cupy = sys.modules["cupy"]
    return per_multiprocessor * _attribute(cupy, cupy.cuda.runtime.getDevice(), MULTIPROCESSORS)


def flat_grid(n: int, v: int) -> tuple[int]:
    """The grid of a kernel that walks over n numbers in one row, v per thread at a time."""
    return (min(blocks(STREAMING), ceil(n, 256 * v)),)


def chunk_of(rows: int, beside: int, per_multiprocessor: int = SUMMING) -> int:
    """Rows per block, a multiple of 8, so that the device is full when `beside` blocks stand side by side in every chunk."""
    full = blocks(per_multiprocessor)
    return ceil(max(32, ceil(rows * beside, full)), 8) * 8 if beside < full else ceil(max(rows, 1), 8) * 8
