"""AdamW: closed forms, a scalar loop, its state, and the fast twin."""

import math
from itertools import pairwise

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st
from standin.core import COUNTS
from support import agree, host, spec

from minidit.autograd import plain_text
from minidit.backend import to_device
from minidit.kernels import cpu_update
from minidit.nn import Linear, Module, Parameter
from minidit.nn.initial import normal
from minidit.optim import AdamW, OptimConfig, adamw, clip_factor, ema, ema_decay, learning_rate
from minidit.random import Philox

CUPY = standin.install()
betas = st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999))
seeds = st.integers(0, 999)


class Net(Module):
    def __init__(self):
        self.first, self.gain = Linear(7, 5), Parameter((3,), normal(1.0))
        self.kernel = Parameter((2, 3, 2), normal(1.0))


def net(device, dtype=np.float64):
    model = Net().build(Philox(0), device=device, dtype=dtype)
    for p in model.parameters():
        p.data[...] += 0.5
    return model


def numbers(xp, n, seed=0, dtype=np.float64):
    return xp.asarray(np.random.default_rng(seed).standard_normal(n).astype(dtype))


# ------------------------------------------------------------------------------------------------ AdamW


@spec("O.1", "O.2")
@given(seeds, betas, st.floats(1e-4, 1), st.integers(1, 20))
def test_the_first_step_and_every_step_of_a_constant_gradient_follow_the_sign(xp, seed, betas, lr, steps):
    g = numbers(xp, 17, seed)
    theta, m, v = numbers(xp, 17, seed + 1), xp.zeros(17), xp.zeros(17)
    start = host(theta).copy()
    for n in range(1, steps + 1):
        adamw(theta, m, v, g.copy(), None, lr=lr, betas=betas, eps=1e-300, n=n)
        agree(theta, start - n * lr * np.sign(host(g)), bound=1e-9, of="O.2")
    b1, b2 = betas
    agree(m, (1 - b1**steps) * host(g), bound=1e-10, of="O.1")
    agree(v, (1 - b2**steps) * host(g) ** 2, bound=1e-10, of="O.1")


@spec("O.1", "O.2")
@given(seeds, betas, st.floats(1e-8, 0.1), st.floats(0, 0.5), st.integers(1, 6))
def test_a_step_is_the_scalar_algorithm(xp, seed, betas, eps, decay, steps):
    """The paper's loop, one number at a time, in Python floats."""
    size, lr, (b1, b2) = 6, 0.1, betas
    r = np.random.default_rng(seed)
    gs, start, decays = r.standard_normal((steps, size)), r.standard_normal(size), decay * r.integers(0, 2, size)
    theta, m, v = xp.asarray(start.copy()), xp.zeros(size), xp.zeros(size)
    for n, g in enumerate(gs, 1):
        adamw(theta, m, v, xp.asarray(g), xp.asarray(decays), lr=lr, betas=betas, eps=eps, n=n)
    expected = []
    for k in range(size):
        t, a, b = float(start[k]), 0.0, 0.0
        for n in range(1, steps + 1):
            g = float(gs[n - 1, k])
            a = b1 * a + (1 - b1) * g
            b = b2 * b + (1 - b2) * g * g
            t = t - lr * (a / (1 - b1**n)) / (math.sqrt(b / (1 - b2**n)) + eps) - lr * decays[k] * t
        expected.append(t)
    agree(theta, np.array(expected), bound=1e-10, of=("O.1", "O.2"))


@spec("O.1", "O.2")
@given(seeds, st.integers(1, 30))
def test_moments_are_weighted_sums_and_their_corrections_make_them_means(xp, seed, steps):
    b1, b2 = 0.9, 0.99
    gs = np.random.default_rng(seed).standard_normal((steps, 5))
    theta, m, v = xp.zeros(5), xp.zeros(5), xp.zeros(5)
    for n, g in enumerate(gs, 1):
        adamw(theta, m, v, xp.asarray(g), None, lr=0.1, betas=(b1, b2), eps=1e-8, n=n)
    weights = [np.array([(1 - b) * b ** (steps - i) for i in range(1, steps + 1)]) for b in (b1, b2)]
    agree(m, weights[0] @ gs, bound=1e-12, of="O.1")
    agree(v, weights[1] @ gs**2, bound=1e-12, of="O.1")
    agree(weights[0].sum() / (1 - b1**steps), np.float64(1), bound=1e-12, of="O.2")


