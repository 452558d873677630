"""CUDA twins of the laws, run on the CPU by the stand-in: the same integers, and the equations within rounding."""

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import random
from minidit.autograd import NoTwin, plain_text
from minidit.diffusion import threshold
from minidit.diffusion.ddim import ddim_std
from minidit.diffusion.ddpm import q_sample
from minidit.diffusion.guidance import guide
from minidit.diffusion.prediction import PREDICTIONS
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.step import step
from minidit.kernels import cuda_laws
from minidit.kernels.cuda_laws import Philox
from minidit.optim import OptimConfig, adamw, clip_factor, ema, ema_decay, learning_rate

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(not REAL and standin.raw.compiler() is None, reason="no g++ to run kernels on the CPU")
U = 2.0**-24
SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.sampled_from([(), (1,), (5,), (3, 7), (2, 3, 4), (300,), (2, 1025)])


def f(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@spec("R.1", "R.2", "R.3", "R.4", "R.5")
@settings(max_examples=25)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**33), SHAPES, st.booleans(), SEEDS)
def test_philox_draws_the_numbers_of_the_plain_text(seed, stream, state, shape, indexed, index_seed):
    plain, fast = random.Philox(seed, stream, state), Philox(seed, stream, state)
    samples = np.random.default_rng(index_seed).integers(0, 2**32, shape[0]) if indexed and shape else None
    device = {"samples": None if samples is None else CUPY.asarray(samples), "device": "cuda"}
    with standin.kernels() as kernels:
        kernels.launched.clear()
        assert np.array_equal(host(fast.integers(-5, 2**31, shape, **device)), plain.integers(-5, 2**31, shape, samples))
        assert np.array_equal(host(fast.uniform(shape, **device)), plain.uniform(shape, samples))
        z, expected = host(fast.normal(shape, **device)), plain.normal(shape, samples)
        assert REAL or kernels.launched == ["integers", "uniform", "normal"]
    agree(z, expected, bound=U, of="R.3")  # 2π u₂ is rounded once more or less: an ulp of float64, and then the cast
    assert fast.state == plain.state == state + 3


def test_philox_of_a_cpu_of_float64_and_when_switched_off_is_the_plain_one():
    with standin.kernels() as kernels:
        kernels.launched.clear()
        assert np.array_equal(Philox(1).normal((3, 2)), random.Philox(1).normal((3, 2)))
        wide = Philox(1).normal((3, 2), device="cuda", dtype=np.float64)
        agree(wide, random.Philox(1).normal((3, 2), dtype=np.float64), bound=1e-15)
        with plain_text():
            Philox(1).uniform((3, 2), device="cuda")
        assert kernels.launched == []


@spec("R.5")
@pytest.mark.skipif(REAL, reason="the imitation of a capture")
def test_a_counter_on_the_device_gives_new_numbers_at_each_replay():
    rng, stream, pool = Philox(7), CUPY.cuda.Stream(non_blocking=True), CUPY.cuda.MemoryPool()
    with standin.kernels():
        rng.counter, rng.per = CUPY.full((1,), 2**31 + 5, np.int64), 2
        rng.normal((2, 3), device="cuda")  # compiled before the capture
        rng.state = 0
        with stream, CUPY.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            z, u = rng.normal((2, 3), device="cuda"), rng.uniform((2,), device="cuda")
            graph = stream.end_capture()
        plain = random.Philox(7, state=2 * (2**31 + 5))
        for _ in range(3):
            graph.launch()
            agree(z, plain.normal((2, 3)), bound=U, of="R.5")
            assert np.array_equal(host(u), plain.uniform((2,)))
            rng.counter += 1
        with pytest.raises(NoTwin):  # the plain text cannot read the counter
            rng.normal((2,), device="cuda", dtype=np.float64)


@spec("D.1")
@settings(max_examples=15)
@given(SEEDS, st.sampled_from([(1, 1), (3, 5), (2, 4, 2, 2), (5, 1, 3, 3)]))
def test_q_sample_reads_each_sample_s_rung_on_the_device(seed, shape):
    sch = Schedule.cosine(50)
    x_0, eps, t = f(seed, *shape), f(seed + 1, *shape), np.random.default_rng(seed).integers(1, 51, shape[0])
    with standin.kernels():
        x_t = cuda_laws.q_sample(*map(CUPY.asarray, (x_0, t, eps)), sch)
    agree(x_t, q_sample(x_0.astype(np.float64), t, eps.astype(np.float64), sch), bound=4 * U, of="D.1")


@spec("G.1", "D.4", "D.5", "D.7", "D.10", "D.31")
@settings(max_examples=30)
@given(SEEDS, st.sampled_from(sorted(PREDICTIONS)), st.sampled_from([0.0, 1.0]), st.sampled_from([None, 1.0, 2.5]), st.booleans(),
       st.sampled_from([(1, 1, 1, 1), (3, 2, 3, 3), (2, 4, 2, 2)]))  # fmt: skip
