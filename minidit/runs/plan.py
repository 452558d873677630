"""What a run would cost, before it begins: networks, tokens, time, memory and disk, estimated from a few updates.

    minutes = Σ over phases of (seconds per update, measured on a batch of the run's own pictures) · updates

Nothing is written. The folder need not exist, and is not made.
"""

from __future__ import annotations

import statistics
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

from minidit.data import Dataset
from minidit.data.counts import class_lines
from minidit.models.kinds import Network
from minidit.random import Philox
from minidit.runs.checks import bytes_of, check_start
from minidit.runs.fitting import about_augmentation
from minidit.runs.kinds import PixelsConfig, assembled, kind_of, network_of
from minidit.runs.phase import Phase
from minidit.runs.phases import DRAWS, Run
from minidit.runs.state import paths_of, updates_of
from minidit.training.loop import Loop, LoopConfig
from minidit.training.memory import gb, memory_of_step

TRIAL = 4  # updates that are timed, after a first one that is not
SECONDS = 20.0  # after which no more are made


def plan(run: Run, data: Dataset) -> list[str]:
    """Lines about a run whose configuration has been fitted to its data. Raises what its start would raise."""
    check_start(run.folder, run.config)
    c, tokenizer = run.config, None
    lines = [*class_lines(data), about_augmentation(c)]
    network = network_of(c.model, Philox(c.train.seed, DRAWS["model"]), device=run.device)
    shape = " x ".join(map(str, network.shape))
    tokens = getattr(c.model, "tokens", None)
    lines.append(f"model: {kind_of('model', c.model)}, {numbers_in(network)} parameters, samples of {shape}"
                 + (f", {tokens} tokens each" if isinstance(tokens, int) else ""))  # fmt: skip
    if not isinstance(c.tokenizer, PixelsConfig):
        tokenizer = network_of(c.tokenizer, Philox(c.tokenizer_train.seed, DRAWS["tokenizer"]), device=run.device)
        trained = "" if not c.data.tokenizer else ", trained already"
        lines.append(f"tokenizer: {kind_of('tokenizer', c.tokenizer)}, {numbers_in(tokenizer)} parameters{trained}")
    lines += times(run, data, tokenizer)
    with suppress(AttributeError, NotImplementedError):  # of a network that does not count its memory
        need = memory_of_step(c.model, c.train, run.device).total
        lines.append(f"memory: about {gb(need)} for an update of the model, besides {gb(data.images.nbytes)} of pictures")
    lines.append(f"disk: up to {gb(bytes_of(c))} in {run.folder}")
    return [line for line in lines if line]


def times(run: Run, data: Dataset, tokenizer: Any) -> list[str]:
    """One line per phase that is trained, and their sum."""
    c, lines, total = run.config, [], 0.0
    some = data.take(slice(max(c.train.batch_size, c.tokenizer_train.batch_size)))
    phases: list[Phase[Any]] = []
    if tokenizer is not None and not c.data.tokenizer:
        phases.append(run.tokenizer_phase(some))
    if c.process.teacher():
        lines.append("time: not estimated for the model, which learns from another run")
    else:
        phases.append(run.model_phase(tokenizer, assembled(c.process, tokenizer, run.device)[0].source(some)))
    for phase in phases:
        states = paths_of(run.folder, phase.name) if run.existing else []
        left = max(0, phase.config.steps - (updates_of(states[0]) if states else 0))
        seconds = seconds_per_update(phase)
        total += seconds * left
        work = f"{left:,} updates of {phase.config.batch_size}, {phase.config.batch_size / seconds:,.0f} pictures per second"
        lines.append(f"{phase.name}: {work}: about {in_time(seconds * left)}" if left else f"{phase.name}: trained already")
    if len(phases) > 1:
        lines.append(f"together about {in_time(total)}, and then the pictures of the report")
    return lines


def seconds_per_update(phase: Phase[Any]) -> float:
    """The median time of a few updates of a phase. Its network has other weights afterwards."""
    loop = Loop(phase.network, phase.process, phase.source, short(phase.config))
    laps, began = [], time.monotonic()
    for record in loop.run():
        float(record["loss"])  # on a GPU this waits for the update
        laps.append(time.monotonic())
        if laps[-1] - began > SECONDS:
            loop.stop = True
    spans = [after - before for before, after in pairwise(laps)] or [laps[0] - began]
    return max(statistics.median(spans), 1e-6)


def short(config: LoopConfig) -> LoopConfig:
    """The same training, ended after a few updates."""
    return replace(config, steps=min(config.steps, TRIAL + 1))


def numbers_in(network: Network) -> str:
    """The number of parameters of a network."""
    return f"{sum(p.data.size for p in network.parameters()):,}"


def in_time(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
