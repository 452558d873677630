"""Chapter P on continuous paths: levels, a network's inputs, one sample in the coordinates of three paths."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from diffusion.draws import level, pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.diffusion import loss, times
from minidit.diffusion.exact import Gaussian, Mixture
from minidit.diffusion.level import Level, mix
from minidit.diffusion.path import Exploding, Straight, changed
from minidit.diffusion.prediction import EPS, X_0, Prediction, U, V, edm
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.step import step

PATHS = [Straight(), Exploding(0.5), Exploding(0.5, end=0.002)]


@st.composite
def mixtures(draw, path, prediction=X_0, shape=(2,), K=3):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    w = rng.uniform(0.2, 1, K)
    return Mixture(w / w.sum(), rng.normal(size=(K, *shape)), rng.uniform(0.05, 1, K), path=path, prediction=prediction)


# ------------------------------------------------------------------------------------------------ levels and inputs


@spec("P.9", "P.10", "P.1")
@given(st.floats(0.01, 1), pictures(2))
def test_a_sample_lies_on_the_line_or_carries_its_noise(u, xs):
    x_0, eps = xs
    agree(mix(x_0, eps, Straight().level(u)), x_0 + u * (eps - x_0), bound=1e-14, of=("P.9", "P.1"))
    agree(mix(x_0, eps, Exploding().level(80 * u)), x_0 + 80 * u * eps, bound=1e-13, of=("P.10", "P.1"))


@spec("P.9", "P.10")
@given(st.lists(st.floats(0.003, 1), min_size=2, max_size=2))
def test_one_time_per_sample_gives_one_level_per_sample(xp, us):
    for path in PATHS:
        t = np.array([path.part(u) for u in us])
        many = path.level(xp.asarray(t))
        for name in ("alpha", "sigma"):
            agree(getattr(many, name), [getattr(path.level(float(s)), name) for s in t], bound=1e-15, of=("P.9", "P.10"))
            assert isinstance(getattr(path.level(float(t[0])), name), float)


@spec("P.10", "S.2")
def test_levels_relative_to_the_end_start_there_without_noise():
    path = Exploding(0.5, end=0.002)
    assert path.level(0.002) == (1.0, 0.0) == tuple(Exploding().level(0.0))
    agree(path.level(0.5).sigma ** 2, 0.25 - 0.002**2, bound=1e-15, of="P.10")
    agree(path.start(np.ones(2)), np.full(2, (80**2 - 0.002**2) ** 0.5), bound=0, of="P.10")


@spec("P.9", "P.10")
def test_what_a_network_sees_has_unit_variance_and_a_time_that_its_embedding_resolves():
    x = np.ones((3, 2, 1, 1))
    same, time = Straight().inputs(x, 0.25)
    assert same is x and np.array_equal(time, [250.0] * 3)
    seen, time = Exploding(0.5).inputs(x, 2.0)
    agree(seen, x / (4 + 0.25) ** 0.5, bound=1e-15, of="P.10")
    agree(time, [250 * math.log(2.0)] * 3, bound=1e-13, of="P.10")
    agree(Exploding(0.5, unit=0.25).inputs(x, 2.0)[1], [0.25 * math.log(2.0)] * 3, bound=1e-15, of="P.10")


@given(st.data(), pictures(1, (3, 2)))
def test_a_network_can_tell_sample_and_time_from_its_inputs(xp, data, xs):
    x = xp.asarray(xs[0])
    for path in [*PATHS, Schedule.linear(50)]:
        t = np.array([path.part(data.draw(st.floats(0.1, 1))) for _ in range(3)])
        for when in (xp.asarray(t), t[0].item()):
            back, again = path.origin(*path.inputs(x, when))
            agree(host(back), xs[0], bound=1e-13)
            agree(np.broadcast_to(host(again), 3), np.broadcast_to(host(when), 3), bound=1e-13)
        _, again = path.origin(x, path.inputs(x, t[0].item())[1][0].item())
        assert abs(again - t[0]) < 1e-12 * max(1, t[0])


def test_part_of_a_path_is_the_share_of_noise():
    assert [Straight().part(u) for u in (0, 0.25, 1)] == [0, 0.25, 1] and Exploding().part(1.0) == 80.0
    assert Exploding().part(0.0) == 0.0 and Schedule.linear(50).part(0.5) == 25
    for u in (0.2, 0.7):
        at = Exploding().level(Exploding().part(u))
        agree(at.sigma / (at.alpha + at.sigma), u * 80 / 81, bound=1e-14)


def test_the_usual_grid_goes_from_the_noisy_end_to_the_data():
    assert Straight().grid(2) == [(1.0, 0.5), (0.5, 0.0)]
    assert Schedule.linear(50).grid(2) == [(50, 25), (25, 0)]
    edm_grid, short = Exploding(low=0.01, high=10.0).grid(3), Exploding(end=0.002).grid(2)
    assert edm_grid[0][0] == 10.0 and edm_grid[-1] == (0.01, 0.0) and len(edm_grid) == 3
    assert short[0][0] == 80.0 and short[-1][1] == 0.002 and len(short) == 2


# ------------------------------------------------------------------------------------------------ coordinates


@spec("P.11")
@given(st.floats(-4, 4), pictures(2))
def test_one_sample_has_three_forms(log_noise, xs):
    """The same (x_0, ε) at levels of one SNR, also of a variance-preserving path."""
    noise, (x_0, eps) = math.exp(log_noise), xs
    preserving = level(1 / (1 + noise**2))
    forms = [preserving, *(p.level(p.time(preserving)) for p in (Straight(), Exploding()))]
    for t in forms:
        agree(t.sigma / t.alpha / noise, 1.0, bound=1e-12, of="P.11")
        for s in forms:
            agree(changed(mix(x_0, eps, t), t, s), mix(x_0, eps, s), bound=1e-12, of="P.11")
    t = Exploding(end=0.3).time(preserving)
    agree(Exploding(end=0.3).level(t).sigma / noise, 1.0, bound=1e-9, of="P.11")


@spec("P.11")
def test_pure_noise_has_no_form_without_it_but_keeps_its_scale():
    """α = 0: the straight path's start and that of a ladder with zero terminal SNR are one."""
    agree(changed(np.ones((1, 1)), Level(0.0, 1.0), Level(0.0, 3.0)), [[3.0]], bound=0, of="P.11")


