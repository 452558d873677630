"""The kinds of processes that learn from data alone: each a path, the network's answer on it, times and weight of its loss.

    [process] kind = "ddpm"               a ladder of rungs, all equally often; ε, x_0 or v           (D.2, P.12)
    [process] kind = "rectified_flow"     the straight path, a law of times, perhaps shifted; u       (P.9, P.12–P.17)
    [process] kind = "edm"                the exploding path, log-normal noise, EDM's answer          (P.10, P.16, P.23)

A flow may also learn from pairs that a run made (reflow). Kinds that always have a teacher are in teacher_kinds.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from minidit.choices import check_words, one_of
from minidit.diffusion import times
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import EPS, PREDICTIONS, X_0, Prediction, U, V, edm
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.times import TimeLaw
from minidit.models.backbone import Backbone
from minidit.processes.diffusion import Diffusion, drawn
from minidit.processes.pairs import pairs_of
from minidit.processes.reflow import DrawnPairs, Maker, Reflow
from minidit.processes.train import fitted_process, fitted_source
from minidit.runs.process_config import Learner, ProcessConfig, Teacher, Usual
from minidit.runs.words import SCHEDULES, SOLVERS, WEIGHTS
from minidit.training.process import Process
from minidit.training.source import Source

MOST_RUNGS = 10**6  # of a ladder: its tables are made before anything else is known


@dataclass(frozen=True)
class DDPMConfig(ProcessConfig):
    """Denoising diffusion on a ladder of T rungs. The defaults are the paper's: ε is predicted, the ladder is linear."""

    prediction: str = one_of("eps", PREDICTIONS)  # what the network predicts
    schedule: str = one_of("linear", SCHEDULES)  # how noise grows over the rungs
    T: int = 1000  # rungs of the ladder of noise
    loss_weight: str = one_of("uniform", WEIGHTS)  # how much a level of noise counts
    vb_weight: float = 1e-3  # λ of the hybrid loss, where the model has learn_sigma

    def __post_init__(self) -> None:
        check_words(self)
        if self.T < 1 or self.T > MOST_RUNGS:
            raise ValueError(f"T = {self.T} must be at least 1 and at most {MOST_RUNGS}")
        self.path()  # an impossible ladder is refused now, not after the tokenizer has been trained

    def path(self) -> Schedule:
        """The ladder."""
        return SCHEDULES[self.schedule](self.T)

    def answer(self) -> Prediction:
        """The network's answer, its output F."""
        return PREDICTIONS[self.prediction]

    def diffusion(self) -> Diffusion:
        return Diffusion.on_ladder(self.path(), self.answer(), WEIGHTS[self.loss_weight])

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        return fitted_process(network, self.diffusion(), source, self.vb_weight)


@dataclass(frozen=True)
class Betas(DDPMConfig):
    """The same on a ladder that another project's file gives as one β per rung."""

    betas: tuple[float, ...] = ()

    def path(self) -> Schedule:
        return Schedule.from_betas(np.asarray(self.betas, np.float64))


STRAIGHT_ANSWERS = {p.name: p for p in (U, X_0, V, EPS)}


