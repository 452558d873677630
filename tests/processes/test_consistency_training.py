"""Consistency distillation and training, and the mean velocity: what the losses compare, gradients, curricula."""

import math
from dataclasses import replace

import numpy as np
import pytest
from small import UNCONDITIONAL, awake, pictures
from support import agree, host, spec

from minidit.autograd import Tensor, value
from minidit.diffusion import consistency as law
from minidit.diffusion.exact import Gaussian, Mixture
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import EPS, U, V
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2, EULER, HEUN, HEUN_EDM
from minidit.models.condition import Classes, Nothing
from minidit.models.dit import DiT
from minidit.models.flow_map import FlowMapDiT
from minidit.processes.consistency import Consistency, evenly, fixed, follow, squares, teacher_step, top_first
from minidit.processes.denoise import Denoiser
from minidit.processes.flow_map import MeanVelocity
from minidit.processes.sample import sample
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import source_of

END, TOP = 0.002, 20.0
MEAN, VARIANCE = 0.3, 0.25


class Perfect:
    """A perfect network with the face of a backbone."""

    second_half, device, dtype = False, "cpu", np.float64

    def __init__(self, oracle, condition=None):
        self.oracle, self.condition, self.shape = oracle, condition or Nothing(), (1, 2, 2)

    def null(self, y):
        return self.condition.left_out(y)

    def __call__(self, x, time, y=None):
        return self.oracle(x, time, y)


def draws_of(n, update=0, per=8):
    return Draws(0, 7, np.arange(n), per=per, when=update, dtype=np.float64)


def data(n, seed=3):
    return MEAN + VARIANCE**0.5 * Philox(seed).normal((n, 1, 2, 2), dtype=np.float64)


def exact(process, scale=1.0):
    """The network whose f is the exact end of Gaussian data, times a number."""

    def network(x, time, y=None):
        x, t = process.path.origin(x, time)
        f = scale * law.gaussian_end(x, t.reshape(-1, 1, 1, 1), MEAN, VARIANCE, END)
        skip, out = (np.asarray(c).reshape(-1, 1, 1, 1) for c in law.scalings(t, END))
        return np.where(out > 1e-12, (f - skip * x) / np.maximum(out, 1e-12), 0)

    return network


def teacher(high=TOP):
    return Denoiser(Perfect(Gaussian(MEAN, VARIANCE, path=Exploding(0.5, high=high))), Exploding(0.5, high=high), EPS)


# ------------------------------------------------------------------------------------------------ consistency


@spec("S.13", "S.7")
@pytest.mark.parametrize("solver, order", [(EULER, 2), (HEUN_EDM, 3)], ids=["Euler", "Heun"])
def test_the_defect_of_the_exact_function_has_the_order_of_the_teachers_step(solver, order):
    """The loss of f* is the square of one step's error: halving the grid divides its root by 4 or 8."""
    roots, x_0 = [], data(200)
    for N in (41, 81, 161):
        grid = fixed(law.rising_grid(N, END, TOP))
        process = Consistency.on_exploding(END, TOP, grid=grid, teacher=teacher(), solver=solver, distance=squares)
        losses, _ = process.loss(exact(process), x_0, None, draws_of(200))
        roots.append(float(np.mean(host(losses) ** 0.5)))
    assert abs(math.log2(roots[-2] / roots[-1]) - order) < 0.25, roots


@spec("S.13")
def test_no_gradient_flows_through_the_neighbour():
    """f = a g: the loss is d(a g(x_t), const), and its derivative is that of the first argument alone."""
    process = Consistency.on_exploding(END, TOP, grid=fixed(law.rising_grid(9, END, TOP)), teacher=teacher(), distance=squares)
    x_0, seen = data(5), []

    def network(x, time, y=None):
        seen.append((x, time))
        return a * exact(process)(x, time)

    a = Tensor(np.array([1.3]))
    losses, _ = process.loss(network, x_0, None, draws_of(5))
    losses.sum().backward()
    (x_s, time_s), (x_t, time_t) = seen
    assert isinstance(losses, Tensor) and (time_t > time_s).all()
    (x_s, s), (x_t, t) = process.path.origin(x_s, time_s), process.path.origin(x_t, time_t)
    ends = [value(law.end_of(1.3 * exact(process)(*process.path.inputs(x, u)), x, u, END)) for x, u in ((x_t, t), (x_s, s))]
    out = law.scalings(t, END)[1].reshape(-1, 1, 1, 1) * exact(process)(*process.path.inputs(x_t, t))
    agree(host(losses), ((ends[0] - ends[1]) ** 2).sum(axis=(1, 2, 3)), bound=1e-9, of="S.13")
    agree(a.grad, [(2 * (ends[0] - ends[1]) * out).sum()], bound=1e-8, of="S.13")