@spec("P.11", "P.4", "D.42")
@settings(max_examples=10)
@given(st.data(), pictures(1, (5, 2)), st.integers(2, 30))
def test_one_mixture_walked_in_three_coordinates_gives_one_trajectory(data, xs, steps):
    """Networks of different answers on the ladder, the straight and the exploding path: the same points at every SNR."""
    ladder = Schedule.cosine(1000)
    rungs = [*(t for t, _ in ladder.grid(steps)), 0]
    levels = [ladder.level(t) for t in rungs]
    law, trajectories = data.draw(mixtures(ladder)), []
    for path, answer in ((ladder, V), (Straight(), U), (Exploding(0.5), edm(0.5))):
        model = replace(law, path=path, prediction=answer)
        stops = rungs if path is ladder else [path.time(at) for at in levels]
        x, points = changed(xs[0], levels[0], path.level(stops[0])), []
        for t, s in pairwise(stops):
            at, below = path.level(t), path.level(s)
            x = step(*answer.pair(model(*path.inputs(x, t)), x, at), below)
            points.append(x / (below.alpha + below.sigma))
        trajectories.append(points)
    for points in trajectories[1:]:
        for mine, first in zip(points, trajectories[0], strict=True):
            size = max(1.0, np.abs(first).max())
            agree(mine / size, first / size, bound=1e-13, of=("P.11", "P.4"))


@spec("D.40", "P.11")
@given(st.data(), pictures(1, (3, 2)), st.floats(0.05, 3))
def test_the_exact_flow_is_one_flow_on_every_path(data, xs, s2):
    noise = sorted((data.draw(st.floats(0.01, 20)) for _ in range(2)), reverse=True)
    law, ends = Gaussian(np.array([0.2, -1.0]), s2, path=Straight()), []
    for form in (lambda n: level(1 / (1 + n * n)), lambda n: Straight().level(n / (1 + n)), lambda n: Level(1.0, n)):
        t, s = map(form, noise)
        x = law.flow(changed(xs[0], Level(1.0, noise[0]), t), t, s)
        ends.append(changed(x, s, Level(1.0, noise[1])))
    for end in ends[1:]:
        agree(end, ends[0], bound=1e-11, of="D.40")


