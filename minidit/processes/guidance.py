"""Guidance distillation (Meng et al. 2023): a student learns to answer in one call what its teacher answers in two.

    loss_b = mean (F(x_t, t, y, w) - F_w)² / (1 + mean F_w²)         F_w = F_∅ + w (F_c - F_∅)                         (G.9)

F_c and F_∅ are the teacher's answers with and without the condition (G.1). x_0 are data, t as in the teacher's training,
w ~ U(low, high), one per sample. The student begins as a copy of the teacher. A part of the samples has w = 1, where the student
is its own conditional network (T.28): no other w shows whether that still answers as the teacher does. Answers grow with w, and
errors with them: without the denominator a few samples of large w would lead every update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minidit.autograd import Tensor, no_grad
from minidit.backend import Array, xp_of
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import mix
from minidit.diffusion.loss import per_sample
from minidit.diffusion.path import Path
from minidit.diffusion.prediction import Prediction
from minidit.models.backbone import Backbone
from minidit.models.guided import GuidedDiT
from minidit.processes.denoise import Denoiser
from minidit.processes.diffusion import Times
from minidit.training.draws import Draws


@dataclass(frozen=True)
class GuidanceDistillation:
    """The loss of a student on data. teacher : a network of this path and answer; low, high : the scales that are learned.

    plain : the part of the samples with w = 1
    """

    path: Path
    answer: Prediction
    times: Times
    teacher: Backbone | None = None
    low: float = 1.0
    high: float = 6.0
    plain: float = 0.125

    stream: ClassVar[int] = 0x677569
    per: ClassVar[int] = 8

    def target(self, x_t: Array, t: Array, y: Array, w: Array) -> Array:
        """The teacher's guided answer, w : (B,)."""
        assert self.teacher is not None  # what is trained has a teacher
        teacher = Denoiser(self.teacher, self.path, self.answer)
        F, F_u, _ = teacher(x_t, t, teacher.labels(y))
        return guide(F_u, F, w)

    def loss(self, network: GuidedDiT, x_0: Array, y: Array, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        t, u, kind = self.times(draws), draws.uniform(dtype=np.float64), draws.uniform(dtype=np.float64)
        w = xp_of(u).where(kind < self.plain, 1.0, self.low + (self.high - self.low) * u)
        x_t = mix(x_0, draws.normal(x_0.shape), self.path.level(t))
        with no_grad():
            aim = self.target(x_t, t, y, w)
        size = 1 + (aim**2).mean(axis=tuple(range(1, aim.ndim)))
        error: Tensor = per_sample(network(*self.path.inputs(x_t, t), y, w=w), aim, 1 / size)  # (G.9)
        return error, {}
