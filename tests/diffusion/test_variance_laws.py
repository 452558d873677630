"""Chapter D, variances: small, large, optimal, learned."""

import numpy as np
from diffusion.draws import LINEAR, ladders, level, pictures, rungs_of_batch, steps
from hypothesis import given
from hypothesis import strategies as st
from support import agree, spec

from minidit.diffusion import gaussian
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.diffusion.variance import beta, large, learned, learned_range, log_learned_range, log_small, optimal, small


@spec("D.18", "D.19")
def test_two_rungs_by_hand():
    """β = (0.2, 0.55): ᾱ = 1, 0.8, 0.36. β̃ = 0.2/0.64 · 0.55."""
    sch = Schedule.from_betas([0.2, 0.55])
    agree([small(2, 1, sch), large(2, 1, sch), small(1, 0, sch)], [0.171875, 0.55, 0.0], bound=1e-15, of=("D.18", "D.19"))
    agree([large(1, 0, sch), log_small(1, 0, sch)], [0.171875, np.log(0.171875)], bound=1e-15, of=("D.19", "D.21"))
    agree(large(2, 0, LINEAR, above=5), small(5, 2, LINEAR), bound=1e-15, of="D.19")


@spec("D.18", "D.19", "D.20")
@given(steps(min_s=1), st.floats(0, 1))
def test_the_optimal_variance_lies_between_small_and_large(ladder, s2):
    """Small is exact for a point, large for unit variance; in between the optimum is monotone."""
    sch, t, s = ladder
    agree(optimal(t, s, sch, 0.0), small(t, s, sch), bound=1e-14, of="D.20")
    agree(optimal(t, s, sch, 1.0), large(t, s, sch), bound=1e-12, of="D.20")
    assert small(t, s, sch) - 1e-15 <= optimal(t, s, sch, s2) <= large(t, s, sch) + 1e-15


@spec("D.19", "D.21")
@given(st.data(), ladders(min_T=3))
def test_into_zero_the_step_before_lends_its_number(xp, data, sch):
    t = data.draw(rungs_of_batch(sch, 3))
    rungs = (xp.asarray(t), xp.asarray(t - 1))
    for law in (large, log_small):
        agree(law(*rungs, sch), [law(int(r), int(r) - 1, sch) for r in t], bound=1e-14, of=("D.19", "D.21"))
    agree([large(1, 0, sch), log_small(1, 0, sch)], [small(2, 1, sch), np.log(small(2, 1, sch))], bound=1e-14, of="D.19")


@spec("D.19", "D.21")
def test_the_step_before_the_first_one_comes_from_pure_noise(xp):
    """A sampler of one step, T -> 0, borrows from ᾱ = 0: β̃ = (1-ᾱ_T)/(1-0) · (1-0)."""
    for sch in (Schedule.from_betas([0.3]), Schedule.linear(50), zero_terminal_snr(Schedule.linear(50))):
        top, rest = np.array([sch.T]), float(1 - sch.alpha_bar[-1])
        agree([large(sch.T, 0, sch), log_small(sch.T, 0, sch)], [rest, np.log(rest)], bound=1e-15, of=("D.19", "D.21"))
        agree(large(xp.asarray(top), xp.asarray(0 * top), sch), [rest], bound=1e-15, of="D.19")


@spec("D.22")
@given(steps(min_s=1), pictures(1))
def test_the_learned_range_runs_from_small_to_beta_in_logarithms(xp, ladder, xs):
    (sch, t, s), v = ladder, xp.asarray(xs[0])
    low, high = small(t, s, sch), beta(t, s, sch)
    for at, expected in ((-1.0, low), (1.0, high), (0.0, (low * high) ** 0.5)):
        agree(learned_range(xp.full_like(v, at), t, s, sch), np.full(v.shape, expected), bound=1e-12, of="D.22")
    agree(log_learned_range(v, t, s, sch), np.log(low) + (xs[0] + 1) / 2 * np.log(high / low), bound=1e-10, of="D.22")
    agree(learned(log_learned_range(v, t, s, sch)), learned_range(v, t, s, sch), bound=0, of="D.22")


@spec("D.22", "K.10")
@given(steps(min_s=1), st.floats(1e-3, 4))
def test_the_best_fraction_gives_the_optimal_variance(ladder, s2):
    sch, t, s = ladder
    frac = float(gaussian.best_fraction(level(sch.alpha_bar[t]), level(sch.alpha_bar[s]), s2))
    v = np.full((1, 1), 2 * frac - 1)
    agree(learned_range(v, t, s, sch), [[optimal(t, s, sch, s2)]], bound=1e-10, of=("D.22", "K.10"))
    assert (frac <= 1 + 1e-9) == (s2 <= 1 + 1e-9) or abs(s2 - 1) < 1e-6


@spec("K.10")
@given(steps(min_s=1))
def test_the_best_fraction_is_zero_for_points_and_one_for_unit_variance(ladder):
    sch, t, s = ladder
    a = sch.level(t), sch.level(s)
    agree(gaussian.best_fraction(*a, 0.0), 0.0, bound=0, of="K.10")
    agree(gaussian.best_fraction(*a, 1.0), 1.0, bound=1e-14, of="K.10")
