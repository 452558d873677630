"""Training a denoiser: a loss that is a function, targets and weights, dropped labels, the bound's gradient, both homes."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import standin
from small import DIT, UNCONDITIONAL, awake, losses_of, pictures
from support import agree, host, spec

from minidit.backend import to_device
from minidit.data import Dataset, batch_indices, digits
from minidit.diffusion import likelihood, loss, variance
from minidit.diffusion.ddpm import q_sample
from minidit.diffusion.loss import min_snr
from minidit.diffusion.prediction import EPS, PREDICTIONS, V
from minidit.diffusion.schedule import Schedule
from minidit.models.dit import DiT
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for, train
from minidit.random import Philox
from minidit.runs.kinds import DDPMConfig
from minidit.training.draws import Draws
from minidit.training.loop import LoopConfig
from minidit.training.source import Latents, Pictures, drop_labels, source_of

CONFIG = LoopConfig(steps=6, batch_size=12, lr=1e-2, shards=1)
PATH = Schedule.linear(30)
DDPM = Diffusion.on_ladder(PATH)
ALL = np.arange(CONFIG.batch_size)


class Watch:
    """Stands before a network and keeps what it was shown."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def __call__(self, x, t, y=None):
        self.seen.append((x, t, y))
        return self.model(x, t, y)


def loop_of(process=DDPM, network=None, data=None, **changes):
    """A Loop on twelve of a few pictures, in double precision."""
    network = network or awake(dtype=np.float64)
    data = pictures(config=network.config, dtype=np.float64) if data is None else data
    return loop_for(network, data, process, replace(CONFIG, **changes))


# ------------------------------------------------------------------------------------------------ a function of (update, samples)


def test_the_losses_are_a_function_of_the_update_and_the_samples():
    first, again, other = (losses_of(loop_of(), update)[0].data for update in (3, 3, 4))
    assert first.shape == (12,) and np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("process", [DDPM, Diffusion.on_ladder(PATH, V, min_snr)])
@pytest.mark.parametrize("cut", [[4], [1, 7, 11], list(range(1, 12))])
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_the_losses_of_any_pieces_are_those_of_the_whole(process, cut, learn_sigma):
    loop = loop_of(process, awake(replace(DIT, learn_sigma=learn_sigma), dtype=np.float64))
    whole, numbers = losses_of(loop, 3)
    parts = [losses_of(loop, 3, samples) for samples in np.split(ALL, cut)]
    agree(np.concatenate([losses.data for losses, _ in parts]), whole.data, bound=1e-12)
    assert list(numbers) == ["simple"] * learn_sigma
    for name in numbers:
        agree(np.concatenate([more[name] for _, more in parts]), numbers[name], bound=1e-12)


def test_what_a_sample_sees_does_not_depend_on_the_piece_it_is_in():
    loop = loop_of()
    watch = Watch(loop.model)
    losses_of(loop, 5, ALL, watch)
    losses_of(loop, 5, ALL[7:9], watch)
    for whole, part in zip(*watch.seen, strict=True):
        assert np.array_equal(whole[7:9], part)


def test_latents_are_drawn_anew_at_every_step_and_alike_in_every_piece():
    mean, labels = pictures(5, dtype=np.float64)
    source = Latents(mean, np.full_like(mean, 0.5), 2.0, labels)
    index, draws = np.array([0, 0, 3]), Draws(0, 1, np.arange(3), dtype=np.float64, per=8, when=4)
    z, y = source.draw(index, draws)
    assert not np.array_equal(z[0], z[1]) and y.tolist() == [0, 0, 0]  # one picture, two samples: two draws
    assert not np.array_equal(source.draw(index, draws.at(5))[0], z)
    assert np.array_equal(source.draw(index[1:], draws.at(4, np.arange(1, 3)))[0], z[1:])
    many, _ = source.draw(np.zeros(20000, int), draws.at(4, np.arange(20000)))
    agree(many.mean(axis=0), 2.0 * mean[0], bound=0.03)
    agree(many.std(axis=0), np.full(mean[0].shape, 1.0), bound=0.03)


# ------------------------------------------------------------------------------------------------ what is asked of the network


