"""Which query may see which key: masks of attention, added to the logits.

    mask_nm = 0 where token n may see token m, else -∞                                                       (N.13)

    causal        m ≤ n                                   one token after another (raster order)
    by level      level_m ≤ level_n                       one scale after another; within a scale everybody sees everybody
    same frame    ⌊m/S⌋ = ⌊n/S⌋                           tokens run frame by frame, S places each: attention in space
    same site     m mod S = n mod S                       attention in time
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from minidit.backend import read_only

Mask = NDArray[np.float32]


def where(seen: NDArray[np.bool_]) -> Mask:
    """The mask of a table (N, M) that says whether query n may see key m; read-only, so that a device keeps one copy."""
    return read_only(np.where(seen, 0.0, -np.inf).astype(np.float32))  # (N.13)


def causal(tokens: int) -> Mask:
    """Every token sees itself and those before it."""
    return by_level(range(tokens))


def by_level(levels: Sequence[int]) -> Mask:
    """Every token sees those of its own level and of the lower ones. levels : one number per token."""
    level = np.asarray(levels)
    return where(level[None, :] <= level[:, None])


def same_frame(frames: int, sites: int) -> Mask:
    """Every token of a clip sees those of its own frame."""
    frame = np.arange(frames * sites) // sites
    return where(frame[None, :] == frame[:, None])


def same_site(frames: int, sites: int) -> Mask:
    """Every token of a clip sees those at its own place, in every frame."""
    site = np.arange(frames * sites) % sites
    return where(site[None, :] == site[:, None])
