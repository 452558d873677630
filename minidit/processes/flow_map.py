"""Distilling a flow map without walking the teacher: the mean velocity is its own target, by differences of two answers.

    u(x_t, t, s) = v - (t-s) du/dt                           v : the teacher's velocity, guidance included               (S.11)
    du/dt = (u(x+δv, t+δ, s) - u(x-δv, t-δ, s))/2δ           two answers of the student, without gradient               (S.12)
    loss_b = d/(d' + c)                                      d : squared error, d' the same without gradient

MeanFlow takes the derivative along the trajectory by forward-mode differentiation; a difference of two answers needs none.
On the straight path, where u is the answer itself. x_0 are data. Half of the samples have s = t: there u = v is learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minidit import ops
from minidit.autograd import Tensor, no_grad, value
from minidit.backend import Array, xp_of
from minidit.diffusion.flow_map import bracket, difference, mean_velocity
from minidit.diffusion.level import enter, mix
from minidit.diffusion.path import Straight
from minidit.diffusion.prediction import Prediction, U
from minidit.models.flow_map import FlowMapDiT
from minidit.processes.consistency import teacher_answer
from minidit.processes.denoise import Denoiser
from minidit.processes.distil import SPAN
from minidit.training.draws import Draws


@dataclass(frozen=True)
class MeanVelocity:
    """The loss of a flow map on data.

    teacher : on the straight path   delta : δ of the difference   equal, top, whole : parts of the batch with s = t, t = 1, s = 0
    c : of the loss, which is between squares (far below c) and their logarithm
    """

    teacher: Denoiser
    delta: float = 0.01
    equal: float = 0.5
    top: float = 0.2
    whole: float = 0.3
    c: float = 0.01

    path: ClassVar[Straight] = Straight()
    answer: ClassVar[Prediction] = U
    stream: ClassVar[int] = 0x6D7666
    per: ClassVar[int] = 8

    def __post_init__(self) -> None:
        if not isinstance(self.teacher.path, Straight):
            raise ValueError("the teacher of a mean velocity is a network of the straight path: another one gives trajectories")

    def times(self, draws: Draws) -> tuple[Array, Array]:
        """(t, s) : (B,) each, 0 ≤ s ≤ t ≤ 1."""
        t, lower, kind, high = (draws.uniform(dtype=np.float64) for _ in range(4))
        xp = xp_of(t)
        t = xp.where(high < self.top, 1.0, t)
        s = xp.where(kind < self.equal + self.whole, 0.0, t * lower)
        return t, xp.where(kind < self.equal, t, s)

    def mean(self, network: FlowMapDiT, x: Array, t: Array, s: Array, y: Array | None) -> Tensor:
        """u(x, t, s) : (B, ...), the student's."""
        x_in, time = self.path.inputs(x, t)
        u: Tensor = network(x_in, time, y, SPAN * (t - s))
        return u

    def target(self, network: FlowMapDiT, x_t: Array, t: Array, s: Array, y: Array | None) -> Array:
        """(S.11) with the network's own answers on the right side."""
        v = U.target(*teacher_answer(self.teacher, x_t, t, y), self.path.level(t))
        low, high = bracket(t, self.delta)
        below, above = (
            value(self.mean(network, x_t + enter(at - t, like=x_t) * v, at, xp_of(t).minimum(s, at), y)) for at in (low, high)
        )
        return mean_velocity(v, difference(above, below, high - low), t, s)

    def loss(self, network: FlowMapDiT, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        t, s = self.times(draws)
        x_t = mix(x_0, draws.normal(x_0.shape), self.path.level(t))
        with no_grad():
            aim = self.target(network, x_t, t, s, y)
        error: Tensor = ops.mse(self.mean(network, x_t, t, s, y), aim)
        return error * (1 / (error.data + self.c)), {"mse": error.data}