@spec("O.2")
def test_a_number_without_a_gradient_stays_and_one_with_none_but_decay_shrinks(device, xp):
    model = net(device)
    before = host(model.flat).copy()
    AdamW(model, OptimConfig(lr=0.1), 10).step(xp.zeros(model.layout.size), 1)
    np.testing.assert_array_equal(host(model.flat), before)
    optimiser = AdamW(model, OptimConfig(lr=0.1, weight_decay=0.2), 10)
    old = {n: host(p.data).copy() for n, p in model.named_parameters()}
    optimiser.step(xp.zeros(model.layout.size), 1)
    for name, p in model.named_parameters():  # two axes or more shrink by 1 - lr λ, the others are left alone
        agree(p.data, old[name] * (0.98 if p.data.ndim >= 2 else 1.0), bound=1e-14, of="O.2")
    assert {n for n, p in model.named_parameters() if p.data.ndim >= 2} == {"first.weight", "kernel"}


@spec("O.2")
def test_the_decay_is_no_part_of_the_gradient(xp, device):
    """With decay the moments are what they are without, and each step differs by lr λ θ, whatever size the gradient has."""
    for size in (1e-3, 1.0, 1e3):
        models = [net(device) for _ in range(2)]
        optimisers = [AdamW(m, OptimConfig(lr=0.1, weight_decay=d), 10) for m, d in zip(models, (0.0, 0.3), strict=True)]
        theta = host(models[0].first.weight.data).copy()
        for o in optimisers:
            o.step(size * numbers(xp, models[0].layout.size), 1)
        np.testing.assert_array_equal(host(optimisers[0].m), host(optimisers[1].m))
        np.testing.assert_array_equal(host(optimisers[0].v), host(optimisers[1].v))
        plain, decayed = (host(m.first.weight.data) for m in models)
        agree(plain - decayed, 0.1 * 0.3 * theta, bound=1e-12, of="O.2")


@spec("O.2")
def test_the_size_of_a_gradient_does_not_matter(xp, device):
    models = [net(device) for _ in range(2)]
    for model, size in zip(models, (1.0, 1e4), strict=True):
        optimiser = AdamW(model, OptimConfig(lr=0.1, eps=1e-100), 10)
        for n in range(1, 6):
            optimiser.step(size * numbers(xp, model.layout.size, n), n)
    agree(models[1].flat, models[0].flat, bound=1e-12, of="O.2")


# ------------------------------------------------------------------------------------------------ the optimiser of a model


@spec("O.1", "O.2", "O.3", "O.4")
@given(seeds, st.sampled_from([0.0, 0.1]), st.floats(0.01, 1))
def test_a_step_of_the_optimiser_is_clip_then_adamw_then_ema(xp, device, seed, decay, factor):
    model = net(device)
    config = OptimConfig(lr=0.05, weight_decay=decay, ema=0.5, warmup=3)
    optimiser = AdamW(model, config, 10)
    size = model.layout.size
    theta, average, m, v = host(model.flat).copy(), host(model.flat).copy(), np.zeros(size), np.zeros(size)
    decays = np.zeros(size)
    if decay:
        decays = host(optimiser.decays)
    for n in range(1, 5):
        g = numbers(np, size, seed + n)
        optimiser.step(xp.asarray(g.copy()), n, factor=factor)
        adamw(theta, m, v, factor * g, decays, lr=learning_rate(config, n, 10), betas=config.betas, eps=config.eps, n=n)
        ema(average, theta, ema_decay(0.5, n))
    agree(model.flat, theta, bound=1e-12, of=("O.1", "O.2", "O.3"))
    agree(optimiser.average, average, bound=1e-12, of="O.4")


