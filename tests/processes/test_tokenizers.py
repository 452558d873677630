"""Tokenizers: from pictures to what a network generates, and back."""

import numpy as np
import pytest
from support import agree, host, spec

from minidit.backend import device_of, to_device
from minidit.data import digits
from minidit.diffusion.threshold import static
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.processes.tokenizer import Latent, Pixels, posterior_of
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.source import Latents, Pictures

SMALL = AutoencoderConfig(channels=1, latent_channels=2, widths=(8, 8, 16), size=8)


def autoencoder(device="cpu"):
    model = Autoencoder(SMALL, Philox(3), device=device)
    model.scale[...] = 1.7
    return model


def test_pixels_are_themselves(xp, device):
    tokenizer, x = Pixels(device), digits().x_0(slice(5))
    x_0 = tokenizer.encode(x)
    assert device_of(x_0) == device and np.array_equal(host(x_0), x)
    back = tokenizer.decode(x_0)
    assert isinstance(back, np.ndarray) and np.array_equal(back, x)
    assert tokenizer.shape(3, 8, 12) == (3, 8, 12)
    assert tokenizer.limit is static and tokenizer.unit == "pixel"
    source = tokenizer.source(digits())
    assert isinstance(source, Pictures) and source.levels == 17 and device_of(source.x_0) == device


@spec("L.3")
def test_latents_are_scaled_means_and_decode_to_reconstructions(device):
    model, x = autoencoder(device), digits().x_0(slice(5))
    tokenizer = Latent(model)
    z = tokenizer.encode(x)
    mean, _ = posterior_of(model, x)
    assert device_of(z) == device and z.shape == (5, *tokenizer.shape(1, 8, 8)) == (5, 2, 2, 2)
    agree(z, 1.7 * host(mean), bound=1e-6, of="L.3")
    back = tokenizer.decode(z)
    assert isinstance(back, np.ndarray) and back.shape == x.shape
    agree(back, host(model.decode(mean)), bound=1e-5)
    agree(tokenizer.decode(host(z)), back, bound=1e-6)  # from either home
    assert tokenizer.limit is None  # latents have no range


@spec("L.3", "L.5")
def test_the_source_of_latents_draws_around_what_encode_gives():
    model, data = autoencoder(), digits().take(slice(40))
    tokenizer = Latent(model)
    source = tokenizer.source(data)
    assert isinstance(source, Latents) and np.array_equal(source.labels, data.labels)
    assert source.levels is None and float(model.scale) == np.float32(source.scale)  # measured on these pictures
    agree(tokenizer.encode(data.x_0()), source.scale * source.mean, bound=1e-6)
    z, _ = source.draw(np.arange(40), Draws(1, 0, np.arange(40), per=8))
    agree((z / source.scale - source.mean) / source.std, Draws(1, 0, np.arange(40), per=8).normal(z.shape, number=2), bound=1e-4)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 6), (1, 7, 8)])
def test_pictures_that_do_not_fit_an_autoencoder_are_refused(shape):
    with pytest.raises(ValueError, match=r"pictures of .* do not fit an autoencoder of 1 channels and factor 4"):
        Latent(autoencoder()).shape(*shape)


def test_the_published_autoencoder_is_a_tokenizer_too():
    config = AutoencoderKLConfig(widths=(8, 8), blocks=1, groups=4)
    model = AutoencoderKL(config, Philox(0))
    tokenizer = Latent(model)
    x = to_device(Philox(1).normal((2, config.channels, 8, 8)), "cpu")
    z = tokenizer.encode(x)
    assert z.shape == (2, *tokenizer.shape(config.channels, 8, 8)) and tokenizer.decode(z).shape == x.shape
