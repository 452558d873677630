"""How arrays are handed to kernels: dense rows, the type that they are stored in, and grids for sums over columns."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from minidit.autograd import NoTwin
from minidit.backend import Array, empty
from minidit.kernels.cuda_launch import (
    NULL,
    STREAMING,
    SUMMING,
    WARP,
    ceil,
    chunk_of,
    counters,
    f32,
    flat_grid,
    i32,
    i64,
    launch,
    storage,
    vector,
)
from minidit.kernels.cuda_trust import Pairs, drawn, trusted

CHUNKS = 256  # at most, whose sums the last block adds up


def dense(x: Array) -> Array:
    """x, or a copy in C order."""
    return x if x.flags.c_contiguous else sys.modules["cupy"].ascontiguousarray(x)


def converted(x: Array, dtype: Any) -> Array:
    """float32 rounded to bfloat16, or bfloat16 as float32: one kernel. Raises NoTwin for other types."""
    dtype = np.dtype(dtype)
    if {x.dtype.name, dtype.name} != {"float32", "bfloat16"} or x.size == 0:
        raise NoTwin(f"{x.dtype} as {dtype}")
    if not x.flags.c_contiguous and x.T.flags.c_contiguous:
        return converted(x.T, dtype).T
    trusted("casts", "float", (), lambda: cast_trial(x, {x.dtype, dtype} - {np.dtype(np.float32)}))
    x = dense(x)
    y, n = empty(x, x.shape, dtype), x.size
    v = vector(n, x.reshape(-1), y.reshape(-1))
    launch("elementwise", f"to_{dtype.name}", flat_grid(n, v), 256, (x, y, i64(n)), VEC=v)
    return y


def cast_trial(like: Array, other: set[Any]) -> Pairs:
    """There and back, exactly."""
    x, X = drawn(like, 3, 100, dtype=np.float32)
    (short,) = other
    there = converted(x, short)
    rounded = X.astype(np.float32).astype(short).astype(np.float64)
    return (there, rounded), (converted(there, np.float32), rounded)


def rows_of(x: Array) -> Array:
    return dense(x).reshape(-1, x.shape[-1])


def by_rows(x: Array) -> tuple[Array, int]:
    """(B, D) with dense rows, and the distance of two rows in numbers. A slice of a modulation is not copied."""
    if x.strides[-1] != x.itemsize and x.shape[-1] > 1:
        x = dense(x)
    return x, x.strides[0] // x.itemsize


def kind_of(x: Array, *others: Array) -> str:
    """The storage of x. Raises NoTwin unless the others have the same type."""
    if any(o.dtype != x.dtype for o in others) or x.size == 0:
        raise NoTwin("mixed types, or nothing to do")
    return storage(x)


def without_idle_lanes(D: int, v: int) -> int:
    """4 instead of 8 if 8 would leave more than an eighth of the lanes without a column."""
    return 4 if v == 8 and 8 * ceil(D, WARP * v) * WARP * v > 9 * D else v


def columns_of(D: int, *arrays: Array) -> int:
    """`vector` for a kernel of columns."""
    return without_idle_lanes(D, vector(D, *arrays))


def tiles_of(rows: int, D: int, v: int, samples: int = 1, *, sums: bool = True) -> tuple[tuple[int, int, int], int]:
    """The grid of a kernel of columns, which adds up over the rows or does not, and the rows of a chunk."""
    across = ceil(D, WARP * v)
    chunk = chunk_of(rows, across * samples, SUMMING if sums else STREAMING)
    if sums:
        chunk = max(chunk, ceil(ceil(rows, CHUNKS), 8) * 8)
    if samples > 65535:
        raise NoTwin(f"{samples} samples")
    return (across, ceil(rows, chunk), samples), chunk


def scratch_of(x: Array, grid: tuple[int, int, int], D: int) -> tuple[Array, Array]:
    """Memory for the partial sums of a kernel of columns, and its counters."""
    if grid[1] == 1:
        return NULL, NULL
    return empty(x, (grid[2], grid[1], D), f32), counters(x, grid[2] * grid[0])


def column_sum(x: Array, out: Array, zero: tuple[int, int] = (0, 0)) -> Array:
    """x : (rows, D)  ->  out : (D,) float32, the sums over the rows, which are known to be 0 in the columns of `zero`."""
    rows, D = x.shape
    v = columns_of(D, x, out)
    grid, chunk = tiles_of(rows, D, v)
    args = (x, out, *scratch_of(x, grid, D), *map(i32, (rows, D, chunk, *zero)))
    launch("elementwise", "column_sum", grid, 256, args, VEC=v, STORAGE=storage(x))
    return out