@given(seeds, st.integers(1, 5))
def test_parts_of_the_vector_are_steps_of_their_own(xp, device, seed, parts):
    models = [net(device) for _ in range(2)]
    config = OptimConfig(lr=0.05, weight_decay=0.1, ema=0.9)
    optimisers = [AdamW(m, config, 10) for m in models]
    size = models[0].layout.size
    ends = [size * k // parts for k in range(parts + 1)]
    for n in range(1, 4):
        g = numbers(xp, size, seed + n)
        optimisers[0].step(g.copy(), n)
        for a, b in pairwise(ends):
            optimisers[1].step(g, n, part=slice(a, b))
    for a, b in zip(optimisers[0].state_dict().values(), optimisers[1].state_dict().values(), strict=True):
        np.testing.assert_array_equal(host(a), host(b))
    np.testing.assert_array_equal(host(models[0].flat), host(models[1].flat))


@spec("O.4")
def test_the_average_never_feeds_back_into_the_weights(xp, device):
    models = [net(device) for _ in range(2)]
    optimisers = [AdamW(m, OptimConfig(lr=0.1, ema=d), 10) for m, d in zip(models, (0.0, 0.9999), strict=True)]
    for n in range(1, 5):
        for model, o in zip(models, optimisers, strict=True):
            o.step(numbers(xp, model.layout.size, n), n)
    np.testing.assert_array_equal(host(models[0].flat), host(models[1].flat))
    np.testing.assert_array_equal(host(optimisers[0].average), host(models[0].flat))  # d = 0 is the weights themselves
    assert np.abs(host(optimisers[1].average) - host(models[1].flat)).max() > 0.01


def test_a_state_goes_into_another_optimiser_and_the_run_goes_on_as_if_nothing_was(xp, device):
    models = [net(device, np.float32) for _ in range(2)]
    first, second = (AdamW(m, OptimConfig(lr=0.1), 10) for m in models)
    for n in range(1, 4):
        first.step(numbers(xp, models[0].layout.size, n, np.float32), n)
    models[1].load_state_dict(models[0].state_dict())
    second.load_state_dict({n: host(a).copy() for n, a in first.state_dict().items()})
    for o in (first, second):
        for n in range(4, 7):
            o.step(numbers(xp, models[0].layout.size, n, np.float32), n)
    for a, b in ((models[0].flat, models[1].flat), (first.average, second.average)):
        for ours, theirs in zip(models[0].views(a), models[1].views(b), strict=True):
            np.testing.assert_array_equal(host(ours), host(theirs))


@pytest.mark.parametrize("change", [lambda s: s.pop("v"), lambda s: s.update(ema=s["ema"][:-1])])
def test_the_state_of_another_model_is_refused(device, change):
    optimiser = AdamW(net(device), OptimConfig(), 10)
    state = optimiser.state_dict()
    change(state)
    with pytest.raises(ValueError, match="it belongs to another model"):
        optimiser.load_state_dict(state)


@spec("O.3")
def test_a_norm_on_the_device_stays_there_and_so_does_the_step():
    if not getattr(CUPY, "__standin__", False):
        pytest.skip("the stand-in counts how often somebody waits")
    model = net("cuda", np.float32)
    optimiser = AdamW(model, OptimConfig(clip=1.0, weight_decay=0.1), 10)
    g = numbers(CUPY, model.layout.size, 0, np.float32)
    waits = COUNTS.syncs
    factor = clip_factor(CUPY.sqrt(CUPY.dot(g, g)), 1.0)
    optimiser.step(g, 1, factor=factor)
    assert COUNTS.syncs == waits


# ------------------------------------------------------------------------------------------------ the twin

SIZES = st.sampled_from([1, 15, 16, cpu_update.TILE - 1, cpu_update.TILE, cpu_update.TILE + 1, 2 * cpu_update.TILE + 17])


@spec("O.1", "O.2", "O.3", "O.4")
@settings(max_examples=25)
@given(SIZES, seeds, st.booleans(), st.floats(0.05, 1), st.sampled_from([1e-8, 1e-3]), st.data())
def test_the_twin_is_the_plain_text(size, seed, decays, factor, eps, data):
    a = data.draw(st.integers(0, min(size - 1, 20)))
    part = slice(a, size - data.draw(st.integers(0, min(size - a, 20))))  # most of it: tiles are crossed
    r = np.random.default_rng(seed)
    state = {k: r.standard_normal(size) for k in ("theta", "m", "v", "average")}
    state["v"] **= 2
    g, table = r.standard_normal(size), 0.1 * r.integers(0, 2, size)
    single = {k: x.astype(np.float32) for k, x in state.items()}
    law = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": eps, "n": 3}
    outside = {k: x.copy() for k, x in single.items()}
    g32 = g.astype(np.float32)
    cpu_update.adamw_ema(
        *(single[k][part] for k in ("theta", "m", "v")), g32[part], table.astype(np.float32)[part] if decays else None,
        single["average"][part], factor=factor, d=0.8, **law,
    )  # fmt: skip
    exact = {k: x.astype(np.float32).astype(np.float64)[part] for k, x in state.items()}
    adamw(exact["theta"], exact["m"], exact["v"], factor * g32.astype(np.float64)[part], table[part] if decays else None, **law)
    ema(exact["average"], exact["theta"], 0.8)
    for k, x in exact.items():
        assert np.abs(single[k][part] - x).max(initial=0) <= 1e-6 * max(1.0, np.abs(x).max(initial=0)), k  # eight roundings
        kept = np.ones(size, bool)
        kept[part] = False
        np.testing.assert_array_equal(single[k][kept], outside[k][kept])
    np.testing.assert_array_equal(g32, g.astype(np.float32))  # the twin leaves the gradient as it was


@spec("O.1", "O.2")
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_float32_optimiser_takes_the_twin_and_it_agrees_over_many_steps(decay, monkeypatch):
    calls = []
    real = cpu_update.adamw_ema
    monkeypatch.setattr(cpu_update, "adamw_ema", lambda *a, **k: (calls.append(1), real(*a, **k)))
    config = OptimConfig(lr=1e-2, weight_decay=decay, ema=0.9)
    models = [net("cpu", np.float32) for _ in range(2)]
    fast, plain = (AdamW(m, config, 50) for m in models)
    for n in range(1, 51):
        g = numbers(np, models[0].layout.size, n, np.float32)
        fast.step(g.copy(), n, factor=0.5)
        assert len(calls) == n
        with plain_text():
            plain.step(g, n, factor=0.5)
    assert len(calls) == 50
    assert np.abs(models[0].flat - models[1].flat).max() < 2e-6
    assert np.abs(fast.average - plain.average).max() < 2e-6


def test_moments_live_where_the_model_lives(xp, device):
    optimiser = AdamW(net(device, np.float32), OptimConfig(weight_decay=0.1), 3)
    for a in (*optimiser.state_dict().values(), optimiser.decays):
        assert isinstance(a, xp.ndarray) and a.dtype == np.float32
    np.testing.assert_array_equal(host(optimiser.average), host(optimiser.theta))
    assert to_device(optimiser.m, device) is optimiser.m


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_without_a_factor_takes_the_whole_gradient_on_the_whole_vector(device, dtype, xp):
    models = [net(device, dtype) for _ in range(2)]
    first, second = (AdamW(m, OptimConfig(lr=0.1, eps=1.0), 10) for m in models)
    g = numbers(xp, models[0].layout.size, 3, dtype)
    first.step(g.copy(), 1)
    second.step(g.copy(), 1, factor=1.0, part=slice(0, models[0].layout.size))
    np.testing.assert_array_equal(host(models[0].flat), host(models[1].flat))
    assert np.abs(host(first.m)).min() > 0
