"""Operands that may be mixed in one operation: arrays of one home and one precision, and Python numbers, which adapt to them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minidit.backend import Array, xp_of


def check_one_kind(name: str, arrays: Iterable[Array]) -> None:
    """One readable error instead of a silent copy between homes or a silent promotion to float64.

    Raises ValueError for mixed homes, TypeError for mixed precision and for anything that is not an array.
    """
    home = dtype = None
    for a in arrays:
        if a is None or isinstance(a, (int, float, np.generic)):
            continue
        if not hasattr(a, "dtype"):
            raise TypeError(f"{name}: expected an array or a Tensor, got {type(a).__name__}")
        if home is not None and type(a) is not home:
            xp_of(*arrays)  # raises: mixed homes
        home = type(a)
        if a.dtype.kind == "f":
            if dtype is not None and a.dtype != dtype:
                raise TypeError(f"{name}: mixed precision, {dtype} with {a.dtype}: cast one of them explicitly")
            dtype = a.dtype
    for a in arrays:  # Python numbers adapt to the array, NumPy's scalars and integer arrays do not
        d = getattr(a, "dtype", dtype)
        if dtype is not None and d != dtype and np.result_type(d, dtype) != dtype:
            what = f"a NumPy {d} scalar" if isinstance(a, np.generic) else f"an array of {d}"
            raise TypeError(f"{name}: {what} would promote {dtype}: use a Python number or cast it explicitly")
