"""Regression on a teacher's trajectories: a student learns to go in one, two or four steps where the teacher went in many.

    x_T → … → x_0                              a walk of the teacher, guidance included: its trajectory, kept at K+1 times
    F* = (x_s - A x_t)/B                       the answer whose one step ends at the teacher's x_s                       (S.10)
    loss_b = d(F(x_t, t, s), F*)               d = √(‖·‖² + c²) - c                                                      (S.3)
    (t, s): a step of a grid of N equal steps, N = 1, 2, 4, …, each N with its share of the batch

With N = 1 this is the regression on pairs (z, x_0) that distilled the first diffusion models. The data are not needed: a
trajectory starts from noise. The student begins as a copy of the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from minidit.autograd import Tensor
from minidit.backend import Array, read_only, resident, to_device, to_host, xp_of
from minidit.diffusion import consistency, flow_map
from minidit.diffusion.path import Path
from minidit.diffusion.prediction import Prediction
from minidit.diffusion.schedule import Schedule
from minidit.models.backbone import Backbone
from minidit.models.flow_map import FlowMapDiT, OfSpan
from minidit.processes.sample import Sampling, Trained, sample
from minidit.processes.walk import Progress
from minidit.training.draws import Draws

SPAN = 1000.0  # of the whole path
STREAM = 0x646973
CHUNK = 250  # trajectories that are walked together


def check_equal_steps(path: Path, steps: int) -> None:
    """Raises ValueError unless the path has a grid of equal steps, up to the rounding of rungs: a span is a step's length."""
    spans = [t - s for t, s in path.grid(steps)]
    if max(spans) - min(spans) > (1 if isinstance(path, Schedule) else 1e-9):
        raise ValueError(f"a flow map needs a ladder or an unshifted straight path, whose grids have equal steps; got {path}")


def in_steps(network: Backbone, steps: int) -> Backbone:
    """A network as it is walked in N equal steps: a flow map is told their span."""
    return OfSpan(network, SPAN / steps) if isinstance(network, FlowMapDiT) else network


@dataclass
class Trajectories:
    """A source: x : (n, K+1, C, H, W) on the host or on the disk, from noise to data, and labels (n,) or None."""

    x: Any
    labels: Array | None
    levels: None = None

    def __len__(self) -> int:
        return len(self.x)

    def draw(self, index: Array, draws: Draws) -> tuple[Array, Array | None]:
        return draws.rows(self.x, index), None if self.labels is None else self.labels[index]


def trajectories(
    network: Backbone,
    process: Trained,
    labels: Array | None,
    settings: Sampling,
    *,
    n: int,
    keep: int = 1,
    first: int = 0,
    progress: Progress | None = None,
) -> Trajectories:
    """n of the teacher's walks, from number `first`, of which `keep` equal pieces are kept: keep + 1 points of every trajectory.

    Raises ValueError unless keep divides the number of steps, and for settings with fresh noise.
    """
    steps = len(settings.times(process.path))
    if steps % keep:
        raise ValueError(f"{steps} steps of the teacher cannot be kept at {keep} equal pieces")
    if settings.fresh.noisy:
        raise ValueError("a trajectory has no fresh noise: η must be 0")
    kept = np.empty((n, keep + 1, *network.shape), network.dtype)
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        indices = to_device(first + np.arange(part.start, part.stop), network.device)
        z = Draws(settings.seed, STREAM, indices, network.device, network.dtype).normal((len(indices), *network.shape))
        y = None if labels is None else labels[part]
        walk = sample(network, process, y, settings, x_T=process.path.start(z), trace=True)
        for k, moment in enumerate(walk):
            if k % (steps // keep) == 0:
                kept[part, k * keep // steps] = to_host(moment if k == steps else moment.x_t)
        if progress is not None:
            progress(part.stop, n)
    return Trajectories(kept, labels)


@dataclass(frozen=True)
class Distillation:
    """The loss of a student on `Trajectories`.

    path, answer : of the student, and of the grid on which the teacher was kept   keep : K, the pieces of a trajectory
    shares : number of steps -> the share of the batch that learns it; each number divides K   c : of the pseudo-Huber
    """

    path: Path
    answer: Prediction
    keep: int = 4
    shares: Mapping[int, float] = field(default_factory=lambda: {1: 0.5, 2: 0.25, 4: 0.25})
    c: float = 0.5

    stream: ClassVar[int] = STREAM
    per: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if bad := [n for n in self.shares if self.keep % n]:
            raise ValueError(f"a grid of {bad[0]} steps does not fit a trajectory that is kept in {self.keep} pieces")
        if not self.shares or min(self.shares.values()) <= 0 or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise ValueError(f"the shares of a batch are positive and add up to 1; got {dict(self.shares)}")
        check_equal_steps(self.path, self.keep)

    @cached_property
    def rows(self) -> Array:
        """One row per step of all grids: the share of the batch, places of t and s in the trajectory, span, time of t, A, B."""
        times = [t for t, _ in self.path.grid(self.keep)] + [self.path.part(0.0)]
        table = []
        for n, share in self.shares.items():
            for i in range(0, self.keep, self.keep // n):
                j = i + self.keep // n
                a, b = flow_map.jump(self.answer, self.path.level(times[i]), self.path.level(times[j]))
                table.append((share / n, i, j, SPAN / n, times[i], a, b))
        return read_only(np.array(table, np.float64))

    def loss(self, network: FlowMapDiT, x: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        """x : (B, K+1, ...), trajectories; their noise stands first."""
        u = draws.uniform(dtype=np.float64)
        xp, places = xp_of(u), xp_of(u).arange(len(u))
        row = xp.searchsorted(resident(self.edges, u), u, side="right")
        _, i, j, span, t, a, b = resident(self.rows, u)[row].T
        x_t, x_s = x[places, i.astype("int64")], x[places, j.astype("int64")]
        t = t.astype("int64") if isinstance(self.path, Schedule) else t
        x_in, time = self.path.inputs(x_t, t)
        F = network(x_in, time, y, span)
        error = consistency.pseudo_huber(F, flow_map.answer_to(x_s, x_t, (a, b)), self.c)
        return error, {f"in_{n}": error.data * (span == SPAN / n) / share for n, share in self.shares.items()}

    @cached_property
    def edges(self) -> Array:
        """Where a uniform number passes from one row to the next."""
        return read_only(np.cumsum(self.rows[:, 0])[:-1])
