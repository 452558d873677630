"""What is known of random answers: their statistics, in standard errors, whatever stream they were drawn from.

z = (share - p) / √(p (1-p) / n)        shares; means, variances and correlations alike; equal where |Δz| < 6
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import to_host

SIX = "standard errors of the draw; right code is beyond them once in 10^8"


def in_errors(share: Any, p: Any, n: int) -> Any:
    """How many standard errors a share of n draws is from its probability."""
    return (share - p) / (p * (1 - p) / n) ** 0.5


def timesteps_drawn(t: Any) -> Any:
    """What is known of uniform integers in 0..9: no others, and each a tenth of the draws."""
    t = np.asarray(to_host(t)).astype(np.float64).ravel()
    counts = np.bincount((np.clip(np.floor(t), -1, 10) + 1).astype(int), minlength=12)
    return {
        "how many below 0, above T-1, between two": np.array([counts[0], counts[11], (t != np.floor(t)).sum()], np.float64),
        "shares of 0..T-1, standard errors off": in_errors(counts[1:11] / t.size, 0.1, t.size),
    }


def normality(z: Any) -> Any:
    """What is known of standard normal numbers (B,C,H,W): moments, a tail, and that none knows of another."""
    z = np.asarray(to_host(z)).astype(np.float64)
    n, flat = z.size, z.ravel()
    return {
        "mean": flat.mean() * n**0.5, "variance": (flat.var() - 1) * (n / 2) ** 0.5,
        "fourth moment": ((flat**4).mean() - 3) * (n / 96) ** 0.5,
        "share beyond 2": in_errors((abs(flat) > 2).mean(), 0.0455002639, n), **strangers(z),
    }  # fmt: skip


def strangers(z: Any) -> dict[str, Any]:
    """Correlations of neighbours along each axis of (B,C,H,W), in standard errors; an axis of two has one pair, counted twice."""
    out, d = {}, (z - z.mean()) / max(float(z.std()), 1e-30)
    for axis, name in enumerate(("samples", "channels", "rows", "columns")):
        n = d.size if d.shape[axis] > 2 else d.size / 2
        if d.shape[axis] > 1:
            out[f"correlation of {name}"] = (d * np.roll(d, 1, axis)).mean() * n**0.5
    return out
