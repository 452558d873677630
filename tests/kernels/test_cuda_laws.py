"""CUDA twins of the laws, run on the CPU by the stand-in: the same integers, and the equations within rounding."""

import functools

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import random
from minidit.autograd import NoTwin, plain_text
from minidit.diffusion import threshold
from minidit.diffusion.ddpm import q_sample
from minidit.diffusion.fresh import DDPM, DDPM_LARGE, DDPM_LEARNED, EVERYTHING, ddim
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import Level, mix
from minidit.diffusion.prediction import EPS, X_0, V, edm
from minidit.diffusion.prediction import U as U_FLOW
from minidit.diffusion.row import row_of, table_of, walk_step
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.step import step
from minidit.kernels import cuda_laws
from minidit.kernels.cuda_laws import DevicePhilox
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
    plain, fast = random.Philox(seed, stream, state), DevicePhilox(seed, stream, state)
    samples = np.random.default_rng(index_seed).integers(0, 2**32, shape[0]) if indexed and shape else None
    device = {"samples": None if samples is None else CUPY.asarray(samples), "device": "cuda"}
    with standin.kernels() as kernels:
        kernels.launched.clear()
        assert np.array_equal(host(fast.integers(-5, 2**31, shape, **device)), plain.integers(-5, 2**31, shape, samples))
        assert np.array_equal(host(fast.uniform(shape, **device)), plain.uniform(shape, samples))
        z, expected = host(fast.normal(shape, **device)), plain.normal(shape, samples)
        wide = host(fast.uniform(shape, dtype=np.float64, **device))
        assert np.array_equal(wide, plain.uniform(shape, samples, dtype=np.float64)) and wide.dtype == np.float64
        assert REAL or kernels.launched == ["integers", "uniform", "normal", "uniform64"]
    agree(z, expected, bound=U, of="R.3")  # 2π u₂ is rounded once more or less: an ulp of float64, and then the cast
    assert fast.state == plain.state == state + 4


def test_philox_of_a_cpu_of_float64_and_when_switched_off_is_the_plain_one():
    with standin.kernels() as kernels:
        kernels.launched.clear()
        assert np.array_equal(DevicePhilox(1).normal((3, 2)), random.Philox(1).normal((3, 2)))
        wide = DevicePhilox(1).normal((3, 2), device="cuda", dtype=np.float64)
        agree(wide, random.Philox(1).normal((3, 2), dtype=np.float64), bound=1e-15)
        with plain_text():
            DevicePhilox(1).uniform((3, 2), device="cuda")
        assert kernels.launched == []


@spec("R.5")
@pytest.mark.skipif(REAL, reason="the imitation of a capture")
def test_a_counter_on_the_device_gives_new_numbers_at_each_replay():
    rng, stream, pool = DevicePhilox(7), CUPY.cuda.Stream(non_blocking=True), CUPY.cuda.MemoryPool()
    with standin.kernels():
        rng.counter, rng.per = CUPY.full((1,), 2**31 + 5, np.int64), 3
        rng.normal((2, 3), device="cuda")  # compiled before the capture
        rng.state = 0
        with stream, CUPY.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            z, u = rng.normal((2, 3), device="cuda"), rng.uniform((2,), device="cuda")
            wide = rng.uniform((2,), device="cuda", dtype=np.float64)
            graph = stream.end_capture()
        plain = random.Philox(7, state=3 * (2**31 + 5))
        for _ in range(3):
            graph.launch()
            agree(z, plain.normal((2, 3)), bound=U, of="R.5")
            assert np.array_equal(host(u), plain.uniform((2,)))
            assert np.array_equal(host(wide), plain.uniform((2,), dtype=np.float64))
            rng.counter += 1
        with pytest.raises(NoTwin):  # the plain text cannot read the counter
            rng.normal((2,), device="cuda", dtype=np.float64)


@spec("D.1", "P.1")
@settings(max_examples=15)
@given(SEEDS, st.sampled_from([(1, 1), (3, 5), (2, 4, 2, 2), (5, 1, 3, 3)]))
def test_a_noisy_sample_reads_the_level_of_each_sample_on_the_device(seed, shape):
    sch = Schedule.cosine(50)
    x_0, eps, t = f(seed, *shape), f(seed + 1, *shape), np.random.default_rng(seed).integers(1, 51, shape[0])
    with standin.kernels() as kernels:
        level = sch.level(CUPY.asarray(t))
        kernels.launched.clear()
        x_t = mix(CUPY.asarray(x_0), CUPY.asarray(eps), level)
        assert REAL or kernels.launched == ["mix"]
    agree(x_t, q_sample(x_0.astype(np.float64), t, eps.astype(np.float64), sch), bound=4 * U, of=("D.1", "P.1"))


# ------------------------------------------------------------------------------------------------ a step of a walk

ANSWERS = {answer.name: answer for answer in (EPS, X_0, V, U_FLOW, edm(0.5))}
PATHS = {
    "ladder": Schedule.linear(100).level,
    "straight": lambda t: Level(1 - t / 101, t / 101),
    "exploding": lambda t: Level(1.0, t / 5),
}
FRESH = {"none": ddim(), "posterior": DDPM, "large": DDPM_LARGE, "everything": EVERYTHING}
WALKS = (
    SEEDS, st.sampled_from(sorted(ANSWERS)), st.sampled_from(sorted(PATHS)), st.sampled_from(sorted(FRESH)),
    st.sampled_from([None, 1.0, 2.5]), st.booleans(), st.sampled_from([(1, 1, 1, 1), (3, 2, 3, 3), (2, 4, 2, 2)]),
)  # fmt: skip


