"""The loss on samples that nothing is learned from, with the same random numbers each time: two are comparable."""

from __future__ import annotations

import numpy as np

from minidit.autograd import no_grad, value
from minidit.backend import Arena, to_device
from minidit.nn.module import Trainable
from minidit.nn.precision import computing_in
from minidit.training.draws import Draws
from minidit.training.loop import Loop
from minidit.training.process import Process
from minidit.training.source import Source

HELD_OUT_STREAM = 0x68656C64
MOST = 512  # samples that are looked at
TOGETHER = 64  # samples that are looked at together, in small trainings too
TIMES = 4  # but no more than this many batches: without a gradient, a sample takes a fifth of its memory in an update


def held_out_loss(loop: Loop, source: Source) -> float:
    """The mean loss of the averaged weights over the first samples of a source, in batches of the loop's size or more."""
    network, config = loop.model, loop.config
    raw, size = network.flat.copy(), max(config.batch_size, min(TOGETHER, TIMES * config.batch_size))
    network.flat[...] = loop.optimiser.average
    try:
        return mean_loss(network, loop.process, source, min(MOST, len(source)), config.seed, size, config.precision)
    finally:
        network.flat[...] = raw


def mean_loss(
    network: Trainable, process: Process, source: Source, n: int, seed: int = 0, size: int = TOGETHER, precision: str = "float32"
) -> float:
    """The mean loss of a network as it is over the first n samples of a source, in batches of some size."""
    total, device = 0.0, network.device
    draws = Draws(seed, HELD_OUT_STREAM, np.arange(n), device, network.dtype, process.per)
    with no_grad(), computing_in(precision, device, network.flat):
        for start in range(0, n, size):
            piece = draws.at(0, np.arange(start, min(n, start + size)))
            with Arena():
                x_0, y = source.draw(to_device(piece.samples, device), piece)
                total += float(value(process.loss(network, x_0, y, piece)[0]).sum())
    return total / n
