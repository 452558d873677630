"""One network, trained on one path, walked in the coordinates of another."""

from itertools import pairwise

import numpy as np
import pytest
import standin
from diffusion.draws import ladders
from hypothesis import given
from hypothesis import strategies as st
from small import DIT, awake
from standin.cublas import imitated_cublas
from support import agree, host, spec

from minidit.diffusion import exact, times
from minidit.diffusion.coordinates import Between, Coordinates
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import EPS, X_0, U, V, edm
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.diffusion.solver import AB2, EULER, HEUN
from minidit.kernels import cuda_graph
from minidit.models.condition import Classes, Nothing
from minidit.processes.diffusion import Diffusion, drawn
from minidit.processes.sample import SAMPLE_STREAM, sample
from minidit.random import Philox

LADDER, STRAIGHT, NOISY = Schedule.cosine(1000), Straight(), Exploding(0.5, low=0.01, high=30.0)
TRAINED = {
    "ladder": Diffusion.on_ladder(LADDER, V),
    "ladder, ε": Diffusion.on_ladder(Schedule.linear(1000), EPS),
    "straight": Diffusion(STRAIGHT, U, drawn(times.uniform)),
    "exploding": Diffusion(NOISY, edm(0.5), drawn(times.lognormal())),
}
WALKED = {"vp": LADDER, "straight": STRAIGHT, "ve": Exploding(0.5, low=0.02, high=25.0)}


class Network:
    """A perfect network of two modes: it sees what its own path shows it, and answers in its own terms."""

    device, dtype, shape, second_half = "cpu", np.float64, (1, 2, 2), False

    def __init__(self, process, classes=0):
        means = np.array([-1.0, 0.8]).reshape(2, 1, 1, 1) * np.ones((1, 1, 2, 2))
        self.law = exact.Mixture(np.array([0.4, 0.6]), means, np.array([0.2, 0.1]), np.array([0, 1]) if classes else None,
                                 classes or None, path=process.path)  # fmt: skip
        self.process, self.seen = process, []
        self.condition = Classes(classes, classes, 0.1) if classes else Nothing()

    def __call__(self, x, time, y=None):
        path = self.process.path
        x_t, at = (x, Between(path).level(time + 1)) if isinstance(path, Schedule) else (None, None)
        if at is None:
            x_t, t = path.origin(x, time)
            at = path.level(t)
        self.seen.append(at)
        return self.process.answer.target(*X_0.pair(self.law.denoise(x_t, at, y), x_t, at), at)

    def null(self, y):
        return self.condition.left_out(y)


def noise(n):
    return Philox(0, SAMPLE_STREAM).normal((n, *Network.shape), dtype=np.float64)


# ------------------------------------------------------------------------------------------------ between rungs


@spec("P.24")
@given(ladders(), st.floats(0, 1))
def test_a_rung_has_its_own_time_and_level_and_between_two_rungs_the_logarithm_is_a_line(xp, sch, part):
    between, t = Between(sch), 1 + part * (sch.T - 1)
    for rung in (1, sch.T):
        at = sch.level(rung)
        if at.alpha > 0:
            agree(between.time(at), float(rung), bound=1e-9, of="P.24")
            agree(list(between.level(float(rung))), list(at), bound=1e-9, of="P.24")
    below = min(int(t), sch.T - 1)
    log = lambda at: np.log(at.sigma) - np.log(at.alpha)
    if sch.alpha_bar[-1] > 0:
        line = log(sch.level(below)) + (t - below) * (log(sch.level(below + 1)) - log(sch.level(below)))
        agree(log(between.level(t)), line, bound=1e-9, of="P.24")
        agree(between.time(between.level(t)), t, bound=1e-6, of="P.24")
        several = between.level(xp.asarray([t, 1.0]))
        agree(host(several.alpha), [between.level(t).alpha, between.level(1.0).alpha], bound=1e-12)
        agree(host(between.time(several)), [t, 1.0], bound=1e-6)
    _, time = between.inputs(xp.zeros((2, 1, 2, 2)), t)
    network_time = sch.time[below] + (t - below) * (sch.time[below + 1] - sch.time[below])
    agree(host(time), [network_time] * 2, bound=1e-9, of="P.24")


@spec("P.24")
def test_beyond_the_ends_of_a_ladder_stand_its_ends():
    between = Between(LADDER)
    assert between.time(Level(1.0, 1e-9)) == 1.0 == between.time(Level(1.0, 0.0)) and between.time(Level(1e-12, 1.0)) == 1000.0
    zero = Between(zero_terminal_snr(Schedule.linear(100)))
    assert zero.time(Level(1e-12, 1.0)) == 100.0 and 0 < zero.level(100.0).alpha < 1e-2


# ------------------------------------------------------------------------------------------------ one trajectory


