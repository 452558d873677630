"""A map of vectors as a pyramid of codes: every scale says what the coarser ones left out.

    r_1 = f;   i_k = nearest(A_k r_k),   h_k = φ_k(U_k e[i_k]),   r_{k+1} = r_k - h_k          residual quantisation        (Q.9)
    f̂_k = h_1 + … + h_k,   f̂_K + r_{K+1} = f                                                   the picture up to scale k
    A_{k+1} f̂_k                                                      what a network sees before scale k+1                (Q.10)
    A : (p, H), row i = the mean of the places ⌊iH/p⌋ .. ⌈(i+1)H/p⌉-1                           area                       (Q.11)
    U : (H, p), cubic convolution with a = -3/4, edges repeated                                 bicubic                    (Q.12)
    scale k of 0 .. K-1 uses the φ whose tick, of n spread over [0, 1], is nearest to k/(K-1)                              (Q.13)

Maps have their channels last: (B, H, W, d). The rows of A and U sum to 1, and p = H is the identity. Everything works on Tensors
as well: gradients reach the codes and φ, and none passes through the choice of a code or through the residual.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidit import ops
from minidit.autograd import Value, value
from minidit.autoregressive.quantize import nearest
from minidit.backend import Array, read_only, resident, xp_of

Phi = Callable[[int, Any], Any]  # (scale, map of full size) -> the same size


@functools.cache
def area(p: int, H: int) -> NDArray[np.float64]:
    """(p, H), read-only: the mean over each of p nearly equal parts of H places; where H/p is no whole number they overlap."""
    m = np.zeros((p, H))
    for i in range(p):
        low, high = i * H // p, -(-(i + 1) * H // p)
        m[i, low:high] = 1 / (high - low)  # (Q.11)
    return read_only(m)


def cubic(x: float, a: float = -0.75) -> float:
    """The weight of a place at distance x in cubic convolution (Keys 1981)."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@functools.cache
def bicubic(H: int, p: int, a: float = -0.75) -> NDArray[np.float64]:
    """(H, p), read-only: p places stretched to H along one axis. a = -0.75 as in PyTorch; -0.5 in Pillow and JAX."""
    m = np.zeros((H, p))
    for i in range(H):
        x = (i + 0.5) * p / H - 0.5
        base = math.floor(x)
        for j in range(base - 1, base + 3):
            m[i, min(max(j, 0), p - 1)] += cubic(x - j, a)  # (Q.12)
    return read_only(m)


def resized(f: Value, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Value:
    """f : (B, H, W, d)  ->  (B, h, w, d), by one matrix per axis: rows (h, H), columns (w, W)."""
    B, H, _, d = f.shape
    like = value(f)
    across = ops.matmul(resident(columns, like=like).astype(like.dtype), f)  # (w, W) @ (B, H, W, d)
    w = across.shape[2]
    down = ops.matmul(resident(rows, like=like).astype(like.dtype), across.reshape(B, H, w * d))
    return down.reshape(B, len(rows), w, d)


def smaller(f: Value, p: int) -> Value:
    """f : (B, H, W, d)  ->  (B, p, p, d), means over parts."""
    return f if f.shape[1:3] == (p, p) else resized(f, area(p, f.shape[1]), area(p, f.shape[2]))


def larger(e: Value, H: int) -> Value:
    """e : (B, p, p, d)  ->  (B, H, H, d)."""
    return e if e.shape[1:3] == (H, H) else resized(e, bicubic(H, e.shape[1]), bicubic(H, e.shape[2]))


def starts(sizes: Sequence[int]) -> list[int]:
    """Where the codes of every scale begin in the sequence, and its length at the end: scale k has sizes[k]² codes."""
    return [0, *accumulate(p * p for p in sizes)]


def phi_of(k: int, K: int, n: int) -> int:
    """Which of n shared φ serves scale k of 0..K-1: that with the nearest tick, the ticks n equal parts of [1/3n, 1-1/3n]."""
    if K == 1:
        return n // 2
    ticks = np.linspace(1 / 3 / n, 1 - 1 / 3 / n, n) if n == 4 else np.linspace(1 / 2 / n, 1 - 1 / 2 / n, n)
    return int(np.abs(ticks - k / (K - 1)).argmin())  # (Q.13)


def into_codes(f: Array, codes: Value, sizes: Sequence[int], phi: Phi) -> tuple[Array, list[Value]]:
    """f : (B, H, H, d)  ->  (numbers of codes : (B, Σp²), the maps f̂_1 … f̂_K)."""
    f = value(f)
    rest, index, maps, xp = f, list[Array](), list[Value](), xp_of(f)
    for k, p in enumerate(sizes):
        i = nearest(smaller(rest, p), codes)
        h = phi(k, larger(ops.embedding(codes, index=i), f.shape[1]))
        maps.append(maps[-1] + h if maps else h)
        rest = rest - value(h)  # (Q.9)
        index.append(i.reshape(len(f), p * p))
    return xp.concatenate(index, axis=1), maps


def maps_of(index: Array, codes: Value, sizes: Sequence[int], phi: Phi) -> list[Value]:
    """The first scales of numbers of codes : (B, Σp²)  ->  their maps f̂_1, f̂_2, …, each of the full size of the last scale.

    They are the maps of `into_codes` to the bit.
    """
    H, ends, maps = sizes[-1], starts(sizes), list[Value]()
    for k, p in enumerate(sizes[: ends.index(index.shape[1])]):
        e = ops.embedding(codes, index=index[:, ends[k] : ends[k + 1]].reshape(len(index), p, p))
        h = phi(k, larger(e, H))
        maps.append(maps[-1] + h if maps else h)  # (Q.9)
    return maps


def inputs_of(maps: Sequence[Value], sizes: Sequence[int]) -> Value:
    """f̂_1, f̂_2, …  ->  (B, p_2² + p_3² + …, d): what a network sees before every scale but the first."""
    seen = [smaller(f, p) for f, p in zip(maps, sizes[1:], strict=False)]
    return ops.concat(*(s.reshape(len(s), -1, s.shape[-1]) for s in seen), axis=1)  # (Q.10)
