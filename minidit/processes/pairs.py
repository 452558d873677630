"""Pairs of noise, picture and label that a trained network makes, built once and kept in the cache.

    pair i:   z from number i of a stream,   y the label of a picture of the data,   x_0 = the end of the walk from z      (F.5)

Pairs are made in blocks, an entry of the cache each. A process that is killed has lost one block; the next one goes on. The key
of a block is everything that its numbers depend on, the weights of the network included.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from minidit.backend import Array, to_device, to_host
from minidit.data.cache import Cache, Facts, Writer, in_words, key_of
from minidit.diffusion.fresh import ddim
from minidit.diffusion.row import table_of
from minidit.models.backbone import TrainedBackbone
from minidit.outgoing import silent
from minidit.processes.latents import environment
from minidit.processes.reflow import Blocks, Maker, StoredPairs
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
        whole = 2 * n * int(np.prod(maker.network.shape)) * np.dtype(maker.network.dtype).itemsize
        blocks = kept(maker, source, parts, seed, cache, f"{n} pairs", whole)
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


def kept(
    maker: Maker, source: Source, parts: list[range], seed: int, cache: Cache, what: str, size: int
) -> list[dict[str, Array]]:  # fmt: skip
    """The same from the cache, whose missing blocks are made."""
    keys = [key_of("pairs", *facts_of(maker, source), seed, part.start, len(part)) for part in parts]
    if missing := [part for part, key in zip(parts, keys, strict=True) if cache.find(key) is None]:
        share = sum(map(len, missing)) / sum(map(len, parts))
        cache.check_room(what, round(size * share))
        cache.tell(f"{what}, {in_words(size)}, of which {round(100 * share)} % are to be made, are kept in {cache.folder}")
    blocks, quiet = [], replace(cache, tell=silent)
    for part, key in zip(parts, keys, strict=True):

        def fill(writer: Writer, part: range = part) -> Facts:
            for name, a in made(maker, source, part, seed, alone=True).items():  # the other ranks wait for the entry
                writer.append(name, a)
            return {}

        blocks.append(quiet.entry(key, what, size * len(part) // sum(map(len, parts)), fill).arrays)
        if missing:
            cache.progress("pairs", part.stop - parts[0].start, parts[-1].stop - parts[0].start)
    return blocks


def facts_of(maker: Maker, source: Source) -> list[object]:
    """What the numbers of pairs depend on."""
    s, path, answer = maker.settings, maker.process.path, maker.process.answer
    grid = s.times(path)
    walk = [table_of(answer, path, grid, ddim()).tolist(), type(path).__name__, s.solver.answer and s.solver.answer.name,
            s.solver.clock and s.solver.clock.__name__, s.guidance, s.interval, s.limit is not None, s.precision]  # fmt: skip
    labels = None if source.labels is None else to_host(source.labels).tolist()
    return [repr(maker.network.config), digest_of(maker.network), walk, labels, environment(maker.network.device)]


def digest_of(network: TrainedBackbone) -> str:
    """SHA-256 of a network's weights."""
    return hashlib.sha256(np.ascontiguousarray(to_host(network.flat)).tobytes()).hexdigest()
