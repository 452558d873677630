"""Reflow: a flow is trained on pairs that another one made, instead of on independent noise; its trajectories become straight.

    z ~ N(0, 1),  x_0 = the end of a walk from z           a pair; no fresh noise on the way                     (F.5)
    x_t = (1-t) x_0 + t z,   target z - x_0                the loss of a flow with this noise                    (F.5, P.2)
    t = 1 for a part of every batch                        samples of one step are drawn from there

A source of pairs shows x_0 and z of a sample as one array of twice the channels. Pairs are made before and kept (pairs.py), or
anew for every update by `DrawnPairs`: no pair is seen twice, at the price of a walk per update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minidit.autograd import Tensor, no_grad
from minidit.backend import Array, xp_of
from minidit.models.backbone import Backbone, TrainedBackbone
from minidit.processes.diffusion import Diffusion
from minidit.processes.sample import Sampling, Trained
from minidit.processes.sample import sample as draw_samples
from minidit.processes.walk import Walk
from minidit.training.draws import Draws
from minidit.training.source import Batch, Changed

NOISE = 3  # the number of the draw of a pair's noise, where pairs are made for every update


@dataclass(frozen=True)
class Reflow:
    """The loss of a diffusion on pairs.   at_noise : the part of a batch whose time is the noisy end of the path"""

    process: Diffusion
    at_noise: float = 0.25

    stream: ClassVar[int] = Diffusion.stream
    per: ClassVar[int] = Diffusion.per

    def loss(self, network: Backbone, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        """x_0 : (B, 2C, ...), the pictures and the noise of pairs."""
        x_0, z = parted(x_0)
        path, t = self.process.path, self.process.times(draws)
        t = xp_of(t).where(draws.uniform(dtype=np.float64) < self.at_noise, path.part(1.0), t)
        x_t, level = self.process.noised(x_0, z, t)
        return self.process.error(network(*path.inputs(x_t, t), y), x_0, z, t, level), {}


def parted(both: Array) -> tuple[Array, Array]:
    """(B, 2C, ...)  ->  the pictures and the noise, (B, C, ...) each."""
    C = both.shape[1] // 2
    return xp_of(both).ascontiguousarray(both[:, :C]), xp_of(both).ascontiguousarray(both[:, C:])


@dataclass(frozen=True)
class Maker:
    """A trained network that makes pairs, and how: steps, solver, guidance. Raises ValueError for settings with fresh noise."""

    network: TrainedBackbone
    process: Trained
    settings: Sampling

    def __post_init__(self) -> None:
        if self.settings.fresh.noisy:
            raise ValueError("pairs are the two ends of a trajectory: choose a sampler without fresh noise, ddim with η = 0")

    def ends(self, z: Array, y: Array | None, *, alone: bool = False) -> Array:
        """z : (B, ...) ~ N(0, 1), y : (B,) or None  ->  x_0 : (B, ...), the ends of the trajectories.

        alone : whether this rank draws them, while the others do something else
        """
        x_T = self.process.path.start(z)
        return draw_samples(self.network, self.process, y, self.settings, n=len(z), x_T=x_T, alone=alone)  # (F.5)

    def walk(self, draws: Draws, y: Array | None) -> Walk:
        """The walk of one batch."""
        path, s = self.process.path, self.settings
        return Walk(s.denoiser(self.network, path, self.process.answer), s.times(path), s.fresh, draws, y, s.solver)


@dataclass
class StoredPairs:
    """x_0, z : (N, C, ...), arrays in memory or on disk; labels : (N,) or None."""

    x_0: Any
    z: Any
    labels: Array | None = None
    levels: None = None

    def __len__(self) -> int:
        return len(self.x_0)

    def draw(self, index: Array, draws: Draws) -> Batch:
        both = [draws.rows(a, index) for a in (self.x_0, self.z)]
        return xp_of(both[0]).concatenate(both, axis=1), None if self.labels is None else self.labels[index]


@dataclass
class DrawnPairs(Changed):
    """Pairs that are made for every update, with the labels of a source."""

    maker: Maker

    def __post_init__(self) -> None:
        self.walk: Walk | None = None

    @property
    def levels(self) -> None:
        return None

    def draw(self, index: Array, draws: Draws) -> Batch:
        y = None if self.source.labels is None else self.source.labels[index]
        z = draws.normal((len(index), *self.maker.network.shape), number=NOISE)
        self.walk = walk = self.maker.walk(draws, y) if self.walk is None else self.walk.of_batch(draws, y)
        with no_grad():
            *_, x_0 = walk.moments(self.maker.process.path.start(z))  # (F.5)
        return xp_of(z).concatenate([x_0, z], axis=1), y


class Blocks:
    """Arrays of equal rows, read as one. Only the rows that are asked for are read from the disk."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: Array) -> np.ndarray[Any, Any]:
        """index : (B,) ints  ->  (B, ...)."""
        rows = np.asarray(index)
        block = np.searchsorted(self.starts, rows, side="right") - 1
        return np.stack([self.parts[b][k] for b, k in zip(block, rows - self.starts[block], strict=True)])
