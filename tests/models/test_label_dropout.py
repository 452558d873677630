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
