"""One walk on every path: rectified flow, EDM and consistency models through `sample`, with perfect networks."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support import agree, spec

from minidit.diffusion import consistency, exact, gaussian, times
from minidit.diffusion.fresh import DDPM, EVERYTHING, ddim
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import EPS, X_0, U, V, edm
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2, AB2_ARC, DPM_2M, EULER, HEUN, HEUN_EDM
from minidit.diffusion.threshold import static
from minidit.models.condition import Classes, Nothing
from minidit.processes.diffusion import Diffusion, drawn
from minidit.processes.sample import SAMPLE_STREAM, sample
from minidit.processes.walk import CLIMBS
from minidit.random import Philox

MEAN, VAR = 0.3, 0.25
LADDER, STRAIGHT, NOISY = Schedule.cosine(1000), Straight(), Exploding(0.5, high=20.0)
FLOW = Diffusion(STRAIGHT, U, drawn(times.uniform))
EDM = Diffusion(Exploding(0.5), edm(0.5), drawn(times.lognormal()))
SOLVERS = {"Euler": EULER, "AB2": AB2, "arc": AB2_ARC, "Heun": HEUN, "DPM-Solver++(2M)": DPM_2M}


class Network:
    """A backbone that answers by a law, and counts its calls."""

    device, dtype, shape, second_half = "cpu", np.float64, (1, 2, 2), False

    def __init__(self, law, classes=0):
        self.law, self.calls = law, 0
        self.condition = Classes(classes, classes, 0.1) if classes else Nothing()

    def __call__(self, x, time, y=None):
        self.calls += 1
        return self.law(x, time, y)

    def null(self, y):
        return self.condition.left_out(y)


def two_modes(path, answer, classes=None):
    means = np.array([-1.0, 0.8]).reshape(2, 1, 1, 1) * np.ones((1, 1, 2, 2))
    null = None if classes is None else 2
    return exact.Mixture(np.array([0.4, 0.6]), means, np.array([0.2, 0.1]), classes, null, path=path, prediction=answer)


def gaussian_data(path, answer):
    return Network(exact.Gaussian(MEAN, VAR, path=path, prediction=answer))


def noise(n, number=0, stream=SAMPLE_STREAM):
    return Philox(0, stream, state=number).normal((n, *Network.shape), dtype=np.float64)


# ------------------------------------------------------------------------------------------------ the walk of a perfect network


@spec("P.4", "F.1")
@pytest.mark.parametrize("steps", [1, 4, 25])
def test_sampling_a_flow_is_x_plus_dt_times_the_velocity(steps):
    law = two_modes(STRAIGHT, U)
    x = noise(3)
    for t, s in times.linear(steps):
        x = x + (s - t) * law(x, 1000 * t)
    agree(sample(Network(law), FLOW, n=3, steps=steps), x, bound=1e-11, of=("P.4", "F.1"))


@spec("P.4", "P.10")
def test_sampling_edm_starts_at_sigma_max_and_follows_the_grid_of_karras():
    law, process = two_modes(NOISY, edm(0.5)), replace(EDM, path=NOISY)
    x, grid = 20.0 * noise(3), NOISY.grid(12)
    for t, s in grid:
        D = law.denoise(x, Level(1.0, t))
        x = x + (s - t) * (x - D) / t
    agree(sample(Network(law), process, n=3, steps=12), x, bound=1e-11, of=("P.4", "P.10"))
    agree(sample(Network(law), process, n=3, grid=grid), x, bound=1e-11)


@spec("D.41", "P.4")
@pytest.mark.parametrize("name", ["straight", "exploding"])
@pytest.mark.parametrize("answer", [EPS, X_0, V, U], ids=lambda a: a.name)
def test_on_gaussian_data_every_step_is_its_factor(name, answer):
    path = {"straight": STRAIGHT, "exploding": NOISY}[name]
    grid = path.grid(6)[1:]  # at t = 1 of the straight path α = 0, and ε is no answer there
    x_T = noise(2)
    x = sample(gaussian_data(path, answer), path, n=2, grid=grid, x_T=x_T, prediction=answer)
    centred = x_T - path.level(grid[0][0]).alpha * MEAN
    for t, s in grid:
        centred = centred * gaussian.step_factor(path.level(t), path.level(s), VAR)
    agree(x, MEAN + centred, bound=1e-10, of=("D.41", "P.4"))


@spec("P.11", "P.4", "P.22", "P.6")
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_mixture_gives_the_same_samples_in_three_coordinates_whatever_the_solver(solver):
    """The solver averages in its own coordinates: where the samples are kept does not matter."""
    rungs = [t for t, _ in LADDER.grid(10)]
    levels = [LADDER.level(t) for t in (*rungs, 0)]
    z, samples = noise(4), []
    for path, answer in ((LADDER, V), (STRAIGHT, U), (NOISY, edm(0.5))):
        stops = [*rungs, 0] if path is LADDER else [path.time(at) for at in levels]
        top = path.level(stops[0])
        x_T = z * (top.alpha + top.sigma) / (levels[0].alpha + levels[0].sigma)
        grid = list(pairwise(stops))
        samples.append(sample(Network(two_modes(path, answer)), path, n=4, grid=grid, x_T=x_T, prediction=answer,
                              solver=SOLVERS[solver]))  # fmt: skip
    for x in samples[1:]:
        agree(x, samples[0], bound=1e-12, of=("P.11", "P.4"))


@spec("P.22", "P.6")
def test_a_second_order_needs_fewer_calls_and_heun_asks_twice():
    exact_flow = exact.Gaussian(MEAN, VAR, path=STRAIGHT).flow(noise(4), STRAIGHT.level(1.0), STRAIGHT.level(0.0))
    errors, calls = {}, {}
    for name, solver in SOLVERS.items():
        network = gaussian_data(STRAIGHT, U)
        errors[name] = np.abs(sample(network, FLOW, n=4, steps=8, solver=solver, shards=1) - exact_flow).max()
        calls[name] = network.calls
    assert calls == {"Euler": 8, "AB2": 8, "arc": 8, "Heun": 15, "DPM-Solver++(2M)": 8}  # the last step of Heun is Euler's
    assert max(errors["AB2"], errors["arc"], errors["Heun"]) < errors["Euler"] / 2, errors


@spec("P.6", "D.31", "G.1", "G.4")
@pytest.mark.parametrize("interval, guided", [((0.0, 1.0), {20.0, 2.0, 0.5}), ((0.5, 0.8), {2.0})])
def test_heun_guides_and_limits_at_both_ends(interval, guided):
    law, grid = two_modes(NOISY, X_0, np.array([0, 1])), times.down([20.0, 2.0, 0.5])
    y, x, how = np.array([0, 1]), 20.0 * noise(2), {"guidance": 2.0, "interval": interval, "clip": True, "shards": 1}
    walked = sample(Network(law, classes=2), NOISY, y, grid=grid, prediction=X_0, solver=HEUN_EDM, **how)

    def slope(x, t):
        u, c = (law.denoise(x, Level(1.0, t), labels) for labels in (None, y))
        return (x - static(u + (2.0 if t in guided else 1.0) * (c - u))) / t

    for t, s in grid:
        d = slope(x, t)
        x = x + (s - t) * (d + slope(x + (s - t) * d, s)) / 2
    agree(walked, x, bound=1e-11, of="P.6")


@spec("P.22", "P.20")
def test_after_a_climb_the_extrapolation_starts_anew():
    """The answer before belongs to another trajectory: where every step climbs first, Adams–Bashforth is Euler."""
    law, grid = two_modes(NOISY, X_0), times.churned(NOISY.grid(5), 1.0)
    climbed = [sample(Network(law), NOISY, n=2, grid=grid, prediction=X_0, solver=s) for s in (EULER, AB2)]
    agree(climbed[1], climbed[0], bound=1e-12, of="P.22")
    calm = [sample(Network(law), NOISY, n=2, steps=5, prediction=X_0, solver=s) for s in (EULER, AB2)]
    assert np.abs(calm[1] - calm[0]).max() > 1e-3


@spec("P.22")
def test_a_trace_shows_the_networks_own_guess_also_where_the_answer_is_extrapolated():
    law = two_modes(STRAIGHT, U)
    *moments, x_0 = sample(Network(law), FLOW, n=2, steps=5, solver=AB2, trace=True)
    assert [(m.t, m.s) for m in moments] == times.linear(5)
    for m in moments:
        agree(m.x_0_hat, law.denoise(m.x_t, STRAIGHT.level(m.t)), bound=1e-11)
    agree(x_0, sample(Network(law), FLOW, n=2, steps=5, solver=AB2, shards=2), bound=1e-12)


@spec("G.4")
def test_guidance_holds_in_its_part_of_a_continuous_path():
    for path, answer in ((STRAIGHT, U), (NOISY, X_0)):
        seen = []

        def law(x, time, y, seen=seen):
            seen.append(len(y))
            return x

        grid = [(path.part(b), path.part(a)) for b, a in ((1.0, 0.7), (0.7, 0.3), (0.3, 0.0))]
        sample(Network(law, classes=1), path, [0, 0], grid=grid, guidance=3.0, interval=(0.3, 0.7), prediction=answer, shards=1)
        assert seen == [2, 4, 2]


# ------------------------------------------------------------------------------------------------ noise


@spec("P.21", "P.5")
def test_grids_of_any_length_meet_the_same_noise_at_the_same_time():
    law, sums = exact.Gaussian(0.0, 1.0, path=STRAIGHT, prediction=U), []
    for grid in (times.linear(2), times.linear(4)):
        *moments, _ = sample(Network(law), FLOW, n=2, grid=grid, fresh=ddim(1.0), trace=True)
        for m, after in zip(moments, [*moments[1:], None], strict=True):
            if after is None:
                continue
            t, s = STRAIGHT.level(m.t), STRAIGHT.level(m.s)
            x_0_hat = law.denoise(m.x_t, t)
            c = ddim(1.0).c(t, s)
            eps_hat = (m.x_t - t.alpha * x_0_hat) / t.sigma
            z = (after.x_t - s.alpha * x_0_hat - (s.sigma**2 - c**2) ** 0.5 * eps_hat) / c
            agree(z, noise(2, int(m.t * 2**20)), bound=1e-9, of="P.21")
            sums.append(m.t)
    assert sorted(sums) == [0.5, 0.75, 1.0, 1.0]


@spec("P.20", "P.7")
def test_a_churned_walk_climbs_with_noise_of_its_own_and_then_steps():
    law, grid = two_modes(NOISY, X_0), times.churned(NOISY.grid(4), 1.0)
    x, above = 20.0 * noise(2), 20.0
    for t, s in grid:
        x = x + (t**2 - above**2) ** 0.5 * noise(2, int(t * 2**20), SAMPLE_STREAM + CLIMBS)
        D = law.denoise(x, Level(1.0, t))
        x, above = x + (s - t) * (x - D) / t, s
    agree(sample(Network(law), NOISY, n=2, grid=grid, prediction=X_0), x, bound=1e-11, of=("P.20", "P.7"))
    calm = times.churned(NOISY.grid(4), 1.0, high=1.0)  # the high levels stay: the walk begins without a climb
    assert calm[0] == NOISY.grid(4)[0] and calm[-1][0] > NOISY.grid(4)[-1][0]


def churned_variance(grid, top):
    """Var x_0 of N(MEAN, VAR) data by a churned walk of Heun's steps: every climb and every step is affine."""
    var, above, slope = top**2, top, lambda t: t / (VAR + t**2)
    for t, s in grid:
        h = s - t
        end = slope(t) if s == 0 else slope(s) * (1 + h * slope(t))
        var, above = (var + t**2 - above**2) * (1 + h / 2 * (slope(t) + end)) ** 2, s
    return var


