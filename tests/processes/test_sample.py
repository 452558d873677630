"""Sampling: with perfect networks it meets the closed forms; each sample is its own, whatever batch it is drawn in."""

from dataclasses import replace

import numpy as np
import pytest
import standin
from small import DIT, UNCONDITIONAL, awake
from support import agree, host, spec

from minidit.backend import to_device
from minidit.diffusion import exact, gaussian, rungs, variance
from minidit.diffusion.fresh import DDPM, DDPM_LARGE, DDPM_LEARNED, ddim
from minidit.diffusion.prediction import EPS, PREDICTIONS, V
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.step import posterior_coefficients, step
from minidit.models.condition import Classes, Nothing
from minidit.processes.sample import SAMPLE_STREAM, sample
from minidit.processes.walk import Moment
from minidit.random import Philox

SCH = Schedule.linear(100)
MEAN, VAR = 0.3, 0.25


class Oracle:
    """A backbone that answers by a law. It keeps what it was shown."""

    device, dtype, shape = "cpu", np.float64, (1, 2, 2)

    def __init__(self, law, classes=0, second_half=False):
        self.law, self.second_half, self.seen = law, second_half, []
        self.condition = Classes(classes, classes, 0.1) if classes else Nothing()

    def __call__(self, x, time, y=None):
        self.seen.append((x, time, y))
        return self.law(x, time, y)

    def null(self, y):
        return self.condition.left_out(y)


def gaussian_data(prediction=EPS):
    return Oracle(exact.Gaussian(MEAN, VAR, path=SCH, prediction=prediction))


def start(n):
    return Philox(0, SAMPLE_STREAM).normal((n, *Oracle.shape), dtype=np.float64)


# ------------------------------------------------------------------------------------------------ closed forms


@spec("D.7", "D.41")
@pytest.mark.parametrize("name", ["eps", "x_0", "v"])
@pytest.mark.parametrize("steps", [1, 5, 100])
def test_ddim_on_gaussian_data_is_one_factor_a_step(name, steps):
    grid = rungs.pairs(rungs.trailing(100, steps))
    x = sample(gaussian_data(PREDICTIONS[name]), SCH, n=3, grid=grid, prediction=PREDICTIONS[name])
    a = SCH.alpha_bar
    centred = start(3) - a[100] ** 0.5 * MEAN
    for t, s in grid:
        centred = centred * gaussian.step_factor(SCH.level(t), SCH.level(s), VAR)
    agree(x, MEAN + centred, bound=1e-9, of=("D.7", "D.41"))


