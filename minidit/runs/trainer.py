"""The training of any phase in a run's folder.

    goes on from its latest whole state  ->  reports every update, logs some; saves a state every `save_every` and at a stop
    ->  at the end the network gets the averaged weights (EMA), and its file is written
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from minidit.checkpoint import CheckpointError, save_model
from minidit.models.kinds import Network
from minidit.outgoing import silent
from minidit.runs import folder as files
from minidit.runs import former
from minidit.runs.config import tables_of
from minidit.runs.fitting import Parts, refuse_other_pictures
from minidit.runs.phase import N, Note, Phase, Progress, Record, Stopped, Tell
from minidit.runs.presets import RunConfig
from minidit.runs.state import LENGTHS, State, load_state, prune, restart, save_state, start_from, state_of, way_on
from minidit.runs.weights import weights_of
from minidit.training.held_out import held_out_loss
from minidit.training.loop import Diverged, Loop, LoopConfig, RunError, diverged
from minidit.training.ranks import ranks
from minidit.version import __version__

EVERY = 10  # updates per line of metrics.jsonl


class Trainer:
    """A run's folder, its configuration, and whom it tells what. Every rank has one; rank 0 alone writes files."""

    def __init__(
        self, folder: Path, config: RunConfig, *, device: str = "cpu", tell: Tell = silent, note: Note = silent,
        progress: Progress = silent,
    ) -> None:  # fmt: skip
        self.folder, self.config, self.device, self.tell, self.note, self.progress = folder, config, device, tell, note, progress
        self.loop: Loop | None = None  # of the running phase; set its `stop` to end it after the current update
        self.facts: dict[str, Any] = {}
        self.parts: Parts | None = None  # of the pictures, once they are read
        self.leave_out: frozenset[str] | None = None  # the files that a resumed run skipped when it began
        self.existing = False  # begun by another process
        self.rested = True  # no phase of the model had updates to make
        self.work = "model"  # or "judge": what this process trains, or trained last
        self.begun: bytes | None = None  # the config.toml that this process wrote, until it has made an update
        self.ranks = ranks()

    def finished(self, name: str) -> Any:
        """The network of a phase that has ended, or None. Raises CheckpointError if its state has another configuration."""
        path = former.file_of(self.folder, name)
        if not self.ranks.same(path.exists()):
            return None
        state, _ = state_of(self.folder, name, self.config)
        try:
            network, meta = weights_of(path, name, "cpu" if name == "judge" else self.device)
        except CheckpointError as error:
            if state is None or state.done != getattr(self.config, LENGTHS[name]).steps:
                raise
            self.note(f"{error}; written anew from {state.path}")
            return None
        made = former.header(meta).get(LENGTHS[name], {}).get("steps")
        more = isinstance(made, int) and made < getattr(self.config, LENGTHS[name]).steps  # it was lengthened since
        return None if more else network

    def trained(self, phase: Phase[N]) -> N:
        """The network of a phase, trained to its end and saved. Raises Stopped, its state saved, if its loop was stopped.

        Raises RunError, with the last state and the way on, if the training diverges or a file cannot be written.
        """
        state = self._latest(phase) if self.ranks.first else None
        if phase.start and state is None and self.ranks.first:  # before the Loop is made: its average starts from these weights
            start_from(phase.network, weights_of(phase.start, phase.name, self.device)[0], phase.start)
        self.rested = False
        self.loop = loop = Loop(phase.network, phase.process, phase.source, phase.config)
        try:
            if state is not None:
                load_state(state, loop)
                if state.done < phase.config.steps:
                    self.note(f"going on after update {state.done:,} of {phase.config.steps:,} of the {phase.name}")
            stopped = self._train(phase, loop, saved=loop.done if state else None)
            stopped = self.ranks.agree(stopped or loop.stop)  # also while the weights were written
        except Diverged as error:
            raise Diverged(f"{error}{restart(self.folder, phase.name)}") from error
        except RunError as error:
            raise RunError(f"{error}; {way_on(self.folder, phase.name)}") from error
        finally:
            self.loop = None
        if stopped or (self.ranks.alone and loop.stop):
            raise Stopped(phase.name, loop.done)
        return phase.network

    def _latest(self, phase: Phase[N]) -> State | None:
        """The state that a phase goes on from."""
        state, faults = state_of(self.folder, phase.name, self.config)
        for fault in faults:
            self.note(f"{fault}; going on from update {state.done if state else 0}")
        if state is not None and state.done > phase.config.steps:
            raise RunError(f"{state.path}: update {state.done} is beyond the {phase.config.steps} updates of this run")
        if state is not None:
            refuse_other_pictures(state.path, state.meta, self.facts)
        return state

    def _train(self, phase: Phase[N], loop: Loop, saved: int | None) -> bool:
        """Runs a loop to its end  ->  whether it was stopped before.   saved : the update of the state that there is"""
        if self.ranks.first:
            files.forget(self.folder, phase.name, loop.done)
        records = loop.run()  # from rank 0's update
        earlier = files.seconds_of(self.folder, phase.name) if loop.done else 0.0
        began, first = time.monotonic(), loop.done
        for record in records:
            self.begun = None
            numbers = self.record(phase, loop, record, time.monotonic() - began, loop.done - first, earlier)
            if self.regular(phase, loop):
                self.save_state(phase, loop, numbers.get("held_out_loss"))
                saved = loop.done
            self.tell(phase.name, numbers, phase.config.steps)
        stopped = self.ranks.agree(loop.stop)
        if stopped and saved != loop.done:
            self.save_state(phase, loop)
        if not stopped:
            if self.ranks.first:  # again: a process may have been killed after its last save
                prune(self.folder, phase.name, self.config.sample, loop.done)
                files.delete_replaced(self.folder)
            phase.network.flat[...] = loop.optimiser.average
            if phase.name == "model" and self.ranks.first:
                files.set_evaluation_aside(self.folder)  # if there is one, it measured the weights of fewer updates
            self.save(phase.name, phase.network)
        return stopped

    def record(self, phase: Phase[N], loop: Loop, record: Record, wall: float, updates: int, earlier: float) -> Record:
        """What is told of an update, with what is measured after it; some are logged, as one line of metrics.jsonl.

        wall, updates : since the phase started or resumed    earlier : seconds of its training before it was resumed
        The line is written before the state: one that is there without it will be written again.
        """
        step, steps = record["step"], phase.config.steps
        logged = step % EVERY == 0 or step in (1, steps) or self.regular(phase, loop)
        numbers = in_numbers(record, phase.config) if logged else dict(record)
        if more := phase.after_update(loop) | self.held_out(phase, loop):
            logged, numbers = True, in_numbers(record, phase.config) | more
        if logged:
            numbers["img_per_s"] = round(phase.config.batch_size * updates / max(wall, 1e-9), 1)
            if self.ranks.first:
                files.append(self.folder, {"phase": phase.name, **numbers, "wall_s": round(earlier + wall, 3)})
        return numbers

    def held_out(self, phase: Phase[N], loop: Loop) -> Record:
        """The loss by which regular states are compared; a state that a stop leaves is not, because a stop should not wait."""
        few = phase.held_out
        if few is None or not len(few) or not self.ranks.first or not self.regular(phase, loop):
            return {}
        return {"held_out_loss": held_out_loss(loop, few)}

    def save_state(self, phase: Phase[N], loop: Loop, held_out: float | None = None) -> None:
        """Saves the state of a phase, and deletes an overwritten run, which is no longer needed."""
        if self.ranks.first:
            save_state(self.folder, phase.name, loop, self.header(), self.config.sample, held_out)
            files.delete_replaced(self.folder)

    def regular(self, phase: Phase[N], loop: Loop) -> bool:
        """Whether a state is saved at this update, in a run that nothing stops."""
        return loop.done % self.config.sample.save_every == 0 or loop.done == phase.config.steps

    def save(self, name: str, network: Network) -> None:
        """Writes the network of a phase."""
        if self.ranks.first:
            save_model(self.folder / f"{name}.safetensors", network, **self.header())

    def header(self) -> dict[str, Any]:
        """The header of a file of weights: the resolved sections, and the facts about the data."""
        return {"run": tables_of(self.config), "data": self.facts, "version": __version__}


def in_numbers(record: Record, config: LoopConfig) -> Record:
    """The numbers of an update, which on a GPU have not been read before. Raises Diverged for a loss that is not finite."""
    numbers = {k: v if isinstance(v, int) else float(v) for k, v in record.items()}
    if not math.isfinite(numbers["loss"]):
        raise Diverged(diverged(f"the loss is {numbers['loss']}", record["step"], config))
    return numbers
