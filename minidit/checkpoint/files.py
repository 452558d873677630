"""Arrays in safetensors files, written whole or not at all, read and written one at a time.

An array that is still in its file is a Lazy: a shape, a type and a way to read it. Grammars are functions between dictionaries of
Lazy arrays, so loading or converting a network needs memory for the network and one array more. A file is written under another
name, flushed and moved into place: a crash leaves the old file or the new one, never a half. Files of our own grammar hold a
digest of their header and data, which is compared when they are opened.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from minidit.backend import Array, to_host
from minidit.incoming import Refusal, once, reading, regular_file
from minidit.outgoing import write_atomically

TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "BF16": "<u2", "I32": "<i4", "U32": "<u4",
    "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8",
}  # fmt: skip
BF16 = "bfloat16"  # NumPy has no such type: it is written and read as its bits
CODES = {np.dtype(t): code for code, t in TYPES.items() if code != "BF16"}
DIGEST = "sha256"  # the entry of the metadata that holds the digest
MAX_HEADER = 2**23  # bytes of the names and shapes of a safetensors file: about 80,000 arrays
RANK = {code: i for i, code in enumerate(TYPES)}  # files hold wide types first, so that every array is aligned


class CheckpointError(Refusal):
    """A file that is not what it should be; the message is one line and names it."""


@dataclass(frozen=True)
class Lazy:
    """An array that is made anew by each call of `read`. dtype: NumPy's, or "bfloat16"."""

    shape: tuple[int, ...]
    dtype: DTypeLike
    read: Callable[[], Array]


def lazy(array: Array, dtype: DTypeLike | None = None) -> Lazy:
    """An array of any device; dtype: floats are cast to it ("bfloat16" is allowed)."""
    if array.dtype.name == BF16 or (array.dtype.kind == "f" and str(dtype) == BF16):
        return Lazy(tuple(array.shape), BF16, lambda: narrowed(to_host(array)))
    target = array.dtype if dtype is None or array.dtype.kind != "f" else np.dtype(dtype)

    def read() -> Array:
        return to_host(array).astype(target, copy=False)

    return Lazy(tuple(array.shape), target, read)


# ------------------------------------------------------------------------------------------------ writing


def write_arrays(
    path: str | Path, arrays: Mapping[str, Array], meta: Mapping[str, object], *, dtype: DTypeLike | None = None
) -> None:
    """Writes name -> array and metadata (any JSON values), with a digest of both.

    dtype: floats are cast to it; np.float16 and "bfloat16" save space.
    """
    texts = {k: json.dumps(v) for k, v in meta.items()}
    write_lazy(path, {name: lazy(a, dtype) for name, a in arrays.items()}, texts, digest=True)


def write_lazy(path: str | Path, arrays: Mapping[str, Lazy], meta: Mapping[str, str], *, digest: bool = False) -> None:
    """Writes arrays one after the other. Equal contents give equal bytes, the same as those of the safetensors library.

    digest : whether the metadata get a digest of everything else; every array is then read twice.
    """

    def code(name: str) -> str:
        dtype = arrays[name].dtype
        known = "BF16" if dtype == BF16 else CODES.get(np.dtype(dtype).newbyteorder("<"))
        if known is None or name == "__metadata__":
            raise CheckpointError(f"{path}: {name!r} of type {dtype} cannot be kept in a safetensors file")
        return known

    codes = {name: code(name) for name in arrays}
    names, end = sorted(arrays, key=lambda n: (-RANK[codes[n]], n)), 0
    header: dict[str, Any] = {"__metadata__": dict(sorted(meta.items()))}
    for name in names:
        start, shape = end, arrays[name].shape
        end += math.prod(shape) * np.dtype(TYPES[codes[name]]).itemsize
        header[name] = {"dtype": codes[name], "shape": list(shape), "data_offsets": [start, end]}

    def data() -> Iterator[memoryview]:
        for name in names:
            a = np.ascontiguousarray(arrays[name].read(), TYPES[codes[name]])  # never the memory of a transposed array
            if a.size:
                yield a.reshape(-1).view(np.uint8).data

    if digest:
        header["__metadata__"][DIGEST] = digest_of(header, data())
    text = _compact(header)
    text += b" " * (-len(text) % 8)
    write_atomically(path, itertools.chain([len(text).to_bytes(8, "little") + text], data()))


