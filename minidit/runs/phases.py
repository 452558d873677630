"""A run is a list of phases, and the same code trains each of them.

    tokenizer    pictures -> latents            unless the model works on pixels, or a trained one is named
    model        noise -> x_0                   on the x_0 that the tokenizer makes
    judge        pictures -> class, features    if samples are measured

    resumes from its saved state  ->  reports every update, logs some; saves its state every `save_every` and at a stop
    ->  at the end the network gets the averaged weights (EMA), and its file is written
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from minidit.checkpoint import CheckpointError, save_model
from minidit.data import Dataset
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
from minidit.runs.fitting import data_of, facts_of, fitted
from minidit.runs.kinds import PixelsConfig, TokenizerNetwork, assembled, network_of
from minidit.runs.pipeline import Pipeline, pipeline_of
from minidit.runs.presets import RunConfig
from minidit.runs.show import save_grid
from minidit.runs.state import load_state, save_state, start_from, state_of
from minidit.training.loop import Loop, LoopConfig, RunError, diverged
from minidit.training.memory import explained
from minidit.training.process import Process
from minidit.training.ranks import ranks
from minidit.training.source import Source, source_of
from minidit.version import __version__

N = TypeVar("N", DiT, TokenizerNetwork, Classifier)
Record = dict[str, Any]  # of an update: "step", "loss", "lr", …
Tell = Callable[[str, Record, int], None]  # (phase, record, updates of the phase)
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
    """A run folder and the configuration in it. Every rank has one; rank 0 alone writes files, and its saved states count."""

    def __init__(self, folder: Path, config: RunConfig, *, device: str = "cpu", tell: Tell = silent) -> None:
        self.folder, self.config, self.device, self.tell = folder, config, device, tell
        self.loop: Loop | None = None  # of the running phase; set its `stop` to end it after the current update
        self.facts: dict[str, Any] = {}
        self.ranks = ranks()

    def data(self) -> tuple[Dataset, Dataset]:
        """(training set, held-out set)."""
        return data_of(self.config.data)

    def fit_to(self, data: Dataset) -> None:
        """Fills in the settings determined by the data. Raises ValueError if settings conflict."""
        config = self.config
        if config.data.tokenizer and not isinstance(config.tokenizer, PixelsConfig):
            config = replace(config, tokenizer=self.named_tokenizer(data).config)
        self.config, self.facts = fitted(config, data), facts_of(data)

    def create(self, *, overwrite: bool = False) -> None:
        """Makes the folder. Raises RunError if a run is there already, or any other files."""
        self.folder = self.ranks.same(self.folder)
        if self.ranks.first:
            files.create(self.folder, self.config, self.device, overwrite=overwrite)
        self.ranks.wait()

    # ------------------------------------------------------------------------------------------------ the phases

    def train(self, data: Dataset) -> Pipeline:
        """Trains tokenizer and model, each from its saved state; a finished one is loaded."""
        c, network = self.config, self.tokenizer(data)
        source = assembled(c.process, network, self.device)[0].source(data)
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
        return Phase("tokenizer", network, Reconstruction(config.kl_weight), source_of(data, self.device), config)

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
        if not self.ranks.same(path.exists()):
            return None
        state_of(self.folder, name, self.config)
        return files.weights_of(path, name, "cpu" if name == "judge" else self.device)

    def trained(self, phase: Phase[N]) -> N:
        """The network of a phase, trained to its end and saved, by one process at a time.

        Raises Stopped, its state saved, if its loop was stopped.
        """
        with files.locked(self.folder) if self.ranks.first else contextlib.nullcontext():
            return self._trained(phase)

    def _trained(self, phase: Phase[N]) -> N:
        name, state = phase.name, state_of(self.folder, phase.name, self.config) if self.ranks.first else None
        if phase.start and state is None and self.ranks.first:  # before the Loop is made: its average starts from these weights
            start_from(phase.network, files.weights_of(phase.start, name, self.device), phase.start)
        self.loop = loop = Loop(phase.network, phase.process, phase.source, phase.config)
        try:
            if state is not None:
                load_state(state, loop)
            if self.ranks.first:
                files.forget(self.folder, name, loop.done)
            records = loop.run()
            began, first = time.monotonic(), loop.done
            for record in records:
                self.record(phase, record, time.monotonic() - began, loop.done - first)
                phase.watch(loop)
                if loop.done % self.config.sample.save_every == 0 and loop.done < phase.config.steps:
                    self.keep(name, loop)
            self.keep(name, loop)
            stopped = self.ranks.agree(loop.stop)
            if not stopped:
                phase.network.flat[...] = loop.optimiser.average
                self.save(name, phase.network)
            self.ranks.wait()
        finally:
            self.loop = None
        if stopped:
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
            line = {"phase": phase.name, **numbers, "img_per_s": round(speed, 1), "wall_s": round(wall, 3)}
            if self.ranks.first:
                files.append(self.folder, line)
        self.tell(phase.name, record, steps)

    def keep(self, name: str, loop: Loop) -> None:
        """Saves the state of a phase, and deletes an overwritten run, which is no longer needed."""
        if self.ranks.first:
            save_state(self.folder, name, loop, self.config)
            files.settle(self.folder)

    def save(self, name: str, network: Network) -> None:
        """Writes the network of a phase."""
        if self.ranks.first:
            save_model(self.folder / f"{name}.safetensors", network, **self.header())

    def header(self) -> dict[str, Any]:
        """The header of a file of weights: the resolved sections, and the facts about the data."""
        return {"run": tables_of(self.config), "data": self.facts, "version": __version__}


def resume(folder: Path, *, device: str = "cpu", tell: Tell = silent) -> Run:
    """The Run in a folder, with the configuration it was started with."""
    return Run(folder, files.config_of(folder), device=device, tell=tell)
