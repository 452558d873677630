"""Chapter Q: three quantisers, one door. What training decodes is what the numbers stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import Tensor
from minidit.autoregressive.quantiser import Levels, Nearest, Pyramid
from minidit.autoregressive.quantize import nearest
from minidit.autoregressive.scales import larger, smaller

SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(["nearest", "sphere", "levels", "pyramid"])


def quantiser(kind, r, codes=None):
    codes = r.normal(size=(6, 3)) if codes is None else codes
    M = np.eye(3) + 0.1 * r.normal(size=(3, 3))
    return {
        "nearest": lambda: Nearest(codes),
        "sphere": lambda: Nearest(codes, sphere=True),
        "levels": lambda: Levels((4, 3, 2)),
        "pyramid": lambda: Pyramid(codes, (1, 2, 4), lambda k, h: 0.5 * h + 0.5 * (h @ M)),
    }[kind]()


@spec("Q.2", "Q.8", "Q.9")
@given(SEEDS, KINDS)
def test_what_training_decodes_is_what_the_numbers_stand_for(seed, kind):
    r = np.random.default_rng(seed)
    law, z = quantiser(kind, r), r.normal(size=(2, 4, 4, 3))
    vectors, losses = law.training(Tensor(z))
    index = law.numbers(z)
    assert index.dtype == np.int64 and index.shape == (2, 21 if kind == "pyramid" else 16)
    agree(vectors, law.vectors(index, 4, 4), bound=1e-7 if kind == "levels" else 0, of="Q.2")
    assert losses.shape == (2,) and (host(losses) >= 0).all()


@spec("Q.2")
@given(SEEDS, KINDS)
def test_the_decoders_gradient_reaches_the_vectors_as_if_nothing_were_quantised(seed, kind):
    r = np.random.default_rng(seed)
    law, z, bar = quantiser(kind, r), r.normal(size=(1, 4, 4, 3)), r.normal(size=(1, 4, 4, 3))
    quantised, free = Tensor(z), Tensor(z)
    (law.training(quantised)[0] * bar).sum().backward()
    (law.free(free) * bar).sum().backward()
    if kind != "levels":  # its vectors are bounded before they are rounded
        agree(quantised.grad, free.grad, bound=1e-12, of="Q.2")
    assert np.abs(quantised.grad).max() > 0


@spec("Q.3")
@given(SEEDS, st.sampled_from(["nearest", "sphere", "pyramid"]))
def test_only_the_loss_of_the_codes_trains_the_codes(seed, kind):
    r = np.random.default_rng(seed)
    codes, z = Tensor(r.normal(size=(6, 3))), r.normal(size=(2, 4, 4, 3))
    law = quantiser(kind, r, codes)
    law.training(Tensor(z))[0].sum().backward()
    assert codes.grad is None or not codes.grad.any()
    law.training(Tensor(z))[1].sum().backward()
    used = np.unique(law.numbers(z))
    assert np.flatnonzero(np.abs(codes.grad).sum(axis=1)).tolist() == used.tolist()


@given(SEEDS)
def test_the_population_of_a_pyramid_are_the_residuals_of_its_scales(seed):
    z = np.random.default_rng(seed).normal(size=(2, 4, 4, 3))
    law = quantiser("pyramid", np.random.default_rng(0))
    seen = law.population(z)
    first = smaller(z, 1)
    assert seen.shape == (2 * 21, 3) and np.array_equal(seen[:2], first.reshape(2, 3))
    agree(seen[2:10], smaller(z - larger(first, 4), 2).reshape(8, 3), bound=1e-15)


@spec("Q.9")
@given(SEEDS)
def test_with_its_codes_the_population_of_a_pyramid_are_the_vectors_whose_nearest_codes_are_its_numbers(seed):
    r = np.random.default_rng(seed)
    law, z = quantiser("pyramid", r), r.normal(size=(1, 4, 4, 3))
    assert np.array_equal(nearest(law.population(z, law.codes), law.codes), law.numbers(z)[0])


@pytest.mark.parametrize("kind", ["nearest", "sphere", "levels"])
def test_the_population_of_one_scale_is_every_place(kind):
    r = np.random.default_rng(1)
    law, z = quantiser(kind, r), r.normal(size=(2, 4, 4, 3))
    assert np.array_equal(law.population(z), host(law.free(z)).reshape(-1, 3))