@pytest.mark.parametrize("weight", [None, min_snr])
@pytest.mark.parametrize("name", ["eps", "x_0", "v"])
def test_the_loss_is_the_weighted_mean_square_of_what_the_prediction_asks_for(name, weight):
    loop = loop_of(Diffusion.on_ladder(PATH, PREDICTIONS[name], weight))
    watch = Watch(loop.model)
    losses = losses_of(loop, 2, ALL, watch)[0].data
    x_t, time, y = watch.seen[0]

    data, labels = pictures(dtype=np.float64)
    index = batch_indices(2, 12, 11, 0)
    x_0 = data[index]
    at = lambda number: Philox(0, Diffusion.stream, state=8 * 2 + number)  # eight draws per update, said once more
    t = at(0).integers(1, PATH.T + 1, (12,), ALL)
    eps = at(2).normal(x_0.shape, ALL, dtype=np.float64)
    dropped = at(1).uniform((12,), ALL) < DIT.class_dropout_prob
    assert np.array_equal(y, np.where(dropped, 3, labels[index]))
    a = PATH.alpha_bar[t].reshape(-1, 1, 1, 1)
    target = {"eps": eps, "x_0": x_0, "v": a**0.5 * eps - (1 - a) ** 0.5 * x_0}[name]
    snr = a / (1 - a)
    least = np.minimum(snr, 5.0)
    w = {"eps": least / snr, "x_0": least, "v": least / (snr + 1)}[name] if weight else 1.0
    agree(x_t, q_sample(x_0, t, eps, PATH), bound=1e-12)
    assert np.array_equal(time, t - 1)
    out = watch.model(x_t, time, y).data
    agree(losses, (w * (out - target) ** 2).mean(axis=(1, 2, 3)), bound=1e-12)


def test_every_rung_is_drawn_and_none_outside():
    loop = loop_for(awake(UNCONDITIONAL), pictures(config=UNCONDITIONAL)[0], DDPM, replace(CONFIG, batch_size=2000))
    watch = Watch(loop.model)
    losses_of(loop, 0, network=watch)
    _, time, y = watch.seen[0]
    assert set(time.tolist()) == set(range(30)) and y is None


@spec("G.7")
def test_labels_are_dropped_as_often_as_said_and_become_the_null_label():
    n = 4000
    loop = loop_for(awake(replace(DIT, class_dropout_prob=0.2)), pictures(), DDPM, replace(CONFIG, batch_size=n))
    watch = Watch(loop.model)
    losses_of(loop, 1, network=watch)
    y = watch.seen[0][2]
    asked = loop.source.labels[batch_indices(1, n, 11, 0)]
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
    last = model.final_layer.linear
    bars = []
    for vb_weight in (1e-3, 0.0):
        process = Diffusion.on_ladder(PATH, PREDICTIONS[name])
        loop = loop_for(model, pictures(dtype=np.float64), process, CONFIG, vb_weight=vb_weight)
        losses, numbers = losses_of(loop, 2)
        last.weight.grad = None
        losses.mean().backward()
        bars.append(last.weight.grad.reshape(2, 2, 2, DIT.in_channels, -1))  # (p, p, half, channel, width)
    both, simple = bars
    assert np.array_equal(both[:, :, 0], simple[:, :, 0])
    assert (simple[:, :, 1] == 0).all() and (both[:, :, 1] != 0).any()
    assert set(numbers) == {"simple"}


def grey(levels):
    """Pictures of so many grey levels, as a data set."""
    images = Philox(4).integers(0, levels, (11, 1, 4, 4)).astype(np.uint8)
    return Dataset("grey", images, np.arange(11) % 3, ("a", "b", "c"), levels)


@spec("D.36", "K.11")
@pytest.mark.parametrize("levels", [None, 17, 256])
def test_the_hybrid_loss_is_the_simple_one_and_lambda_T_of_the_bound(levels):
    """At t = 1 the decoder is that of the data: of so many grey levels for a data set, the continuous one for other numbers."""
    sch = Schedule.linear(21)
    data = pictures(dtype=np.float64) if levels is None else grey(levels)
    model = awake(replace(DIT, learn_sigma=True), dtype=np.float64)
    loop = loop_for(model, data, Diffusion.on_ladder(sch), CONFIG, vb_weight=0.01)
    watch = Watch(loop.model)
    update = next(n for n in range(2, 100) if 1 in Philox(0, Diffusion.stream, state=8 * n).integers(1, 22, (12,), ALL))
    losses, numbers = losses_of(loop, update, network=watch)
    x_t, time, y = watch.seen[0]
    t, x_0 = time + 1, source_of(data, dtype=np.float64).x_0[batch_indices(update, 12, 11, 0)]
    out = watch.model(x_t, time, y).data
    x_0_hat, _ = EPS.pair(out[:, :1], x_t, sch.level(t))
    log_variance = variance.log_learned_range(out[:, 1:], t, t - 1, sch)
    tanh_form = functools.partial(likelihood.discretised_nll, levels=levels, cdf=likelihood.tanh_cdf)
    decoder = likelihood.continuous_nll if levels is None else tanh_form
    term = likelihood.bound_term(x_0, x_t, x_0_hat, log_variance, t, sch, decoder=decoder)
    agree(losses.data, loss.hybrid(numbers["simple"], term, sch.T, 0.01), bound=1e-12)


