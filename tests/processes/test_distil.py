"""Regression on trajectories: what is kept of a teacher, which steps a student learns, and that it learns them."""

from dataclasses import replace

import numpy as np
import pytest
from small import DIT, UNCONDITIONAL, awake
from support import agree, host, spec

from minidit.data import digits
from minidit.diffusion.exact import Gaussian
from minidit.diffusion.fresh import ddim
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import EPS, U, V
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2
from minidit.models.dit import DiT
from minidit.models.flow_map import FlowMapDiT, OfSpan
from minidit.processes.diffusion import Diffusion, drawn
from minidit.processes.distil import SPAN, Distillation, Trajectories, in_steps, trajectories
from minidit.processes.sample import Sampling, sample
from minidit.processes.train import train
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.loop import Loop, LoopConfig

LADDER = Diffusion.on_ladder(Schedule.cosine(40), V)
FLOW = Diffusion(Straight(), U, drawn(lambda u: u))
LABELS = np.arange(7) % 3


def draws_of(n, update=0, seed=0):
    return Draws(seed, Distillation.stream, np.arange(n), per=Distillation.per, when=update, dtype=np.float64)


def exact(path, n=64, keep=4):
    """Trajectories of the exact flow of Gaussian data, and the flow map that moves along them, as a network."""
    law, times = Gaussian(0.3, 0.25, path=path), [t for t, _ in path.grid(keep)] + [path.part(0.0)]
    start = Philox(0).normal((n, 1, 2, 2), dtype=np.float64)
    points = np.stack([law.flow(start, path.level(times[0]), path.level(t)) for t in times], axis=1)
    return Trajectories(points, None), law


# ------------------------------------------------------------------------------------------------ trajectories


