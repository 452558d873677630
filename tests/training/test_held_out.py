"""The loss on held-out samples: every one counts once, in whatever batches they are looked at."""

import pytest
from small import UNCONDITIONAL, awake, pictures
from support import agree

from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.training import held_out
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
