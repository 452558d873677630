"""The kinds of processes that learn from a trained run: few steps (consistency also without a run), or its guidance.

    [process] kind = "trajectories"     a flow map is led along the walks of a teacher on a ladder          (S.9, S.10)
    [process] kind = "mean_velocity"    a flow map of a teacher on the straight path, on data               (S.11, S.12)
    [process] kind = "consistency"      with a teacher its own path, one step each; without one iCT         (S.13–S.16)
    [process] kind = "guidance"         one call that answers what guidance takes two for, at any scale     (G.9, T.28)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from minidit.backend import to_device
from minidit.choices import check_words, one_of
from minidit.diffusion import times
from minidit.diffusion.path import Path, Straight
from minidit.diffusion.prediction import PREDICTIONS, Prediction, U, V
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2_ARC
from minidit.models.backbone import Backbone
from minidit.models.dit import DiT, DiTConfig
from minidit.models.flow_map import FlowMapDiT
from minidit.models.guided import GuidedDiT
from minidit.processes.consistency import Consistency, fixed, near_squares, top_first
from minidit.processes.denoise import Denoiser
from minidit.processes.diffusion import Diffusion, Rungs, drawn
from minidit.processes.distil import Distillation
from minidit.processes.flow_map import MeanVelocity
from minidit.processes.guidance import GuidanceDistillation
from minidit.processes.pairs import trajectories_of
from minidit.processes.reflow import Maker
from minidit.processes.sample import Sampling, Trained
from minidit.processes.train import fitted_source
from minidit.runs.process_config import Learner, ProcessConfig, Teacher, Usual
from minidit.runs.process_kinds import DDPMConfig
from minidit.runs.words import SCHEDULES
from minidit.training.process import Process
from minidit.training.source import LabelDropout, Source


def required(teacher: Teacher | None, kind: str) -> Teacher:
    """The teacher. Raises ValueError if none is named."""
    if teacher is None:
        raise ValueError(f"--process {kind} learns from a trained run: name it with --teacher RUN")
    return teacher


def alike(theirs: Trained, own: Trained) -> bool:
    """Whether two processes have one path and one answer."""
    same_path = type(theirs.path) is type(own.path) and theirs.path.grid(8) == own.path.grid(8)
    return same_path and theirs.answer is own.answer


def begun_as(network: DiT, teacher: DiT, kind: str, *free: str) -> None:
    """Gives a student its teacher's weights. Raises ValueError, with what to set, unless all sizes but the `free` are equal."""
    theirs, own = ({f.name: getattr(c, f.name) for f in fields(DiTConfig)} for c in (teacher.config, network.config))
    if teacher.config.learn_sigma:
        raise ValueError(f"--process {kind}: its teacher learns the variance, a student does not: it needs learn_sigma = False")
    if differing := [f"{name} = {value}" for name, value in theirs.items() if value != own[name] and name not in free]:
        needs = ", ".join(differing)
        raise ValueError(f"the student of --process {kind} begins as a copy of its teacher: it needs {needs}")
    network.load_state_dict(network.state_dict() | teacher.state_dict())


def flow_map_of(network: Backbone, teacher: Teacher, kind: str) -> None:
    """Gives a flow map its teacher's weights. Raises ValueError if it is none, or none of the same sizes."""
    if not isinstance(network, FlowMapDiT) or not isinstance(teacher.model, DiT):
        raise ValueError(f"--process {kind} trains a network that is told two times: add --model flow_map")
    begun_as(network, teacher.model, kind, "class_dropout_prob")


@dataclass(frozen=True)
class StudentConfig(ProcessConfig):
    """What these kinds have in common: the run that is learned from, and data with all their labels: no class is left out."""

    learn_from: str = ""  # the finished run that is learned from

    def teacher(self) -> str:
        return self.learn_from

    def source(self, source: Source, learner: Learner) -> Source:
        data = fitted_source(learner.network, source)
        return data.source if isinstance(data, LabelDropout) else data


