"""All random numbers of training and sampling. Only this module knows stream, sample indices, device and update counter.

    draw k of update n     number n · per + k of the stream       batch of update n     piece n of the endless order of the data
    noise of a walk at t   number t                               so grids of any length use the same noise at the same time

Numbers are tied to a sample's global index, so they depend neither on the batch size nor on the worker that draws them.
Updates are counted on the host, or on the device, where a recorded update reads the counter and increments it. Of an array that
stays on the host or on a disk, the rows of an update's batch are copied to the device before the update starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minidit.backend import Array, home_of, module_of, to_device, to_host
from minidit.data import batch_indices
from minidit.nn.device import Stream

LABEL = 1  # the number of the draw for label dropout, reserved even where no labels are dropped
ROWS = 64  # updates whose batches are uploaded together


class Clock:
    """The number of finished updates, on the device, and the batches of the updates around it."""

    def __init__(self, device: str, batch_size: int) -> None:
        self.xp = module_of(device)
        self.done = self.xp.zeros((1,), np.int64)
        self.samples = self.xp.arange(batch_size)
        self.tables: dict[tuple[int, int, int], Array] = {}  # row n mod ROWS is the batch of update n
        self.copies: dict[tuple[int, int, int], tuple[Any, Array]] = {}  # an array on the host, its rows of this update's batch
        self.computed: dict[int, tuple[Callable[[int], Array], Array, Array]] = {}  # (update -> table), the last one, its copy
        self.now = 0

    def set(self, update: int) -> None:
        """Sets the counter on the device. Not to be called inside a recorded update."""
        self.done[...] = update
        self.follow(update, force=True)

    def follow(self, update: int, *, force: bool = False) -> None:
        """Tells the clock which update is next; every ROWS updates it uploads the next batches."""
        old, self.now = self.now // ROWS, update
        if force or update // ROWS != old:
            for key, table in self.tables.items():
                table[...] = self.xp.asarray(self._rows(*key))  # in stream order: after everything that still reads it
        for (_, batch_size, seed), (array, copy) in self.copies.items():
            copy[...] = self.xp.asarray(self._batch_of(array, batch_size, seed))
        for name, (at, last, its_copy) in self.computed.items():
            if (table := at(update)) is not last:
                its_copy[...] = self.xp.asarray(table)
                self.computed[name] = at, table, its_copy

    def _rows(self, batch_size: int, n: int, seed: int) -> Array:
        first = self.now // ROWS * ROWS
        return np.stack([batch_indices(k, batch_size, n, seed) for k in range(first, first + ROWS)])

    def batch(self, batch_size: int, n: int, seed: int) -> Array:
        """The indices of this update's pictures: (batch_size,) int64 on the device."""
        key = batch_size, n, seed
        if key not in self.tables:
            self.tables[key] = self.xp.asarray(self._rows(*key))
        return self.tables[key][self.done % ROWS][0]

    def rows(self, array: Any, batch_size: int, seed: int) -> Array:
        """The rows of an array on the host that are this update's batch, on the device."""
        key = id(array), batch_size, seed
        if key not in self.copies:
            self.copies[key] = array, self.xp.asarray(self._batch_of(array, batch_size, seed))
        return self.copies[key][1]

    def numbers(self, at: Callable[[int], Array]) -> Array:
        """at(this update), on the device."""
        if id(at) not in self.computed:
            table = at(self.now)
            self.computed[id(at)] = at, table, self.xp.array(table)
        return self.computed[id(at)][2]

    def _batch_of(self, array: Any, batch_size: int, seed: int) -> Array:
        return np.asarray(array[batch_indices(self.now, batch_size, len(array), seed)])


@dataclass
class Draws:
    """The random numbers of some samples at one update, or at one time of a walk.

    samples : (B,) global indices    when : the update or the time, an int; on a device a Clock or a counter (1,) int64
    Draws are numbered from 0; a draw without an explicit number takes the lowest unused one.
    """

    seed: int
    stream: int
    samples: Array
    device: str = "cpu"
    dtype: Any = np.float32
    per: int = 1  # numbers of the stream per update
    when: int | Clock | Array = 0
    batch_size: int = 0  # of all shards together
    taken: set[int] = field(default_factory=set)

    def at(self, when: int | Clock | Array, samples: Array | None = None) -> Draws:
        """The draws of the same stream at another update or time, for the same samples or others."""
        return replace(self, when=when, samples=self.samples if samples is None else samples, taken=set())

    def _stream(self, number: int | None) -> Stream:
        if number is None:
            number = next(k for k in range(len(self.taken) + 2) if k not in self.taken and k != LABEL)
        if number in self.taken or number >= self.per:
            raise ValueError(f"draw {number} of {self.per} per update: it is already used, or belongs to the next update")
        self.taken.add(number)
        when = self.when.done if isinstance(self.when, Clock) else self.when
        if home_of(when) == "":
            return Stream(self.seed, self.stream, int(when) * self.per + number)
        return Stream(self.seed, self.stream, number, counter=when, per=self.per)

    def uniform(self, *, number: int | None = None, dtype: Any = np.float32, more: Sequence[int] = ()) -> Array:
        """(B,) numbers in (0, 1), one per sample; or (B, *more), as many per sample as that."""
        return self._stream(number).uniform((len(self.samples), *more), self.samples, self.device, dtype)

    def integers(self, low: int, high: int, *, number: int | None = None) -> Array:
        """(B,) int64, low ≤ n < high, one per sample."""
        return self._stream(number).integers(low, high, (len(self.samples),), self.samples, self.device)

    def normal(self, shape: Sequence[int], *, number: int | None = None) -> Array:
        """shape : (B, ...)  ->  standard normal noise."""
        return self._stream(number).normal(shape, self.samples, self.device, self.dtype)

    def rows(self, array: Any, index: Array) -> Array:
        """array[index], index = pictures(len(array)), on this device; an array on the host or on a disk stays there."""
        if self.device == "cpu":
            return np.asarray(array[index])
        if home_of(array) == "cupy":
            return array[index]
        if not isinstance(self.when, Clock):
            return to_device(np.asarray(array[to_host(index)]), self.device)
        rows = self.when.rows(array, self.batch_size, self.seed)
        return rows if self.samples is self.when.samples else rows[self.samples]

    def numbers(self, at: Callable[[int], Array]) -> Array:
        """at(update), on this device: a read-only table of one shape for all updates, computed on the host."""
        if isinstance(self.when, Clock):
            return self.when.numbers(at)
        if isinstance(self.when, int):
            return to_device(at(self.when), self.device)
        raise TypeError("a table per update needs an update: these draws belong to a time of a walk")

    def pictures(self, n: int) -> Array:
        """(B,) int64: the indices, out of n pictures, of this update's samples."""
        if isinstance(self.when, Clock):
            index = self.when.batch(self.batch_size, n, self.seed)
            return index if self.samples is self.when.samples else index[self.samples]
        return to_device(batch_indices(self.when, self.batch_size, n, self.seed)[self.samples], self.device)
