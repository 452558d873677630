"""The latent autoencoder: sizes, the whole network in SciPy, the posterior sample, its loss, its scale, latent samples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.autoencoder_loops import decoded, encoded
from nn import plain
from small import losses_of
from support import agree, host, spec

from minidit.autograd import Tensor
from minidit.backend import to_device
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig, spread
from minidit.processes.autoencode import AutoencodeConfig, Reconstruction, autoencode
from minidit.processes.tokenizer import decode, latents_of, measure_scale, posterior_of, reconstruct
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.source import POSTERIOR, Latents


def test_the_defaults_are_grey_pictures_of_thirty_two_and_four_latent_channels():
    c = AutoencoderConfig()
    assert (c.channels, c.latent_channels, c.widths, c.groups, c.size, c.factor) == (1, 4, (16, 32, 64), 8, 32, 4)


TINY = AutoencoderConfig(channels=2, latent_channels=3, widths=(4, 6, 8), groups=4)
side = st.integers(1, 3).map(lambda k: 4 * k)


def tiny(device="cpu", config=TINY, size=0.3):
    return plain.grown(Autoencoder(config, None, device=device, dtype=np.float64), device, size=size)


def pictures(B, H, W, C=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (B, C, H, W))


@spec("L.1")
@settings(max_examples=10)
@given(st.integers(1, 3), side, side)
def test_the_network_is_its_convolutions(xp, device, B, H, W):
    model, state = tiny(device)
    x, eps = pictures(B, H, W), np.random.default_rng(1).standard_normal((B, 3, H // 4, W // 4))
    x_hat, mean, logvar = model(xp.asarray(x), xp.asarray(eps))
    moments = encoded(state, x, TINY.groups)
    assert tuple(x_hat.shape) == x.shape and tuple(mean.shape) == tuple(logvar.shape) == (B, 3, H // 4, W // 4)
    agree(mean, moments[:, :3], bound=1e-10, of="L.1")
    agree(logvar, moments[:, 3:], bound=1e-10, of="L.1")
    z = moments[:, :3] + np.exp(moments[:, 3:] / 2) * eps
    agree(x_hat, decoded(state, z, TINY.groups), bound=1e-10, of="L.1")
    agree(model.decode(xp.asarray(z)), x_hat, bound=1e-10, of="L.1")


@spec("L.1")
def test_a_posterior_sample_is_a_mean_and_a_spread(xp, device):
    model, _ = tiny(device)
    x = xp.asarray(pictures(4, 8, 12))
    mean, logvar = model.encode(x)
    model.decode = lambda z: z
    zero = xp.zeros(mean.shape)
    agree(model(x, zero)[0], mean, bound=0, of="L.1")
    agree((model(x, zero + 1)[0] - mean).data ** 2, np.exp(host(logvar)), bound=1e-12, of="L.1")
    eps = xp.asarray(np.random.default_rng(0).standard_normal(mean.shape))
    sample = host(model(x, eps)[0])
    agree((sample - host(mean)) / np.exp(host(logvar) / 2), eps, bound=1e-12, of="L.1")


@spec("L.1")
@pytest.mark.parametrize(("bias", "limit"), [(1e6, 20), (-1e6, -30)])
def test_the_log_variance_has_limits(xp, device, bias, limit):
    model, _ = tiny(device)
    model.encoder.out.bias.data[3:] = bias
    _, logvar = model.encode(xp.asarray(pictures(2, 4, 4)))
    assert (host(logvar) == limit).all()


@pytest.mark.parametrize("shape", [(1, 2, 6, 8), (1, 2, 8, 10), (1, 1, 8, 8), (1, 3, 8, 8), (2, 8, 8), (1, 1, 2, 8, 8)])
def test_other_sizes_are_refused(xp, device, shape):
    model, _ = tiny(device)
    with pytest.raises(ValueError, match=r"expected \(B, 2, H, W\), H and W divisible by 4"):
        model.encode(xp.zeros(shape))


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="equal groups"):
        Autoencoder(AutoencoderConfig(widths=(4, 6, 9), groups=4))


@spec("L.4")
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_spreading_puts_four_channels_into_a_square(xp, B, C, h, w):
    x = np.random.default_rng(0).standard_normal((B, 4 * C, h, w))
    y = host(spread(xp.asarray(x)))
    expected = np.empty((B, C, 2 * h, 2 * w))
    for c in range(C):
        for i in range(2):
            for j in range(2):
                expected[:, c, i::2, j::2] = x[:, 4 * c + 2 * i + j]
    agree(y, expected, bound=0, of="L.4")
    gathered = y.reshape(B, C, h, 2, w, 2).transpose(0, 1, 3, 5, 2, 4).reshape(x.shape)  # space to depth
    np.testing.assert_array_equal(gathered, x)


def test_the_gradient_reaches_every_parameter(xp, device):
    model, _ = tiny(device)
    eps = xp.asarray(np.random.default_rng(1).standard_normal((2, 3, 2, 2)))
    x_hat, mean, logvar = model(xp.asarray(pictures(2, 8, 8)), eps)
    ((x_hat * x_hat).mean() + mean.mean() + logvar.mean()).backward()
    assert all(host(p.grad).any() for p in model.parameters())


# ------------------------------------------------------------------------------------------------ the loss


class Spy:
    """The network, keeping what it was asked and what it answered."""

    def __init__(self, model):
        self.model, self.latent_shape = model, model.latent_shape

    def __call__(self, x, eps):
        self.seen = x, eps, *self.model(x, eps)
        return self.seen[2:]


@spec("L.2")
@settings(max_examples=8)
@given(st.integers(1, 5), st.integers(0, 3), st.sampled_from([0.0, 1e-4, 0.7]))
def test_the_loss_is_a_mean_over_pixels_and_a_mean_over_latent_numbers(device, batch, update, weight):
    model, _ = tiny(device)
    spy, config = Spy(model), AutoencodeConfig(batch_size=batch, kl_weight=weight, seed=3)
    losses, numbers = losses_of(autoencode(model, to_device(pictures(7, 8, 4), device), config), update, network=spy)
    x, eps, x_hat, mean, logvar = map(host, spy.seen)
    each = (1, 2, 3)
    error = np.mean((x - x_hat) ** 2, axis=each)
    kl = np.mean(0.5 * (mean**2 + np.exp(logvar) - 1 - logvar), axis=each)
    agree(losses, error + weight * kl, bound=1e-10, of="L.2")
    agree(numbers["mse"], error, bound=1e-10, of="L.2")
    agree(numbers["kl"], kl, bound=1e-10, of="L.2")
    noise = Philox(3, Reconstruction.stream, state=update * 4).normal(eps.shape, dtype=np.float64)
    np.testing.assert_array_equal(eps, noise)  # a function of the update, not of what ran before


@spec("L.2")
def test_the_loss_of_a_sample_does_not_depend_on_the_piece_it_is_in(device):
    model, _ = tiny(device)
    loop = autoencode(model, to_device(pictures(9, 8, 8), device), AutoencodeConfig(batch_size=7))
    whole = host(losses_of(loop, 2)[0])
    parts = [host(losses_of(loop, 2, samples)[0]) for samples in (np.arange(2), np.arange(2, 6), np.arange(6, 7))]
    agree(np.concatenate(parts), whole, bound=1e-12, of="L.2")


# ------------------------------------------------------------------------------------------------ scale and latent samples


@spec("L.3")
@given(st.floats(0.05, 20), st.floats(-3, 3))
def test_without_spread_the_scale_is_one_over_the_deviation_of_all_means(xp, factor, shift):
    mean = factor * np.random.default_rng(0).standard_normal((6, 3, 2, 2)) + shift
    scale = measure_scale(xp.asarray(mean), xp.zeros(mean.shape))
    agree(scale * mean.std(), np.float64(1), bound=1e-12, of="L.3")


@spec("L.3", "L.5")
def test_scaled_samples_have_unit_variance(xp, device):
    r = np.random.default_rng(0)
    mean, std = 3 * r.standard_normal((400, 4, 4, 4)) + 1, r.uniform(0.5, 2, (400, 4, 4, 4))
    latents = Latents(xp.asarray(mean), xp.asarray(std), measure_scale(xp.asarray(mean), xp.asarray(std), 5))
    z = host(latents.draw(xp.arange(400), Draws(9, 0, np.arange(400), device, np.float64, per=8))[0])
    assert abs(z.var() - 1) < 6 * math.sqrt(2 / z.size) * 1.5  # both the scale and the sample are estimates
    expected = 1 / math.sqrt(mean.var() + (std**2).mean())
    assert abs(latents.scale / expected - 1) < 5 / math.sqrt(2 * z.size) * 1.5


@spec("L.5")
def test_a_latent_sample_depends_on_its_place_and_update_only(xp, device):
    r = np.random.default_rng(0)
    mean, std = r.standard_normal((5, 2, 3, 2)), r.uniform(0.5, 2, (5, 2, 3, 2))
    latents = Latents(xp.asarray(mean), xp.asarray(std), 0.7)
    index, draws = np.array([4, 0, 0, 2]), Draws(1, 0, np.arange(4), device, np.float64, per=8, when=1)
    z = host(latents.draw(xp.asarray(index), draws)[0])
    eps = Philox(1, state=8 + POSTERIOR).normal(z.shape, dtype=np.float64)
    agree(z, 0.7 * (mean[index] + std[index] * eps), bound=1e-12, of="L.5")
    assert (z[1] != z[2]).all()  # one image twice in a batch: two samples of it
    part = host(latents.draw(xp.asarray(index[2:]), draws.at(1, np.arange(2, 4)))[0])
    np.testing.assert_array_equal(part, z[2:])
    assert (host(latents.draw(xp.asarray(index), draws.at(2))[0]) != z).all()


@spec("L.3")
def test_latents_of_a_set_set_the_scale_of_the_model_which_travels_with_it(device):
    model, _ = tiny(device)
    data = pictures(9, 8, 8)
    latents = latents_of(model, (data, np.arange(9)))
    assert len(latents) == 9 and float(model.scale) == latents.scale != 1
    np.testing.assert_array_equal(host(latents.labels), np.arange(9))
    mean, logvar = model.encode(to_device(data, device))
    agree(latents.mean, mean, bound=1e-12, of="L.1")
    agree(latents.std, np.exp(host(logvar) / 2), bound=1e-12, of="L.1")
    assert latents.scale == measure_scale(latents.mean, latents.std)
    other = Autoencoder(TINY, Philox(0), dtype=np.float64)
    other.load_state_dict(model.state_dict())
    assert float(other.scale) == latents.scale
    z = host(mean) * latents.scale  # what a sampler leaves is divided by the scale and decoded
    agree(decode(model, to_device(z, device)), model.decode(mean), bound=1e-12, of="L.3")
    agree(reconstruct(model, data), model.decode(mean), bound=1e-12, of="L.3")


def test_many_pictures_are_encoded_in_pieces_without_a_tape():
    model, _ = tiny()
    data = pictures(251, 4, 4)
    mean, std = posterior_of(model, data)
    assert not isinstance(mean, Tensor) and len(mean) == len(std) == 251
    agree(mean[-1:], model.encode(data[-1:])[0], bound=1e-12)
