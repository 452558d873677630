"""The process that learns its teacher's guidance: [process] kind = "guidance"."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

from minidit.choices import one_of
from minidit.diffusion import times
from minidit.models.backbone import Backbone
from minidit.models.dit import DiT, DiTConfig
from minidit.models.guided import GuidedDiT
from minidit.processes.diffusion import drawn, rungs
from minidit.processes.guidance import GuidanceDistillation
from minidit.runs.process_kinds import Learner, ProcessConfig, Teacher, Usual, check_word
from minidit.runs.teacher_kinds import COORDINATES, alike, required, with_classes
from minidit.training.process import Process
from minidit.training.source import Source


@dataclass(frozen=True)
class GuidanceConfig(ProcessConfig):
    """A network that answers in one call what its teacher answers in two, for any scale of guidance."""

    usual: ClassVar[Usual] = Usual(50)

    learn_from: str = ""  # the finished run that is learned from
    coordinates: str = one_of("vp", ("vp", "straight"))  # of the teacher: vp (the cosine ladder, v) or straight (u)
    scale_low: float = 1.0  # the smallest scale of guidance that is learned
    scale_high: float = 6.0  # the largest

    def __post_init__(self) -> None:
        check_word("coordinates", self.coordinates, COORDINATES)
        if not 0 <= self.scale_low < self.scale_high:
            raise ValueError(f"scale_low = {self.scale_low} must be at least 0 and below scale_high = {self.scale_high}")

    def teacher(self) -> str:
        return self.learn_from

    def diffusion(self) -> GuidanceDistillation:
        """The process without its teacher, whose path and answer it has."""
        path, answer = COORDINATES[self.coordinates]()
        ladder = getattr(path, "T", None)
        law = drawn(times.uniform) if ladder is None else rungs(ladder)
        return GuidanceDistillation(path, answer, law, low=self.scale_low, high=self.scale_high)

    def source(self, source: Source, learner: Learner) -> Source:
        return with_classes(learner.network, source)

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        run, own = required(teacher, "guidance"), self.diffusion()
        if not alike(run.process, own):
            raise ValueError(f"{self.learn_from}: is not on the path {self.coordinates!r} with the answer {own.answer.name}")
        model = run.model
        if not isinstance(network, GuidedDiT) or not isinstance(model, DiT) or model.condition.null is None:
            raise ValueError("--process guidance trains a network that knows its guidance, from a DiT that was trained with and "
                             "without classes: add --model guided")  # fmt: skip
        sizes = [f.name for f in fields(DiTConfig)]
        differing = {s: getattr(model.config, s) for s in sizes if getattr(model.config, s) != getattr(network.config, s)}
        if differing:
            settings = ", ".join(f"{name} = {value}" for name, value in differing.items())
            raise ValueError(f"the student of --process guidance begins as a copy of its teacher: it needs {settings}")
        network.load_state_dict(network.state_dict() | model.state_dict())
        return replace(own, teacher=model)
