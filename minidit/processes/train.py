"""Training a network on data under a process: `for record in train(network, data, steps=1000, lr=1e-3): …`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from typing import Any, Unpack

from minidit.backend import to_host
from minidit.diffusion.path import Path
from minidit.diffusion.schedule import Schedule
from minidit.keywords import spelled_out
from minidit.models.backbone import Backbone, TrainedBackbone, check_backbone
from minidit.models.condition import Tokens
from minidit.nn.module import Trainable
from minidit.processes.diffusion import Diffusion, Hybrid
from minidit.processes.options import TrainingOptions
from minidit.training.held_out import mean_loss
from minidit.training.loop import Loop, LoopConfig
from minidit.training.memory import explained
from minidit.training.process import Process
from minidit.training.saved import saving
from minidit.training.source import Data, LabelDropout, OfShape, Source, Unlabelled, WordDropout, source_of


def fitted_source(network: Backbone, data: Data, *, dropout: bool = True) -> Source:
    """The data as this network is trained on them, with label dropout. Raises ValueError if they do not fit."""
    source: Source = OfShape(source_of(data, network.device, network.dtype), network.shape)
    condition = network.condition
    if not condition.count:
        return source if source.labels is None else Unlabelled(source)
    if source.labels is None:
        raise ValueError(f"the model has {condition.words} but the data have no labels")
    labels = to_host(source.labels)
    if labels.shape[1:] != condition.shape:
        raise ValueError(f"the model has {condition.words}, and the data labels of shape {labels.shape}")
    outside = labels[(labels < 0) | (labels >= condition.count)]
    if len(outside):
        raise ValueError(f"label {outside[0]} is out of range for a model of {condition.words}")
    if not dropout:
        return source
    if isinstance(condition, Tokens) and condition.word_dropout:
        source = WordDropout(source, condition.word_dropout, condition.unknown)
    return source if condition.null is None else LabelDropout(source, condition.dropout, condition.without)


def fitted_process(network: Backbone, process: Diffusion, source: Source, vb_weight: float = 1e-3) -> Process:
    """The process that trains this network: with the bound if the network outputs twice the channels."""
    if not network.second_half:
        return process
    if not isinstance(process.path, Schedule):
        raise ValueError("a network with learn_sigma is trained on a ladder of rungs only: its bound is defined there")
    return Hybrid(process, process.path, source.levels, vb_weight)


def check_drawn(network: Trainable) -> None:
    """Raises ValueError for weights that are all 0, with which nothing is learned."""
    if network.flat.size and not network.flat.any():
        name = type(network).__name__
        raise ValueError(f"all weights of the {name} are 0: they are drawn where an rng is given, {name}(…, md.Philox(0))")


def check_process(process: Diffusion) -> None:
    """Raises TypeError for a path alone, which does not say what the network answers."""
    if isinstance(process, Path):
        raise TypeError(f"a network is trained by a process on the path: md.Diffusion({process!r}, md.U, "
                        "md.drawn(md.times.uniform)), or on a ladder md.Diffusion.on_ladder(ladder, md.V)")  # fmt: skip


def loop_for(
    network: TrainedBackbone,
    data: Data,
    process: Diffusion,
    config: LoopConfig,
    *,
    vb_weight: float = 1e-3,
    kind: str | None = None,
) -> Loop:
    """The Loop of a denoiser. Raises ValueError if data and network do not fit, or if the weights were never drawn."""
    check_process(process)
    check_drawn(network)
    source = fitted_source(network, data)
    return Loop(network, fitted_process(network, process, source, vb_weight), source, config, kind=kind)


def loss(network: TrainedBackbone, data: Data, process: Diffusion, *, seed: int = 0) -> float:
    """The mean loss of a network over all data, each sample at one time; labels are not left out, and nothing is learned.

    data : as in `train`.   seed : of times and noise; with the same one two networks are comparable.
    Raises ValueError if data and network do not fit, or if there are no data.
    """
    check_backbone(network, "config")
    check_process(process)
    source = fitted_source(network, data, dropout=False)
    if not len(source):
        raise ValueError("the data are empty: a mean loss needs at least one sample")
    return mean_loss(network, fitted_process(network, process, source), source, len(source), seed)


@spelled_out(LoopConfig)
def train(
    network: TrainedBackbone,
    data: Data,
    process: Diffusion | None = None,
    config: LoopConfig | None = None,
    *,
    state: str | PathLike[str] | None = None,
    save_every: int = 1000,
    average: bool = False,
    **changes: Unpack[TrainingOptions],
) -> Iterator[dict[str, Any]]:
    """Trains a network on data; yields a record per update: `for record in train(model, data, steps=1000, lr=1e-3): …`

    data : a Dataset, (x_0, labels), x_0 alone, or any Source.   process : None: DDPM's, with 1000 rungs and ε.
    state : a file for the state of the training. If it is there, the training goes on from it, bit for bit; it is saved every
    `save_every` updates, at the end, and at Ctrl-C. `kill -9` costs the updates since it was saved.
    average : whether the network ends with the average of its weights, which draws better, instead of the last ones.
    The other keywords are fields of LoopConfig, over those of config.   `loop_for` gives the Loop itself.
    Raises CheckpointError, with the reason, for a state of another network or other settings.
    """
    check_backbone(network, "config")
    process = Diffusion.on_ladder(Schedule.linear()) if process is None else process
    config = replace(config or LoopConfig(), **changes)
    with explained(network.config, config, network.device):
        loop = loop_for(network, data, process, config)
        yield from loop.run() if state is None else saving(loop, state, save_every)
        if average:
            network.flat[...] = loop.optimiser.average