@spec("D.40")
def test_ddim_nears_the_exact_flow_as_the_steps_grow_shorter():
    x_T = start(4)
    flow = exact.Gaussian(MEAN, VAR, path=SCH).flow(x_T, SCH.level(100), SCH.level(0))
    errors = [
        float(np.abs(sample(gaussian_data(), SCH, n=4, grid=rungs.pairs(rungs.trailing(100, n)), x_T=x_T) - flow).max())
        for n in (5, 20, 100)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@spec("D.45")
@pytest.mark.parametrize("fresh, law", [(DDPM, variance.small), (DDPM_LARGE, variance.large)])
@pytest.mark.parametrize("steps", [4, 100])
def test_ddpm_on_gaussian_data_is_affine_with_the_noise_of_its_own_rungs(fresh, law, steps):
    grid = rungs.pairs(rungs.trailing(100, steps))
    x = sample(gaussian_data(), SCH, n=3, grid=grid, fresh=fresh)
    want, a = start(3), SCH.alpha_bar
    for t, s in grid:
        k, (c_1, c_2, _) = gaussian.gain(SCH.level(t), VAR), posterior_coefficients(a[t], a[s])
        want = (c_1 * k + c_2) * want + c_1 * MEAN * (1 - k * a[t] ** 0.5)
        if s:  # the last step is noiseless
            want = want + law(t, s, SCH) ** 0.5 * Philox(0, SAMPLE_STREAM, state=t).normal(want.shape, dtype=np.float64)
    agree(x, want, bound=1e-9, of="D.45")


@spec("D.45")
def test_the_moments_of_ddpm_samples_are_the_closed_form_ones():
    n, grid = 4000, rungs.pairs(rungs.trailing(100, 25))
    x = sample(gaussian_data(), SCH, n=n, grid=grid, fresh=DDPM)
    mean, var = 0.0, 1.0
    for t, s in grid:
        mean, var = gaussian.ancestral(mean, var, SCH.level(t), SCH.level(s), MEAN, VAR, variance.small(t, s, SCH))
    count = x.size
    agree(x.mean(), mean, bound=4 * (var / count) ** 0.5)
    agree(x.var() / var, 1.0, bound=4 * (2 / count) ** 0.5)


def test_ddim_with_eta_1_is_ddpm():
    grid = rungs.pairs(rungs.trailing(100, 10))
    both = [sample(gaussian_data(), SCH, n=3, grid=grid, fresh=fresh) for fresh in (ddim(1.0), DDPM)]
    agree(both[0], both[1], bound=1e-10, of="D.7")


def test_a_memorised_set_is_sampled_back():
    """The perfect denoiser of four points: every sample ends at one of them."""
    points = np.array([-0.8, -0.2, 0.5, 0.9]).reshape(4, 1, 1, 1) * np.ones((1, 1, 2, 2))
    model = Oracle(exact.Mixture.of_points(points, path=SCH))
    x = sample(model, SCH, n=40, grid=rungs.pairs(range(1, 101)), fresh=DDPM)
    gap = np.abs(x[:, None] - points[None]).max(axis=(2, 3, 4)).min(axis=1)
    assert gap.max() < 1e-6


# ------------------------------------------------------------------------------------------------ a sample is its own


@pytest.mark.parametrize("fresh", [ddim(), DDPM])
def test_a_sample_comes_out_alike_in_every_batch_and_in_every_number_of_shards(fresh):
    """To rounding, not to the bit: a matrix product may sum in another order when the batch has another size."""
    model, labels, sch = awake(), np.array([0, 1, 2, 0, 1, 2, 0]), Schedule.cosine(50)
    whole = sample(model, sch, labels, steps=5, fresh=fresh, guidance=2.0, prediction=V, shards=1)
    for shards in (2, 3, 7, 20):
        agree(sample(model, sch, labels, steps=5, fresh=fresh, guidance=2.0, prediction=V, shards=shards), whole, bound=2e-6)
    agree(sample(model, sch, labels[:3], steps=5, fresh=fresh, guidance=2.0, prediction=V), whole[:3], bound=2e-6)


def test_the_same_call_gives_the_same_bits_and_another_seed_another_picture():
    model, labels = awake(), np.arange(3)
    first, again = (sample(model, SCH, labels, steps=3, shards=2) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(sample(model, SCH, labels, steps=3, seed=1), first)


def test_a_prediction_may_be_given_by_its_name():
    model, labels = awake(), np.arange(3)
    assert np.array_equal(*(sample(model, SCH, labels, steps=2, prediction=answer) for answer in ("v", V)))
    with pytest.raises(ValueError, match="prediction 'u' is not one of eps, x_0, v"):
        sample(model, SCH, labels, steps=2, prediction="u")


def test_the_noise_of_a_rung_does_not_depend_on_the_rungs_before_it():
    """Two ladders that share their lower half, from the same x at the top of it, walk it alike."""
    model, x = gaussian_data(), start(2)
    lower = [(60, 30), (30, 10), (10, 0)]
    first = sample(model, SCH, n=2, grid=lower, fresh=DDPM, x_T=x)
    assert first.tobytes() == sample(model, SCH, n=2, grid=lower, fresh=DDPM, x_T=x).tobytes()
    *_, at_60, _, _, end = sample(model, SCH, n=2, grid=[(100, 60), *lower], fresh=DDPM, trace=True)
    agree(sample(model, SCH, n=2, grid=lower, fresh=DDPM, x_T=at_60.x_t), end, bound=1e-12)


# ------------------------------------------------------------------------------------------------ guidance


def classes():
    law = exact.Mixture(np.array([0.5, 0.5]), np.array([-1.0, 1.0]).reshape(2, 1, 1, 1) * np.ones((1, 1, 2, 2)),
                        np.array([0.2, 0.2]), np.array([0, 1]), null=2, path=SCH)  # fmt: skip
    return Oracle(law, classes=2)


def test_guidance_1_is_the_conditional_network_alone():
    model, labels = classes(), np.array([0, 1, 1])
    x = sample(model, SCH, labels, steps=4, shards=1)
    assert all(np.array_equal(y, labels) and len(x_t) == 3 for x_t, _, y in model.seen)
    apart = Oracle(lambda x, time, y: model.law(x, time, np.array([1])), classes=2)
    agree(sample(apart, SCH, np.array([1]), steps=4, x_T=start(3)[1:2]), x[1:2], bound=1e-12)


@spec("G.1")
def test_guidance_shows_every_picture_twice_once_with_the_null_label():
    model, labels = classes(), np.array([0, 1, 1])
    sample(model, SCH, labels, steps=2, guidance=3.0, shards=1)
    x, time, y = model.seen[0]
    assert y.tolist() == [0, 1, 1, 2, 2, 2] and len(time) == 6 and len(set(time.tolist())) == 1
    assert np.array_equal(x[:3], x[3:]) and np.array_equal(x[:3], start(3))


@spec("G.1")
def test_guidance_0_is_the_unconditional_network():
    model = classes()
    guided = sample(model, SCH, np.array([0, 1]), steps=4, guidance=0.0)
    agree(guided, sample(model, SCH, np.array([2, 2]), steps=4), bound=1e-12, of="G.1")


@spec("G.1")
def test_a_guided_walk_mixes_the_two_answers_at_every_step():
    model, labels, w = classes(), np.array([0, 1]), 2.5

    def mixed(x, time, y):
        null = np.full(2, 2)
        u, c = model.law(x, time, null), model.law(x, time, y)
        return u + w * (c - u)

    apart = Oracle(mixed, classes=2)
    agree(sample(model, SCH, labels, steps=6, guidance=w), sample(apart, SCH, labels, steps=6, shards=1), bound=1e-12, of="G.1")


@spec("G.4")
def test_a_scale_holds_in_its_part_of_the_ladder_and_costs_nothing_outside():
    class Counted(Oracle):
        def __call__(self, x, time, y=None):
            return np.where((y == self.condition.null)[:, None, None, None], 0.0, 1.0) * super().__call__(x, time, y)

    labels, grid = np.zeros(2, int), rungs.pairs([100, 75, 50, 25, 1])
    guided = Counted(exact.Gaussian(MEAN, VAR, path=SCH), classes=1)
    x = sample(guided, SCH, labels, grid=grid, guidance=3.0, interval=(0.25, 0.75), shards=1)
    assert [len(y) for *_, y in guided.seen] == [2, 4, 4, 2, 2]  # rungs 75 and 50; the interval is open below
    apart = Counted(exact.Gaussian(MEAN, VAR, path=SCH), classes=1)
    by_hand = start(2)
    for t, s in grid:
        eps_c = apart(by_hand, np.full(2, t - 1), labels)
        eps_hat = (3.0 if t in (75, 50) else 1.0) * eps_c
        by_hand = step(*EPS.pair(eps_hat, by_hand, SCH.level(t)), SCH.level(s))
    agree(x, by_hand, bound=1e-12, of="G.4")


# ------------------------------------------------------------------------------------------------ what a walk shows and takes


def test_a_trace_shows_every_x_t_and_ends_with_x_0():
    model, labels = awake(), np.arange(3)
    *moments, x_0 = sample(model, SCH, labels, steps=4, trace=True)
    assert all(isinstance(m, Moment) for m in moments)
    assert [(m.t, m.s) for m in moments] == rungs.pairs(rungs.trailing(100, 4))
    assert np.array_equal(moments[0].x_t, Philox(0, SAMPLE_STREAM).normal((3, 1, 4, 4)))
    agree(x_0, moments[-1].x_0_hat, bound=1e-6)  # the last step returns the guess
    agree(x_0, sample(model, SCH, labels, steps=4), bound=2e-6)


def test_progress_is_reported_after_every_step():
    reports = []
    sample(awake(), SCH, np.arange(3), steps=4, shards=2, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_walk_starts_from_the_noise_that_is_given():
    model = gaussian_data()
    x_T = start(5) * 0.5
    agree(sample(model, SCH, n=5, steps=3, x_T=x_T, shards=2), sample(model, SCH, steps=3, x_T=x_T, shards=1), bound=1e-12)
    assert np.array_equal(model.seen[-3][0], x_T)


def test_clipped_guesses_stay_in_the_range_of_pictures():
    model = Oracle(lambda x, time, y: -5 * x)
    *moments, x_0 = sample(model, SCH, n=4, steps=5, clip=True, trace=True)
    assert all(np.abs(m.x_0_hat).max() <= 1 for m in moments) and np.abs(x_0).max() <= 1
    agree(x_0, moments[-1].x_0_hat, bound=1e-12)


def test_a_learned_variance_is_used_where_the_law_asks_for_it():
    """With v = -1 everywhere the learned range is the small variance, with v = +1 it is β."""
    law = exact.Gaussian(MEAN, VAR, path=SCH)
    for v, same in ((-1.0, DDPM), (1.0, DDPM_LARGE)):
        model = Oracle(lambda x, time, y, v=v: np.concatenate((law(x, time), np.full_like(x, v)), axis=1), second_half=True)
        grid = rungs.pairs(rungs.trailing(100, 7))
        learned = sample(model, SCH, n=3, grid=grid, fresh=DDPM_LEARNED)
        agree(learned, sample(gaussian_data(), SCH, n=3, grid=grid, fresh=same), bound=1e-10)


def test_under_guidance_the_variance_is_that_of_the_wanted_class():
    """The null label's v, +1, would be β; the classes' v, -1, is the small variance."""
    grid, labels = rungs.pairs(rungs.trailing(100, 7)), np.array([0, 1])
    plain, model = classes(), classes()
    model.second_half = True
    model.law = lambda x, time, y: np.concatenate(
        (plain.law(x, time, y), np.where(y == 2, 1.0, -1.0).reshape(-1, 1, 1, 1) * np.ones_like(x)), axis=1
    )
    learned = sample(model, SCH, labels, grid=grid, fresh=DDPM_LEARNED, guidance=2.0, shards=1)
    agree(learned, sample(plain, SCH, labels, grid=grid, fresh=DDPM, guidance=2.0, shards=1), bound=1e-10)


def test_a_walk_of_a_learn_sigma_network_uses_the_first_half_of_the_channels():
    x = sample(awake(replace(DIT, learn_sigma=True)), SCH, np.arange(3), steps=2, guidance=2.0)
    assert x.shape == (3, 1, 4, 4)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("config, options, message", [
    (DIT, {}, "the model has 3 classes: say which labels"),
    (DIT, {"labels": [0, 4]}, r"labels must be \(B,\) in 0..2, got \[0, 4\]"),
    (DIT, {"labels": [-1]}, r"labels must be \(B,\) in 0..2"),
    (replace(DIT, class_dropout_prob=0.0), {"labels": [3]}, r"labels must be \(B,\) in 0..2"),
    (DIT, {"labels": [[0]]}, r"labels must be \(B,\)"),
    (DIT, {"labels": []}, "0 samples"),
    (UNCONDITIONAL, {"labels": [0]}, "the model is unconditional: give n"),
    (UNCONDITIONAL, {"n": 0}, "0 samples"),
    (DIT, {"labels": [0], "guidance": 2.0, "interval": (0.5, 0.5)}, "a guidance interval is two parts of the ladder"),
    (DIT, {"labels": [0], "guidance": 2.0, "interval": (0.5, 0.501)}, "interval .0.5, 0.501. there is no rung of the ladder"),
    (UNCONDITIONAL, {"n": 2, "guidance": 2.0}, "guidance needs a model that was trained with classes"),
    (replace(DIT, class_dropout_prob=0.0), {"labels": [0], "guidance": 2.0}, "label dropout"),
    (UNCONDITIONAL, {"n": 2, "x_T": np.zeros((3, 1, 4, 4), np.float32)}, r"2 samples need x_T of shape \(2, 1, 4, 4\)"),
    (UNCONDITIONAL, {"n": 2, "grid": []}, "at least one step"),
    (UNCONDITIONAL, {"n": 2, "steps": 0}, "the number of steps must lie in 1"),
    (UNCONDITIONAL, {"n": 2, "steps": 101}, "the number of steps must lie in 1"),
    (UNCONDITIONAL, {"n": 2, "fresh": ddim(3.0)}, "a smaller η"),
])  # fmt: skip
def test_wishes_that_cannot_be_met_are_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        sample(awake(config), SCH, **options)


# ------------------------------------------------------------------------------------------------ both homes


@pytest.mark.parametrize("fresh, learn_sigma", [(ddim(), False), (DDPM, False), (DDPM_LEARNED, True)])
def test_samples_of_the_device_are_those_of_the_host(fresh, learn_sigma):
    config, labels = replace(DIT, learn_sigma=learn_sigma), np.array([0, 1, 2, 2])
    here, there = (
        sample(awake(config, device=device), Schedule.cosine(50), to_device(labels, device), steps=5, fresh=fresh, guidance=2.0,
               prediction=V, clip=True)
        for device in ("cpu", "cuda")
    )  # fmt: skip
    agree(host(there), here, bound=1e-4)


def test_a_walk_on_the_device_waits_for_nothing():
    model = awake(device="cuda")
    sample(model, SCH, np.arange(3), steps=2)
    with standin.counting() as spent:
        sample(model, SCH, np.arange(3), steps=4, fresh=DDPM, guidance=2.0, clip=True)
    assert spent.syncs == 0 and spent.launches > 0


def test_unconditional_samples_on_the_device():
    here, there = (sample(awake(UNCONDITIONAL, device=d), SCH, n=2, steps=3) for d in ("cpu", "cuda"))
    agree(host(there), here, bound=1e-4)