@spec("P.20", "P.6")
def test_churned_samples_keep_the_distribution_as_the_steps_grow_shorter():
    n, grid = 3000, times.churned(NOISY.grid(30), 20.0)
    x, var = (
        sample(gaussian_data(NOISY, X_0), NOISY, n=n, grid=grid, prediction=X_0, solver=HEUN_EDM),
        churned_variance(grid, 20.0),
    )
    agree(x.mean(), MEAN, bound=4 * (var / x.size) ** 0.5 + 1e-3)
    agree(x.var() / var, 1.0, bound=4 * (2 / x.size) ** 0.5)
    gaps = [churned_variance(times.churned(NOISY.grid(n), 20.0), 20.0) / VAR - 1 for n in (50, 400, 3200)]
    assert abs(gaps[0]) > 2 * abs(gaps[1]) > 4 * abs(gaps[2]) and abs(gaps[2]) < 2e-3, gaps


@spec("S.2", "S.7")
def test_a_perfect_consistency_model_gives_data_in_one_step_and_in_three():
    """x ← f(x, t), then x ← x + √(s²-ε²) z: the walk with all noise fresh on the path that ends at ε."""
    path, law = Exploding(0.5, end=0.002), consistency.consistency()

    def network(x, time, y):
        x_t, t = path.origin(x, time)
        t = t.reshape(-1, 1, 1, 1)
        skip, out = consistency.scalings(t)
        return (consistency.gaussian_end(x_t, t, MEAN, VAR) - skip * x_t) / out

    one = sample(Network(network), path, n=4, steps=1, prediction=law, fresh=EVERYTHING)
    agree(one, consistency.gaussian_end(path.start(noise(4)), 80.0, MEAN, VAR), bound=1e-11, of=("S.2", "S.7"))
    grid = times.down([80.0, 2.0, 0.5, 0.002])
    x = consistency.gaussian_end(path.start(noise(4)), 80.0, MEAN, VAR)
    for above, t in ((80.0, 2.0), (2.0, 0.5)):
        x = x + (t**2 - 0.002**2) ** 0.5 * noise(4, int(above * 2**20))
        x = consistency.gaussian_end(x, t, MEAN, VAR)
    agree(sample(Network(network), path, n=4, grid=grid, prediction=law, fresh=EVERYTHING), x, bound=1e-10, of="S.2")


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("process, options, message", [
    (STRAIGHT, {}, "a path alone does not say what the network answers"),
    (FLOW, {"grid": [(0.5, 0.0)]}, "the grid begins at 0.5, the path at 1.0: a walk from there needs x_T"),
    (FLOW, {"grid": [(1.0, 0.5), (0.5, 0.5)]}, "with s < t, each t at or above the s before it"),
    (FLOW, {"grid": [(1.0, 0.5), (0.4, 0.0)]}, "with s < t, each t at or above the s before it"),
    (FLOW, {"spacing": lambda T, n: [1]}, "only a ladder has rungs to space"),
    (FLOW, {"steps": 0}, "at least one step"),
    (FLOW, {"solver": AB2, "fresh": DDPM}, "a solver of order 2 takes no fresh noise"),
    (FLOW, {"solver": HEUN, "fresh": ddim(0.5)}, "a solver of order 2 takes no fresh noise"),
    (FLOW, {"interval": (0.5, 0.5)}, "a guidance interval is two parts of the path"),
    (FLOW, {"prediction": EPS}, "the answer eps does not determine x_0"),
])  # fmt: skip
def test_wishes_that_cannot_be_met_are_refused(process, options, message):
    with pytest.raises(ValueError, match=message):
        sample(gaussian_data(STRAIGHT, U), process, n=2, **options)
