"""What a trained network makes for another to learn from, built once and kept in the cache: pairs, and whole trajectories.

    pair i:        z from number i of a stream,   y the label of a picture of the data,   x_0 = the end of the walk from z   (F.5)
    trajectory i:  some points of the walk from number i of another stream                                                  (S.9)

They are made in blocks, an entry of the cache each. A process that is killed has lost one block; the next one goes on. The key
of a block is everything that its numbers depend on, the weights of the network included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minidit.backend import Array, to_device, to_host
from minidit.data.cache import Cache, Facts, Writer, in_words, key_of
from minidit.diffusion.fresh import ddim
from minidit.diffusion.row import table_of
from minidit.models.backbone import TrainedBackbone
from minidit.outgoing import silent
from minidit.processes.distil import Trajectories, trajectories
from minidit.processes.reflow import Blocks, Maker, StoredPairs
from minidit.processes.sets import environment
from minidit.random import Philox
from minidit.training.source import Source

BLOCK = 500  # pairs that are made together
STREAM = 0x706169  # of the noise of pairs; the next one chooses their labels


def pairs_of(
    maker: Maker, source: Source, n: int, *, first: int = 0, seed: int = 0, cache: Cache | None = None
) -> StoredPairs:  # fmt: skip
    """n pairs with the labels of a source, from number `first`. cache None: they are made again by every process.

    Raises DataError if the disk has too little room.
    """
    parts = [range(k, min(k + BLOCK, first + n)) for k in range(first, first + n, BLOCK)]
    if cache is None:
        blocks = [made(maker, source, part, seed) for part in parts]
    else:
        facts = [*facts_of(maker, source.labels), seed]
        make = lambda part: made(maker, source, part, seed, alone=True)  # the other ranks wait for the entry
        blocks = kept(cache, "pairs", facts, parts, make, 2 * bytes_of(maker, n))
    labels = None if source.labels is None else to_device(np.concatenate([b["y"] for b in blocks]), maker.network.device)
    x_0, z = (Blocks([b[name] for b in blocks]) for name in ("x_0", "z"))
    return StoredPairs(x_0, z, labels)


def made(maker: Maker, source: Source, part: range, seed: int, *, alone: bool = False) -> dict[str, Array]:
    """The pairs of these numbers, on the host."""
    network, numbers = maker.network, np.arange(part.start, part.stop)
    z = Philox(seed, STREAM).normal((len(part), *network.shape), numbers, network.device, network.dtype)
    y = None
    if source.labels is not None:
        y = to_host(source.labels)[Philox(seed, STREAM + 1).integers(0, len(source), (len(part),), numbers)]
    arrays = {"x_0": to_host(maker.ends(z, y, alone=alone)), "z": to_host(z)}
    return arrays if y is None else arrays | {"y": np.asarray(y, np.int64)}


def trajectories_of(maker: Maker, labels: Array | None, n: int, keep: int, cache: Cache | None = None) -> Trajectories:
    """n trajectories of these labels, kept at keep + 1 points. cache None: they are walked again by every process.

    Raises DataError if the disk has too little room.
    """

    def walked(part: range) -> Trajectories:
        y = None if labels is None else labels[part.start : part.stop]
        return trajectories(maker.network, maker.process, y, maker.settings, n=len(part), keep=keep, first=part.start)

    if cache is None:
        return walked(range(n))
    parts = [range(k, min(k + BLOCK, n)) for k in range(0, n, BLOCK)]
    facts = [*facts_of(maker, labels), maker.settings.seed, keep]
    blocks = kept(cache, "trajectories", facts, parts, lambda part: {"x": walked(part).x}, (keep + 1) * bytes_of(maker, n))
    return Trajectories(Blocks([b["x"] for b in blocks]), labels)


def bytes_of(maker: Maker, n: int) -> int:
    """The size of n pictures."""
    return int(n * np.prod(maker.network.shape) * np.dtype(maker.network.dtype).itemsize)


def kept(
    cache: Cache, name: str, facts: list[object], parts: list[range], make: Callable[[range], dict[str, Array]], size: int
) -> list[dict[str, Array]]:  # fmt: skip
    """The blocks of these numbers from the cache; missing ones are made. facts : all that the numbers in them depend on."""
    keys, what = [key_of(name, *facts, part.start, len(part)) for part in parts], f"{sum(map(len, parts))} {name}"
    if missing := [part for part, key in zip(parts, keys, strict=True) if cache.find(key) is None]:
        share = sum(map(len, missing)) / sum(map(len, parts))
        cache.check_room(what, round(size * share))
        cache.tell(f"{what}, {in_words(size)}, of which {round(100 * share)} % are to be made, are kept in {cache.folder}")
    blocks, quiet = [], replace(cache, tell=silent)
    for part, key in zip(parts, keys, strict=True):

        def fill(writer: Writer, part: range = part) -> Facts:
            for field, a in make(part).items():
                writer.append(field, a)
            return {}

        blocks.append(quiet.entry(key, what, size * len(part) // sum(map(len, parts)), fill).arrays)
        if missing:
            cache.progress(name, part.stop - parts[0].start, parts[-1].stop - parts[0].start)
    return blocks


def facts_of(maker: Maker, labels: Array | None) -> list[object]:
    """What the ends of walks depend on."""
    s, path, answer = maker.settings, maker.process.path, maker.process.answer
    grid = s.times(path)
    walk = [table_of(answer, path, grid, ddim()).tolist(), type(path).__name__, s.solver.answer and s.solver.answer.name,
            s.solver.clock and s.solver.clock.__name__, s.guidance, s.interval, s.limit is not None, s.precision]  # fmt: skip
    labels = None if labels is None else to_host(labels).tolist()
    return [repr(maker.network.config), digest_of(maker.network), walk, labels, environment(maker.network.device)]


def digest_of(network: TrainedBackbone) -> str:
    """SHA-256 of a network's weights."""
    return hashlib.sha256(np.ascontiguousarray(to_host(network.flat)).tobytes()).hexdigest()
