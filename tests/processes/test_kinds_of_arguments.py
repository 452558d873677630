"""An argument of the wrong kind is one clear line where it is given, and nothing of another shape reaches a network."""

import itertools

import numpy as np
import pytest
from small import DIT

import minidit as md
from minidit.diffusion.path import check_path
from minidit.nn import Linear, Module

FLOW = md.Diffusion(md.Straight(), md.U, md.drawn(md.times.uniform))
X_0, Y = np.random.default_rng(0).normal(size=(6, *DIT.shape)).astype(np.float32), np.arange(6) % DIT.num_classes


def network():
    return md.DiT(DIT, md.Philox(1))


def trained(process=FLOW, model=None, data=(X_0, Y)):
    return list(md.train(model or network(), data, process, steps=1, batch_size=2))


class Cubic:
    """α = 1 - t³ and σ = √(1-α²): a path of somebody's own."""

    def level(self, t):
        alpha = 1 - t**3
        return md.Level(alpha, np.sqrt(1 - alpha**2))

    def inputs(self, x_t, t):
        return x_t, 1000 * np.broadcast_to(np.asarray(t, float), (len(x_t),))

    def origin(self, x, time):
        return x, time / 1000

    def start(self, z):
        return z

    def part(self, u):
        return u

    def grid(self, steps):
        t = np.linspace(1, 0, steps + 1)
        return list(itertools.pairwise(t))


class WithoutStart:
    level, inputs, origin, part, grid = Cubic.level, Cubic.inputs, Cubic.origin, Cubic.part, Cubic.grid


class Pair(Cubic):
    def level(self, t):
        return tuple(super().level(t))


class Backwards(Cubic):
    def level(self, t):
        return super().level(1 - t)


class BelowZero(Cubic):
    def level(self, t):
        return md.Level(1 - 1.2 * t**3, t**0.5)


class NotANumber(Cubic):
    def level(self, t):
        return md.Level(1 - t, t if t < 0.6 else np.nan)


class OneTime(Cubic):
    def inputs(self, x_t, t):
        return x_t, 1000 * t


def test_a_path_of_ones_own_trains_and_is_walked_by_every_solver():
    process, model = md.Diffusion(Cubic(), md.V, md.drawn(md.times.uniform)), network()
    list(md.train(model, (X_0, Y), process, steps=2, batch_size=2))
    walks = [md.sample(model, process, [0, 1], steps=3, **how) for how in ({}, {"solver": md.HEUN}, {"fresh": md.ddim(1.0)})]
    assert all(np.isfinite(x).all() and x.shape == (2, *DIT.shape) for x in walks)


