"""The KL autoencoder: its size, the whole network in SciPy, its halving, its attention, its gradients, its limits."""

import numpy as np
import pytest
from finite import check_slope
from hypothesis import given, settings
from hypothesis import strategies as st
from models import autoencoder_kl_loops as loops
from nn import plain
from support import agree, host, spec

from minidit.autograd import Tensor
from minidit.backend import to_device
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig, ResBlock
from minidit.nn import Halve, PixelAttention
from minidit.random import Philox

TINY = AutoencoderKLConfig(channels=2, latent_channels=3, widths=(4, 8, 8), blocks=1, groups=2, scale=0.5)
config = st.builds(
    AutoencoderKLConfig,
    channels=st.integers(1, 3),
    latent_channels=st.integers(1, 4),
    widths=st.lists(st.sampled_from([4, 8, 12]), min_size=1, max_size=3).map(tuple),
    blocks=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
)


def grown(config=TINY, device="cpu", size=0.3):
    return plain.grown(AutoencoderKL(config, None, device=device, dtype=np.float64), device, size=size)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ------------------------------------------------------------------------------------------------ the whole


def test_the_published_autoencoder_has_its_published_size():
    model = AutoencoderKL(AutoencoderKLConfig())
    names = [n for n, _ in model.named_parameters()]
    assert (model.count_parameters(), len(names), model.config.factor) == (83_653_863, 248, 8)
    shape = {n: p.shape for n, p in model.named_parameters()}
    assert shape["encoder.mid_block.attentions.0.to_q.weight"] == (512, 512)
    assert shape["decoder.up_blocks.2.resnets.0.conv_shortcut.weight"] == (256, 512, 1, 1)
    assert shape["decoder.up_blocks.3.resnets.0.conv_shortcut.weight"] == (128, 256, 1, 1)
    assert "decoder.up_blocks.1.resnets.0.conv_shortcut.weight" not in shape
    assert float(model.scale) == np.float32(0.18215)


@spec("L.6", "L.7", "L.8")
@settings(max_examples=10)
@given(config, st.integers(1, 2), st.integers(1, 2), st.integers(1, 3))
def test_the_network_is_its_equations(xp, device, config, B, h, w):
    model, state = grown(config, device)
    f, C, L = config.factor, config.channels, config.latent_channels
    x, z, eps = noise(B, C, f * h, f * w), noise(B, L, h, w, seed=1), noise(B, L, h, w, seed=2)
    moments = loops.encoded(state, config, x)
    mean, logvar = model.encode(xp.asarray(x))
    agree(mean, moments[:, :L], bound=1e-9, of=("L.6", "L.7", "L.8"))
    agree(logvar, np.clip(moments[:, L:], -30, 20), bound=1e-9)
    agree(model.decode(xp.asarray(z)), loops.decoded(state, config, z), bound=1e-9, of=("L.6", "L.8"))
    again, mean2, _ = model(xp.asarray(x), xp.asarray(eps))
    agree(mean2, mean, bound=0)
    sample = host(mean) + np.exp(host(logvar) / 2) * eps
    agree(again, host(model.decode(xp.asarray(sample))), bound=1e-12)


@settings(max_examples=4)
@given(st.integers(0, 99))
def test_the_gradient_is_the_derivative_in_any_direction(device, seed):
    model, _ = grown(device=device, size=0.4)
    r = np.random.default_rng(seed)
    x, eps, weights = noise(2, 2, 8, 8), noise(2, 3, 2, 2, seed=1), noise(2, 2, 8, 8, seed=2)

    def loss(x):
        x_hat, mean, logvar = model(x, host_like(eps, model))
        return (x_hat * host_like(weights, model)).mean() + (mean * mean).mean() + logvar.mean()

    leaf = Tensor(host_like(x, model))
    loss(leaf).backward()
    us = [host_like(r.standard_normal(p.shape), model) for p in model.parameters()]
    u_x = host_like(r.standard_normal(x.shape), model)
    back = sum(float((p.grad * u).sum()) for p, u in zip(model.parameters(), us, strict=True)) + float((leaf.grad * u_x).sum())
    thetas = [p.data.copy() for p in model.parameters()]

    def along(s):
        for p, theta, u in zip(model.parameters(), thetas, us, strict=True):
            p.data[...] = theta + s * u
        return host(loss(host_like(x, model) + s * u_x))

    check_slope(back, along, bound=1e-6)
    assert all(host(p.grad).any() for name, p in model.named_parameters() if not name.endswith("to_k.bias"))


