"""Pictures that stay on disk: a part of a memory map that is read when, and as far as, it is indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = int | slice | Sequence[int] | NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """The pictures `base[rows]`, with dtype, ndim, shape, nbytes and indices as an array of them would have.

    base : uint8 (M, C, H, W), a memory map    rows : int64 (N,)
    key : a name of exactly these pictures, in this order    prints : uint64 (N,), one fingerprint per picture
    """

    base: NDArray[np.uint8]
    rows: NDArray[np.int64]
    key: str
    prints: NDArray[np.uint64]

    @classmethod
    def of(cls, base: NDArray[np.uint8], key: str, prints: NDArray[np.uint64]) -> Rows:
        """All pictures of a memory map."""
        return cls(base, np.arange(len(base)), key, prints)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return self.base.dtype

    @property
    def ndim(self) -> int:
        return self.base.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), *self.base.shape[1:]

    @property
    def nbytes(self) -> int:
        return len(self.rows) * int(np.prod(self.base.shape[1:]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Index) -> NDArray[np.uint8]:
        """Only these pictures, in memory."""
        return np.asarray(self.base[self.rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Some of them; they stay on disk."""
        key = hashlib.sha256(self.key.encode() + np.asarray(rows, "<i8").tobytes()).hexdigest()
        return Rows(self.base, self.rows[rows], key, self.prints[rows])


def prints_of(images: NDArray[np.uint8] | Rows) -> NDArray[np.uint64]:
    """images : (N, C, H, W)  ->  (N,) fingerprints: pictures that are equal, byte for byte, have equal ones."""
    if isinstance(images, Rows):
        return images.prints
    digests = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
