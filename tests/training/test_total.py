"""The sum over all shards has the same bits however they are dealt out to ranks: here to threads that exchange their parts."""

import threading
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minidit.training.total import ALIGNED, Total, inside, pairs
from minidit.training.workers import shard_of


class Imagined:
    """One of several ranks that are threads of this process, and meet at a barrier."""

    alone = False

    def __init__(self, count, me, board):
        self.count, self.me, self.board = count, me, board
        self.sent = 0

    def swap(self, send, out, into, places):
        self.board.posted[self.me] = (send, out)
        self.board.barrier.wait()
        for r, place in enumerate(places):
            theirs, parts = self.board.posted[r]
            assert into[place].size == theirs[parts[self.me]].size
            into[place] = theirs[parts[self.me]]
        self.sent += sum(p.stop - p.start for r, p in enumerate(out) if r != self.me)
        self.board.barrier.wait()

    def gather(self, array, parts):
        self.swap(array.copy(), [parts[self.me]] * self.count, array, parts)


def summed(count, gradients):
    """(the sum on every rank, the numbers that each sent) of one gradient per shard, on `count` ranks."""
    shards, board = len(gradients), SimpleNamespace(posted={}, barrier=threading.Barrier(count, timeout=20))
    results, ranks = {}, [Imagined(count, r, board) for r in range(count)]

    def one(me):
        buffers = [g.copy() for g in gradients[shard_of(shards, count, me)]]
        try:
            results[me] = Total(ranks[me], shards, buffers).everywhere()
        except Exception:
            board.barrier.abort()  # nobody waits for one that failed

    threads = [threading.Thread(target=one, args=(me,)) for me in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[me] for me in range(count)], [r.sent for r in ranks]


def of_one_process(gradients):
    return Total(SimpleNamespace(count=1, me=0, alone=True), len(gradients), [g.copy() for g in gradients]).everywhere()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 100), st.integers(0, 2**31))
def test_any_number_of_ranks_gives_the_bits_of_one_process(count, more, size, seed):
    """The numbers are of very different sizes: every other order of adding them would show."""
    shards, rng = count + more - 1, np.random.default_rng(seed)
    gradients = list((rng.normal(size=(shards, size)) * 10.0 ** rng.integers(-6, 7, (shards, 1))).astype(np.float32))
    expected = of_one_process(gradients).tobytes()
    assert all(total.tobytes() == expected for total in summed(count, gradients)[0])


def test_neighbours_are_added_first():
    assert list(pairs(6)) == [(0, 1), (2, 3), (4, 5), (0, 2), (0, 4)]
    assert inside(6, slice(0, 2)) == [(0, 1)] and inside(6, slice(2, 6)) == [(2, 3), (4, 5)] and inside(6, slice(1, 2)) == []
    a, b, c, d, e = (np.full(ALIGNED, x, np.float32) for x in (1e8, 1.0, -1e8, 3.0, 0.25))
    assert (of_one_process([a, b, c, d, e]) == ((a + b) + (c + d)) + e).all()


@given(st.integers(1, 300))
def test_every_shard_is_added_once(shards):
    added = [j for _, j in pairs(shards)]
    assert sorted(added) == list(range(1, shards)) and all(i < j for i, j in pairs(shards))


@given(st.integers(2, 8), st.integers(0, 3), st.integers(1, 30))
def test_with_powers_of_two_a_rank_sends_what_a_ring_would(count, k, times):
    """2 (R-1)/R of the vector, for one shard per rank and for 2, 4 or 8."""
    size = times * count * 2**k
    gradients = [np.ones(size, np.float32)] * (count * 2**k)
    assert summed(count, gradients)[1] == [2 * (count - 1) * size // count] * count
