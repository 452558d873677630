"""What a run asks of the configuration of its process, whatever its kind: the process, its data, its teacher, its usual walk.

A new kind of process is a frozen dataclass that inherits ProcessConfig, with a row of its own in KINDS (kinds.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from minidit.data.cache import Cache
from minidit.diffusion.schedule import Schedule
from minidit.models.backbone import Backbone, TrainedBackbone
from minidit.processes.sample import Sampling, Trained
from minidit.processes.train import fitted_source
from minidit.training.process import Process
from minidit.training.source import Source


class Teacher(Protocol):
    """A trained run that a process learns from: a Pipeline (pipeline.py)."""

    model: TrainedBackbone
    process: Trained
    guidance: float  # w of its samples, and the part of its path where it holds
    interval: tuple[float, float]

    def settings(self, *arguments: Any, **options: Any) -> Sampling:
        """How its samples are drawn, by `Pipeline.settings`."""

    def latents(self, *arguments: Any, **options: Any) -> Any:
        """x_0 of its samples, by `Pipeline.latents`."""


@dataclass(frozen=True)
class Learner:
    """For whom a process prepares its data.

    teacher : that of `ProcessConfig.teacher()`, loaded   cache : for what is computed once   held_out : whether the data compare
    saved states only
    """

    network: Backbone
    teacher: Teacher | None = None
    cache: Cache | None = None
    held_out: bool = False


@dataclass(frozen=True)
class Quick:
    """The walk of the command down a ladder, better than 50 steps of DDIM (docs/results.md).   film : more steps, to be seen"""

    steps: int = 8
    film: int = 24
    solver: str = "ab2_arc"


@dataclass(frozen=True)
class Usual:
    """How samples of a process are drawn where nothing else is asked for: the number of steps, and words of words.py.

    few : a network for one, two or four such steps, with no guidance besides what is in its weights
    """

    steps: int = 50
    sampler: str = "ddim"
    solver: str = "euler"
    few: bool = False
    quick: Quick = Quick()


USUAL = Usual()


@dataclass(frozen=True)
class ProcessConfig:
    """What a run asks of the configuration of its process. Only `diffusion` has no usual answer."""

    usual: ClassVar[Usual] = USUAL
    compared: ClassVar[bool] = True  # whether saved states are compared by their loss on held-out pictures

    def diffusion(self) -> Trained:
        """The process, independent of any network: its path and its answer are all that sampling needs."""
        raise NotImplementedError

    def fitted(self, spread: Callable[[], float]) -> Self:
        """The same process for data of this standard deviation, which is measured when it is asked for."""
        return self

    def teacher(self) -> str:
        """The run, or the file of weights, that this process learns from; "": none."""
        return ""

    @property
    def guided(self) -> bool:
        """Whether its samples are guided; not those of a network that was trained on guided ones."""
        return not self.usual.few

    def source(self, source: Source, learner: Learner) -> Source:
        """The data as this process shows them to the network that learns."""
        return fitted_source(learner.network, source)

    def process(self, network: Backbone, source: Source, teacher: Teacher | None = None) -> Process:
        """The process that trains this network on this source."""
        raise NotImplementedError

    @property
    def most_steps(self) -> int | None:
        """The number of rungs, where there are rungs."""
        path = self.diffusion().path
        return path.T if isinstance(path, Schedule) else None
