"""Arrays in files: safetensors, written whole or not at all.

safetensors copies the raw memory of an array, and some versions do so even when the array is transposed or strided: only
contiguous arrays may reach it. A file is written under another name, flushed and moved into place: it is the old one or the new
one, never a half.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import Array, to_host


class CheckpointError(ValueError):
    """A file that is not what it should be; the message names it."""


def write_arrays(path: str | Path, arrays: Mapping[str, Array], meta: Mapping[str, Any], *, dtype: Any = None) -> None:
    """Writes name -> array and metadata (any JSON values). dtype: cast floating arrays, np.float16 for small files."""
    from safetensors import SafetensorError
    from safetensors.numpy import save

    host = {}
    for name, array in arrays.items():
        a = to_host(array)
        if dtype is not None and a.dtype.kind == "f":
            a = a.astype(dtype)
        host[name] = np.ascontiguousarray(a).reshape(a.shape)  # ascontiguousarray makes () into (1,)
    try:
        data = save(host, {k: json.dumps(v) for k, v in meta.items()})
    except SafetensorError as error:
        raise CheckpointError(f"{path}: {error}") from error
    write_atomically(path, _settled(data))


def _settled(data: bytes) -> bytes:
    """A safetensors file with its metadata in order: safetensors writes them in another order every time, which would give
    equal networks files of different bytes."""
    n = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:n])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays behind it stay aligned
    return len(text).to_bytes(8, "little") + text + data[n:]


def write_atomically(path: str | Path, data: bytes) -> None:
    """The whole file or nothing: a temporary neighbour, flushed to the disk, then moved. Raises OSError, leaving no trace."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_arrays(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """(name -> NumPy array, metadata). Raises CheckpointError naming the file if it is not a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as f:
            meta = {k: _json(v) for k, v in (f.metadata() or {}).items()}
            return {name: f.get_tensor(name) for name in f.keys()}, meta  # noqa: SIM118  (not a dict)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
