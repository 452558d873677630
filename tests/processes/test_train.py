"""Training a denoiser: a loss that is a function, targets and weights, dropped labels, the bound's gradient, both homes."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import standin
from small import DIT, UNCONDITIONAL, awake, pictures
from support import agree, host, spec

from minidit.backend import to_device
from minidit.data import Dataset, batch_indices, digits
from minidit.diffusion import likelihood, loss, variance
from minidit.diffusion.ddpm import q_sample
from minidit.diffusion.prediction import PREDICTIONS
from minidit.models.dit import DiT
from minidit.processes.train import TRAIN_STREAM, Denoising, TrainConfig, drop_labels, loop_for, train
from minidit.random import Philox
from minidit.training.source import Latents, Pixels, source_of

CONFIG = TrainConfig(steps=6, batch_size=12, lr=1e-2, T=30)
ALL = np.arange(CONFIG.batch_size)


class Watch:
    """Stands before a network and keeps what it was shown; what it answers is the network's, or a fixed array."""

    def __init__(self, model, answer=None):
        self.model, self.answer, self.seen = model, answer, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, x, t, y=None):
        self.seen.append((x, t, y))
        return self.model(x, t, y) if self.answer is None else self.answer


def denoising(config=CONFIG, model=None, dtype=np.float64):
    model = model or awake(dtype=dtype)
    source = source_of(pictures(config=model.config, dtype=dtype), "cpu", dtype)
    return Denoising(model, source, config)


# ------------------------------------------------------------------------------------------------ a function of (step, samples)


def test_the_loss_is_a_function_of_the_step_and_the_samples():
    f = denoising()
    first, again, other = f(3, ALL)[0], f(3, ALL)[0], f(4, ALL)[0]
    assert float(first) == float(again) != float(other)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, loss_weight="min_snr", prediction="v")])
@pytest.mark.parametrize("cut", [[4], [1, 7, 11], list(range(1, 12))])
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_any_split_of_the_samples_sums_to_the_whole(config, cut, learn_sigma):
    f = denoising(config, awake(replace(DIT, learn_sigma=learn_sigma), dtype=np.float64))
    whole, told = f(3, ALL)
    parts = [f(3, samples) for samples in np.split(ALL, cut)]
    agree(sum(float(value) for value, _ in parts), float(whole), bound=1e-12)
    for name in told:
        agree(sum(float(more[name]) for _, more in parts), float(told[name]), bound=1e-12)


def test_what_a_sample_sees_does_not_depend_on_the_piece_it_is_in():
    watch = Watch(awake(dtype=np.float64))
    f = denoising(model=watch)
    f(5, ALL)
    f(5, ALL[7:9])
    for whole, part in zip(*watch.seen, strict=True):
        assert np.array_equal(whole[7:9], part)


def test_latents_are_drawn_anew_at_every_step_and_alike_in_every_piece():
    mean, labels = pictures(5, dtype=np.float64)
    source = Latents(mean, np.full_like(mean, 0.5), 2.0, labels)
    index, samples = np.array([0, 0, 3]), np.arange(3)
    z = source.draw(index, Philox(0, 1, state=4), samples)
    assert not np.array_equal(z[0], z[1])  # one picture, two samples: two draws
    assert np.array_equal(source.draw(index[1:], Philox(0, 1, state=4), samples[1:]), z[1:])
    many = source.draw(np.zeros(20000, int), Philox(0, 1), np.arange(20000))
    agree(many.mean(axis=0), 2.0 * mean[0], bound=0.03)
    agree(many.std(axis=0), np.full(mean[0].shape, 1.0), bound=0.03)


# ------------------------------------------------------------------------------------------------ what is asked of the network


@pytest.mark.parametrize("weight", ["uniform", "min_snr"])
@pytest.mark.parametrize("name", ["eps", "x_0", "v"])
def test_the_loss_is_the_weighted_mean_square_of_what_the_prediction_asks_for(name, weight):
    config = replace(CONFIG, prediction=name, loss_weight=weight)
    watch = Watch(awake(dtype=np.float64))
    f = denoising(config, watch)
    told = float(f(2, ALL)[0])
    x_t, time, y = watch.seen[0]

    rng = Philox(config.seed, TRAIN_STREAM, state=16)  # eight draws a step, said once more
    sch = config.make_schedule()
    t = rng.integers(1, sch.T + 1, (12,), ALL)
    rng.uniform((12,), ALL)
    x_0 = f.source.x_0[batch_indices(2, 12, 11, config.seed)]
    eps = rng.normal(x_0.shape, ALL, dtype=np.float64)
    a = sch.alpha_bar[t].reshape(-1, 1, 1, 1)
    target = {"eps": eps, "x_0": x_0, "v": a**0.5 * eps - (1 - a) ** 0.5 * x_0}[name]
    snr = a / (1 - a)
    least = np.minimum(snr, 5.0)
    w = {"eps": least / snr, "x_0": least, "v": least / (snr + 1)}[name] if weight == "min_snr" else 1.0
    agree(x_t, q_sample(x_0, t, eps, sch), bound=1e-12)
    assert np.array_equal(time, t - 1)
    out = watch.model(x_t, time, y).data
    agree(told, float((w * (out - target) ** 2).mean()), bound=1e-12)


