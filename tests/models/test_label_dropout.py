"""Label dropout: one decision per sample, the null label one above the last class, in training only."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from small import losses_of
from support import host, spec

from minidit.backend import to_device
from minidit.diffusion.schedule import Schedule
from minidit.models.dit import DiT, DiTConfig
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.loop import LoopConfig
from minidit.training.source import drop_labels

CONFIG = DiTConfig(input_size=4, in_channels=1, hidden_size=8, depth=1, num_heads=2, num_classes=7, class_dropout_prob=0.3)


@spec("G.7")
@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 1)), min_size=1), st.floats(0, 1))
def test_a_label_is_dropped_where_the_draw_is_below_p(xp, pairs, p):
    y, u = (xp.asarray(v) for v in zip(*pairs, strict=True))
    dropped = drop_labels(y, u, p, 7)
    assert dropped.dtype == y.dtype and isinstance(dropped, xp.ndarray)
    assert host(dropped).tolist() == [7 if b < p else a for a, b in pairs]
    np.testing.assert_array_equal(host(drop_labels(y, u, 0.0, 7)), host(y))


@spec("G.7")
def test_u_of_more_axes_decides_for_each_number(xp):
    y, u = xp.asarray([[1, 2, 3], [4, 5, 6]]), xp.asarray([[0.1, 0.9, 0.1], [0.9, 0.9, 0.1]])
    assert host(drop_labels(y, u, 0.5, 7)).tolist() == [[7, 2, 7], [4, 5, 7]]


class Asked:
    """A network that keeps the labels which it was given."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def __call__(self, x, t, y):
        self.seen.append(host(y))
        return self.model(x, t, y)


@spec("G.7")
def test_training_drops_the_stated_share_and_leaves_the_other_labels(device):
    B = 2000
    model = DiT(CONFIG, Philox(0), device=device)
    data = np.zeros((7, 1, 4, 4), np.float32), np.arange(7)
    loop = loop_for(model, data, Diffusion.on_ladder(Schedule.linear()), LoopConfig(batch_size=B, steps=2, shards=1))
    asked = Asked(model)
    for update in range(2):
        losses_of(loop, update, network=asked)
    for y in asked.seen:
        assert abs((y == 7).mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / B)
        kept = np.bincount(y[y < 7], minlength=7)
        assert (kept > 0).all() and y.max() == 7
    assert (asked.seen[0] != asked.seen[1]).any()
    losses_of(loop, 0, np.arange(10, 30), asked)  # a piece of the batch meets the same decisions
    np.testing.assert_array_equal(asked.seen[-1], asked.seen[0][10:30])


@spec("G.7")
def test_the_model_itself_drops_nothing(device):
    model = DiT(CONFIG, Philox(0), device=device)
    for p in model.parameters():
        p.data[...] += to_device(np.random.default_rng(0).standard_normal(p.data.shape).astype(np.float32), device)
    x, t, y = (to_device(np.ones(s, d), device) for s, d in (((50, 1, 4, 4), "f4"), ((50,), "f4"), ((50,), "i8")))
    out = host(model(x, t, y))
    assert np.abs(out - out[0]).max() <= 1e-5 * np.abs(out).max()  # fifty times the same question, one answer


WORDS = DiTConfig(input_size=4, in_channels=1, hidden_size=8, depth=1, num_heads=2, num_classes=0, vocabulary=9, caption_length=3,
                  class_dropout_prob=0.25, word_dropout_prob=0.4)  # fmt: skip


@spec("G.8")
def test_training_makes_the_stated_share_of_words_unknown_each_by_itself_and_never_padding(device):
    n = 4000
    captions = np.tile(np.array([[5, 7, 0], [3, 4, 8]]), (n // 2, 1))
    model = DiT(WORDS, Philox(0), device=device)
    data = np.zeros((n, 1, 4, 4), np.float32), captions
    loop = loop_for(model, data, Diffusion.on_ladder(Schedule.linear(100)), LoopConfig(steps=1, batch_size=n, shards=1))
    _, y = loop.source.draw(loop.draws.pictures(n), loop.draws.at(0))
    y = host(y)
    whole = y[~(y == WORDS.vocabulary).any(axis=1)]
    assert abs(len(whole) / n - 0.75) < 4 * math.sqrt(0.25 * 0.75 / n)
    long, short = whole[whole[:, 2] != 0], whole[whole[:, 2] == 0]
    unknown = long == 1
    for m in range(3):
        assert abs(unknown[:, m].mean() - 0.4) < 4 * math.sqrt(0.24 / len(long))
    assert abs((unknown[:, 0] & unknown[:, 1]).mean() - 0.16) < 4 * math.sqrt(0.16 * 0.84 / len(long))
    assert set(np.unique(short)) == {0, 1, 5, 7} and (short[:, 2] == 0).all() and set(np.unique(long)) == {1, 3, 4, 8}