def host_like(a, model):
    """The array in the model's home."""
    return to_device(a, model.device)


# ------------------------------------------------------------------------------------------------ the parts


@spec("L.7")
def test_halving_by_hand_begins_at_its_own_square(xp, device):
    layer = Halve(1).build(None, device=device, dtype=np.float64)
    layer.conv.weight.data[...] = xp.asarray([[[[1.0, 10, 100], [1e3, 1e4, 1e5], [1e6, 1e7, 1e8]]]])
    x = xp.asarray([[[[1.0, 2], [3, 4]]]])
    assert host(layer(x)).tolist() == [[[[1 + 20 + 3e3 + 4e4]]]]  # nothing above, nothing left; zeros below and right
    x = xp.zeros((1, 1, 4, 4))
    x[0, 0, 0, 0] = 1
    assert host(layer(x))[0, 0].tolist() == [[1, 0], [0, 0]]


@spec("L.8")
def test_attention_does_not_know_where_a_pixel_is(xp, device):
    layer, _ = plain.grown(PixelAttention(8, 2).build(None, device=device, dtype=np.float64), device)
    x, order = noise(2, 8, 3, 4), np.random.default_rng(1).permutation(12)
    mixed = lambda a: a.reshape(2, 8, 12)[:, :, order].reshape(a.shape)
    agree(layer(xp.asarray(mixed(x))), mixed(host(layer(xp.asarray(x)))), bound=1e-12, of="L.8")


@spec("L.6")
def test_a_block_whose_last_convolution_is_zero_is_its_shortcut(xp, device):
    for out in (4, 8):
        layer, state = plain.grown(ResBlock(4, out, 2).build(None, device=device, dtype=np.float64), device)
        layer.conv2.weight.data[...] = 0
        layer.conv2.bias.data[...] = 0
        x = noise(1, 4, 3, 5)
        agree(layer(xp.asarray(x)), x if out == 4 else plain.conv(state, "conv_shortcut", x), bound=1e-12, of="L.6")


@pytest.mark.parametrize(("bias", "limit"), [(1e6, 20), (-1e6, -30)])
def test_the_log_variance_has_limits(xp, device, bias, limit):
    model, _ = grown(device=device)
    model.quant_conv.bias.data[3:] = bias
    assert (host(model.encode(xp.asarray(noise(1, 2, 4, 4)))[1]) == limit).all()


# ------------------------------------------------------------------------------------------------ what does not fit


@pytest.mark.parametrize("shape", [(1, 2, 6, 8), (1, 2, 8, 9), (1, 3, 8, 8), (2, 8, 8)])
def test_pictures_of_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(B, 2, H, W\), H and W divisible by 4"):
        AutoencoderKL(TINY).encode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(1, 2, 6, 8), (3, 8, 8)])
def test_latents_of_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(B, 3, h, w\)"):
        AutoencoderKL(TINY).decode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("wrong", [
    {"groups": 3}, {"widths": ()}, {"widths": (0,)}, {"blocks": 0}, {"scale": 0.0}, {"scale": -1.0}, {"channels": -1},
    {"latent_channels": 0}, {"groups": -32}, {"widths": (128, 256, 272)},
])  # fmt: skip
def test_configurations_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=r"equal groups|must be positive"):
        AutoencoderKLConfig(**wrong)


def test_a_fresh_one_is_the_same_for_the_same_seed():
    a, b = AutoencoderKL(TINY, Philox(3)), AutoencoderKL(TINY, Philox(3))
    np.testing.assert_array_equal(a.flat, b.flat)
    assert a.flat.any()


def test_the_smallest_configuration_and_the_defaults():
    c = AutoencoderKLConfig(channels=1, latent_channels=1, widths=(1,), blocks=1, groups=1, scale=1e-9)
    assert c.factor == 1 and AutoencoderKLConfig(widths=(32, 32)).factor == 2
    d = AutoencoderKLConfig()
    assert (d.channels, d.latent_channels, d.widths, d.blocks) == (3, 4, (128, 256, 512, 512), 2)
    assert (d.groups, d.scale, d.size) == (32, 0.18215, 256)
