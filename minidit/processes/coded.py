"""The numbers of a data set, for networks that write them: what a tokenizer makes of every picture, in memory or in the cache.

    x_0 = numbers(encode(x)) : (B, N) ints        x = decode(vectors of x_0)                             (Q.1, Q.8, Q.9)

Every picture is encoded once, and its mirror image where both are used: its numbers do not change from update to update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.backend import Array, to_device, to_host, xp_of
from minidit.data.cache import Cache
from minidit.processes.codes import TokenNetwork, numbers_of, pictures_of, tokens_of
from minidit.processes.sets import encoded
from minidit.processes.tokenizer import Pixel
from minidit.training.augment import NOTHING, Augment, flips
from minidit.training.draws import Draws
from minidit.training.source import Batch, Pictures, Source, Stored, source_of


@dataclass
class Numbers:
    """index : (N, n) whole numbers of any type   mirrored : those of the flipped pictures; a sample then uses one of the two"""

    index: Array
    labels: Array | None = None
    mirrored: Array | None = None
    levels: None = None

    def __len__(self) -> int:
        return len(self.index)

    def draw(self, index: Array, draws: Draws) -> Batch:
        x = draws.rows(self.index, index)
        if self.mirrored is not None:
            x = xp_of(x).where(flips(draws)[:, None], draws.rows(self.mirrored, index), x)
        return x.astype(np.int64), None if self.labels is None else self.labels[index]


@dataclass(frozen=True)
class Codes:
    """The tokenizer of a run whose network writes numbers."""

    network: TokenNetwork
    limit: None = None
    unit: str = "code"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the map of vectors."""
        size, factor = self.network.config.size, self.network.config.factor
        H, W = (size, size) if isinstance(size, int) else size
        return H // factor, W // factor

    @property
    def vocabulary(self) -> int:
        """The number of different codes."""
        return self.network.config.vocabulary

    def shape(self, C: int, *size: int) -> tuple[int, ...]:
        config = self.network.config
        if len(size) != 2 or config.channels != C or any(n % config.factor for n in size):
            pictures = " x ".join(map(str, (C, *size)))
            raise ValueError(f"{pictures} do not fit a tokenizer of {config.channels} channels and factor {config.factor}")
        return (tokens_of(self.network, *(n // config.factor for n in size)),)

    def source(self, data: Any, augment: Augment = NOTHING, cache: Cache | None = None) -> Source:
        """Mirrored pictures have their own numbers. Shifted ones have not: `crop` acts on the tokenizer's training only."""
        return numbers_of_set(self.network, data, flip=augment.flip, cache=cache)

    def held_out(self, data: Any, cache: Cache | None = None) -> Source:
        return numbers_of_set(self.network, data, cache=cache)

    def encode(self, x: Array) -> Array:
        return numbers_of(self.network, x)

    def decode(self, x_0: Array) -> Pixel:
        return pictures_of(self.network, x_0, *self.grid)


def numbers_of_set(network: TokenNetwork, data: Any, *, flip: bool = False, cache: Cache | None = None) -> Numbers:
    """The numbers of a data set.   flip : also those of the mirrored pictures   cache : for pictures on disk"""
    source = source_of(data, "cpu", network.dtype)
    assert isinstance(source, (Pictures, Stored))
    kind, (C, *size) = np.uint16 if network.config.vocabulary <= 2**16 else np.int32, source.part(slice(1)).shape[1:]

    def encode(block: slice, alone: bool) -> list[Array]:
        x = to_host(source.part(block))
        both = [x, np.ascontiguousarray(x[..., ::-1])] if flip else [x]
        return [to_host(numbers_of(network, pictures, alone=alone)).astype(kind) for pictures in both]

    one = (tokens_of(network, *(s // network.config.factor for s in size)),), kind
    rows = dict.fromkeys(["numbers", "mirrored"][: 1 + flip], one)
    arrays, _ = encoded(data, len(source), rows, encode, what="codes", made_of=([C, *size], flip), network=network, cache=cache)
    labels = None if source.labels is None else to_device(source.labels, network.device)
    return Numbers(arrays[0], labels, arrays[1] if flip else None)