# ------------------------------------------------------------------------------------------------ whole runs


def test_the_loss_goes_down():
    """Digits at 8 × 8, v-prediction: from 1, what a network that answers 0 pays, to clearly less within a second."""
    config = replace(DIT, input_size=8, num_classes=10)
    process = Diffusion.on_ladder(Schedule.linear(100), V)
    losses = [r["loss"] for r in train(DiT(config, Philox(0)), digits(), process, steps=60, lr=5e-3, batch_size=32)]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:3])


def test_an_unconditional_model_trains_on_pictures_with_and_without_labels():
    x_0, labels = pictures(config=UNCONDITIONAL)
    runs = [list(train(awake(UNCONDITIONAL), data, DDPM, CONFIG, steps=2)) for data in (x_0, (x_0, None), (x_0, labels))]
    assert runs[0] == runs[1] == runs[2] and len(runs[0]) == 2


def test_overrides_stand_over_the_configuration():
    records = list(train(awake(), pictures(), DDPM, CONFIG, steps=2, lr=0.5))
    assert len(records) == 2 and records[0]["lr"] == 0.5


def test_double_pictures_are_cast_to_the_network_that_learns_them():
    source = source_of(pictures(dtype=np.float64), "cpu", np.float32)
    assert isinstance(source, Pictures) and source.x_0.dtype == np.float32


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("data, message", [
    (lambda x, y: x, "3 classes but the data have no labels"),
    (lambda x, y: (x, y + 1), "label 3 is out of range for a model of 3 classes"),
    (lambda x, y: (x, y - 1), "label -1 is out of range"),
    (lambda x, y: (x, y[:5]), r"labels must be ints, one per picture: \(11,\), or captions .*; got int64 \(5,\)"),
    (lambda x, y: (x, y * 1.0), "labels must be ints"),
    (lambda x, y: (x, y.tolist()), "labels must be ints, one per picture.*got list"),
    (lambda x, y: (x[:, 0], y), r"x_0 must be floats \(N, C, H, W\).*got float32 \(11, 4, 4\)"),
    (lambda x, y: ((x * 255).astype(np.uint8), y), "x_0 must be floats .*got uint8"),
    (lambda x, y: "pictures", "cannot train on str"),
    (lambda x, y: (x[:, :, :2], y), "the data are of 1 x 2 x 4, and the network takes samples of 1 x 4 x 4"),
])  # fmt: skip
def test_data_that_do_not_fit_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        list(train(awake(), data(*pictures()), DDPM, CONFIG, steps=1))


@pytest.mark.parametrize("bad, message", [
    ({"prediction": "noise"}, "prediction 'noise' is not one of eps, x_0, v"),
    ({"schedule": "quadratic"}, "schedule 'quadratic' is not one of linear, cosine, scaled_linear"),
    ({"loss_weight": "snr"}, "loss_weight 'snr' is not one of uniform, min_snr"),
])  # fmt: skip
def test_an_unknown_word_is_refused_with_the_known_ones(bad, message):
    with pytest.raises(ValueError, match=message):
        DDPMConfig(**bad)


# ------------------------------------------------------------------------------------------------ both homes


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_one_step_on_the_device_is_the_step_on_the_host(learn_sigma):
    config, loops = replace(DIT, learn_sigma=learn_sigma), []
    slow = replace(CONFIG, clip=1.0, eps=1e-3)  # else Adam's first step is the sign of rounding
    for device in ("cpu", "cuda"):
        x_0, labels = (to_device(a, device) for a in pictures())
        loop = loop_for(awake(config, device=device), (x_0, labels), Diffusion.on_ladder(PATH, V), slow)
        loops.append((loop, next(loop.run())))
    (here, record), (there, other) = loops
    for name in ("loss", "grad_norm"):
        agree(float(host(other[name])), record[name], bound=1e-5)
    agree(host(there.model.flat), here.model.flat, bound=1e-5)
    agree(host(there.optimiser.average), here.optimiser.average, bound=1e-5)


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_step_on_the_device_waits_for_nothing(learn_sigma):
    data = tuple(to_device(a, "cuda") for a in pictures())
    loop = loop_for(awake(replace(DIT, learn_sigma=learn_sigma), device="cuda"), data, DDPM, replace(CONFIG, clip=1.0))
    steps = loop.run()
    next(steps)
    with standin.counting() as spent:
        record = next(steps)
    assert spent.syncs == 0 and spent.launches > 0
    with standin.counting() as spent:
        assert float(record["loss"]) > 0
    assert spent.syncs == 1