def test_every_rung_is_drawn_and_none_outside():
    watch = Watch(awake(UNCONDITIONAL))
    f = Denoising(watch, source_of(pictures(config=UNCONDITIONAL)[0]), replace(CONFIG, batch_size=2000))
    f(0, np.arange(2000))
    _, time, y = watch.seen[0]
    assert set(time.tolist()) == set(range(30)) and y is None


@spec("G.7")
def test_labels_are_dropped_as_often_as_said_and_become_the_null_label():
    watch = Watch(awake(replace(DIT, class_dropout_prob=0.2)))
    n = 4000
    f = Denoising(watch, source_of(pictures()), replace(CONFIG, batch_size=n))
    f(1, np.arange(n))
    y = watch.seen[0][2]
    asked = f.source.labels[batch_indices(1, n, 11, 0)]
    dropped = y != asked
    assert set(y[dropped].tolist()) == {DIT.num_classes}
    agree(dropped.mean(), 0.2, bound=4 * (0.16 / n) ** 0.5)
    assert y.dtype.kind == "i"


@spec("G.7")
def test_without_dropout_every_label_stays(xp, device):
    y, u = to_device(np.array([2, 0, 1]), device), to_device(np.array([1e-9, 0.5, 1 - 1e-9]), device)
    assert host(drop_labels(y, u, 0.0, 3)).tolist() == [2, 0, 1]
    assert host(drop_labels(y, u, 0.6, 3)).tolist() == [3, 3, 1]


# ------------------------------------------------------------------------------------------------ learn_sigma


@spec("D.36")
@pytest.mark.parametrize("name", ["eps", "v"])
def test_the_bound_trains_the_variance_and_leaves_the_other_half_alone(name):
    """The first half of the channels has the gradient of the simple loss to the last bit, the second has only the bound's."""
    model = awake(replace(DIT, learn_sigma=True), dtype=np.float64)
    with_bound = denoising(replace(CONFIG, prediction=name), model)
    without = denoising(replace(CONFIG, prediction=name, vb_weight=0.0), model)
    last = model.final_layer.linear
    bars = []
    for f in (with_bound, without):
        value, told = f(2, ALL)
        last.weight.grad = None
        value.backward()
        bars.append(last.weight.grad.reshape(2, 2, 2, DIT.in_channels, -1))  # (p, p, half, channel, width)
    both, simple = bars
    assert np.array_equal(both[:, :, 0], simple[:, :, 0])
    assert (simple[:, :, 1] == 0).all() and (both[:, :, 1] != 0).any()
    assert set(told) == {"simple"}


def grey(levels):
    """Pictures of so many grey levels, as a data set."""
    images = Philox(4).integers(0, levels, (11, 1, 4, 4)).astype(np.uint8)
    return Dataset("grey", images, np.arange(11) % 3, ("a", "b", "c"), levels)


@spec("D.36", "K.11")
@pytest.mark.parametrize("levels", [None, 17, 256])
def test_the_hybrid_loss_is_the_simple_one_and_lambda_T_of_the_bound(levels):
    """At t = 1 the decoder is that of the data: of so many grey levels for a data set, the continuous one for other numbers."""
    config = replace(CONFIG, vb_weight=0.01, T=21)
    watch = Watch(awake(replace(DIT, learn_sigma=True), dtype=np.float64))
    data = pictures(dtype=np.float64) if levels is None else grey(levels)
    f = Denoising(watch, source_of(data, "cpu", np.float64), config)
    step = next(n for n in range(2, 100) if 1 in Philox(0, TRAIN_STREAM, state=8 * n).integers(1, 22, (12,), ALL))
    value, told = f(step, ALL)
    x_t, time, y = watch.seen[0]
    t, x_0 = time + 1, f.source.x_0[batch_indices(step, 12, 11, 0)]
    out = watch.model(x_t, time, y).data
    sch = config.make_schedule()
    a = sch.alpha_bar[t]
    x_0_hat, _ = PREDICTIONS["eps"].pair(out[:, :1], x_t, a)
    log_variance = variance.log_learned_range(out[:, 1:], t, t - 1, sch)
    tanh_form = functools.partial(likelihood.discretised_nll, levels=levels, cdf=likelihood.tanh_cdf)
    decoder = likelihood.continuous_nll if levels is None else tanh_form
    term = likelihood.bound_term(x_0, x_t, x_0_hat, log_variance, t, sch, decoder=decoder)
    agree(float(value), loss.hybrid(float(told["simple"]), float(term.mean()), sch.T, 0.01), bound=1e-12)


