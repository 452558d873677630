"""Recorded walks, kept between calls: a GPU replays the steps of a network's last walk for the next one that is alike.

    alike        the same path, tables, scales of guidance, limit, shapes, precision, libraries and places of the weights;
                 and the same numbers of random draws, if a step draws any
    written to   the sample, the counter, the labels, and under bf16 the rounded weights: arrays of the recording

The weights are read where they are, so that a recording sees what an update changed. It refers to arrays and never to the
network, so that it is freed with it. Each network has one recording at most, and it holds only a part of the device's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minidit.backend import Array, device_of, memory_of, xp_of
from minidit.diffusion.times import number_of
from minidit.nn.device import Captured, libraries_asked_for, recorded
from minidit.nn.module import Module
from minidit.nn.precision import copy_of
from minidit.processes.walk import Progress, Walk

MOST = 1 / 16  # of the device's memory, that a recording may keep after its walk

_kept: WeakKeyDictionary[Module, tuple[Any, Recording]] = WeakKeyDictionary()


class Recording:
    """The arrays and the recorded steps of a walk, one kind of step per scale of guidance."""

    def __init__(self, walk: Walk, x: Array, precision: str) -> None:
        xp = xp_of(x)
        self.x, self.F, self.k = xp.empty_like(x), xp.zeros_like(x), xp.zeros((1,), np.int64)
        self.times = xp.asarray(np.array([t for t, _ in walk.grid]))
        self.numbers = None if self.times.dtype.kind == "i" else number_of(self.times)  # a rung is its own number
        self.arrays, self.labels = walk.arrays(), walk.labels
        network = walk.denoiser.network
        self.flat = network.flat if isinstance(network, Module) else None
        self.weights = None if self.flat is None else copy_of(self.flat, precision)
        self.steps: dict[float, Captured] = {}

    def refresh(self, walk: Walk, precision: str) -> None:
        """Another walk that is alike: its labels, and the weights as they are now."""
        for w, y in self.labels.items():
            if y is not None:
                y[...] = walk.labels[w]
        if self.weights is not None:
            self.weights[...] = copy_of(self.flat, precision)

    def run(self, walk: Walk, x: Array, progress: Progress | None) -> Array:
        """x : (B, ...) at the start  ->  x_0, its own array."""
        walk = walk.with_arrays(self.arrays)
        self.x[...], self.F[...], self.k[...] = x, 0, 0
        for w in dict.fromkeys(walk.scales):
            step = self.step(walk, w)
            self.steps.setdefault(w, recorded(step, "the sampling step")).f = step
        try:
            for done, w in enumerate(walk.scales, 1):
                self.steps[w]()
                if progress is not None:
                    progress(done, len(walk.grid))
            return self.x.copy()
        finally:
            for captured in self.steps.values():
                captured.f = over  # it referred to the network

    def step(self, walk: Walk, w: float) -> Callable[[], None]:
        """The next step of the walk: it reads the counter, and writes the sample and the counter."""

        def down() -> None:
            x, k, t = self.x, self.k, self.times[self.k]
            if walk.solver.answer is None:
                number = t if self.numbers is None else self.numbers[k]
                walk.step(x, k, t, w, noisy=walk.fresh.noisy, guess=False, into=x, number=number)
            else:
                self.F[...] = walk.better_step(x, k, t, w, self.F, into=x)[2]
            k += 1

        return down

    def keeps(self) -> int | None:
        """The bytes that it holds, or None where a kind of step could not be recorded."""
        pools = [step.pool for step in self.steps.values()]
        arrays = self.x.nbytes * 2 + (0 if self.weights is None else self.weights.nbytes)
        return None if None in pools else arrays + sum(int(pool.total_bytes()) for pool in pools)


def over() -> None:
    """In the place of a step that was recorded: raises RuntimeError."""
    raise RuntimeError("a recorded walk is over")


def likeness(walk: Walk, network: Module, x: Array, precision: str) -> Any:
    """What two walks have in common if one can be replayed as the other. Raises TypeError where that cannot be compared."""
    d, draws, tables, solver = walk.denoiser, walk.draws, walk.tables(), walk.solver
    places = [a.data.ptr for a in (network.flat, *(b for _, b in network.named_buffers()))]
    labels = tuple((w, None if y is None else (y.shape, y.dtype.name)) for w, y in walk.labels.items())
    drawn = (draws.seed, draws.stream, tuple(draws.samples.tolist())) if walk.fresh.noisy else ()
    key = (
        d.path, d.limit, tuple(walk.grid), tuple(walk.scales), labels, x.shape, x.dtype.name, precision, tuple(places), drawn,
        tuple(t.tobytes() for t in tables), solver.answer is None, solver.on_the_arc, walk.fresh.noisy, walk.fresh.learned,
        libraries_asked_for(),
    )  # fmt: skip
    hash(key)
    return key


def recording_of(walk: Walk, x: Array, precision: str) -> tuple[Recording, Callable[[], None]]:
    """(the recording of a walk that was alike, or a new one; what to call after the walk, to keep it for the next).

    Nobody else has it meanwhile: another thread that samples from the same network records its own.
    """
    network: Any = walk.denoiser.network
    if not isinstance(network, Module):  # any callable may be one
        return Recording(walk, x, precision), lambda: None
    try:
        key, last = likeness(walk, network, x, precision), _kept.pop(network, None)
    except TypeError:
        return Recording(walk, x, precision), lambda: None
    if last is not None and last[0] == key:
        recording = last[1]
        recording.refresh(walk, precision)
    else:
        recording = Recording(walk, x, precision)

    def keep() -> None:
        held = recording.keeps()
        if held is not None and held <= MOST * memory_of(device_of(x)):
            _kept[network] = key, recording

    return recording, keep
