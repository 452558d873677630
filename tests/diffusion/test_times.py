"""Chapter P: laws of training times, shift, grids, the number of a draw."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, stats
from support import agree, host, spec

from minidit.diffusion import times
from minidit.diffusion.level import Level
from minidit.diffusion.path import Straight
from minidit.random import Philox

U = (np.arange(999) + 1) / 1000
UNIT = st.floats(1e-9, 1 - 1e-9)


def probability(law, low, high, n=200_001):
    """P(low < t ≤ high), from the midpoints of n cells of u."""
    t = law((np.arange(n) + 0.5) / n)
    return float(((low < t) & (t <= high)).mean())


def logit_normal_density(t, m, s):
    return np.exp(-((np.log(t / (1 - t)) - m) ** 2) / (2 * s * s)) / (s * (2 * np.pi) ** 0.5 * t * (1 - t))


@spec("P.12", "R.4")
@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_a_rung_of_a_uniform_number_is_the_integer_that_the_ladder_draws(T, seed):
    """Both are ⌊k T/2³²⌋ + 1 of one word k, up to the half cell of the uniform."""
    u, n = (getattr(Philox(seed), name) for name in ("uniform", "integers"))
    mine, theirs = times.rung(T)(u((64,), dtype=np.float64)), n(1, T + 1, (64,))
    assert mine.min() >= 1 and mine.max() <= T and mine.dtype == np.int64
    assert np.abs(mine - theirs).max() <= 1 and (mine == theirs).mean() > 0.95
    assert times.rung(T)(np.array([2.0**-33, 1 - 2.0**-33])).tolist() == [1, T]


@spec("P.12")
@given(UNIT)
def test_uniform_is_uniform(u):
    agree(times.uniform(np.array([u])), [u], bound=0, of="P.12")


@spec("P.13")
@given(st.floats(-1, 1), st.floats(0.3, 2), st.floats(0.02, 0.98))
def test_logit_normal_times_have_their_density(m, s, t):
    law, z = times.logit_normal(m, s), (math.log(t / (1 - t)) - m) / s
    assume(abs(z) < 6)  # further out, floats near u = 1 are too coarse to give t back
    u = stats.norm.cdf(z)
    agree(law(np.array([u])), [t], bound=1e-6, of="P.13")
    below = integrate.quad(logit_normal_density, 1e-12, t, args=(m, s), limit=200)[0]
    agree(below, u, bound=1e-5, of="P.13")


@spec("P.13")
def test_logit_normal_times_miss_both_ends_and_uniform_ones_do_not():
    """In the last hundredth before noise: a tenth of a thousandth of the draws, not one hundredth."""
    assert probability(times.logit_normal(), 0.99, 1) < 1e-5
    agree(probability(times.uniform, 0.99, 1), 0.01, bound=1e-4)


@spec("P.26")
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(-1, 1))
def test_a_partly_uniform_law_is_the_mixture_of_both_laws(part, t, mean):
    law = times.logit_normal(mean, 1.0)
    mixed = probability(times.partly_uniform(law, part), 0, t)
    agree(mixed, np.float64(part * t + (1 - part) * probability(law, 0, t)), bound=1e-4, of="P.26")


@spec("P.26")
def test_a_uniform_part_reaches_both_ends_and_parts_that_are_none_are_refused():
    mixed = times.partly_uniform(times.logit_normal(0.3, 1.0), 0.15)
    assert mixed(U).min() < 0.01 and mixed(U).max() > 0.98 and np.isfinite(mixed(np.array([1e-300, 0.15, 1 - 1e-16]))).all()
    for part in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            times.partly_uniform(times.uniform, part)


@spec("P.14")
@given(st.floats(-1, 2 / (math.pi - 2)))
def test_mode_times_fall_from_noise_to_data_and_are_symmetric(s):
    t = times.mode(s)(U)
    assert np.all(np.diff(t) <= 1e-15) and t.min() > 0 and t.max() < 1
    agree(t + t[::-1], np.ones(999), bound=1e-14, of="P.14")
    agree(times.mode(0.0)(U), 1 - U, bound=0, of="P.14")


def test_a_scale_at_which_mode_is_not_monotone_is_refused():
    for scale in (-1.1, 1.8):
        with pytest.raises(ValueError, match=r"-1\.\.2/"):
            times.mode(scale)
    assert probability(times.mode(1.29), 0.25, 0.75) > 0.5 > probability(times.mode(-0.9), 0.25, 0.75)


@spec("P.15", "P.11")
@given(UNIT)
def test_cosmap_is_the_straight_time_of_a_uniform_angle(u):
    theta = math.pi / 2 * u
    agree(
        times.cosmap(np.array([u])), [Straight().time(Level(math.cos(theta), math.sin(theta)))], bound=1e-12, of=("P.15", "P.11")
    )


@spec("P.15")
@given(st.floats(0.01, 0.99))
def test_cosmap_times_have_their_density(t):
    below = integrate.quad(lambda s: 2 / (math.pi - 2 * math.pi * s + 2 * math.pi * s * s), 0, t)[0]
    agree(times.cosmap(np.array([below])), [t], bound=1e-9, of="P.15")


@spec("P.16")
@given(st.floats(-2, 1), st.floats(0.3, 2), UNIT)
def test_the_logarithm_of_lognormal_times_is_normal(m, s, u):
    agree(stats.norm.cdf((np.log(times.lognormal(m, s)(np.array([u]))) - m) / s), [u], bound=1e-8, of="P.16")
    agree(times.lognormal(m, s)(np.array([0.5])), [math.exp(m)], bound=1e-12, of="P.16")


@pytest.mark.parametrize("law", [times.uniform, times.logit_normal(0.2, 0.7), times.mode(), times.cosmap, times.lognormal()])
def test_a_law_is_monotone_finite_at_every_float64_uniform_and_the_same_on_a_device(xp, law):
    ends = np.array([2.0**-33, 1 - 2.0**-33])  # the extremes of (R.2)
    u = np.concatenate([ends[:1], U, ends[1:]])
    t, there = law(u), law(xp.asarray(u))
    assert np.isfinite(t).all() and (t > 0).all() and (np.all(np.diff(t) > 0) or np.all(np.diff(t) < 0))
    agree(host(there), t, bound=1e-13)


# ------------------------------------------------------------------------------------------------ shift


@spec("P.17")
@given(st.floats(0, 1), st.floats(0.1, 10), st.floats(0.1, 10))
def test_shifts_are_a_group_that_keeps_both_ends(t, a, b):
    agree(times.shift(times.shift(t, a), b), times.shift(t, a * b), bound=1e-13, of="P.17")
    agree(times.shift(times.shift(t, a), 1 / a), t, bound=1e-13, of="P.17")
    assert times.shift(t, 1.0) == t and times.shift(0.0, a) == 0.0
    agree(times.shift(1.0, a), 1.0, bound=1e-15, of="P.17")


@spec("P.17")
@given(st.floats(0.01, 0.99), st.floats(0.1, 10))
def test_a_shift_multiplies_noise_over_signal(t, a):
    before, after = (Straight().level(s) for s in (t, times.shift(t, a)))
    agree(after.sigma / after.alpha / (a * before.sigma / before.alpha), 1.0, bound=1e-12, of="P.17")


@spec("P.17")
@given(st.floats(0.1, 10), st.floats(0.3, 2))
def test_a_shifted_logit_normal_law_has_another_mean(a, s):
    shifted, moved = times.shifted_law(times.logit_normal(0.1, s), a), times.logit_normal(0.1 + math.log(a), s)
    agree(shifted(U), moved(U), bound=1e-12, of=("P.17", "P.13"))


# ------------------------------------------------------------------------------------------------ grids


@spec("P.18")
@given(st.integers(1, 60), st.floats(0.2, 8))
def test_a_linear_grid_has_equal_steps_and_exact_ends_shifted_or_not(n, a):
    grid, shifted = times.linear(n), times.linear(n, a)
    for g in (grid, shifted):
        assert len(g) == n and g[-1][1] == 0.0 and all(s == t for (_, s), (t, _) in itertools.pairwise(g))
    assert grid[0][0] == 1.0
    agree([t - s for t, s in grid], np.full(n, 1 / n), bound=1e-15, of="P.18")
    agree([t for t, _ in shifted], [times.shift(t, a) for t, _ in grid], bound=1e-15, of=("P.17", "P.18"))


@spec("P.19")
@given(st.integers(2, 80), st.floats(1e-3, 0.1), st.floats(1, 100), st.floats(1, 9))
def test_karras_times_have_exact_ends_and_equal_steps_in_their_root(n, low, high, rho):
    t = times.karras(n, low, high, rho)
    assert t[0] == high and t[-1] == low and len(t) == n
    roots = np.array(t) ** (1 / rho)
    agree(np.diff(roots), np.full(n - 1, (low ** (1 / rho) - high ** (1 / rho)) / (n - 1)), bound=1e-12, of="P.19")
    assert times.karras(1, low, high) == [high]


@spec("P.19")
def test_the_grid_of_edms_paper_by_hand():
    """18 levels of CIFAR-10: number i + 1 is (80^(1/7) + i (0.002^(1/7) - 80^(1/7))/17)^7."""
    t = times.karras(18)
    agree(t[1], 57.58598472, bound=1e-8, of="P.19")
    agree(t[9], 1.92333984, bound=1e-8, of="P.19")


@pytest.mark.parametrize("call", [
    lambda: times.linear(0), lambda: times.karras(0), lambda: times.karras(3, 0.0), lambda: times.karras(3, 2.0, 1.0),
    lambda: times.churned([(1.0, 0.0)], -1.0),
])  # fmt: skip
def test_grids_that_make_no_sense_are_refused(call):
    with pytest.raises(ValueError, match=r"at least one step|a grid of Karras needs|must not be negative"):
        call()


@spec("P.20")
@given(st.integers(1, 20), st.floats(0, 100), st.floats(0, 5), st.floats(5, 100))
def test_churn_raises_the_times_in_its_interval_and_no_others(n, churn, low, high):
    grid = times.down([*times.karras(n), 0.0])
    for (t, s), (raised, same) in zip(grid, times.churned(grid, churn, low, high), strict=True):
        factor = 1 + min(churn / n, 2**0.5 - 1) if low <= t <= high else 1
        assert same == s
        agree(raised / t, factor, bound=1e-13, of="P.20")
    assert times.churned(grid, 0.0) == grid


@spec("P.21")
@given(st.floats(2**-20, 100), st.integers(1, 1000))
def test_the_number_of_a_draw_depends_on_the_time_alone(xp, t, rung):
    assert times.number_of(rung) == rung and times.number_of(t) == math.floor(t * 2**20) >= 1
    assert host(times.number_of(xp.asarray([t]))).tolist() == [times.number_of(t)]
    assert host(times.number_of(xp.asarray([rung]))).tolist() == [rung]