@dataclass(frozen=True)
class TrajectoriesConfig(StudentConfig):
    """Regression on the trajectories of a teacher. Prediction and ladder are those of the teacher."""

    usual: ClassVar[Usual] = Usual(4, few=True)
    compared: ClassVar[bool] = False

    prediction: str = one_of("v", PREDICTIONS)  # what the teacher predicts
    schedule: str = one_of("cosine", SCHEDULES)  # of the teacher
    T: int = 1000  # rungs of the teacher's ladder
    pool: int = 8000  # trajectories of the teacher that are made and kept
    teacher_steps: int = 8  # of a trajectory, by Adams–Bashforth: a multiple of 4
    single: float = 0.6  # share of a batch that learns the single step; the rest learns two and four

    def __post_init__(self) -> None:
        check_words(self)
        self.diffusion()
        if self.pool < 1 or self.teacher_steps < 4 or self.teacher_steps % 4 or not 0 < self.single < 1:
            raise ValueError(f"pool = {self.pool} must be at least 1, teacher_steps = {self.teacher_steps} a multiple of 4, "
                             f"single = {self.single} between 0 and 1")  # fmt: skip

    def diffusion(self) -> Diffusion:
        """That of the teacher."""
        return DDPMConfig(self.prediction, self.schedule, self.T).diffusion()

    def source(self, source: Source, learner: Learner) -> Source:
        """The teacher's walks, guided as its samples are: the classes in turn."""
        run, own = required(learner.teacher, "trajectories"), self.diffusion()
        theirs = run.process
        if not alike(theirs, own):
            raise ValueError(f"{self.learn_from}: is on another ladder, or predicts {theirs.answer.name}: give the same here")
        flow_map_of(learner.network, run, "trajectories")  # refused before the walks
        classes = run.model.condition.count
        settings = Sampling(self.teacher_steps, solver=AB2_ARC, guidance=run.guidance if classes else 1.0, interval=run.interval)
        labels = to_device(np.arange(self.pool) % classes, run.model.device) if classes else None
        return trajectories_of(Maker(run.model, run.process, settings), labels, self.pool, 4, learner.cache)

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        own = self.diffusion()
        flow_map_of(network, required(teacher, "trajectories"), "trajectories")
        rest = (1 - self.single) / 2
        return Distillation(own.path, own.answer, keep=4, shares={1: self.single, 2: rest, 4: rest})


@dataclass(frozen=True)
class MeanVelocityConfig(StudentConfig):
    """A flow map by the mean velocity of a rectified flow. Classes are never left out: the guidance is in the weights."""

    usual: ClassVar[Usual] = Usual(4, few=True)

    delta: float = 0.01  # half the distance of the central difference in time

    def diffusion(self) -> Trained:
        return Diffusion(Straight(), U, drawn(times.uniform))

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        run = required(teacher, "mean_velocity")
        process = MeanVelocity(denoiser_of(run), self.delta)
        flow_map_of(network, run, "mean_velocity")
        return process


COORDINATES: dict[str, Callable[[], tuple[Path, Prediction]]] = {  # of a consistency model that is distilled
    "vp": lambda: (Schedule.cosine(), V), "straight": lambda: (Straight(), U),
}  # fmt: skip


