"""The sum of the gradients of all shards: the same bits on any number of ranks.

    ((g_0 + g_1) + (g_2 + g_3)) + ((g_4 + g_5) + …)        neighbours first: one tree over the shards, whoever holds them

    branches   a rank adds up the branches that its own shards make: one, if every rank has 2^k of them
    swap       and sends every rank that rank's part of the vector
    rest       a rank climbs the rest of the tree on its part
    gather     and every rank gets all parts

With one branch per rank, a rank sends 2 (R-1)/R of the vector to the others in all, as in a ring all-reduce; every further branch
adds (R-1)/R. Part i of the vector belongs to the rank of shard i, and is squared alone, so the norm has the same bits too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minidit.backend import Array, device_of, flat_buffer
from minidit.training.ranks import Ranks
from minidit.training.workers import shard_of

ALIGNED = 16  # elements of a cache line: a received part lies in it where it lies in the whole vector
Pair = tuple[int, int]


def pairs(shards: int) -> Iterator[Pair]:
    """(i, j): shard j is added to shard i, in this order; shard 0 is then the sum."""
    step = 1
    while step < shards:
        yield from ((i, i + step) for i in range(0, shards - step, 2 * step))
        step *= 2


def inside(shards: int, held: slice) -> list[Pair]:
    """The pairs whose branches consist of these shards only."""
    return [(i, j) for i, j in pairs(shards) if held.start <= i and min(2 * j - i, shards) <= held.stop]


class Total:
    """The sum of this rank's buffers and those of all other ranks; every rank has it in its first buffer."""

    def __init__(self, ranks: Ranks, shards: int, buffers: Sequence[Array]) -> None:
        self.ranks, self.shards, self.buffers, size = ranks, shards, buffers, len(buffers[0])
        held = [shard_of(shards, ranks.count, r) for r in range(ranks.count)]
        self.first = held[ranks.me].start  # the shard of buffers[0]
        self.parts = [slice(size * h.start // shards, size * h.stop // shards) for h in held]  # of the vector, one per rank
        climbed = [inside(shards, h) for h in held]
        self.mine = climbed[ranks.me]
        self.others = [p for p in pairs(shards) if not any(p in c for c in climbed)]
        self.roots = [sorted({*range(h.start, h.stop)} - {j for _, j in c}) for h, c in zip(held, climbed, strict=True)]
        self.received: list[tuple[Array, list[slice]]] = []  # one array per branch of a rank, and each rank's place in it
        self.branch: dict[int, Array] = {}  # root -> its branch's sum, on this rank's part of the vector
        if not ranks.alone:
            self._make_room()

    def _make_room(self) -> None:
        like, part = self.buffers[0], self.parts[self.ranks.me]
        shift, length = part.start % ALIGNED, part.stop - part.start
        stride = -(-length // ALIGNED) * ALIGNED + ALIGNED
        for k in range(max(map(len, self.roots))):
            array = flat_buffer(self.ranks.count * stride, like.dtype, device_of(like))
            starts = [r * stride + shift for r in range(self.ranks.count)]
            places = [slice(s, s + length * (k < len(roots))) for s, roots in zip(starts, self.roots, strict=True)]
            self.received.append((array, places))
            for roots, place in zip(self.roots, places, strict=True):
                if k < len(roots):
                    self.branch[roots[k]] = array[place]

    def branches(self, part: slice) -> Array:
        """Adds up this rank's own branches on a part of the vector  ->  that part of the first of them."""
        for i, j in self.mine:
            self.buffers[i - self.first][part] += self.buffers[j - self.first][part]
        return self.buffers[0][part]

    def swap(self) -> None:
        """Gives every rank its part of all branches."""
        roots, nothing = self.roots[self.ranks.me], [slice(0, 0)] * self.ranks.count
        for k, (array, places) in enumerate(self.received):
            send, out = (self.buffers[roots[k] - self.first], self.parts) if k < len(roots) else (self.buffers[0], nothing)
            self.ranks.swap(send, out, array, places)

    def rest(self, part: slice) -> Array:
        """The sum of all branches on a part of this rank's part; it is then in the first buffer too."""
        start = self.parts[self.ranks.me].start
        here = slice(part.start - start, part.stop - start)
        for i, j in self.others:
            self.branch[i][here] += self.branch[j][here]
        total = self.branch[0][here]
        self.buffers[0][part] = total
        return total

    def gather(self) -> None:
        """Completes the first buffer of every rank."""
        self.ranks.gather(self.buffers[0], self.parts)

    def everywhere(self) -> Array:
        """All of it, one after the other  ->  the sum."""
        self.branches(slice(None))
        if not self.ranks.alone:
            self.swap()
            self.rest(self.parts[self.ranks.me])
            self.gather()
        return self.buffers[0]
