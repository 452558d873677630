"""One training of a run, and whom it tells what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from minidit.models.kinds import Network
from minidit.training.loop import Loop, LoopConfig
from minidit.training.process import Process
from minidit.training.source import Source

N = TypeVar("N", bound=Network)
Record = dict[str, Any]  # of an update: "step", "loss", "lr", …
Tell = Callable[[str, Record, int], None]  # (phase, record, updates of the phase)
Note = Callable[[str], None]  # a line for the person who started the run
Progress = Callable[[str, int, int], None]  # (what, done, total) of work that is no phase


class Stopped(Exception):
    """A phase was asked to stop and has saved its state."""

    def __init__(self, phase: str, done: int) -> None:
        super().__init__(f"stopped at update {done} of the {phase}")
        self.phase, self.done = phase, done


@dataclass(frozen=True)
class Phase(Generic[N]):
    """One training: a network, its process, its data, and the length of training."""

    name: str
    network: N
    process: Process
    source: Source
    config: LoopConfig
    held_out: Source | None = None  # the states of a phase are compared by the loss on it
    start: str = ""  # a file or a run whose weights it starts from
    after_update: Callable[[Loop], Record] = lambda loop: {}  # what else is recorded of the update