@spec("G.1", "D.4", "D.5", "D.7", "D.10", "D.31", "P.3", "P.4")
@settings(max_examples=60)
@given(*WALKS)
def test_one_kernel_guides_reads_the_answer_clips_and_steps(seed, answer, path, noise, w, clip, shape):
    answer, fresh = ANSWERS[answer], FRESH[noise]
    s, t = sorted(np.random.default_rng(seed).choice(100, 2, replace=False) + 1)
    t, s = PATHS[path](int(t)), PATHS[path](int(s))
    B, C, H, W = shape
    x_t, z, out = f(seed, *shape), f(seed + 1, *shape), f(seed + 2, 2 * B, 2 * C, H, W)  # the network learns a variance too
    wide = [a.astype(np.float64) for a in (x_t, z, out[:B, :C], out[B:, :C])]

    guided = wide[2] if w is None else guide(wide[3], wide[2], w)
    x_0_hat, eps_hat = answer.pair(guided, wide[0], t)
    if clip:
        x_0_hat, eps_hat = threshold.rederived(x_0_hat, wide[0], t)
    std = fresh.c(t, s) if fresh.std is None else fresh.std(t, s)
    expected = step(x_0_hat, eps_hat, s, c=fresh.c(t, s), std=std, z=wide[1])

    first = np.full(12, np.nan)  # a row that must not be read
    table = np.stack([first, row_of(answer, t, s, fresh)])
    how = {"w": w or 1.0, "clip": clip}
    text = walk_step(wide[0], wide[2], table, 1, F_u=None if w is None else wide[3], z=wide[1], **how)
    for mine, law in zip(text, (expected, x_0_hat), strict=True):
        agree(mine, law, bound=1e-12, of="P.4")

    x, o, noise = map(CUPY.asarray, (x_t, out, z))
    how |= {"F_u": None if w is None else o[B:, :C], "z": noise}
    with standin.kernels() as kernels:
        kernels.launched.clear()
        counted = walk_step(x, o[:B, :C], table, CUPY.full((1,), 1, np.int64), **how)
        assert REAL or kernels.launched == ["walk_step"]
        numbered = walk_step(x, o[:B, :C], table, 1, **how)
        in_place, guess = walk_step(x, o[:B, :C], table, 1, guess=False, into=x, **how)
    assert in_place is x and guess is None and np.array_equal(host(x), host(counted[0]))
    for a, b in zip(counted, numbered, strict=True):
        assert np.array_equal(host(a), host(b))
    reading = np.abs(table[1, :4])  # x̂_0 and ε̂ are sums of terms so large, each rounded
    size = max(1, np.abs(x_t).max(), np.abs(guided).max(), *(np.abs(a).max() for a in wide[2:]))
    rounding = 8 * U * size * (1 + (w or 0)) * np.array([reading[:2].sum(), reading[2:].sum()])
    if clip:  # ε̂ comes from x̂_0 and x_t then
        rounding[1] = (8 * U * size + t.alpha * min(rounding[0], 2)) / t.sigma
    agree(counted[1], x_0_hat, bound=rounding[0] + U, of=("D.4", "P.3"))
    agree(counted[0], expected, bound=s.alpha * rounding[0] + s.sigma * rounding[1] + 8 * U * size, of=("D.7", "P.4"))


def test_a_step_that_no_kernel_makes_is_left_to_the_plain_text():
    """A variance of the network's choice, another limit than the static one, and answers that are no slices."""
    sch = Schedule.linear(100)
    table = table_of(V, sch, [(60, 20)], DDPM_LEARNED)
    x, F, z = (f(k, 2, 3, 2, 2) for k in range(3))
    there = {k: CUPY.asarray(a) for k, a in {"x": x, "F": F, "z": z}.items()}
    squeezed = functools.partial(threshold.dynamic, p=0.5)
    turned = CUPY.asarray(np.ascontiguousarray(F.swapaxes(2, 3))).swapaxes(2, 3)
    with standin.kernels() as kernels:
        for answer, more in ((there["F"], {"v": there["z"]}), (there["F"], {"limit": threshold.dynamic}),
                             (there["F"], {"limit": squeezed}), (turned, {})):  # fmt: skip
            kernels.launched.clear()
            x_s, guess = walk_step(there["x"], answer, table, 0, z=there["z"], **more)
            assert "walk_step" not in kernels.launched
            more = {name: z if name == "v" else value for name, value in more.items()}
            expected = walk_step(x, F, table, 0, z=z, **more)
            for a, e in zip((x_s, guess), expected, strict=True):
                agree(a, e, bound=16 * U)


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
            lambda: cuda_laws.mix(CUPY.asarray(x), CUPY.asarray(x), Level(0.8, 0.6)),  # one level for the whole batch
            lambda: cuda_laws.mix(CUPY.asarray(x), CUPY.asarray(x), (CUPY.ones(2), 0.6)),
            lambda: cuda_laws.mix(CUPY.zeros((2, 3)), CUPY.zeros((2, 3)), Level(CUPY.ones(2), CUPY.ones(2))),
        ):
            with pytest.raises(NoTwin):
                call()