@spec("S.14")
def test_without_a_teacher_both_neighbours_have_the_noise_of_the_datum():
    process = Consistency.on_exploding(END, TOP, grid=fixed(law.rising_grid(9, END, TOP)))
    x_0, seen = data(6), []

    def network(x, time, y=None):
        seen.append(process.path.origin(x, time))
        return 0 * x

    process.loss(network, x_0, None, draws_of(6))
    (x_s, s), (x_t, t) = seen
    z = [(x - x_0) / np.maximum((u**2 - END**2), 1e-30)[:, None, None, None] ** 0.5 for x, u in ((x_t, t), (x_s, s))]
    inside = s > END * 1.01
    assert inside.sum() > 2
    agree(z[1][inside], z[0][inside], bound=1e-6, of="S.14")
    grid = law.rising_grid(9, END, TOP)
    places = [np.abs(np.log(u[:, None] / grid)).argmin(axis=1) for u in (s, t)]
    assert np.array_equal(places[0] + 1, places[1])


@spec("S.1", "S.13")
@pytest.mark.parametrize("path, answer", [(Straight(), U), (Schedule.cosine(30), V)], ids=["straight", "ladder"])
def test_on_other_paths_the_boundary_is_exact_and_a_teacher_takes_its_step(path, answer):
    """f(x, 0) = x for any answer that is not x_0 itself; the exact teacher's pairs agree in f = the end of its flow, nearly."""
    times = np.arange(0, 31) if isinstance(path, Schedule) else np.linspace(0, 1, 31)
    oracle = Gaussian(MEAN, VARIANCE, path=path, prediction=answer)
    process = Consistency(path, answer, fixed(times), teacher=Denoiser(Perfect(oracle), path, answer))
    x = data(4)
    zero = np.zeros(4, np.int64 if isinstance(path, Schedule) else np.float64)
    assert np.abs(process.end(lambda x, time, y=None: 1e3 * x, x, zero, None) - x).max() < 1e-9
    seen = []

    def network(x, time, y=None):
        seen.append(x)
        return answer.target(x, x, path.level(path.origin(x, time)[1]))

    process.loss(network, x, None, draws_of(4))
    assert np.isfinite(seen).all() and np.abs(seen[0] - seen[1]).max() > 1e-4


@spec("P.4", "P.6")
@pytest.mark.parametrize("solver", [EULER, HEUN], ids=["Euler", "Heun"])
@pytest.mark.parametrize("y", [None, np.arange(4) % 2], ids=["no classes", "guided"])
def test_a_teachers_step_is_the_step_of_its_walk_for_every_sample(solver, y):
    """Guided inside its interval only; times that differ within the batch; the last step ends at clean data."""
    path = Straight()
    means = np.stack([np.full((1, 2, 2), m) for m in (0.6, -0.4)])
    oracle = Mixture([0.5, 0.5], means, np.array([0.1, 0.2]), np.array([0, 1]), 2, path=path, prediction=U)
    net = Perfect(oracle, None if y is None else Classes(2, 2, 0.1))
    how = {} if y is None else {"guidance": 3.0, "low": 0.2, "high": 0.7}
    guided = Denoiser(net, path, U, **how)
    x, t, s = data(4), np.array([0.9, 0.6, 0.3, 0.1]), np.array([0.7, 0.2, 0.1, 0.0])
    ours = teacher_step(guided, x, t, s, y, solver)
    for b in range(4):
        one = slice(b, b + 1)
        settings = {} if y is None else {"guidance": 3.0, "interval": (0.2, 0.7)}
        label = None if y is None else y[one]
        walk = sample(
            net, path, label, prediction=U, grid=[(t[b], s[b])], solver=solver, x_T=x[one], n=1 if y is None else None, **settings
        )
        agree(ours[one], walk, bound=1e-6, of=("P.4", "P.6"))


