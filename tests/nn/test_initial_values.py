"""How weights begin: the bounds, the spreads, and which weights get which."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import host, spec

from minidit import nn
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT, DiTConfig
from minidit.nn.initial import lecun_normal, normal, ones, xavier_uniform, zeros
from minidit.random import Philox

SHAPES = st.one_of(
    st.tuples(st.integers(40, 90), st.integers(40, 90)),
    st.tuples(st.integers(20, 60), st.integers(2, 6), st.integers(3, 5), st.integers(3, 5)),
)


def standard_errors(w, variance, fourth):
    """(mean, variance) of w in standard errors of what they should be: 0, variance; fourth: E w⁴."""
    n = w.size
    return w.mean() / math.sqrt(variance / n), (np.mean(w * w) - variance) / math.sqrt((fourth - variance**2) / n)


@spec("N.1")
@given(SHAPES, st.integers(0, 2**32))
def test_xavier_fills_its_interval_and_nothing_else(shape, seed):
    w = xavier_uniform(Philox(seed), shape, np.float64)
    b = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
    assert w.shape == shape and np.abs(w).max() <= b
    assert np.abs(w).max() > b * (1 - 20 / w.size)  # missed once in e^20 draws
    assert max(map(abs, standard_errors(w, b * b / 3, b**4 / 5))) < 6


@spec("N.2")
@given(SHAPES, st.integers(0, 2**32))
def test_a_lecun_weight_keeps_the_variance_of_a_sum(shape, seed):
    w = lecun_normal(Philox(seed), shape, np.float64)
    variance = 1 / math.prod(shape[1:])
    assert max(map(abs, standard_errors(w, variance, 3 * variance**2))) < 6
    assert np.abs(w).max() > 2.5 * math.sqrt(variance)  # it has tails


@pytest.mark.parametrize("std", [0.02, 1.0])
def test_a_normal_weight_has_its_spread(std):
    w = normal(std)(Philox(1), (100, 100), np.float64)
    assert max(map(abs, standard_errors(w, std**2, 3 * std**4))) < 5


def test_zeros_and_ones_draw_nothing():
    rng = Philox(0)
    assert not zeros(rng, (3, 2), np.float32).any() and (ones(rng, (4,), np.float64) == 1).all() and rng.state == 0


def spread_of(model):
    """name -> (standard deviation, largest absolute value) of each parameter."""
    return {n: (float(host(p.data).std()), float(np.abs(host(p.data)).max())) for n, p in model.named_parameters()}


@spec("N.1", "T.3", "T.7")
@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_each_weight_of_a_fresh_dit_begins_as_the_paper_says(seed):
    D, p, C = 64, 2, 3
    model = DiT(DiTConfig(input_size=(6, 8), patch_size=p, in_channels=C, hidden_size=D, depth=2, num_heads=4), Philox(seed))
    for name, (std, top) in spread_of(model).items():
        zero = name.endswith("bias") or "adaLN_modulation" in name or name.startswith("final_layer")
        if zero:
            assert top == 0, name
        elif "_embedder" in name and not name.startswith("x_"):
            assert abs(std / 0.02 - 1) < 0.06 and top > 0.05, name  # a normal, not a uniform: its tails reach 2.5 std
        else:
            shape = dict(model.named_parameters())[name].data.shape
            b = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
            assert abs(std / (b / math.sqrt(3)) - 1) < 0.1 and b * 0.98 < top <= b, name


@spec("N.2")
def test_convolutions_begin_as_lecun_normal_and_biases_at_zero():
    for model in (Autoencoder(AutoencoderConfig(), Philox(0)), Classifier(ClassifierConfig(), Philox(0))):
        for name, p in model.named_parameters():
            w = host(p.data)
            if name.endswith("bias"):
                assert not w.any(), name
            elif w.ndim == 4:
                assert abs(w.std() * math.sqrt(math.prod(w.shape[1:])) - 1) < 5 / math.sqrt(2 * w.size), name
            elif w.ndim == 1:
                assert (w == 1).all(), name


def test_layers_declare_what_they_need():
    for layer, shapes in (
        (nn.Linear(3, 5), [(5, 3), (5,)]),
        (nn.Linear(3, 5, bias=False), [(5, 3)]),
        (nn.Conv2d(2, 7, 3), [(7, 2, 3, 3), (7,)]),
        (nn.LayerNorm(4), [(4,), (4,)]),
        (nn.GroupNorm(6, 3), [(6,), (6,)]),
        (nn.Embedding(5, 3), [(5, 3)]),
        (nn.SelfAttention(8, 2), [(24, 8), (24,), (8, 8), (8,)]),
        (nn.CrossAttention(8, 2), [(8, 8), (8,), (16, 8), (16,), (8, 8), (8,)]),
        (nn.Mlp(4, 10), [(10, 4), (10,), (4, 10), (4,)]),
    ):
        assert [p.declared for p in layer.parameters()] == shapes


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="20 channels cannot be cut into 8 equal groups"):
        nn.GroupNorm(20, 8)
