"""A run is a list of phases, and the same code trains each of them.

    tokenizer    pictures -> latents            unless the model works on pixels, or a trained one is named
    model        noise -> x_0                   on the x_0 that the tokenizer makes
    judge        pictures -> class, features    if samples are measured

    resumes from its saved state  ->  reports every update, logs some; saves its state every `save_every` and at a stop
    ->  at the end the network gets the averaged weights (EMA), and its file is written
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from minidit.checkpoint import CheckpointError, save_model
from minidit.data import Dataset, cache
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT
from minidit.models.kinds import Network
from minidit.processes.autoencode import Reconstruction
from minidit.processes.classify import Classification
from minidit.processes.train import fitted_source
from minidit.random import Philox
from minidit.runs import folder as files
from minidit.runs import former
from minidit.runs.config import tables_of
from minidit.runs.fitting import Parts, augment_of, facts_of, fitted, parts_of
from minidit.runs.kinds import PixelsConfig, TokenizerNetwork, assembled, network_of
from minidit.runs.pipeline import Pipeline, pipeline_of
from minidit.runs.presets import RunConfig
from minidit.runs.show import save_grid
from minidit.runs.state import load_state, save_state, start_from, state_of
from minidit.training.augment import Augmented
from minidit.training.loop import Loop, LoopConfig, RunError, diverged
from minidit.training.memory import explained
from minidit.training.process import Process
from minidit.training.source import Source, source_of
from minidit.version import __version__

N = TypeVar("N", DiT, TokenizerNetwork, Classifier)
Record = dict[str, Any]  # of an update: "step", "loss", "lr", …
Tell = Callable[[str, Record, int], None]  # (phase, record, updates of the phase)
Note = Callable[[str], None]  # a line for people
Progress = Callable[[str, int, int], None]  # (what, done, total) of work that is no phase
EVERY = 10  # updates per line of metrics.jsonl
DRAWS = {"tokenizer": 1, "model": 2, "judge": 3}  # streams of the initial weights


def silent(phase: str, record: Record, steps: int) -> None:
    """A no-op callback."""


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
    start: str = ""  # a file or a run whose weights it starts from
    watch: Callable[[Loop], None] = lambda loop: None  # called after every update


class Run:
    """A run folder and the configuration in it."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        *,
        device: str = "cpu",
        tell: Tell = silent,
        note: Note = cache.silent,
        progress: Progress = cache.silent,
    ) -> None:
        self.folder, self.config, self.device, self.tell = folder, config, device, tell
        self.note, self.progress = note, progress  # of the writing of a cache
        self.loop: Loop | None = None  # of the running phase; set its `stop` to end it after the current update
        self.facts: dict[str, Any] = {}
        self.parts: Parts | None = None  # of the pictures, once they are read
        self.leave_out: frozenset[str] | None = None  # the files that a resumed run skipped when it began

    def data(self) -> tuple[Dataset, Dataset | None]:
        """(training set, held-out set or None)."""
        self.parts = parts_of(self.config.data, self.cache(), self.leave_out)
        return self.parts.train, self.parts.held_out

    def cache(self) -> cache.Cache | None:
        """The cache of large sets that the configuration names."""
        named = cache.named(self.config.data.cache)
        return named and replace(named, tell=self.note, progress=self.progress)

    def fit_to(self, data: Dataset) -> None:
        """Fills in the settings determined by the data. Raises ValueError if settings conflict."""
        config = self.config
        if config.data.tokenizer and not isinstance(config.tokenizer, PixelsConfig):
            config = replace(config, tokenizer=self.named_tokenizer(data).config)
        self.config, self.facts = fitted(config, data), facts_of(data, self.parts.about if self.parts else "")

    def create(self, *, overwrite: bool = False) -> None:
        """Makes the folder. Raises RunError if a run is there already, or any other files."""
        files.create(self.folder, self.config, self.device, overwrite=overwrite)
        if self.config.data.skip_bad and self.parts:
            files.keep_skipped(self.folder, self.parts.train.skipped)

    # ------------------------------------------------------------------------------------------------ the phases

    def train(self, data: Dataset) -> Pipeline:
        """Trains tokenizer and model, each from its saved state; a finished one is loaded."""
        c, network = self.config, self.tokenizer(data)
        source = assembled(c.process, network, self.device)[0].source(data, augment_of(c.data), self.cache())
        if network is not None:
            self.save("tokenizer", network)  # again: the scale of its latents has been measured on these pictures
        with explained(c.model, c.train, self.device):
            model = self.finished("model") or self.trained(self.model_phase(network, source))
        return pipeline_of(c, model, network, self.header())

    def tokenizer(self, data: Dataset) -> TokenizerNetwork | None:
        """The tokenizer's network: loaded, or trained on these pictures; None for pixels."""
        if isinstance(self.config.tokenizer, PixelsConfig):
            return None
        existing = self.finished("tokenizer") or (self.config.data.tokenizer and self.named_tokenizer(data))
        network: TokenizerNetwork = existing or self.trained(self.tokenizer_phase(data))
        return network

    def named_tokenizer(self, data: Dataset) -> TokenizerNetwork:
        """The trained network that the configuration names. Raises CheckpointError if it does not fit these pictures."""
        name = self.config.data.tokenizer
        network = files.weights_of(name, "tokenizer", self.device)
        if not isinstance(network, TokenizerNetwork) or network.config.channels != data.channels:
            raise CheckpointError(f"{name}: not an autoencoder for pictures of {data.channels} channels")
        return network

    def tokenizer_phase(self, data: Dataset) -> Phase[TokenizerNetwork]:
        """The phase that learns to reconstruct pictures."""
        config = self.config.tokenizer_train
        network = network_of(self.config.tokenizer, Philox(config.seed, DRAWS["tokenizer"]), device=self.device)
        source: Source = source_of(data, self.device)
        if augment := augment_of(self.config.data):
            source = Augmented(source, augment)
        return Phase("tokenizer", network, Reconstruction(config.kl_weight), source, config)

    def model_phase(self, tokenizer: TokenizerNetwork | None, source: Source) -> Phase[DiT]:
        """The phase that learns to denoise the tokenizer's x_0; it draws grids during training."""
        c = self.config
        network = network_of(c.model, Philox(c.train.seed, DRAWS["model"]), device=self.device)

        def draw(loop: Loop) -> None:
            if c.sample.every and loop.done % c.sample.every == 0 and loop.done < c.train.steps:
                average = network_of(c.model, device=self.device)
                average.flat[...] = loop.optimiser.average
                save_grid(self.folder, pipeline_of(c, average, tokenizer, self.header()), c.sample, loop.done)

        source = fitted_source(network, source)
        return Phase("model", network, c.process.process(network, source), source, c.train, c.data.init, draw)

    def judge(self, data: Dataset) -> Classifier:
        """The small classifier that judges samples: loaded, or trained on these pictures."""
        network: Classifier = self.finished("judge") or self.trained(self.judge_phase(data))
        return network

    def judge_phase(self, data: Dataset) -> Phase[Classifier]:
        """The phase that learns to classify pictures; it runs on the host, because it is short."""
        config = self.config.judge_train
        shape = ClassifierConfig(data.channels, data.size, data.num_classes)
        return Phase("judge", Classifier(shape, Philox(config.seed, DRAWS["judge"])), Classification(), source_of(data), config)

    # ------------------------------------------------------------------------------------------------ any phase

    def finished(self, name: str) -> Any:
        """The network of a phase that has ended, or None. Raises CheckpointError if its state has another configuration."""
        path = former.file_of(self.folder, name)
        if not path.exists():
            return None
        state_of(self.folder, name, self.config)
        return files.weights_of(path, name, "cpu" if name == "judge" else self.device)

    def trained(self, phase: Phase[N]) -> N:
        """The network of a phase, trained to its end and saved, by one process at a time.

        Raises Stopped, its state saved, if its loop was stopped.
        """
        with files.locked(self.folder):
            return self._trained(phase)

    def _trained(self, phase: Phase[N]) -> N:
        name, state = phase.name, state_of(self.folder, phase.name, self.config)
        if phase.start and state is None:  # before the Loop is made: its average starts from these weights
            start_from(phase.network, files.weights_of(phase.start, name, self.device), phase.start)
        self.loop = loop = Loop(phase.network, phase.process, phase.source, phase.config)
        try:
            if state is not None:
                load_state(state, loop)
            files.forget(self.folder, name, loop.done)
            began, first = time.monotonic(), loop.done
            for record in loop.run():
                self.record(phase, record, time.monotonic() - began, loop.done - first)
                phase.watch(loop)
                if loop.done % self.config.sample.save_every == 0 and loop.done < phase.config.steps:
                    self.keep(name, loop)
            self.keep(name, loop)
            if not loop.stop:
                phase.network.flat[...] = loop.optimiser.average
                self.save(name, phase.network)
        finally:
            self.loop = None
        if loop.stop:
            raise Stopped(name, loop.done)
        return phase.network

    def record(self, phase: Phase[N], record: Record, wall: float, updates: int) -> None:
        """Reports an update, and logs some to metrics.jsonl. wall, updates: since the phase started or resumed."""
        step, steps = record["step"], phase.config.steps
        if step % EVERY == 0 or step in (1, steps):
            numbers = {k: v if isinstance(v, int) else float(v) for k, v in record.items()}
            if not math.isfinite(numbers["loss"]):  # on a GPU it has not been read before
                raise RunError(diverged(numbers["loss"], step))
            speed = phase.config.batch_size * updates / max(wall, 1e-9)
            files.append(self.folder, {"phase": phase.name, **numbers, "img_per_s": round(speed, 1), "wall_s": round(wall, 3)})
        self.tell(phase.name, record, steps)

    def keep(self, name: str, loop: Loop) -> None:
        """Saves the state of a phase, and deletes an overwritten run, which is no longer needed."""
        save_state(self.folder, name, loop, self.config)
        files.settle(self.folder)

    def save(self, name: str, network: Network) -> None:
        """Writes the network of a phase."""
        save_model(self.folder / f"{name}.safetensors", network, **self.header())

    def header(self) -> dict[str, Any]:
        """The header of a file of weights: the resolved sections, and the facts about the data."""
        return {"run": tables_of(self.config), "data": self.facts, "version": __version__}


def resume(
    folder: Path, *, device: str = "cpu", tell: Tell = silent, note: Note = cache.silent, progress: Progress = cache.silent
) -> Run:
    """The Run in a folder, with the configuration and the pictures it was started with."""
    run = Run(folder, files.config_of(folder), device=device, tell=tell, note=note, progress=progress)
    run.leave_out = files.skipped_of(folder) if run.config.data.skip_bad else None
    return run