# ------------------------------------------------------------------------------------------------ curricula


@spec("S.4", "S.5", "S.15")
@pytest.mark.parametrize("variant, count", [("CT", law.levels_at), ("iCT", law.doubled_levels_at)])
def test_the_grid_of_an_update_has_the_papers_number_of_times(variant, count):
    K, (s_0, s_1) = 100, (4, 32)
    process = (
        Consistency.training(K, awake(), s_0, s_1, END, TOP) if variant == "CT" else Consistency.improved(K, s_0, s_1, END, TOP)
    )
    for k in (0, 30, 99):
        grid = process.grid(k)
        assert len(grid) == count(k, K, s_0, s_1) and (grid[0], grid[-1]) == (END, TOP)
        t, s = process.times(draws_of(300, k))
        assert np.isin(t, grid).all() and np.isin(s, grid).all() and (t > s).all()


@spec("S.15")
def test_the_target_is_an_average_that_follows_the_network():
    network, target = awake(), awake(seed=2)
    before, x = target.flat.copy(), pictures()
    process = Consistency.training(50, target)
    loop = Loop(network, process, source_of(x), LoopConfig(steps=3, batch_size=4, lr=1e-2, shards=1))
    mean = before
    for k, _ in enumerate(loop.run()):
        mu = law.target_decay(k, 50)
        follow(target, loop, mu)
        mean = mu * mean + (1 - mu) * network.flat
        agree(target.flat, mean, bound=1e-6, of="S.15")
    seen = []
    spy = replace(process, target=lambda x, time, y: (seen.append(time), 0 * x)[1])
    spy.loss(network, x[0], x[1], Draws(0, 7, np.arange(11), per=4))
    assert len(seen) == 1  # the neighbour's end is asked of the average


@spec("S.16", "S.6")
def test_the_weight_of_ict_is_one_over_the_interval():
    heavy = Consistency.improved(100, 10, 40, END, TOP)
    plain = replace(heavy, weight=None)
    x_0, network = data(50), lambda x, time, y=None: 0.3 * x
    ours, theirs = (host(p.loss(network, x_0, None, draws_of(50))[0]) for p in (heavy, plain))
    t, s = heavy.times(draws_of(50))
    agree(ours * (t - s), theirs, bound=1e-10, of="S.16")
    masses = law.index_masses(heavy.grid(0))
    t, _ = heavy.times(draws_of(20_000))
    shares = np.array([(t == u).mean() for u in heavy.grid(0)[1:]])
    agree(shares, masses, bound=0.015, of="S.6")


def test_every_interval_is_drawn_equally_often_where_nothing_else_is_said():
    t = np.array([1.0, 2.0, 5.0, 7.0, 9.0])
    assert evenly(t).tolist() == [0.25] * 4
    agree(top_first(0.2)(t), [0.2, 0.2, 0.2, 0.4], bound=1e-15)
    times, _ = Consistency(Straight(), U, fixed(t / 9), top_first(0.2)).times(draws_of(20_000))
    agree([(times == u).mean() for u in t[1:] / 9], [0.2, 0.2, 0.2, 0.4], bound=0.015)
    with pytest.raises(ValueError, match="needs the step before"):
        Consistency(Straight(), U, fixed(np.linspace(0, 1, 4)), solver=AB2)


def learned(network, process, ask, steps, lr=5e-3):
    """The mean error of `ask(network) -> (its answer, the exact one)` after some updates on Gaussian data."""
    x_0 = MEAN + VARIANCE**0.5 * Philox(3).normal((512, *network.shape))
    loop = Loop(network, process, source_of(x_0), LoopConfig(steps=steps, batch_size=32, lr=lr, final_lr=0.05, shards=1))
    before = np.mean(np.subtract(*ask(network)) ** 2)
    for _ in loop.run():
        pass
    return float(np.mean(np.subtract(*ask(network)) ** 2) / before)


