"""The bank: every known mistake as one small change of the reference, with the correct equation beside it.

A row is Deviation(id, name, spec, wrong, right, {part: change}, seen). Wrong code lives here, where it is named wrong, and
nowhere else. Ids are stable.
"""

from __future__ import annotations

from minidit.verify.bank import (
    checkpoints,
    clips,
    codes,
    consistency,
    embeddings,
    flows,
    guided,
    layers,
    likelihood,
    network,
    paths,
    samplers,
    schedules,
    steps,
    streams,
    times,
    tokens,
    training,
    unet,
)
from minidit.verify.core.reference import Deviation

MODULES = (
    schedules, samplers, steps, likelihood, layers, embeddings, network, training, checkpoints, paths, times, flows, consistency,
    unet, guided, codes, tokens, streams, clips,
)  # fmt: skip
DEVIATIONS: dict[str, Deviation] = {d.id: d for module in MODULES for d in module.BANK}
HABITS: tuple[Deviation, ...] = tuple(training.HABITS)  # small numbers that libraries add: they pass