@pytest.mark.parametrize(
    ("path", "kind", "line"),
    [
        (WithoutStart(), TypeError, "WithoutStart is not a path: it has no start "),
        (1000, TypeError, "int is not a path: it has no level, inputs, origin, start, part, grid "),
        (Pair(), TypeError, r"the level of the path Pair must be a Level\(alpha, sigma\), not \("),
        (Backwards(), ValueError, "the path Backwards has less noise at the time 0.25 than before"),
        (BelowZero(), ValueError, "the path BelowZero has α = -0.2 and σ = 1 at the time 1: both must be 0 or more"),
        (NotANumber(), ValueError, "the path NotANumber has α = 0.375 and σ = nan at the time 0.625"),
        (OneTime(), ValueError, r"the inputs of the path OneTime must have one time per sample, \(B,\), .* got 1000.0"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_the_reason(path, kind, line):
    for ask in (check_path, lambda p: md.Diffusion(p, md.V, md.drawn(md.times.uniform))):
        with pytest.raises(kind, match=line):
            ask(path)
    if kind is ValueError:
        with pytest.raises(kind, match=line):
            md.sample(network(), path, [0], prediction=md.V, steps=2)


@pytest.mark.parametrize("path", [md.Straight(shift=3), md.Exploding(), md.Exploding(high=20.0, end=0.002), md.Schedule.cosine(1),
                                  md.Schedule.linear(1000), md.Schedule.cosine(7).respace([2, 5])], ids=repr)  # fmt: skip
def test_every_path_of_the_package_is_one(path):
    check_path(path)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: md.Diffusion(md.Straight(), "u", md.drawn(md.times.uniform)), "answer must be a Prediction, .* not 'u'"),
        (lambda: md.Diffusion(md.Straight(), md.U, "uniform"), "times must draw one time per sample, .* not 'uniform'"),
        (lambda: md.Diffusion(md.Straight(), md.U, md.times.uniform), r"as md.drawn\(md.times.uniform\) does, not <fun"),
        (lambda: md.Diffusion(md.Straight(), md.U, md.times.cosmap), "times must draw one time per sample, .* not <function"),
        (lambda: md.drawn(md.times.logit_normal), "a law gives a time for every u .* not <function logit_normal"),
        (lambda: md.drawn("uniform"), "a law gives a time for every u .* not 'uniform'"),
        (lambda: md.Diffusion.on_ladder(md.Straight(), md.U), r"a ladder must be a Schedule, .* not Straight\("),
        (lambda: md.Diffusion.on_ladder(1000), r"a ladder must be a Schedule, such as md.Schedule.cosine\(1000\), not 1000"),
        (lambda: md.Diffusion.on_ladder(md.Schedule.cosine(9), "v"), "answer must be a Prediction, .* not 'v'"),
        (lambda: md.Sampling(solver="heun"), "the solver must be a Solver, such as md.EULER, md.HEUN or md.AB2, not 'heun'"),
        (lambda: md.sample(network(), FLOW, [0], fresh=0.5), r"the fresh noise must be a Fresh, .* not 0.5"),
        (lambda: trained(md.Straight()), r"is trained by a process on the path: md.Diffusion\(Straight\("),
        (lambda: trained(md.Schedule.cosine(9)), r"or on a ladder md.Diffusion.on_ladder\(ladder, md.V\)"),
    ],
)  # fmt: skip
def test_another_kind_of_argument_is_refused_where_it_is_given(make, line):
    with pytest.raises(TypeError, match=line):
        make()


def test_a_network_whose_weights_were_never_drawn_is_not_trained():
    with pytest.raises(ValueError, match=r"all weights of the DiT are 0: .* DiT\(…, md\.Philox\(0\)\)"):
        trained(model=md.DiT(DIT))


class Own(Module):
    """A backbone that trusts what it is shown."""

    condition, second_half, config = md.Nothing(), False, None

    def __init__(self, plain=False):
        self.shape, self.plain = (1, 2, 2), plain
        self.line = Linear(4, 4)
        self.build(md.Philox(3))

    def forward(self, x, t, y=None):
        answer = self.line(x.reshape(-1, 4)).reshape(-1, 1, 2, 2)
        return answer.data if self.plain else answer

    def null(self, y):
        return self.condition.left_out(y)


def test_data_of_another_shape_do_not_reach_a_network_of_ones_own():
    with pytest.raises(ValueError, match=r"the data are of 1 x 4 x 4, and the network takes samples of 1 x 2 x 2"):
        trained(model=Own(), data=np.zeros((3, 1, 4, 4), np.float32))


@pytest.mark.parametrize("shape", [(3, 1, 4, 4, 4), (3, 1, 2, 4, 4), (3, 1, 4, 4)])
def test_a_network_of_clips_is_trained_on_clips_of_any_length_and_on_pictures(shape):
    config = md.SpacetimeConfig(
        frames=4, input_size=4, in_channels=1, patch_size=2, hidden_size=8, depth=2, num_heads=2, num_classes=0
    )
    assert trained(model=md.SpacetimeDiT(config, md.Philox(0)), data=np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="the data are of 1 x 6 x 6, and the network takes samples of 1 x 4 x 4 x 4"):
        trained(model=md.SpacetimeDiT(config, md.Philox(0)), data=np.zeros((3, 1, 6, 6), np.float32))


def test_a_network_that_answers_plain_arrays_is_told_so():
    with pytest.raises(TypeError, match="Own answers a plain array, through which nothing is learned"):
        trained(model=Own(plain=True), data=np.zeros((3, 1, 2, 2), np.float32))