@pytest.mark.parametrize("variant", ["distillation", "training", "improved"])
def test_a_network_learns_where_trajectories_end(variant):
    """One call from the noisy end comes much nearer to the end of the exact flow."""
    grid = fixed(law.rising_grid(12, END, TOP))
    process = {
        "distillation": Consistency.on_exploding(END, TOP, grid=grid, teacher=teacher()),
        "training": Consistency.on_exploding(END, TOP, grid=grid),
        "improved": Consistency.improved(200, 8, 16, END, TOP, mean=1.0),
    }[variant]
    x = process.path.start(Philox(9).normal((64, 1, 4, 4)))

    def ask(network):
        return value(process.end(network, x, np.full(64, TOP), None)), law.gaussian_end(x, TOP, MEAN, VARIANCE, END)

    assert learned(new(), process, ask, 200, lr=2e-3) < 0.4  # the mean of the data would be 0.73


def new():
    return DiT(replace(UNCONDITIONAL, hidden_size=32), Philox(1))


# ------------------------------------------------------------------------------------------------ mean velocity


def straight_teacher(**how):
    return Denoiser(Perfect(Gaussian(MEAN, VARIANCE, path=Straight(), prediction=U)), Straight(), U, **how)


def exact_mean(x, time, y, span):
    """u of the exact flow of Gaussian data, for every sample its own times."""
    oracle, path = Gaussian(MEAN, VARIANCE, path=Straight(), prediction=U), Straight()
    out = np.empty_like(x)
    for b in range(len(x)):
        t, h = time[b] / 1000, span[b] / 1000
        one = x[b : b + 1]
        out[b] = (oracle(one, time[b]) if h < 1e-9 else (one - oracle.flow(one, path.level(t), path.level(t - h))) / h)[0]
    return out


@spec("S.11", "S.12")
def test_the_exact_mean_velocity_is_a_fixed_point_up_to_the_difference():
    """Its target is itself; the gap falls with δ² away from the ends of the path."""
    x, t, s = data(40), np.linspace(0.2, 0.9, 40), np.linspace(0.0, 0.5, 40) * np.linspace(0.2, 0.9, 40)
    gaps = []
    for delta in (0.02, 0.01, 0.005):
        process = MeanVelocity(straight_teacher(), delta=delta)
        want = exact_mean(x, 1000 * t, None, 1000 * (t - s))
        gaps.append(np.abs(process.target(exact_mean, x, t, s, None) - want).max())
    assert gaps[-1] < 1e-3 and abs(math.log2(gaps[-2] / gaps[-1]) - 2) < 0.2, gaps


@spec("S.11")
def test_the_loss_is_relative_and_the_times_have_their_parts():
    process = MeanVelocity(straight_teacher())
    t, s = process.times(draws_of(20_000))
    assert (s <= t).all() and (s >= 0).all() and (t <= 1).all()
    agree([(s == t).mean(), (t == 1).mean(), (s == 0).mean()], [0.5, 0.2, 0.3], bound=0.015)
    a = Tensor(np.array([0.9]))
    losses, more = process.loss(lambda *inputs: a * exact_mean(*inputs), data(50), None, draws_of(50))
    agree(host(losses), more["mse"] / (more["mse"] + 0.01), bound=1e-9)
    losses.sum().backward()
    assert np.isfinite(a.grad).all() and abs(float(a.grad[0])) > 1e-3
    with pytest.raises(ValueError, match="straight path"):
        MeanVelocity(teacher())


def test_a_flow_map_learns_the_mean_velocity_of_its_teacher():
    """From a fresh network: one step over the whole path comes much nearer to the exact one."""
    process, x, one = MeanVelocity(straight_teacher()), Philox(9).normal((64, 1, 4, 4)), np.ones(64)

    def ask(network):
        return value(process.mean(network, x, one, 0 * one, None)), exact_mean(x, 1000 * one, None, 1000 * one)

    assert learned(FlowMapDiT.like(new(), Philox(2)), process, ask, 250) < 0.2  # the velocity at the noisy end would be 0.73
