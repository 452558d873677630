"""Random answers are compared by their statistics, in standard errors, whatever generator drew them.

    z = (share - p) / √(p (1-p) / n)        shares; means, variances and correlations alike; equal where |Δz| < 6
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidit.backend import Array, to_host

SIX = "standard errors of the draw; right code is beyond them once in 10^8"


def in_errors(share: Array, p: Array, n: int) -> Array:
    """How many standard errors a share of n draws is from its probability."""
    return (share - p) / (p * (1 - p) / n) ** 0.5


def timesteps_drawn(t: Array) -> dict[str, Array]:
    """Integers that should be uniform in 0..9: how many are not among them, and the share of each."""
    t = np.asarray(to_host(t)).astype(np.float64).ravel()
    counts = np.bincount((np.clip(np.floor(t), -1, 10) + 1).astype(int), minlength=12)
    return {
        "how many below 0, above T-1, between two": np.array([counts[0], counts[11], (t != np.floor(t)).sum()], np.float64),
        "shares of 0..T-1, standard errors off": in_errors(counts[1:11] / t.size, 0.1, t.size),
    }


def normality(z: Array) -> dict[str, Array]:
    """Numbers (B,C,H,W) that should be standard normal and independent: their moments, a tail, correlations of neighbours."""
    z = np.asarray(to_host(z)).astype(np.float64)
    n, flat = z.size, z.ravel()
    return {
        "mean": flat.mean() * n**0.5, "variance": (flat.var() - 1) * (n / 2) ** 0.5,
        "fourth moment": ((flat**4).mean() - 3) * (n / 96) ** 0.5,
        "share beyond 2": in_errors((abs(flat) > 2).mean(), 0.0455002639, n), **correlations(z),
    }  # fmt: skip


def odd_timesteps(t: Array, args: Sequence[Any], right: Any = None) -> list[str]:
    """What is odd about drawn timesteps, in plain numbers. args: B, T."""
    t, T = np.asarray(to_host(t), np.float64).ravel(), int(args[1])
    if t.size and (t.min(), t.max()) != (0, T - 1):
        return [f"they run from {t.min():g} to {t.max():g}, expected 0 to {T - 1}"]
    shares = np.bincount(t.astype(int), minlength=T) / max(t.size, 1)
    k = int(np.argmax(abs(shares - 1 / T)))
    return [f"{shares[k]:.3g} of them are {k}, expected {1 / T:.3g}"]


def odd_noise(z: Array, args: Sequence[Any], right: Any = None) -> list[str]:
    """What is odd about noise: the moment that is furthest off."""
    flat = np.asarray(to_host(z), np.float64).ravel()
    n, fourth = max(flat.size, 1), float((flat**4).mean())
    off = {
        f"its mean is {flat.mean():.4g}, expected 0": abs(flat.mean()) * n**0.5,
        f"its variance is {flat.var():.4g}, expected 1": abs(flat.var() - 1) * (n / 2) ** 0.5,
        f"its fourth moment is {fourth:.4g}, expected 3": abs(fourth - 3) * (n / 96) ** 0.5,
    }
    most = max(off, key=lambda words: off[words])
    return [most] if off[most] > 6 else []


def correlations(z: Array) -> dict[str, Array]:
    """Correlations of neighbours along each axis of (B,C,H,W), in standard errors; an axis of two has one pair, counted twice."""
    out, d = {}, (z - z.mean()) / max(float(z.std()), 1e-30)
    for axis, name in enumerate(("samples", "channels", "rows", "columns")):
        n = d.size if d.shape[axis] > 2 else d.size / 2
        if d.shape[axis] > 1:
            out[f"correlation of {name}"] = (d * np.roll(d, 1, axis)).mean() * n**0.5
    return out