@spec("D.44", "P.11")
@settings(max_examples=10)
@given(st.floats(0.05, 50), st.floats(0.05, 50))
def test_transport_is_one_map_on_every_path(first, last):
    law = Mixture(np.array([0.4, 0.6]), np.array([-1.0, 0.8]), np.array([0.09, 0.0]), path=Straight())
    x = np.linspace(-2, 2, 9) * (1 + first)
    y = law.transport(x, Level(1.0, first), Level(1.0, last))
    t, s = (level(1 / (1 + n * n)) for n in (first, last))
    agree(law.transport(x * t.alpha, t, s) / s.alpha, y, bound=1e-9, of="D.44")
    agree(law.cdf(y, Level(1.0, last)), law.cdf(x, Level(1.0, first)), bound=1e-9, of="D.44")


# ------------------------------------------------------------------------------------------------ Euler and EDM as rows


@spec("P.4", "F.1")
@given(pictures(2), st.floats(0.05, 1), st.floats(0, 0.99))
def test_an_euler_step_of_rectified_flow_is_the_step(xs, t, share):
    x_t, u = xs
    s = share * t
    x_s = step(*U.pair(u, x_t, Straight().level(t)), Straight().level(s))
    agree(x_s, x_t + (s - t) * u, bound=1e-13, of="P.4")


@spec("P.4", "P.2")
@given(pictures(2), st.floats(-5, 4), st.floats(0, 0.99))
def test_an_euler_step_of_edm_is_the_step(xs, log_t, share):
    """x + (s - t)(x - D)/t, with D by the paper's c_skip, c_out and the network's F."""
    (x_t, F), t, d = xs, math.exp(log_t), 0.5
    s, r = share * t, (t**2 + d**2) ** 0.5
    D = d**2 / r**2 * x_t + t * d / r * F
    at = Exploding(d).level(t)
    agree(edm(d).pair(F, x_t, at)[0], D, bound=1e-12, of="P.2")
    agree(step(*edm(d).pair(F, x_t, at), Exploding(d).level(s)), x_t + (s - t) * (x_t - D) / t, bound=1e-11, of="P.4")


@spec("P.2", "D.39")
@given(st.floats(0.003, 80))
def test_edms_network_has_nothing_to_do_on_gaussian_data_of_its_own_variance(t):
    model = Gaussian(0.0, 0.25, path=Exploding(0.5), prediction=edm(0.5))
    x = np.linspace(-3, 3, 7)[:, None] * (t**2 + 0.25) ** 0.5
    agree(model(*model.path.inputs(x, t)), np.zeros_like(x), bound=1e-11, of="P.2")


@spec("P.23", "P.8")
@given(st.floats(0.003, 80), st.floats(0.1, 2))
def test_edms_weight_is_one_for_its_own_answer_and_the_same_loss_for_all(t, d):
    at, weight = Level(1.0, t), loss.edm_weight(d)
    agree(weight(edm(d), at), 1.0, bound=1e-10, of="P.23")
    for answer in (EPS, X_0, U, V):
        agree(weight(answer, at) * answer.gain(at) / ((t**2 + d**2) / (t * d) ** 2), 1.0, bound=1e-10, of=("P.23", "P.8"))


@spec("P.9")
def test_a_flow_whose_data_is_at_one_is_the_same_line_read_backwards():
    """Others have x = t x_1 + (1-t) x_0 with data x_1 and the target x_1 - x_0: their t is our 1-t, their velocity our -u."""
    data, noise, theirs = np.full((1, 1), 2.0), np.full((1, 1), -1.0), 0.3
    x = theirs * data + (1 - theirs) * noise
    at = Straight().level(1 - theirs)
    agree(mix(data, noise, at), x, bound=1e-15, of="P.9")
    agree(U.pair(-(data - noise), x, at)[0], data, bound=1e-15, of="P.9")


def test_a_row_of_its_own_is_an_answer_on_every_path():
    twice = Prediction("2 u", lambda at: -2.0, lambda at: 2.0)
    x_0, eps = np.full((1, 1), 0.3), np.full((1, 1), -1.1)
    for path in PATHS:
        at = path.level(path.part(0.6))
        agree(twice.pair(twice.target(x_0, eps, at), mix(x_0, eps, at), at)[0], x_0, bound=1e-12)


def test_a_weight_of_samples_on_a_device_is_that_of_the_host(xp):
    t = np.array([0.3, 2.0])
    here, there = (loss.edm_weight(0.5)(U, Exploding().level(a)) for a in (t, xp.asarray(t)))
    agree(there, here, bound=1e-14)


@pytest.mark.parametrize("t", [[1.0], [0.5, 0.5], [0.2, 0.4], [1.0, -0.1]])
def test_a_grid_that_does_not_fall_is_refused(t):
    with pytest.raises(ValueError, match="must fall, to 0 or above"):
        times.down(t)
