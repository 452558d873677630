"""Reflow: pairs of noise and samples, kept or drawn anew, and the flow that is trained on them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from small import DIT, UNCONDITIONAL, awake, pictures
from support import agree, host, spec

from minidit.data.cache import Cache
from minidit.diffusion import flow, times
from minidit.diffusion.fresh import DDPM
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import U, V, edm
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2
from minidit.models.dit import DiT
from minidit.outgoing import silent
from minidit.processes import pairs, reflow
from minidit.processes.diffusion import Diffusion, drawn
from minidit.processes.pairs import pairs_of
from minidit.processes.reflow import Blocks, DrawnPairs, Maker, Reflow, StoredPairs
from minidit.processes.sample import Sampling, sample
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import source_of

STRAIGHT = Straight()
FLOW = Diffusion(STRAIGHT, U, drawn(times.uniform))
TEACHERS = {
    "straight": FLOW,
    "ladder": Diffusion.on_ladder(Schedule.cosine(20), V),
    "exploding": Diffusion(Exploding(0.5, high=20.0), edm(0.5), drawn(times.lognormal())),
}
HOW = Sampling(steps=4, solver=AB2, guidance=2.0, shards=1)
SOURCE = source_of(pictures(9))


def maker(process=FLOW, how=HOW, config=DIT):
    return Maker(awake(config), process, how)


# ------------------------------------------------------------------------------------------------ pairs


@spec("F.5")
@pytest.mark.parametrize("path", TEACHERS)
def test_a_pair_is_noise_and_the_end_of_its_trajectory(path):
    """Of a teacher on any path: x_0 is what `sample` makes of the same noise, guided and by the same solver."""
    process = TEACHERS[path]
    made = pairs_of(maker(process), SOURCE, 5, seed=3)
    x_0, z = (a[np.arange(5)] for a in (made.x_0, made.z))
    agree(z, Philox(3, pairs.STREAM).normal(z.shape, np.arange(5)), bound=0)
    again = sample(awake(), process, made.labels, HOW, x_T=process.path.start(z))
    agree(x_0, again, bound=1e-6, of="F.5")
    assert set(made.labels) <= set(SOURCE.labels) and len(made) == 5


@spec("F.5")
def test_the_ends_are_those_of_the_law():
    """`diffusion/flow.py` says what pairs are: a map of noise, and both its sides."""
    made = pairs_of(maker(), SOURCE, 4)
    z, y = made.z[np.arange(4)], made.labels
    law = flow.pairs(lambda z: maker().ends(z, y), z)
    agree(made.x_0[np.arange(4)], law.x_0, bound=0, of="F.5")
    at = STRAIGHT.level(0.3)
    x_t, _ = FLOW.noised(*reflow.parted(made.draw(np.arange(4), Draws(0, 1, np.arange(4)))[0]), np.full(4, 0.3))
    agree(x_t, law.at(at), bound=1e-6, of="F.5")


@pytest.mark.parametrize("block", [2, 3, 500])
def test_a_pair_is_the_same_in_whatever_block_and_range_it_is_made(monkeypatch, block):
    whole = pairs_of(maker(), SOURCE, 7)
    monkeypatch.setattr(pairs, "BLOCK", block)
    later = pairs_of(maker(), SOURCE, 3, first=4)
    for name in ("x_0", "z"):
        agree(getattr(later, name)[np.arange(3)], getattr(whole, name)[np.arange(4, 7)], bound=1e-6)
    assert np.array_equal(later.labels, whole.labels[4:])


def test_pairs_are_the_ends_of_trajectories_only():
    with pytest.raises(ValueError, match="choose a sampler without fresh noise, ddim with η = 0"):
        maker(how=replace(HOW, fresh=DDPM, solver=Sampling().solver))


def test_a_teacher_without_classes_makes_pairs_without_labels():
    made = pairs_of(maker(how=replace(HOW, guidance=1.0), config=UNCONDITIONAL), source_of(pictures(5)[0]), 4)
    x_0, y = made.draw(np.array([1, 3]), Draws(0, 1, np.arange(2)))
    assert made.labels is None and y is None and x_0.shape == (2, 2, 4, 4)


def test_blocks_are_read_as_one_array():
    a = np.arange(14).reshape(7, 2)
    blocks = Blocks([a[:3], a[3:3], a[3:4], a[4:]])
    assert len(blocks) == 7
    for index in ([0], [6, 2, 3], [4, 4, 0]):
        assert np.array_equal(blocks[np.array(index)], a[index])


# ------------------------------------------------------------------------------------------------ kept


def asked(monkeypatch):
    """How many pairs were made, block by block."""
    counts, real = [], Maker.ends

    def ends(self, z, y, **how):
        counts.append(len(z))
        return real(self, z, y, **how)

    monkeypatch.setattr(Maker, "ends", ends)
    return counts


def test_pairs_are_made_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 3)
    counts, lines, told = asked(monkeypatch), [], []
    cache = Cache(tmp_path, tell=lines.append, progress=lambda *done: told.append(done))
    first = pairs_of(maker(), SOURCE, 7, cache=cache)
    assert counts == [3, 3, 1] and told == [("pairs", 3, 7), ("pairs", 6, 7), ("pairs", 7, 7)]
    assert lines == [f"7 pairs, 0.0 MB, of which 100 % are to be made, are kept in {tmp_path}"]
    second = pairs_of(maker(), SOURCE, 7, cache=cache)
    assert counts == [3, 3, 1] and len(lines) == 1 and len(told) == 3
    fresh = pairs_of(maker(), SOURCE, 7)
    for made in (first, second):
        for name in ("x_0", "z"):
            assert np.array_equal(getattr(made, name)[np.arange(7)], getattr(fresh, name)[np.arange(7)])
        assert np.array_equal(made.labels, fresh.labels)


def test_a_process_that_died_while_it_made_pairs_has_lost_one_block(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 2)
    counts, real = asked(monkeypatch), Maker.ends

    def dies(self, z, y, **how):
        if len(counts) == 2:
            raise KeyboardInterrupt
        return real(self, z, y, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Maker, "ends", dies)
        pairs_of(maker(), SOURCE, 7, cache=Cache(tmp_path, tell=silent))
    lines = []
    made = pairs_of(maker(), SOURCE, 7, cache=Cache(tmp_path, tell=lines.append))
    assert counts == [2, 2, 2, 1] and "of which 43 % are to be made" in lines[0]
    agree(made.x_0[np.arange(7)], pairs_of(maker(), SOURCE, 7).x_0[np.arange(7)], bound=1e-6)


@pytest.mark.parametrize("other", [
    lambda m, s: (Maker(awake(seed=2), m.process, m.settings), s),
    lambda m, s: (replace(m, settings=replace(HOW, steps=5)), s),
    lambda m, s: (replace(m, settings=replace(HOW, guidance=1.5)), s),
    lambda m, s: (replace(m, settings=replace(HOW, interval=(0.2, 1.0))), s),
    lambda m, s: (replace(m, settings=replace(HOW, solver=Sampling().solver)), s),
    lambda m, s: (replace(m, process=TEACHERS["ladder"]), s),
    lambda m, s: (m, source_of((pictures(9)[0], np.arange(9)[::-1] % 3))),
])  # fmt: skip
def test_other_pairs_are_not_taken_for_these(tmp_path, monkeypatch, other):
    counts, cache = asked(monkeypatch), Cache(tmp_path, tell=silent)
    pairs_of(maker(), SOURCE, 4, cache=cache)
    made, source = other(maker(), SOURCE)
    pairs_of(made, source, 4, cache=cache)
    pairs_of(maker(), SOURCE, 4, seed=1, cache=cache)
    pairs_of(maker(), SOURCE, 4, first=4, cache=cache)
    assert counts == [4, 4, 4, 4]


def test_a_disk_without_room_is_noticed_before_any_pair_is_made(tmp_path, monkeypatch):
    counts = asked(monkeypatch)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("minidit.data.cache.shutil.disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(ValueError, match=r"the cache of 7 pairs needs 0\.0 MB, and 0\.0 MB are free"):
        pairs_of(maker(), SOURCE, 7, cache=Cache(tmp_path / "deep" / "cache", tell=silent))
    assert counts == [] and not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ drawn anew


@spec("F.5")
@pytest.mark.parametrize("path", TEACHERS)
def test_pairs_that_are_drawn_for_an_update_are_ends_of_trajectories_of_its_own_noise(path):
    process = TEACHERS[path]
    source, draws = DrawnPairs(SOURCE, maker(process)), Draws(5, 2, np.arange(4), per=8)
    both, y = source.draw(np.array([0, 4, 2, 8]), draws.at(3))
    x_0, z = reflow.parted(both)
    agree(z, draws.at(3).normal((4, 1, 4, 4), number=reflow.NOISE), bound=0)
    agree(x_0, sample(awake(), process, y, HOW, x_T=process.path.start(z)), bound=1e-6, of="F.5")
    assert np.array_equal(y, SOURCE.labels[[0, 4, 2, 8]]) and len(source) == 9
    other, _ = source.draw(np.array([0, 4, 2, 8]), draws.at(4))
    assert np.abs(other - both).min() > 0


def test_a_training_on_drawn_pairs_is_the_same_in_any_number_of_pieces():
    losses = []
    for shards in (1, 2):
        loop = Loop(awake(seed=4), Reflow(FLOW), DrawnPairs(SOURCE, maker()), LoopConfig(steps=3, batch_size=4, shards=shards))
        losses.append([float(r["loss"]) for r in loop.run()])
    agree(losses[0], losses[1], bound=1e-5)


# ------------------------------------------------------------------------------------------------ the loss


@spec("F.5", "P.2")
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_loss_is_that_of_the_flow_with_the_pairs_own_noise(share):
    seen, process = [], Reflow(FLOW, share)

    def network(x, time, y):
        seen.append((x, time))
        return 0.5 * x

    x_0, z = (Philox(k).normal((64, 1, 4, 4), dtype=np.float64) for k in (1, 2))
    draws = Draws(0, process.stream, np.arange(64), per=8)
    losses, _ = process.loss(network, np.concatenate([x_0, z], axis=1), None, draws.at(1))
    again = draws.at(1)
    t = again.uniform(dtype=np.float64)
    t = np.where(again.uniform(dtype=np.float64) < share, 1.0, t)
    x_t = (1 - t)[:, None, None, None] * x_0 + t[:, None, None, None] * z
    agree(seen[0][0], x_t, bound=1e-14, of="F.5")
    agree(seen[0][1], 1000 * t, bound=1e-11)
    agree(losses, ((0.5 * x_t - (z - x_0)) ** 2).mean(axis=(1, 2, 3)), bound=1e-13, of=("F.5", "P.2"))
    assert abs((t == 1.0).mean() - share) < 0.2


@spec("F.5", "F.3")
def test_one_reflow_makes_the_trajectories_of_a_trained_flow_straight():
    """A flow of two far points bends; the flow on its pairs does not, and its one step ends where its teacher's sixteen do."""
    data = np.array([-2.0, 2.0]).reshape(2, 1, 1, 1) * np.ones((64, 2, 1, 4, 4)).reshape(64, 2, 1, 4, 4)
    data = data.reshape(128, 1, 4, 4).astype(np.float32)
    recipe = LoopConfig(steps=250, batch_size=64, lr=3e-3, warmup=20, ema=0.98, shards=1)
    small = replace(UNCONDITIONAL, hidden_size=32, depth=2)

    def trained(loop):
        list(loop.run())
        loop.model.flat[...] = loop.optimiser.average
        return loop.model

    def bend(model):
        *moments, x_0 = sample(model, FLOW, n=64, steps=16, trace=True)
        return flow.straightness(np.array([*(m.t for m in moments), 0.0]), np.stack([*(m.x_t for m in moments), x_0]))

    teacher = trained(loop_for(DiT(small, Philox(0)), data, FLOW, recipe))
    made = pairs_of(Maker(teacher, FLOW, Sampling(steps=16, solver=AB2)), source_of(data), 256)
    student = DiT(small, Philox(0))
    student.flat[...] = teacher.flat
    student = trained(Loop(student, Reflow(FLOW), made, recipe))
    assert bend(student) < 0.2 * bend(teacher), (bend(student), bend(teacher))
    one, many = (sample(student, FLOW, n=64, steps=k) for k in (1, 16))
    bad, good = (sample(teacher, FLOW, n=64, steps=k) for k in (1, 16))
    assert np.abs(one - many).mean() < 0.5 * np.abs(bad - good).mean()
    assert isinstance(made, StoredPairs)


# ------------------------------------------------------------------------------------------------ on a device


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("path", TEACHERS)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "drawn"])
def test_a_recorded_update_on_pairs_is_the_update_bit_for_bit(path, kept, caplog):
    """Kept pairs stay on the host, and the rows of a batch are copied; drawn ones are walked inside the recording."""
    losses, config = {}, LoopConfig(steps=3, batch_size=4, lr=1e-2, seed=3, shards=1)
    for name, device, graph in (("recorded", "cuda", True), ("eager", "cuda", False), ("host", "cpu", False)):
        source = source_of(pictures(9), device)
        teacher = Maker(awake(device=device), TEACHERS[path], HOW)
        data = pairs_of(teacher, source, 8) if kept else DrawnPairs(source, teacher)
        loop = Loop(awake(seed=4, device=device), Reflow(FLOW), data, replace(config, graph=graph))
        losses[name] = np.array([float(host(r["loss"])) for r in loop.run()])
    assert caplog.messages == [] and np.array_equal(losses["recorded"], losses["eager"])
    agree(losses["recorded"], losses["host"], bound=1e-3)