@spec("P.25", "P.11")
@pytest.mark.parametrize("solver", [EULER, AB2, HEUN], ids=["Euler", "AB2", "Heun"])
@pytest.mark.parametrize("walked", WALKED)
@pytest.mark.parametrize("trained", TRAINED)
def test_through_the_same_levels_a_network_draws_the_same_samples_in_all_coordinates(trained, walked, solver):
    process, path = TRAINED[trained], WALKED[walked]
    rungs = [920, 700, 480, 250, 90, 30]
    levels = [LADDER.level(t) for t in rungs]
    own = Between(process.path) if isinstance(process.path, Schedule) else process.path
    there = Between(path) if isinstance(path, Schedule) else path

    def ends(of):
        stops = [of.time(at) for at in levels]
        return [*stops, 0.0]

    z, tops = noise(3), [own.level(own.time(levels[0])), there.level(there.time(levels[0]))]
    x = [z * (at.alpha + at.sigma) for at in tops]
    grid = list(pairwise([*rungs, 0] if isinstance(path, Schedule) else ends(there)))
    network = Network(process)
    other = sample(network, process, n=3, path=path, grid=grid, x_T=x[1], solver=solver, shards=1)
    if isinstance(process.path, Schedule):  # whose own times are rungs: its levels are walked on the straight path
        straight = list(pairwise(ends(STRAIGHT)))
        same = sample(Network(TRAINED["straight"]), TRAINED["straight"], n=3, grid=straight, x_T=z, solver=solver)
    else:
        same = sample(Network(process), process, n=3, grid=list(pairwise(ends(own))), x_T=x[0], solver=solver)
    agree(other, same, bound=1e-9, of=("P.25", "P.11"))
    for at, wanted in zip(network.seen, (levels if solver is not HEUN else []), strict=False):
        agree((at.sigma / at.alpha)[0], wanted.sigma / wanted.alpha, bound=1e-9, of="P.25")


@spec("P.25")
@pytest.mark.parametrize("walked", WALKED)
@pytest.mark.parametrize("trained", ["ladder", "straight", "exploding"])
def test_on_the_usual_grid_of_another_path_samples_stay_near_those_of_their_own(trained, walked):
    """From pure noise to data; beyond the ends of its own path the network is asked at the end."""
    process = TRAINED[trained]
    network = Network(process, classes=2)
    y = np.array([0, 0, 1, 1])
    x = sample(network, process, y, path=WALKED[walked], steps=60, shards=1)
    same = sample(Network(process, classes=2), process, y, steps=60)
    assert np.abs(x - same).max() < 0.2 and (np.sign(x.mean(axis=(1, 2, 3))) == [-1, -1, 1, 1]).all()
    ratios = [float((at.sigma / np.maximum(at.alpha, 1e-300))[0]) for at in network.seen]
    if trained == "exploding":
        assert max(ratios) <= NOISY.high * (1 + 1e-12) and min(ratios) >= NOISY.low * (1 - 1e-12)


@spec("P.25", "G.4")
def test_guidance_holds_at_the_same_noise_in_all_coordinates():
    process = TRAINED["ladder"]
    low, high = (LADDER.level(LADDER.part(u)) for u in (0.2, 0.7))
    for path in WALKED.values():
        network = Network(process, classes=2)
        sample(network, process, np.array([0, 1]), path=path, steps=40, guidance=3.0, interval=(0.2, 0.7), shards=1)
        for at in network.seen:
            ratio = float((at.sigma / at.alpha)[0])
            inside = low.sigma / low.alpha * (1 + 1e-9) < ratio <= high.sigma / high.alpha * (1 + 1e-9)
            assert (len(at.sigma) == 4) == inside


def test_an_own_kind_of_path_is_walked_in_its_own_coordinates_only():
    class Mine:
        pass

    with pytest.raises(ValueError, match="a network of the path Mine is walked in its own coordinates only"):
        Coordinates(STRAIGHT, Mine())
    with pytest.raises(ValueError, match="take them back by that path"):
        Coordinates(STRAIGHT, NOISY).origin(noise(1), 3.0)


@spec("P.25")
@pytest.mark.parametrize("trained", ["ladder", "exploding"])
def test_a_recorded_walk_in_other_coordinates_is_the_walk(trained, caplog):
    if not getattr(standin.install(), "__standin__", False) or standin.raw.compiler() is None:
        pytest.skip("the stand-in, and g++ to run kernels on the CPU")
    cuda_graph.explain.cache_clear()
    process, labels = TRAINED[trained], np.array([0, 1, 2])
    with standin.kernels(), imitated_cublas():
        for path in WALKED.values():
            walk = lambda path=path, **more: host(sample(awake(DIT, device="cuda"), process, labels, path=path, steps=5, **more))
            recorded, eager = walk(), walk(graph=False)
            assert caplog.messages == [] and np.isfinite(recorded).all() and np.array_equal(recorded, eager)
            agree(recorded, sample(awake(DIT), process, labels, path=path, steps=5), bound=1e-3)