def test_one_kernel_guides_predicts_clips_and_steps(seed, kind, eta, w, clip, shape):
    sch, (t, s) = Schedule.linear(100), sorted(np.random.default_rng(seed).choice(np.arange(1, 101), 2, replace=False))[::-1]
    B, C, H, W = shape
    x_t, z, out = f(seed, *shape), f(seed + 1, *shape), f(seed + 2, 2 * B, 2 * C, H, W)  # the network learns a variance too
    wide = [a.astype(np.float64) for a in (x_t, z, out[:B, :C], out[B:, :C])]
    guided = wide[2] if w is None else guide(wide[3], wide[2], w)
    a_t, a_s, c = sch.alpha_bar[t], sch.alpha_bar[s], ddim_std(int(t), int(s), sch, eta)
    x_0_hat, eps_hat = PREDICTIONS[kind].pair(guided, wide[0], a_t)
    if clip:
        x_0_hat, eps_hat = threshold.rederived(x_0_hat, wide[0], a_t)
    expected = step(x_0_hat, eps_hat, a_s, c=c, z=wide[1])
    table = CUPY.asarray(np.array([[0.5, 0.6, 0.0, 0.0], [a_t, a_s, c, c]]))
    x, o, noise, row = (CUPY.asarray(a) for a in (x_t, out, z, np.array(1)))
    with standin.kernels():
        unconditional = None if w is None else o[B:, :C]
        x_s, guess = cuda_laws.guided_step(
            x, o[:B, :C], table, row, out_u=unconditional, w=w or 1.0, z=noise, predicts=kind, clip=clip
        )
    gain = 8 / np.sqrt(min(a_t, 1 - a_t))  # dividing by √ᾱ or √(1-ᾱ) makes rounding as much larger
    agree(guess, x_0_hat, bound=gain * U * max(1, np.abs(guided).max()), of="D.4")
    agree(x_s, expected, bound=gain * U * max(1, np.abs(guided).max()), of="D.7")


@spec("O.1", "O.2", "O.3", "O.4")
@settings(max_examples=20)
@given(SEEDS, st.sampled_from([1, 5, 16, 300, 4096]), st.integers(1, 2000), st.booleans(), st.sampled_from([0.0, 1.0]))
def test_the_optimiser_step_is_one_pass_over_flat_vectors(seed, size, n, decayed, limit):
    theta, m, g, average = (f(seed + i, size) for i in range(4))
    v, decays = np.square(f(seed + 5, size)), np.abs(f(seed + 6, size)) if decayed else None
    laws = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "n": n}
    here = [a.astype(np.float64) for a in (theta, m, v, average)]
    factor = clip_factor(float(np.linalg.norm(g.astype(np.float64))), limit)
    adamw(*here[:3], g.astype(np.float64) * factor, None if decays is None else decays.astype(np.float64), **laws)
    ema(here[3], here[0], 0.9)
    there = [CUPY.asarray(a) for a in (theta, m, v, average)]
    with standin.kernels():
        bar = CUPY.asarray(g)
        square = cuda_laws.square_sum(bar)
        more = {"square": square, "limit": limit, "d": 0.9, **laws}
        cuda_laws.adamw_ema(*there[:3], bar, None if decays is None else CUPY.asarray(decays), there[3], **more)
        again = cuda_laws.square_sum(bar)
    agree(square, np.sum(g.astype(np.float64) ** 2), bound=16 * U, of="O.3")
    assert host(again) == host(square)
    moved = max(1.0, float(np.abs(here[0] - theta).max()))  # the move lr m̂/√v̂ is rounded too, and may be large where v is small
    for a, e, equation in zip(there, here, ("O.2", "O.1", "O.1", "O.4"), strict=True):
        agree(a, e, bound=32 * U * moved, of=equation)


@spec("O.4", "O.5", "O.6")
def test_the_rates_of_a_step_are_computed_where_the_counter_lives():
    config = OptimConfig(lr=3e-4, warmup=4, final_lr=0.1, ema=0.9)
    step_number, rates = CUPY.zeros((1,), np.int64), CUPY.zeros((4,), np.float32)
    with standin.kernels():
        for n in range(1, 25):
            cuda_laws.next_rates(step_number, rates, config, 20)
            b1, b2 = config.betas
            expected = [learning_rate(config, n, 20), 1 - b1**n, 1 - b2**n, ema_decay(config.ema, n)]
            assert np.allclose(host(rates), expected, rtol=2 * U, atol=0)
    assert host(step_number)[0] == 24


def test_what_does_not_fit_is_left_to_the_plain_text():
    x = np.zeros((2, 3), np.float32)
    with standin.kernels():
        for call in (
            lambda: cuda_laws.square_sum(x.ravel()),
            lambda: cuda_laws.square_sum(CUPY.zeros((4,))),
            lambda: cuda_laws.q_sample(x, np.ones(2, np.int64), x, Schedule.cosine(9)),
            lambda: cuda_laws.q_sample(CUPY.asarray(x), 1, CUPY.asarray(x), Schedule.cosine(9)),
        ):
            with pytest.raises(NoTwin):
                call()
