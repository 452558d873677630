"""A fresh DiT: blocks are the identity, the output is zero, the first loss is one, and how the gradient comes to life."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from models import draws
from small import losses_of
from support import agree, host, spec

from minidit.backend import to_device
from minidit.diffusion.schedule import Schedule
from minidit.models.dit import DIT, DiT, DiTBlock, DiTConfig
from minidit.models.embedders import TimestepEmbedder
from minidit.nn import timestep_embedding
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.loop import LoopConfig

SMALL = DiTConfig(input_size=(4, 6), in_channels=2, hidden_size=24, depth=2, num_heads=3, num_classes=5)


@spec("T.7")
@settings(max_examples=15)
@given(draws.configs())
def test_a_fresh_model_says_exactly_zero_and_its_blocks_change_nothing(xp, device, config):
    model = DiT(config, Philox(1), device=device, dtype=np.float64)
    x, t, y = draws.inputs_of(config, 2, xp)
    assert not host(model(x, t, y)).any()
    h = 5 * xp.asarray(np.random.default_rng(0).standard_normal((2, config.tokens, config.hidden_size)))
    c = xp.asarray(np.random.default_rng(1).standard_normal((2, config.hidden_size)))
    for block in model.blocks:
        np.testing.assert_array_equal(host(block(h, c)), host(h))
    assert host(model.x_embedder(x)).any() and host(model.t_embedder(t)).any()  # it is not dead, only silent
    grown, _ = draws.model_of(config, device)
    assert host(grown(x, t, y)).any()
    for block in grown.blocks:
        assert np.abs(host(block(h, c)) - host(h)).max() > 1e-6


@spec("T.7", "D.34")
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_the_first_loss_is_one(device, learn_sigma):
    config = DiTConfig(input_size=64, patch_size=8, hidden_size=8, depth=1, num_heads=2, num_classes=3, learn_sigma=learn_sigma)
    B = 8
    model = DiT(config, Philox(0), device=device)
    x_0 = np.random.default_rng(0).uniform(-1, 1, (B, 4, 64, 64)).astype(np.float32)
    config = LoopConfig(batch_size=B, steps=1, shards=1)
    loop = loop_for(model, (x_0, np.arange(B) % 3), Diffusion.on_ladder(Schedule.linear()), config)
    losses, numbers = losses_of(loop, 0)
    simple, n = float(host(numbers.get("simple", losses)).mean()), x_0.size
    assert n >= 100_000
    assert abs(simple - 1) < 5 * math.sqrt(2 / n)  # ε² has mean 1 and variance 2


def bars_of(model, data):
    """name -> the gradient of a mean squared distance."""
    x, t, y, target = data
    for p in model.parameters():
        p.grad = None
    d = model(x, t, y) - target
    (d * d).mean().backward()
    return {name: p.grad for name, p in model.named_parameters()}


@spec("T.7")
def test_the_gradient_comes_to_life_in_three_steps(xp, device):
    """First the last linear layer; then gates, the last modulation and the patches; then everything."""
    model = DiT(SMALL, Philox(0), device=device, dtype=np.float64)
    D = SMALL.hidden_size
    x, t, y = draws.inputs_of(SMALL, 3, xp)
    y = xp.asarray([0, 2, 5])
    target = to_device(np.random.default_rng(5).standard_normal((3, SMALL.out_channels, *SMALL.size)), device)
    alive = []
    for _ in range(3):
        bars = {n: host(g) for n, g in bars_of(model, (x, t, y, target)).items()}
        alive.append({n for n, g in bars.items() if g.any()})
        if len(alive) == 2:
            gate = np.zeros(6 * D, bool)
            gate[2 * D : 3 * D] = gate[5 * D :] = True
            for i in range(SMALL.depth):
                rows = bars[f"blocks.{i}.adaLN_modulation.1.weight"].any(axis=1)
                np.testing.assert_array_equal(rows, gate)  # shift and scale are hidden behind a gate that is still zero
        for p in model.parameters():
            p.data -= 0.5 * p.grad
    names = {n for n, _ in model.named_parameters()}
    last = {"final_layer.linear.weight", "final_layer.linear.bias"}
    assert alive[0] == last
    second = {n for n in names if "adaLN_modulation" in n or n.startswith("x_embedder")} | last
    assert alive[1] == second
    assert alive[2] == names
    rows = bars["y_embedder.embedding_table.weight"].any(axis=1)
    np.testing.assert_array_equal(rows, [True, False, True, False, False, True])  # the rows that were asked for


@spec("T.7")
def test_presets_begin_at_zero_too(device):
    for name in ("fashion", "digits"):
        config = DIT[name]
        model = DiT(config, Philox(2), device=device)
        xp = type(model.flat)
        x = to_device(np.ones((2, config.in_channels, *config.size), np.float32), device)
        out = model(x, to_device(np.array([0, 999]), device), to_device(np.array([0, 10]), device))
        assert isinstance(out.data, xp) and not host(out).any()
        agree(host(out).mean(), np.float64(0), bound=0, of="T.7")


@spec("T.3")
def test_time_and_class_begin_small():
    """Both weights of the time's two layers and the table of classes are N(0, 0.02²), their biases zero."""
    model = DiT(DiTConfig(input_size=2, hidden_size=128, depth=1, num_heads=2, num_classes=100), Philox(5))
    first, second, table = model.t_embedder.mlp[0], model.t_embedder.mlp[2], model.y_embedder.embedding_table
    assert (first.weight.shape, second.weight.shape, table.weight.shape) == ((128, 256), (128, 128), (101, 128))
    for weight in (first.weight, second.weight, table.weight):
        assert abs(float(weight.data.std()) / 0.02 - 1) < 0.05 and abs(float(weight.data.mean())) < 0.001
    assert not first.bias.data.any() and not second.bias.data.any()


def test_a_block_by_itself_has_the_epsilon_of_the_published_weights():
    assert DiTBlock(8, 2, 16).eps == 1e-6


def test_time_has_the_frequencies_of_the_published_weights_unless_told():
    model = TimestepEmbedder(8).build(Philox(0), dtype=np.float64)
    t = np.array([0, 3, 999])
    agree(model(t), model.mlp(timestep_embedding(t, 256, np.float64)), bound=0)
