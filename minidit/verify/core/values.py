"""Values of questions and answers as JSON, for programs and for test vectors (docs/protocol.md).

Arrays are {"dtype", "shape", "data"} or, where they are large, {"dtype", "shape", "file", "name"}; functions are {"call"};
NaN and the infinities, which JSON lacks, are texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidit.autograd import value as plain
from minidit.backend import Array, to_host
from minidit.incoming import Refusal

SPECIAL = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
MAX_ITEM = 1024  # bytes of one entry: a text may claim any length
MAX_BYTES = 2**26  # of an array whose entries stand in a text
Keep = Callable[[Array], dict[str, str]]  # puts a large array somewhere and says where: file and name


class ValueFormError(Refusal):
    """Something that is no value: an array that is not what it says, or a function where there may be none."""


def no_functions(function: Callable[..., Any]) -> str:
    """For packing what must hold no function."""
    raise ValueFormError("a function cannot be written down")


def packed(value: Any, keep: Keep, call: Callable[[Callable[..., Any]], str] = no_functions, inline: int = 64) -> Any:
    """A value as JSON values. Arrays of more than `inline` entries go through `keep`, functions through `call`."""
    if isinstance(value, dict):
        return {str(k): packed(v, keep, call, inline) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [packed(v, keep, call, inline) for v in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, np.generic):
        return value if np.isfinite(value) else "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if callable(value) and not hasattr(value, "dtype"):
        return {"call": call(value)}
    value = plain(value)
    if not hasattr(value, "dtype"):
        raise ValueFormError(f"{type(value).__name__} is an object, which cannot be written down")
    array = np.asarray(to_host(value))
    head = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size > inline:
        return {**head, **keep(np.ascontiguousarray(array))}
    return {**head, "data": [packed(v, keep, call, inline) for v in array.reshape(-1).tolist()]}


def unpacked(value: Any, fetch: Callable[[str, str], Array]) -> Any:
    """The value behind JSON; fetch(file, name) reads a large array. Raises ValueFormError for an array that cannot be read."""
    if isinstance(value, str):
        return SPECIAL.get(value, value)
    if isinstance(value, list):
        return [unpacked(v, fetch) for v in value]
    if not isinstance(value, dict):
        return value
    if "shape" not in value or not {"data", "file"} & value.keys():
        return {k: unpacked(v, fetch) for k, v in value.items()}
    try:
        return _array(value, fetch)
    except Exception as error:
        raise ValueFormError(f"an array that cannot be read: {type(error).__name__}: {error}") from None


def _longest(value: Any) -> int:
    """Characters of the longest text in nested lists."""
    return len(value) if isinstance(value, str) else max(map(_longest, value), default=0) if isinstance(value, list) else 0


def _array(value: dict[str, Any], fetch: Callable[[str, str], Array]) -> Array:
    """The array that an object describes. Raises whatever its odd parts do."""
    shape, dtype = value["shape"], np.dtype(value.get("dtype", "float64"))
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"the shape {shape!r:.80}: a list of whole numbers is read")
    if dtype.kind not in "fiubcU" or dtype.itemsize > MAX_ITEM:
        raise ValueError(f"{dtype!s:.80}: numbers or short texts are read")
    if "file" in value:
        file, name = value["file"], value.get("name")
        if not isinstance(file, str) or not isinstance(name, str):
            raise ValueError("its file and name are texts")  # a number would be an open file of this process
        array = fetch(file, name)
    else:
        entries = unpacked(value["data"], fetch)
        if not isinstance(entries, list) or (longest := _longest(entries)) > MAX_ITEM // 4:
            raise ValueError("its data are a list of numbers or short texts")
        if math.prod(shape) * max(dtype.itemsize, 4 * longest) > MAX_BYTES:
            raise ValueError(f"{shape} of {dtype} take more than {MAX_BYTES} bytes")
        array = np.array(entries)
    if array.dtype.kind not in "fiubcU":
        raise ValueError(f"{array.dtype} as {dtype}: numbers or short texts are read")
    with np.errstate(all="ignore"):
        return array.astype(dtype, copy=False).reshape(shape)
