"""A path leads from data to noise: at every time it gives the level (α, σ) and the inputs of the network.

    path.level(t) = (α_t, σ_t)        SNR falls with t        the ladder of rungs (schedule.py) is one path        (P.1)
"""

from __future__ import annotations

from typing import Protocol

from minidit.backend import Array
from minidit.diffusion.level import Level


class Path(Protocol):
    """From data to noise. Times are in the path's own unit: rungs 1..T on the ladder, floats on a continuous path."""

    def level(self, t: Array) -> Level:
        """t : one time, or (B,) one time per sample  ->  the level there, floats or (B,) float64."""

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        """The network's inputs for x_t : (B, ...) at time t: a sample of about unit variance, and (B,) times in its unit."""

    def start(self, z: Array) -> Array:
        """The sample at the noisy end, from z ~ N(0, 1)."""
