"""A network as a denoiser: inputs from its path, guidance from its condition, and its output F, the answer.

    F, F_∅ = network([x_t; x_t], t, [y; null])         both halves in one batch, where w ≠ 1                    (G.1)
    (x̂_0, ε̂) from F + limits                           (P.3), (D.31): in the step itself, diffusion/row.py
    w(t) = w if low < t ≤ high else 1                   outside the interval half the work is saved              (G.4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from minidit.autograd import value
from minidit.backend import Array, xp_of
from minidit.diffusion.guidance import interval
from minidit.diffusion.path import Path
from minidit.diffusion.prediction import EPS, Prediction
from minidit.diffusion.threshold import Limit
from minidit.models.backbone import Backbone


class Answer(NamedTuple):
    """A network's outputs for a batch: F, F without condition (None: unguided), and the half for the variance (or None)."""

    F: Array
    F_u: Array | None
    v: Array | None


@dataclass(frozen=True)
class Denoiser:
    """A backbone, the path it was trained on, its answer, and the limit that keeps x̂_0 in the range of pictures (or None).

    guidance : the scale w in the part low < t ≤ high of the path, 1 outside.
    """

    network: Backbone
    path: Path
    answer: Prediction = EPS
    limit: Limit | None = None
    guidance: float = 1.0
    low: float = 0
    high: float | None = None

    def scale(self, t: float) -> float:
        """w at time t."""
        return float(interval(self.guidance, t, self.low, t if self.high is None else self.high))

    def labels(self, y: Array) -> Array:
        """y : (B, ...)  ->  [y; null] : (2B, ...), for guidance."""
        return xp_of(y).concatenate((y, self.network.null(y)))

    def __call__(self, x_t: Array, t: Array, y: Array | None) -> Answer:
        """x_t : (B, ...), t : a time, or (1,) on the device, or (B,), one per sample  ->  the network's answer.

        y : (B, ...) or None, or (2B, ...) from `labels`: then the network is evaluated without the condition as well
        """
        n, channels, xp = len(x_t), x_t.shape[1], xp_of(x_t)
        guided = y is not None and len(y) == 2 * n
        both = xp.concatenate((x_t, x_t)) if guided else x_t
        if not isinstance(t, (int, float)):
            t = xp.concatenate((t, t)) if guided and t.shape == (n,) else xp.broadcast_to(t, (len(both),))
        out = value(self.network(*self.path.inputs(both, t), y))
        v = out[:n, channels:] if self.network.second_half else None  # of the conditional half
        return Answer(out[:n, :channels], out[n:, :channels] if guided else None, v)