# ------------------------------------------------------------------------------------------------ whole runs


def test_the_loss_goes_down():
    """Digits at 8 × 8, v-prediction: from 1, what a network that answers 0 pays, to clearly less within a second."""
    config = replace(DIT, input_size=8, num_classes=10)
    told = [r["loss"] for r in train(DiT(config, Philox(0)), digits(), steps=60, lr=5e-3, batch_size=32, prediction="v", T=100)]
    assert np.mean(told[-10:]) < 0.75 * np.mean(told[:3])


def test_an_unconditional_model_trains_on_pictures_with_and_without_labels():
    x_0, labels = pictures(config=UNCONDITIONAL)
    runs = [list(train(awake(UNCONDITIONAL), data, CONFIG, steps=2)) for data in (x_0, (x_0, None), (x_0, labels))]
    assert runs[0] == runs[1] == runs[2] and len(runs[0]) == 2


def test_overrides_stand_over_the_configuration():
    records = list(train(awake(), pictures(), CONFIG, steps=2, lr=0.5))
    assert len(records) == 2 and records[0]["lr"] == 0.5


def test_double_pictures_are_cast_to_the_network_that_learns_them():
    source = source_of(pictures(dtype=np.float64), "cpu", np.float32)
    assert isinstance(source, Pixels) and source.x_0.dtype == np.float32


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("data, message", [
    (lambda x, y: x, "3 classes but the data have no labels"),
    (lambda x, y: (x, y + 1), "label 3 is out of range for a model of 3 classes"),
    (lambda x, y: (x, y - 1), "label -1 is out of range"),
    (lambda x, y: (x, y[:5]), r"labels must be ints, one a picture: \(11,\); got int64 \(5,\)"),
    (lambda x, y: (x, y * 1.0), "labels must be ints"),
    (lambda x, y: (x, y.tolist()), "labels must be ints, one a picture: .*got list"),
    (lambda x, y: (x[:, 0], y), r"x_0 must be floats \(N, C, H, W\).*got float32 \(11, 4, 4\)"),
    (lambda x, y: ((x * 255).astype(np.uint8), y), "x_0 must be floats .*got uint8"),
    (lambda x, y: "pictures", "cannot train on str"),
    (lambda x, y: (x[:, :, :2], y), r"x has shape \(12, 1, 2, 4\), expected \(B, 1, 4, 4\)"),
])  # fmt: skip
def test_data_that_do_not_fit_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        list(train(awake(), data(*pictures()), CONFIG, steps=1, shards=1))


@pytest.mark.parametrize("bad, message", [
    ({"prediction": "noise"}, "prediction 'noise' is not one of eps, x_0, v"),
    ({"schedule": "quadratic"}, "schedule 'quadratic' is not one of linear, cosine, scaled_linear"),
    ({"loss_weight": "snr"}, "loss_weight 'snr' is not one of uniform, min_snr"),
])  # fmt: skip
def test_an_unknown_word_is_told_with_the_known_ones(bad, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**bad)


# ------------------------------------------------------------------------------------------------ both homes


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_one_step_on_the_device_is_the_step_on_the_host(learn_sigma):
    config, loops = replace(DIT, learn_sigma=learn_sigma), []
    slow = replace(CONFIG, shards=1, clip=1.0, prediction="v", eps=1e-3)  # else Adam's first step is the sign of rounding
    for device in ("cpu", "cuda"):
        x_0, labels = (to_device(a, device) for a in pictures())
        loop = loop_for(awake(config, device=device), (x_0, labels), slow)
        loops.append((loop, next(loop.run())))
    (here, told), (there, also) = loops
    for name in ("loss", "grad_norm"):
        agree(float(host(also[name])), told[name], bound=1e-5)
    agree(host(there.model.flat), here.model.flat, bound=1e-5)
    agree(host(there.optimiser.average), here.optimiser.average, bound=1e-5)


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_step_on_the_device_waits_for_nothing(learn_sigma):
    data = tuple(to_device(a, "cuda") for a in pictures())
    loop = loop_for(awake(replace(DIT, learn_sigma=learn_sigma), device="cuda"), data, replace(CONFIG, clip=1.0))
    steps = loop.run()
    next(steps)
    with standin.counting() as spent:
        record = next(steps)
    assert spent.syncs == 0 and spent.launches > 0
    with standin.counting() as spent:
        assert float(record["loss"]) > 0
    assert spent.syncs == 1