@dataclass(frozen=True)
class ConsistencyConfig(StudentConfig):
    """A consistency model: distilled on the path of its teacher, or trained without one (iCT) on the exploding path."""

    usual: ClassVar[Usual] = Usual(2, "consistency", few=True)
    compared: ClassVar[bool] = False  # the loss depends on the grid

    learn_from: str = ""  # the finished run that is learned from; none: training without a teacher (iCT)
    coordinates: str = one_of("vp", ("vp", "straight"))  # of the teacher: vp (the cosine ladder, v) or straight (u)
    levels: int = 17  # times of the grid, with a teacher
    top: float = 0.15  # part of a batch at its noisy end
    updates: int = 1000  # over which the grid of iCT grows
    first_levels: int = 10  # times of the grid of iCT at the beginning
    last_levels: int = 160  # and at the end
    sigma_max: float = 20.0  # the most noise of iCT, over that of the data; 80 in the paper
    times_mean: float = 1.0  # of ln t in iCT, for data of standard deviation 0.5; -1.1 in the paper
    times_std: float = 2.0  # how widely it is spread

    def __post_init__(self) -> None:
        check_words(self)
        if self.levels < 2 or not 0 <= self.top < 1:
            raise ValueError(f"levels = {self.levels} must be at least 2, top = {self.top} from 0 to 1")
        if not 1 <= self.first_levels <= self.last_levels or self.updates < 1:
            raise ValueError(f"first_levels = {self.first_levels} must be from 1 to last_levels = {self.last_levels}, "
                             f"updates = {self.updates} at least 1")  # fmt: skip
        if not self.sigma_max > 0.002 or not self.times_std > 0:
            raise ValueError(f"sigma_max = {self.sigma_max} must be above 0.002, times_std = {self.times_std} above 0")

    def diffusion(self) -> Consistency:
        """The process without its teacher, whose path and answer it has."""
        if not self.learn_from:
            return Consistency.improved(
                self.updates, self.first_levels, self.last_levels, high=self.sigma_max, mean=self.times_mean, std=self.times_std
            )
        path, answer = COORDINATES[self.coordinates]()
        rising = [path.part(0.0), *(t for t, _ in reversed(path.grid(self.levels - 1)))]
        return Consistency(path, answer, fixed(np.array(rising)), top_first(self.top), near_squares)

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        own = self.diffusion()
        if teacher is None:
            return own
        theirs = teacher.process
        if not alike(theirs, own):
            raise ValueError(f"{self.learn_from}: is not on the path {self.coordinates!r} with the answer {own.answer.name}")
        if isinstance(network, DiT) and isinstance(teacher.model, DiT) and network.config == teacher.model.config:
            network.load_state_dict(teacher.model.state_dict())  # else it begins from random weights
        return replace(own, teacher=denoiser_of(teacher))


@dataclass(frozen=True)
class GuidanceConfig(StudentConfig):
    """A network that answers in one call what its teacher answers in two, for any scale of guidance."""

    coordinates: str = one_of("vp", ("vp", "straight"))  # of the teacher: vp (the cosine ladder, v) or straight (u)
    scale_low: float = 1.0  # the smallest scale of guidance that is learned
    scale_high: float = 6.0  # the largest

    def __post_init__(self) -> None:
        check_words(self)
        if not 0 <= self.scale_low < self.scale_high:
            raise ValueError(f"scale_low = {self.scale_low} must be at least 0 and below scale_high = {self.scale_high}")

    def diffusion(self) -> GuidanceDistillation:
        """The process without its teacher, whose path and answer it has."""
        path, answer = COORDINATES[self.coordinates]()
        law = Rungs(path.T) if isinstance(path, Schedule) else drawn(times.uniform)
        return GuidanceDistillation(path, answer, law, low=self.scale_low, high=self.scale_high)

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        run, own = required(teacher, "guidance"), self.diffusion()
        if not alike(run.process, own):
            raise ValueError(f"{self.learn_from}: is not on the path {self.coordinates!r} with the answer {own.answer.name}")
        model = run.model
        if not isinstance(network, GuidedDiT) or not isinstance(model, DiT) or model.condition.null is None:
            raise ValueError("--process guidance trains a network that knows its guidance, from a DiT that was trained with and "
                             "without classes: add --model guided")  # fmt: skip
        begun_as(network, model, "guidance")
        return replace(own, teacher=model)


def denoiser_of(run: Teacher) -> Denoiser:
    """The teacher, guided as its samples are."""
    path, (low, high) = run.process.path, run.interval
    guided = run.model.condition.null is not None
    return Denoiser(run.model, path, run.process.answer, None, run.guidance if guided else 1.0, path.part(low), path.part(high))
