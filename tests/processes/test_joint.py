"""Clips and pictures in one update: the same loss on both, with noise of its own, and a frame of the clip as the picture."""

from dataclasses import replace

import numpy as np
import pytest
from support import host

import minidit as md
from minidit.models.spacetime import SpacetimeDiT
from minidit.models.spacetime_config import SpacetimeConfig
from minidit.processes.joint import PICTURES, Joint
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import source_of

PROCESS = md.Diffusion.on_ladder(md.Schedule.cosine(20), md.V)
CONFIG = SpacetimeConfig(4, 3, 1, 2, 1, 16, 1, 2, num_classes=0)


class Watching:
    """A network that keeps what it was shown, and answers 0."""

    def __init__(self):
        self.shown = []

    def __call__(self, x, t, y=None):
        self.shown.append((x, t))
        return np.zeros_like(x)


def setting(n=6):
    x_0 = Philox(3).normal((n, 1, 3, 4, 4))
    return x_0, Draws(0, PROCESS.stream, np.arange(n), per=PROCESS.per + 1, batch_size=n)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_loss_is_that_of_clips_and_that_of_a_frame_of_each(share):
    x_0, draws = setting()
    network = Watching()
    both, numbers = Joint(PROCESS, share).loss(network, x_0, None, draws.at(3))
    (clips, t), (frames, u) = network.shown
    assert clips.shape == x_0.shape and frames.shape == (6, 1, 1, 4, 4) and not np.array_equal(t, u)
    alone, _ = PROCESS.loss(Watching(), x_0, None, draws.at(3))
    per = replace(draws, stream=draws.stream ^ PICTURES)
    candidates = [host(PROCESS.loss(Watching(), x_0[:, :, k : k + 1], None, per.at(3))[0]) for k in range(3)]
    pictures = host(numbers["pictures"])
    assert all(np.isclose(pictures[b], [c[b] for c in candidates]).any() for b in range(6))
    assert np.allclose(host(both), (1 - share) * host(alone) + share * pictures, rtol=1e-6)
    chosen = {int(np.argmin([abs(c[b] - pictures[b]) for c in candidates])) for b in range(6)}
    assert len(chosen) > 1


def test_a_part_of_a_batch_computes_its_part_of_the_losses():
    x_0, draws = setting()
    whole, _ = Joint(PROCESS).loss(Watching(), x_0, None, draws.at(3))
    part, _ = Joint(PROCESS).loss(Watching(), x_0[2:5], None, draws.at(3, np.arange(2, 5)))
    assert np.array_equal(host(part), host(whole)[2:5])


def test_one_network_learns_both(device):
    network = SpacetimeDiT(CONFIG, Philox(0), device=device)
    loop = Loop(
        network,
        Joint(PROCESS),
        source_of(Philox(3).normal((6, *CONFIG.shape)), device),
        LoopConfig(steps=3, batch_size=4, shards=2, lr=1e-2),
    )
    records = list(loop.run())
    assert len(records) == 3 and all(np.isfinite(r["loss"]) and np.isfinite(r["pictures"]) for r in records)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_of_nothing_or_all_is_refused(share):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        Joint(PROCESS, share)
