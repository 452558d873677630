"""Three ways to write a map of vectors as whole numbers, each with what a tokenizer's training, encoding and decoding need.

    training   z -> (what the decoder reads, its gradient that of z;  the loss of the codes)                    (Q.2, Q.3)
    numbers    z : (B, h, w, d)  ->  (B, N) int64              vectors    the inverse direction: what numbers stand for
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

from minidit import ops
from minidit.autograd import Value, value
from minidit.autoregressive.quantize import codebook_loss, nearest, number_of, on_sphere, rounded, straight_through, vector_of
from minidit.autoregressive.scales import Phi, into_codes, larger, maps_of, smaller
from minidit.backend import Array, xp_of


class Quantiser(Protocol):
    """Vectors to numbers and back. The codes that it reads are a network's, trained or frozen."""

    def free(self, z: Value) -> Value:
        """What the decoder reads while nothing is quantised yet."""

    def training(self, z: Value) -> tuple[Value, Value]:
        """z : (B, h, w, d)  ->  (vectors of the same shape, losses : (B,))."""

    def numbers(self, z: Array) -> Array:
        """z : (B, h, w, d)  ->  (B, N) int64."""

    def vectors(self, index: Array, h: int, w: int) -> Array:
        """(B, N) ints  ->  (B, h, w, d)."""

    def population(self, z: Array, codes: Array | None = None) -> Array:
        """z : (B, h, w, d)  ->  (M, d), the vectors that look for a code, with these codes; None: as if each had its own."""


@dataclass(frozen=True)
class Nearest:
    """One code per place.   codes : (K, d)   sphere : whether vectors and codes are normalised first (Q.4)"""

    codes: Value
    sphere: bool = False
    beta: float = 0.25

    def free(self, z: Value) -> Value:
        return on_sphere(z) if self.sphere else z

    def training(self, z: Value) -> tuple[Value, Value]:
        z, codes = self.free(z), self.free(self.codes)
        code = ops.embedding(codes, index=nearest(z, codes))
        return straight_through(z, code), codebook_loss(z, code, self.beta)

    def numbers(self, z: Array) -> Array:
        return nearest(self.free(z), self.free(value(self.codes))).reshape(len(z), -1)

    def vectors(self, index: Array, h: int, w: int) -> Array:
        codes = self.free(value(self.codes))
        return codes[index].reshape(len(index), h, w, -1)

    def population(self, z: Array, codes: Array | None = None) -> Array:
        return self.free(value(z)).reshape(-1, z.shape[-1])


@dataclass(frozen=True)
class Levels:
    """Whole numbers per channel, without codes (Q.8). Nothing has to be trained, so there is no loss."""

    levels: Sequence[int]

    def free(self, z: Value) -> Value:
        return z

    def training(self, z: Value) -> tuple[Value, Value]:
        return rounded(z, self.levels), xp_of(value(z)).zeros(len(z), value(z).dtype)

    def numbers(self, z: Array) -> Array:
        return number_of(rounded(value(z), self.levels), self.levels).reshape(len(z), -1)

    def vectors(self, index: Array, h: int, w: int) -> Array:
        return vector_of(index, self.levels).reshape(len(index), h, w, -1)

    def population(self, z: Array, codes: Array | None = None) -> Array:
        return value(z).reshape(-1, z.shape[-1])


@dataclass(frozen=True)
class Pyramid:
    """Codes of several scales (Q.9).   sizes : the sides of the scales, the last that of the map   phi : (scale, map) -> map"""

    codes: Value
    sizes: tuple[int, ...]
    phi: Phi
    beta: float = 0.25

    def free(self, z: Value) -> Value:
        return z

    def training(self, z: Value) -> tuple[Value, Value]:
        _, maps = into_codes(value(z), self.codes, self.sizes, self.phi)
        losses = [codebook_loss(z, f_hat, self.beta) for f_hat in maps]
        return straight_through(z, maps[-1]), reduce(add, losses) * (1 / len(maps))

    def numbers(self, z: Array) -> Array:
        return into_codes(value(z), value(self.codes), self.sizes, self.phi)[0]

    def vectors(self, index: Array, h: int, w: int) -> Array:
        return value(maps_of(index, value(self.codes), self.sizes, self.phi)[-1])

    def population(self, z: Array, codes: Array | None = None) -> Array:
        """The residuals of all scales: a finer one has to make up for the codes of the coarser ones."""
        rest, seen, xp = value(z), list[Array](), xp_of(value(z))
        for k, p in enumerate(self.sizes):
            seen.append(smaller(rest, p))
            if codes is None:
                rest = rest - larger(seen[-1], z.shape[1])
            else:
                rest = rest - value(self.phi(k, larger(codes[nearest(seen[-1], codes)], z.shape[1])))
        return xp.concatenate([s.reshape(-1, z.shape[-1]) for s in seen])
