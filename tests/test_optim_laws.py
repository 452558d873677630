"""What surrounds AdamW: the average of the weights, clipping, learning rates, and the values a configuration may have."""

import math
from dataclasses import FrozenInstanceError
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.optim import OptimConfig, clip_factor, ema, ema_decay, learning_rate

seeds = st.integers(0, 999)


# ------------------------------------------------------------------------------------------------ EMA


@spec("O.4")
@given(seeds, st.floats(0, 0.9999), st.integers(1, 20))
def test_an_average_is_a_weighted_sum_of_everything_before(xp, seed, d, steps):
    thetas = np.random.default_rng(seed).standard_normal((steps + 1, 4))
    average = xp.asarray(thetas[0].copy())
    for theta in thetas[1:]:
        ema(average, xp.asarray(theta), d)
    weights = np.array([(1 - d) * d ** (steps - i) for i in range(1, steps + 1)])
    agree(average, d**steps * thetas[0] + weights @ thetas[1:], bound=1e-12, of="O.4")


@spec("O.4")
def test_the_warm_up_forgets_the_start():
    assert [ema_decay(0.9999, n) for n in (1, 2, 8)] == [2 / 11, 3 / 12, 0.5]
    assert ema_decay(0.9999, 10**6) == 0.9999 == ema_decay(0.9999, 89_990) and ema_decay(0.9999, 80_000) < 0.9999
    decays = [ema_decay(0.9999, n) for n in range(1, 101)]
    assert decays == sorted(decays)
    assert math.prod(decays) < 1e-11 < 0.99 < 0.9999**100  # what is left of θ_0 after a hundred steps, with and without
    assert ema_decay(0.0, 5) == 0


# ------------------------------------------------------------------------------------------------ clipping


@spec("O.3")
@given(seeds, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_clipped_gradient_is_no_longer_than_allowed_and_a_short_one_is_untouched(xp, seed, length, limit):
    g = np.random.default_rng(seed).standard_normal(30)
    g *= length / np.linalg.norm(g)
    norm = float(np.linalg.norm(g))
    on_device = clip_factor(xp.asarray(norm), limit)
    assert isinstance(on_device, xp.ndarray | np.generic) and on_device.shape == ()
    for factor in (clip_factor(norm, limit), float(host(on_device))):
        clipped = factor * g
        assert np.linalg.norm(clipped) <= limit * (1 + 1e-12)
        if norm < limit * (1 - 1e-12):
            assert factor == 1
        elif norm > limit:
            agree(np.linalg.norm(clipped) / limit, np.float64(1), bound=1e-12, of="O.3")
            agree(clipped / np.linalg.norm(clipped), g / norm, bound=1e-12, of="O.3")  # the direction stays


@spec("O.3")
def test_no_limit_means_no_clipping_and_a_zero_gradient_no_division(xp):
    assert clip_factor(1e30, 0.0) == 1.0 and clip_factor(xp.asarray(1e30), 0.0) == 1.0
    assert clip_factor(0.0, 1.0) == 1.0 and float(clip_factor(xp.asarray(0.0), 1.0)) == 1.0


@spec("O.3")
def test_a_tiny_gradient_under_a_tinier_limit_is_clipped_by_its_own_norm(xp):
    for norm in (1e-9, xp.asarray(1e-9)):
        agree(float(host(clip_factor(norm, 1e-10))), 0.1, bound=1e-15, of="O.3")
    assert clip_factor(1e-13, 1e-13) == 0.1  # below 1e-12 nothing is told from zero


# ------------------------------------------------------------------------------------------------ learning rates

laws = st.builds(
    OptimConfig, lr=st.floats(1e-5, 1), warmup=st.integers(0, 20), final_lr=st.floats(0, 1), weight_decay=st.just(0.0)
)


@spec("O.5", "O.6")
@given(laws, st.integers(1, 60))
def test_the_rate_rises_to_its_top_and_never_rises_again(config, steps):
    rates = [learning_rate(config, n, steps) for n in range(1, steps + 1)]
    w = config.warmup
    for n, rate in enumerate(rates, 1):
        if n < w:
            agree(rate / config.lr, np.float64(n / w), bound=1e-12, of="O.5")
        else:
            u = (n - w) / max(1, steps - w)
            law = config.final_lr + (1 - config.final_lr) * math.cos(math.pi * u / 2) ** 2
            agree(rate / config.lr, np.float64(law), bound=1e-12, of="O.6")
    assert all(b > a for a, b in pairwise(rates[:w]))
    assert all(b <= a * (1 + 1e-15) for a, b in pairwise(rates[max(0, w - 1) :]))


@spec("O.5", "O.6")
def test_rates_at_known_steps():
    config = OptimConfig(lr=2.0, warmup=10, final_lr=0.1)
    assert [learning_rate(config, n, 110) for n in (1, 5, 10)] == [0.2, 1.0, 2.0]
    agree(learning_rate(config, 60, 110), np.float64(2 * 0.55), bound=1e-14, of="O.6")  # half way: the mean of both ends
    agree(learning_rate(config, 110, 110), np.float64(0.2), bound=1e-14, of="O.6")
    assert {learning_rate(OptimConfig(lr=0.3), n, 50) for n in range(1, 51)} == {0.3}
    assert learning_rate(OptimConfig(lr=1.0, warmup=50, final_lr=0.0), 50, 50) == 1.0  # all of the run is warm-up
    assert learning_rate(OptimConfig(lr=1.0, final_lr=0.0), 50, 50) == 0.0


# ------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0), ("lr", -1.0), ("lr", math.nan), ("betas", (1.0, 0.9)), ("betas", (0.9, -0.1)), ("eps", 0.0), ("ema", 1.0),
        ("ema", -0.1), ("final_lr", 1.5), ("clip", -1.0), ("weight_decay", -0.1), ("warmup", -1),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = .* is out of range"):
        OptimConfig(**{name: value})


def test_the_defaults_are_those_of_the_paper():
    c = OptimConfig()
    assert (c.lr, c.betas, c.eps, c.weight_decay, c.clip, c.ema) == (1e-4, (0.9, 0.999), 1e-8, 0.0, 0.0, 0.9999)
    assert {learning_rate(c, n, 9) for n in range(1, 10)} == {1e-4}


def test_the_first_and_the_last_values_in_range_are_taken():
    edge = {"betas": (0.0, 0.0), "final_lr": 0.0, "clip": 0.0, "weight_decay": 0.0, "warmup": 0, "ema": 0.0}
    assert OptimConfig(**edge).betas == (0.0, 0.0) and OptimConfig(final_lr=1.0).final_lr == 1.0
    assert OptimConfig(lr=1e-300, eps=1e-300).eps == 1e-300
    with pytest.raises(FrozenInstanceError):
        OptimConfig().lr = 1.0