@dataclass(frozen=True)
class RectifiedFlowConfig(ProcessConfig):
    """Rectified flow: the straight path, the velocity u, and every time equally often."""

    prediction: str = one_of("u", ("u", "x_0", "v"))  # what the network predicts
    times: str = one_of("uniform", ("uniform", "logit_normal", "mode", "cosmap"))  # how often a time is trained
    times_mean: float = 0.0  # of logit_normal: above 0 more of them are noisy
    times_std: float = 1.0  # of logit_normal: how widely they are spread
    times_scale: float = 1.29  # of mode: above 0 more of them are in the middle
    times_uniform: float = 0.0  # the part of the times that is uniform, whatever the law of the others
    shift: float = 1.0  # of the times, in training and in the grid: above 1 more of them are noisy
    loss_weight: str = one_of("uniform", WEIGHTS)  # how much a level of noise counts
    pairs: str = ""  # a finished run: reflow, on pairs of noise and samples that it makes
    pairs_n: int = 4000  # pairs that are made and kept; 0: new ones for every update
    pairs_steps: int = 16  # of the walk that makes a pair
    pairs_solver: str = one_of("ab2", SOLVERS)  # of that walk
    pairs_guidance: float | None = None  # of that walk; None: as the run draws its samples
    pairs_noise: float = 0.25  # the part of a batch at t = 1, from which samples of one step are drawn
    pairs_seed: int = 0  # of the noise of the pairs

    def __post_init__(self) -> None:
        STRAIGHT_ANSWERS.get(self.prediction, U).reading(Straight().level(1.0))  # ε says nothing of x_0 at t = 1
        check_words(self)
        for name in ("times_std", "shift"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be above 0")
        if not 0 <= self.times_uniform < 1:
            raise ValueError(f"times_uniform = {self.times_uniform} must be at least 0 and below 1")
        if self.pairs_n < 0 or self.pairs_steps < 1 or not 0 <= self.pairs_noise <= 1:
            raise ValueError(f"pairs_n = {self.pairs_n}, pairs_steps = {self.pairs_steps} or pairs_noise = {self.pairs_noise} "
                             "is out of range")  # fmt: skip
        self.laws()[self.times]()  # an impossible law is refused now

    def laws(self) -> dict[str, Callable[[], TimeLaw]]:
        """The laws of times by their words."""
        return {
            "uniform": lambda: times.uniform,
            "logit_normal": lambda: times.logit_normal(self.times_mean, self.times_std),
            "mode": lambda: times.mode(self.times_scale),
            "cosmap": lambda: times.cosmap,
        }

    def diffusion(self) -> Diffusion:
        law, answer = self.laws()[self.times](), STRAIGHT_ANSWERS[self.prediction]
        law = times.partly_uniform(law, self.times_uniform) if self.times_uniform else law
        law = law if self.shift == 1 else times.shifted_law(law, self.shift)
        return Diffusion(Straight(shift=self.shift), answer, drawn(law), WEIGHTS[self.loss_weight])

    def teacher(self) -> str:
        return self.pairs

    @property
    def guided(self) -> bool:
        return not self.pairs

    def source(self, source: Source, learner: Learner) -> Source:
        network, teacher = learner.network, learner.teacher
        plain = fitted_source(network, source)
        if teacher is None:
            return plain
        if (teacher.model.shape, teacher.model.condition.count) != (network.shape, network.condition.count):
            raise ValueError(f"{self.pairs}: its model makes {teacher.model.shape} of {teacher.model.condition.count} classes, "
                             f"this one {network.shape} of {network.condition.count}")  # fmt: skip
        how = teacher.settings(steps=self.pairs_steps, solver=self.pairs_solver, guidance=self.pairs_guidance, sampler="ddim")
        maker = Maker(teacher.model, teacher.process, how)
        labelled = source if network.condition.count else plain  # no label is left out: guidance is in the pairs
        if self.pairs_n == 0:
            return DrawnPairs(labelled, maker)
        first, n = (self.pairs_n, -(-self.pairs_n // 10)) if learner.held_out else (0, self.pairs_n)
        return pairs_of(maker, labelled, n, first=first, seed=self.pairs_seed, cache=learner.cache)

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        if not self.pairs:
            return fitted_process(network, self.diffusion(), source)
        return Reflow(self.diffusion(), self.pairs_noise)


EDM_SPREAD = 0.5  # of the data for which the paper chose its noise


@dataclass(frozen=True)
class EDMConfig(ProcessConfig):
    """EDM: the exploding path with its preconditioning. The defaults are the paper's, for data of standard deviation 0.5.

    Data of another σ_d get all noise times σ_d/0.5, so that the signal-to-noise ratios are those of the paper.
    """

    usual: ClassVar[Usual] = Usual(18, "ddim", "heun_edm")

    sigma_data: float | None = None  # standard deviation of the data; None: measured
    times_mean: float = -1.2  # of the logarithm of the noise that is trained
    times_std: float = 1.2  # how widely it is spread
    sigma_min: float = 0.002  # the least noise of the grid that is walked
    sigma_max: float = 80.0  # the most noise, where a walk begins

    def __post_init__(self) -> None:
        for name in ("sigma_data", "times_std", "sigma_min"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be above 0")
        if not self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"sigma_max = {self.sigma_max} must be above sigma_min = {self.sigma_min}")

    def fitted(self, spread: Callable[[], float]) -> Self:
        return self if self.sigma_data is not None else replace(self, sigma_data=float(f"{spread():.3g}"))

    def diffusion(self) -> Diffusion:
        d = EDM_SPREAD if self.sigma_data is None else self.sigma_data
        unit = d / EDM_SPREAD
        path = Exploding(d, self.sigma_min * unit, self.sigma_max * unit)
        return Diffusion(path, edm(d), drawn(times.lognormal(self.times_mean + math.log(unit), self.times_std)))

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        return fitted_process(network, self.diffusion(), source)