@pytest.mark.parametrize("process", [LADDER, FLOW], ids=["ladder", "straight"])
@pytest.mark.parametrize("keep", [1, 2, 4])
def test_what_is_kept_begins_with_the_noise_and_ends_where_sampling_ends(process, keep):
    model, settings = awake(), Sampling(8, solver=AB2, guidance=2.0, interval=(0.2, 0.7), seed=3)
    kept = trajectories(model, process, LABELS, settings, n=7, keep=keep)
    assert kept.x.shape == (7, keep + 1, *model.shape) and len(kept) == 7
    whole = sample(model, process, LABELS, settings, x_T=kept.x[:, 0])
    agree(kept.x[:, -1], whole, bound=1e-5)
    moments = list(sample(model, process, LABELS, settings, x_T=kept.x[:, 0], trace=True))
    for k in range(keep):
        agree(kept.x[:, k], moments[k * 8 // keep].x_t, bound=1e-5)


def test_a_trajectory_depends_on_its_own_number_only(monkeypatch):
    model, settings, calls = awake(UNCONDITIONAL), Sampling(2, seed=5), []
    many = trajectories(model, FLOW, None, settings, n=5, progress=lambda *done: calls.append(done))
    monkeypatch.setattr("minidit.processes.distil.CHUNK", 2)
    few = trajectories(model, FLOW, None, settings, n=3, progress=lambda *done: calls.append(done))
    agree(few.x, many.x[:3], bound=1e-6)
    assert calls == [(5, 5), (2, 3), (3, 3)] and np.std(many.x[:, 0], axis=0).min() > 0


def test_settings_without_a_trajectory_are_refused():
    with pytest.raises(ValueError, match="8 steps of the teacher cannot be kept at 3 equal pieces"):
        trajectories(awake(), FLOW, LABELS, Sampling(8), n=7, keep=3)
    with pytest.raises(ValueError, match="no fresh noise"):
        trajectories(awake(), FLOW, LABELS, Sampling(8, fresh=ddim(1.0)), n=7)
    for path in (Exploding(), Straight(shift=2.0)):
        with pytest.raises(ValueError, match="equal steps"):
            Distillation(path, EPS)
    with pytest.raises(ValueError, match="a grid of 3 steps does not fit"):
        Distillation(Straight(), U, keep=4, shares={1: 0.5, 3: 0.5})
    with pytest.raises(ValueError, match="add up to 1"):
        Distillation(Straight(), U, shares={1: 0.5, 2: 0.2})


# ------------------------------------------------------------------------------------------------ the loss


@spec("S.10", "S.9", "D.40")
@pytest.mark.parametrize("path, answer", [(Straight(), U), (Schedule.cosine(40), V)], ids=["straight", "ladder"])
def test_the_exact_flow_map_has_no_loss(path, answer):
    source, law = exact(path)
    process = Distillation(path, answer, shares={1: 0.4, 2: 0.3, 4: 0.3})

    def network(x, time, y, span):
        """The answer whose step of this span moves along the exact flow."""
        out = np.empty_like(x)
        for b, h in enumerate(span):
            _, t = path.origin(x[b : b + 1], time[b])
            s = t - h / SPAN * (path.T if isinstance(path, Schedule) else 1)
            at, below = path.level(t), path.level(round(s) if isinstance(path, Schedule) else s)
            r = answer.reading(at)
            a, c = below.alpha * r.x_of_x + below.sigma * r.eps_of_x, below.alpha * r.x_of_F + below.sigma * r.eps_of_F
            out[b] = (law.flow(x[b : b + 1], at, below)[0] - a * x[b]) / c
        return out

    losses, more = process.loss(network, source.x, None, draws_of(64))
    agree(losses, np.zeros(64), bound=1e-9, of="S.10")
    assert set(more) == {"in_1", "in_2", "in_4"}
    wrong, _ = process.loss(lambda *inputs: network(*inputs) + 0.1, source.x, None, draws_of(64))
    agree(wrong, np.full(64, (4 * 0.01 + 0.25) ** 0.5 - 0.5), bound=1e-9, of="S.3")


def test_every_step_of_every_grid_is_learned_with_its_share():
    process, seen = Distillation(Straight(), U, shares={1: 0.5, 2: 0.3, 4: 0.2}), []
    source, _ = exact(Straight(), n=4000)

    def network(x, time, y, span):
        seen.extend(zip(time, span, strict=True))
        return 0 * x

    process.loss(network, source.x, None, draws_of(4000))
    rows, counts = np.unique(np.round(seen), axis=0, return_counts=True)
    assert rows.tolist() == [[250, 250], [500, 250], [500, 500], [750, 250], [1000, 250], [1000, 500], [1000, 1000]]
    agree(counts / 4000, [0.05, 0.05, 0.15, 0.05, 0.05, 0.15, 0.5], bound=0.025)


def test_a_teacher_that_is_its_own_student_is_left_unchanged_where_it_walked_in_those_steps():
    """Euler in four steps: the teacher's answers are exactly what leads from point to point, for every span of a quarter."""
    model = awake(dtype=np.float64)
    kept = trajectories(model, LADDER, LABELS, Sampling(4, seed=1), n=7, keep=4)
    process = Distillation(LADDER.path, V, shares={4: 1.0})
    losses, _ = process.loss(FlowMapDiT.like(model, Philox(0)), kept.x, LABELS, draws_of(7))
    agree(host(losses), np.zeros(7), bound=1e-9, of="S.10")


@pytest.mark.parametrize("network, steps, span", [(awake(), 4, None), (FlowMapDiT.like(awake(), Philox(0)), 4, 250.0)])
def test_a_network_is_walked_with_the_span_of_its_grid(network, steps, span):
    told = in_steps(network, steps)
    assert told is network if span is None else told == OfSpan(network, span)
    x = sample(told, LADDER, LABELS, steps=steps)
    assert x.shape == (7, *network.shape)


def test_a_student_learns_in_one_step_what_its_teacher_does_in_eight():
    """Digits: the loss of single steps falls, and one step then lies nearer to the end of eight than the teacher's own step."""
    teacher = DiT(replace(DIT, input_size=8, hidden_size=48, depth=2, num_classes=10), Philox(0))
    for _ in train(teacher, digits("train"), LADDER, steps=60, batch_size=32, lr=3e-3):
        pass
    settings, y = Sampling(8, solver=AB2, seed=1), np.arange(400) % 10
    kept = trajectories(teacher, LADDER, y, settings, n=400, keep=4)
    student = FlowMapDiT.like(teacher, Philox(1))
    loop = Loop(student, Distillation(LADDER.path, V), kept, LoopConfig(steps=150, batch_size=32, lr=2e-3, ema=0.9, seed=2))
    records = list(loop.run())
    mean = lambda part: float(np.mean([r["in_1"] for r in part]))
    assert mean(records[-30:]) < 0.7 * mean(records[:10])
    fresh = trajectories(teacher, LADDER, y[:100], replace(settings, seed=9), n=100)
    ends = [sample(in_steps(net, 1), LADDER, y[:100], steps=1, x_T=fresh.x[:, 0]) for net in (student, teacher)]
    ours, theirs = (float(((x - fresh.x[:, -1]) ** 2).mean()) for x in ends)
    assert ours < 0.8 * theirs, (ours, theirs)
