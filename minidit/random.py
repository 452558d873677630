"""One counter-based stream of random numbers, the same integers on NumPy and CuPy.

    (L0, R0, L1, R1) -> ten rounds of   hi, lo = M·counter ;  counter' = (hi ⊕ counter ⊕ key, lo, …)    Philox4x32-10   (R.1)
    u = (k + ½) / 2³²                       k a 32-bit word;  0 < u < 1 always                           uniform         (R.2)
    z = √(-2 ln u₁) · (cos 2πu₂, sin 2πu₂)                                                               Box-Muller      (R.3)
    n = low + ⌊k (high - low) / 2³²⌋                                                                     integers        (R.4)
    counter = (block within the sample, draw number, sample index, stream);   key = seed                 the layout      (R.5)

Axis 0 of a shape runs over samples, and each sample has its own counters: its numbers depend neither on the batch size nor
on which process draws them. The whole state is the number of draws made so far.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from minidit.backend import Array, module_of, to_device, xp_of

M0, M1 = 0xD2511F53, 0xCD9E8D57  # the multipliers and the key increments of Salmon et al. 2011
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF


def philox4x32(counter: Sequence[Array], key: tuple[int, int], rounds: int = 10) -> list[Array]:
    """The bijection of Philox4x32: four counter words (uint64 arrays holding 32-bit values) -> four random words (R.1).

    Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = c0 * M0, c2 * M1  # 64-bit products of 32-bit words: nothing overflows
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW, (p0 >> 32) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return [c0, c1, c2, c3]


class Philox:
    """A stream of random arrays. `state` is an int that can be read, saved and set.

    seed : 0 ≤ int < 2⁶⁴     stream : 0 ≤ int < 2³², for independent streams under one seed
    """

    def __init__(self, seed: int, stream: int = 0, state: int = 0) -> None:
        try:
            operator.index(seed)
        except TypeError:
            raise TypeError(f"seed must be a whole number, got {seed!r}") from None
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be in 0..2^64-1, got {seed}")
        if not 0 <= stream < 2**32:
            raise ValueError(f"stream must be in 0..2^32-1, got {stream}")
        self.seed, self.stream, self.state = seed, stream, state

    def words(self, shape: Sequence[int], samples: Array | None = None, device: str = "cpu") -> Array:
        """The next draw: random 32-bit words in a uint64 array. samples : (shape[0],) global indices, 0..shape[0]-1 if None."""
        xp = module_of(device)
        shape = tuple(int(n) for n in shape)
        n, per_sample = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        if samples is not None and len(samples) != n:
            raise ValueError(f"{len(samples)} sample indices for a shape {shape}")
        blocks = -(-per_sample // 4)
        index = xp.arange(n, dtype=xp.uint64) if samples is None else to_device(samples, device).astype(xp.uint64)
        c0, c2 = (w.ravel() for w in xp.broadcast_arrays(xp.arange(blocks, dtype=xp.uint64)[None], index[:, None]))
        c1, c3 = xp.full_like(c0, self.state & LOW), xp.full_like(c0, self.stream)  # (R.5)
        self.state += 1
        out = xp.stack(philox4x32((c0, c1, c2, c3), (self.seed & LOW, self.seed >> 32)), axis=-1)
        return out.reshape(n, blocks * 4)[:, :per_sample].reshape(shape)

    def uniform(
        self, shape: Sequence[int] = (), samples: Array | None = None, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> Array:
        """Uniform on (0, 1), both ends excluded before rounding to dtype (R.2)."""
        return ((self.words(shape, samples, device) + 0.5) * 2.0**-32).astype(dtype)

    def normal(
        self, shape: Sequence[int] = (), samples: Array | None = None, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> Array:
        """Standard normal; computed in float64, so that every dtype and home sees the same noise up to rounding (R.3)."""
        shape = tuple(shape)
        n, per_sample = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        pairs = -(-per_sample // 2)
        k = self.words((n, 2 * pairs), samples, device)
        xp = xp_of(k)
        u = (k + 0.5) * 2.0**-32
        radius, angle = xp.sqrt(-2.0 * xp.log(u[:, 0::2])), (2.0 * math.pi) * u[:, 1::2]
        z = xp.stack((radius * xp.cos(angle), radius * xp.sin(angle)), axis=-1)
        return z.reshape(n, 2 * pairs)[:, :per_sample].reshape(shape).astype(dtype)

    def integers(
        self, low: int, high: int, shape: Sequence[int] = (), samples: Array | None = None, device: str = "cpu"
    ) -> Array:
        """Integers low ≤ n < high (int64), each with probability within 2⁻³² of 1 / (high - low) (R.4)."""
        if not 0 < high - low <= 2**32:
            raise ValueError(f"integers({low}, {high}): the range must hold 1 to 2^32 values")
        return ((self.words(shape, samples, device) * (high - low)) >> 32).astype("int64") + low

    def permutation(self, n: int, device: str = "cpu") -> Array:
        """A random order of 0..n-1: the ranks of n random words (ties, at most a few, keep their order)."""
        k = self.words((n,), device=device)
        return xp_of(k).argsort(k, kind="stable")
