"""What a run would cost, before it begins: networks, tokens, time, memory and disk, estimated from a few updates.

    minutes = Σ over phases of (seconds per update, measured on a batch of the run's own pictures) · updates
            + Σ over pictures of (seconds per step of a walk, measured on a few steps) · steps, + decoding

Nothing is written. The folder need not exist, and is not made.
"""

from __future__ import annotations

import statistics
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from minidit.backend import to_host
from minidit.data import Dataset
from minidit.models.kinds import Network
from minidit.random import Philox
from minidit.runs.checks import bytes_of, check_start
from minidit.runs.gallery import UNLABELLED, drawings, shown_labels, shown_steps
from minidit.runs.kinds import PixelsConfig, assembled, kind_of, network_of
from minidit.runs.loading import pipeline_of
from minidit.runs.phase import Phase
from minidit.runs.phases import DRAWS, Run
from minidit.runs.pipeline import Pipeline
from minidit.runs.show import FRAMES, GRID, TOGETHER, WALKED
from minidit.runs.state import paths_of, updates_of
from minidit.shown import in_time
from minidit.training.loop import Loop, LoopConfig
from minidit.training.memory import gb, memory_of_step

TRIAL = 4  # updates that are timed, after a first one that is not
SECONDS = 20.0  # after which no more are made
MEASURED = 2  # steps of a walk that are timed
WRITING = 2.0  # seconds for the files of pictures and the report


def plan(run: Run, data: Dataset, *, gallery: bool = True) -> list[str]:
    """Lines about a run whose configuration has been fitted to its data. Raises what its start would raise.

    gallery : whether the pictures of the report will be drawn
    """
    check_start(run.folder, run.config)
    c, tokenizer = run.config, None
    lines = list[str]()
    network = network_of(c.model, Philox(c.train.seed, DRAWS["model"]), device=run.device)
    shape = " x ".join(map(str, network.shape))
    tokens = getattr(c.model, "tokens", None)
    lines.append(f"model: {kind_of('model', c.model)}, {numbers_in(network)} parameters, samples of {shape}"
                 + (f", {tokens} tokens each" if isinstance(tokens, int) else ""))  # fmt: skip
    if not isinstance(c.tokenizer, PixelsConfig):
        tokenizer = network_of(c.tokenizer, Philox(c.tokenizer_train.seed, DRAWS["tokenizer"]), device=run.device)
        trained = "" if not c.data.tokenizer else ", trained already"
        lines.append(f"tokenizer: {kind_of('tokenizer', c.tokenizer)}, {numbers_in(tokenizer)} parameters{trained}")
    lines += times(run, data, tokenizer, network, gallery)
    with suppress(AttributeError, NotImplementedError):  # of a network that does not count its memory
        need = memory_of_step(c.model, c.train, run.device).total
        lines.append(f"memory: about {gb(need)} for an update of the model, besides {gb(data.images.nbytes)} of pictures")
    lines.append(f"disk: up to {gb(bytes_of(c))} in {run.folder}")
    return lines


def times(run: Run, data: Dataset, tokenizer: Any, network: Any, gallery: bool) -> list[str]:
    """One line per phase that is trained, one for the pictures of the report, and their sum."""
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
    during, after = seconds_of_pictures(run, pipeline_of(c, network, tokenizer, run.header()))
    if c.sample.every:
        lines.append(f"grids while the model is trained: about {in_time(during)}")
    if gallery:
        lines.append(f"pictures of the report: about {in_time(after)} (--no-gallery: none)")
    return [*lines, f"together about {in_time(total + during + after * gallery)}"]


def seconds_of_pictures(run: Run, pipeline: Pipeline) -> tuple[float, float]:
    """(those of the grids while the model is trained, those of the pictures of the report), measured on a few steps."""
    c, s = run.config, run.config.sample
    walked = shown_steps(c, pipeline)
    few = pipeline.in_short(walked, MEASURED)
    labels = shown_labels(pipeline, 8)
    n = UNLABELLED if labels is None else len(labels)
    began = time.monotonic()
    x_0 = pipeline.latents(labels, n=n, steps=few, guidance=s.guidance, interval=s.interval)
    step = (time.monotonic() - began) / few
    began = time.monotonic()
    list(pipeline.latents(pipeline.labels(None, WALKED), n=WALKED, steps=few, trace=True, guidance=s.guidance,
                          interval=s.interval))  # fmt: skip
    traced_step = (time.monotonic() - began) / few
    some = to_host(x_0)[np.arange(TOGETHER) % n]
    began = time.monotonic()
    pipeline.pictures(some)
    decoding = (time.monotonic() - began) / TOGETHER
    steps = sum(more["steps"] or 0 for _, _, more in drawings(pipeline, walked))
    shots = 2 * min(walked, FRAMES) * WALKED
    grid = step * pipeline.in_short(s.steps) * GRID / n
    grids = c.train.steps // s.every if s.every else 0
    return grid * grids, step * steps + traced_step * walked + decoding * (shots + 2 * n) + WRITING


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
