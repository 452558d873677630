"""Twin of the optimiser step for float32 on a CPU: AdamW and EMA in one pass over tiles that stay in the cache."""

from __future__ import annotations

import math

import numpy as np

from minidit.backend import Array

TILE = 16384


def adamw_ema(
    theta: Array, m: Array, v: Array, g: Array, decays: Array, average: Array, *, factor: float, lr: float,
    betas: tuple[float, float], eps: float, n: int, d: float,
) -> None:  # fmt: skip
    b1, b2 = betas
    root = math.sqrt(1 - b2**n)  # lr m̂/(√v̂ + ε) = a m/(√v + e) with both corrections moved into a and e
    a, e = lr * root / (1 - b1**n), eps * root
    scratch = np.empty((2, min(TILE, len(theta))), theta.dtype)
    for i in range(0, len(theta), TILE):
        part = slice(i, i + TILE)
        t, gi, mi, vi = theta[part], g[part], m[part], v[part]
        s, u = scratch[:, : len(t)]
        np.multiply(mi, b1, out=mi)
        np.multiply(gi, (1 - b1) * factor, out=u)  # the clipping factor is part of both constants
        np.add(mi, u, out=mi)
        np.multiply(gi, gi, out=s)
        np.multiply(s, (1 - b2) * factor * factor, out=s)
        np.multiply(vi, b2, out=vi)
        np.add(vi, s, out=vi)
        np.sqrt(vi, out=s)
        np.add(s, e, out=s)
        np.divide(mi, s, out=s)
        np.multiply(s, a, out=s)
        if decays is not None:
            np.multiply(decays[part], t, out=u)
            np.multiply(u, lr, out=u)
            np.add(s, u, out=s)
        np.subtract(t, s, out=t)
        np.multiply(t, 1 - d, out=s)
        w = average[part]
        np.multiply(w, d, out=w)
        np.add(w, s, out=w)
