"""The loss on held-out samples: every one counts once, in whatever batches they are looked at."""

import numpy as np
import pytest
from small import UNCONDITIONAL, awake, pictures
from support import agree

import minidit as md
from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.training import held_out
from minidit.training.draws import Draws
from minidit.training.loop import LoopConfig
from minidit.training.source import source_of


@pytest.mark.parametrize("n", [1, 7, 100])
def test_every_sample_counts_once_in_whatever_batches(monkeypatch, n):
    x_0, _ = pictures(n, UNCONDITIONAL)
    process = Diffusion.on_ladder(Schedule.linear(30))
    loop = loop_for(awake(UNCONDITIONAL), pictures(9, UNCONDITIONAL)[0], process, LoopConfig(batch_size=6))
    losses = []
    for together in (1, 7, 64):  # batches of 6, 7 and 24
        monkeypatch.setattr(held_out, "TOGETHER", together)
        losses.append(held_out.held_out_loss(loop, source_of((x_0, None))))
    agree(losses[1:], [losses[0]] * 2, bound=1e-5)
    alone = [held_out.held_out_loss(loop, source_of((x_0[: k + 1], None))) * (k + 1) for k in range(min(n, 7))]
    assert all(b > a for a, b in zip([0.0, *alone], alone, strict=False))  # each adds its own


def test_the_loss_of_a_network_is_the_mean_over_all_samples_and_changes_nothing():
    """By hand: the same draws, the line of the process, the true answer."""
    model, process = awake(), md.Diffusion.on_ladder(md.Schedule.cosine(30), md.V)
    x_0, y = np.random.default_rng(0).normal(size=(70, *model.shape)).astype(np.float32), np.arange(70) % 3
    before, got = model.flat.copy(), md.loss(model, (x_0, y), process, seed=3)
    draws = Draws(3, held_out.HELD_OUT_STREAM, np.arange(70), per=process.per)
    t, eps = draws.integers(1, 31), draws.normal(x_0.shape)
    x_t = md.q_sample(x_0, t, eps, process.path)
    with md.no_grad():
        v_hat = model(*process.path.inputs(x_t, t), y)
    agree(got, ((v_hat - md.predict_v(x_0, eps, t, process.path)) ** 2).mean(), bound=1e-6)
    assert got == md.loss(model, (x_0, y), process, seed=3) != md.loss(model, (x_0, y), process)
    assert np.array_equal(model.flat, before)
    with pytest.raises(ValueError, match="the data have no labels"):
        md.loss(model, x_0, process)