def digest_of(header: Mapping[str, Any], data: Iterable[bytes | memoryview]) -> str:
    """The SHA-256 of a file's header and data; the header's own entry for the digest is left out."""
    meta = {k: v for k, v in header["__metadata__"].items() if k != DIGEST}
    sha = hashlib.sha256(_compact({**header, "__metadata__": meta}))
    for chunk in data:
        sha.update(chunk)
    return sha.hexdigest()


def _compact(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


# ------------------------------------------------------------------------------------------------ reading


def read_arrays(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """(name -> NumPy array, metadata). Raises CheckpointError naming the file if it is not a safetensors file."""
    arrays, meta = open_safetensors(path)
    return {name: a.read() for name, a in arrays.items()}, meta


def open_safetensors(path: str | Path, *, verify: bool = True) -> tuple[dict[str, Lazy], dict[str, Any]]:
    """(name -> Lazy, metadata). The safetensors library checks the file; the bytes are then read, not mapped: a mapped file
    would take memory twice, in the map and in the network. verify : whether a digest in the file is compared."""
    from safetensors import safe_open

    size = regular_file(path, CheckpointError)
    with reading(path, CheckpointError, "not a readable safetensors file: "), open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        if n > min(size, MAX_HEADER):
            raise ValueError(f"its header claims {n} bytes of a file of {size}, at most {MAX_HEADER} are read")
        with safe_open(str(path), framework="numpy"):
            header = json.loads(f.read(n), object_pairs_hook=once)
        digest = (header.get("__metadata__") or {}).get(DIGEST)
        if verify and digest is not None and digest != digest_of(header, _pieces(f)):
            raise CheckpointError(f"{path}: damaged: its contents do not match its checksum")
        meta = {k: _json(v) for k, v in (header.pop("__metadata__", None) or {}).items() if k != DIGEST}
        return {name: _entry(path, name, entry, 8 + n) for name, entry in header.items()}, meta


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file, a mebibyte at a time."""
    return iter(lambda: file.read(2**20), b"")


def _entry(path: str | Path, name: str, entry: Mapping[str, Any], start: int) -> Lazy:
    code, shape = entry["dtype"], tuple(entry["shape"])
    if code not in TYPES:
        raise CheckpointError(f"{path}: {name} is of type {code}, which NumPy cannot hold")
    dtype = np.dtype(TYPES[code])
    offset = start + entry["data_offsets"][0]

    def read() -> Array:
        a = bytes_at(path, offset, math.prod(shape), dtype)
        return (widened(a) if code == "BF16" else a).reshape(shape)

    return Lazy(shape, np.dtype(np.float32) if code == "BF16" else dtype, read)


def bytes_at(path: str | Path, offset: int, count: int, dtype: DTypeLike) -> Array:
    """`count` numbers from byte `offset` on. Raises CheckpointError if the file ends before."""
    a = np.empty(count, dtype)
    with open(path, "rb") as f:
        f.seek(offset)
        if a.size and f.readinto(a.view(np.uint8).data) != a.nbytes:
            raise CheckpointError(f"{path}: ends in the middle of an array")
    return a


def widened(bits: Array) -> Array:
    """The bits of bfloat16 as uint16  ->  float32, exactly: they are the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrowed(a: Array) -> Array:
    """Floats  ->  the bits of bfloat16 as uint16, rounded to the nearest, ties to even."""
    if a.dtype.name == BF16:
        return a.view(np.uint16)
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    return np.where(np.isnan(a), bits >> 16 | 0x40, rounded).astype(np.uint16)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
