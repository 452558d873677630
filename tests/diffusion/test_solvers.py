"""Chapter P: Euler, Heun, Adams–Bashforth; their orders on exact fields, and whose methods they are."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from diffusion.draws import level, pictures
from hypothesis import given
from hypothesis import strategies as st
from support import agree, spec

from minidit.diffusion import times
from minidit.diffusion.exact import Gaussian, Mixture
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import EPS, X_0, U, V
from minidit.diffusion.solver import (
    AB2,
    AB2_ARC,
    DPM_2M,
    EULER,
    HEUN,
    HEUN_EDM,
    Solver,
    adams,
    angle,
    heun,
    log_snr,
    noise_over_signal,
    share,
)
from minidit.diffusion.step import step

SHIFT = 1.5  # of the grids in the tests of order


def solved(solver, denoise, x, levels):
    """The walk of a perfect denoiser, written with the laws alone: x : (B, ...) at levels[0]  ->  x at levels[-1]."""
    before, F_before = None, np.zeros_like(x)
    for t, s in pairwise(levels):
        answer = solver.answer or U

        def asked(x, at, answer=answer):
            return answer.target(*X_0.pair(denoise(x, at), x, at), at)

        F = asked(x, t)
        F_bar = adams(F, F_before, solver.weights(before, t, s)) + solver.of_x(t, s) * x
        if solver.asks_twice and s.sigma > 0:
            F_bar = heun(F, asked(step(*answer.pair(F, x, t), s), s))
        x, before, F_before = step(*answer.pair(F_bar, x, t), s), t, F
    return x


def straight_levels(n, last=0.0):
    """n steps on the straight path from 1 to `last`, of unequal length."""
    t = np.array([times.shift(last + (1 - last) * k / n, SHIFT) for k in range(n, -1, -1)])
    return [Straight().level(float(u)) for u in t]


def exploding_levels(n, low=0.05, high=20.0):
    return [Level(1.0, t) for t in times.karras(n + 1, low, high)]


def errors(solver, levels, sizes=(20, 40, 80, 160)):
    """The mean errors on a Gaussian and on a mixture of two, whose flows are known."""
    x = np.linspace(-1.5, 1.5, 7)
    for law in (Gaussian(0.3, 0.25, path=Straight()),
                Mixture(np.array([0.4, 0.6]), np.array([-1.0, 0.8]), np.array([0.3, 0.2]), path=Straight())):  # fmt: skip
        out = []
        for n in sizes:
            ends = levels(n)
            start = x * (ends[0].sigma ** 2 + ends[0].alpha ** 2) ** 0.5
            exact = law.transport(start, ends[0], ends[-1]) if isinstance(law, Mixture) else law.flow(start, ends[0], ends[-1])
            column = law if isinstance(law, Gaussian) else replace(law, means=law.means[:, None])
            out.append(np.abs(solved(solver, column.denoise, start[:, None], ends)[:, 0] - exact).mean())
        yield np.array(out)


@spec("P.22", "P.6", "P.4", "D.44")
@pytest.mark.parametrize("solver, levels, ratio", [
    (EULER, straight_levels, 2), (AB2, straight_levels, 4), (HEUN, straight_levels, 4),
    (EULER, exploding_levels, 2), (AB2, exploding_levels, 4), (HEUN_EDM, exploding_levels, 4), (DPM_2M, exploding_levels, 4),
    (Solver(EPS, noise_over_signal), exploding_levels, 4), (AB2_ARC, straight_levels, 4), (AB2_ARC, exploding_levels, 4),
], ids=["Euler", "AB2", "Heun", "Euler of EDM", "AB2 exploding", "Heun of EDM", "2M", "AB2 of EDM", "arc", "arc 2"])  # fmt: skip
def test_half_the_step_divides_the_error_by_two_or_by_four(solver, levels, ratio):
    for error in errors(solver, levels):
        ratios = error[:-1] / error[1:]
        assert abs(ratios[-1] - ratio) < 0.12 * ratio, (error, ratios)
        assert abs(ratios[-1] - ratio) <= abs(ratios[0] - ratio) + 0.05 * ratio, ratios


@spec("P.22")
def test_at_eight_calls_the_second_order_is_worth_several_times_as_many_of_the_first():
    euler, better = (list(errors(s, straight_levels, (8, 32))) for s in (EULER, AB2))
    for first, second in zip(euler, better, strict=True):
        assert second[0] < first[0] / 3 and second[0] < 1.5 * first[1]


# ---------------------------------------------------------------------------------------- by their own formulas


@st.composite
def falling(draw, n, low=0.05, high=0.95):
    """n falling times on the straight path, at least 0.01 apart."""
    marks = draw(st.sets(st.integers(round(low * 100), round(high * 100)), min_size=n, max_size=n))
    return [m / 100 for m in sorted(marks, reverse=True)]


@spec("P.22")
@given(falling(3), pictures(3))
def test_on_u_it_is_the_textbooks_formula_on_the_straight_path(ts, xs):
    """x += h [(1 + r/2) u_n - (r/2) u_(n-1)], r = h_n/h_(n-1), on any path in x/(α+σ)."""
    (before, t, s), (x, u, u_before) = ts, xs
    h, r = s - t, (s - t) / (t - before)
    want = x + h * ((1 + r / 2) * u - r / 2 * u_before)
    for form in (lambda w: Straight().level(w), lambda w: level(1 / (1 + (w / (1 - w)) ** 2))):
        b, a, e = map(form, (before, t, s))
        F = adams(u, u_before, AB2.weights(b, a, e))
        y = x * (a.alpha + a.sigma)
        agree(step(*U.pair(F, y, a), e) / (e.alpha + e.sigma), want, bound=1e-11, of="P.22")


@spec("P.22")
@given(falling(3), pictures(3))
def test_on_x_0_with_the_clock_of_the_snr_it_is_dpm_solver_2m(ts, xs):
    """x_s = (σ_s/σ_t) x_t - α_s (e^-h - 1) D,   D = (1 + 1/2r) D_n - (1/2r) D_(n-1),   h = λ_s - λ_t, r = h_before/h."""
    (x, D, D_before), ladder = xs, [level(1 / (1 + (w / (1 - w)) ** 2)) for w in ts]
    b, t, s = ladder
    lam = [np.log(a.alpha / a.sigma) for a in ladder]
    h, r = lam[2] - lam[1], (lam[1] - lam[0]) / (lam[2] - lam[1])
    mixed = (1 + 1 / (2 * r)) * D - 1 / (2 * r) * D_before
    want = s.sigma / t.sigma * x - s.alpha * np.expm1(-h) * mixed
    size = np.abs(mixed).max() + 1
    F = adams(D, D_before, DPM_2M.weights(b, t, s))
    agree(step(*X_0.pair(F, x, t), s) / size, want / size, bound=1e-12, of="P.22")
    agree(log_snr(t), lam[1], bound=1e-14, of="P.22")


@spec("P.6")
@given(falling(2), pictures(3))
def test_heun_of_rectified_flow_and_of_edm_are_the_same_step_of_another_mean(ts, xs):
    (t, s), (x, d, d_s) = ts, xs
    straight = step(*U.pair(heun(d, d_s), x, Straight().level(t)), Straight().level(s))
    agree(straight, x + (s - t) * (d + d_s) / 2, bound=1e-12, of="P.6")
    exploding = step(*EPS.pair(heun(d, d_s), x, Exploding().level(t)), Exploding().level(s))  # there dx/dt = ε̂
    agree(exploding, x + (s - t) * (d + d_s) / 2, bound=1e-12, of="P.6")


@spec("P.22")
def test_the_first_step_and_the_steps_at_an_infinite_clock_are_eulers():
    a, b, data = Level(1.0, 2.0), Level(1.0, 1.0), Level(1.0, 0.0)
    assert AB2.weights(None, a, b) == EULER.weights(a, b, data) == HEUN.weights(a, b, data) == (1.0, 0.0)
    assert DPM_2M.weights(a, b, data) == (1.0, 0.0) != AB2.weights(a, b, data)
    assert Solver(EPS, noise_over_signal).weights(Level(0.0, 1.0), a, b) == (1.0, 0.0)
    assert AB2.weights(Level(0.0, 1.0), a, b) != (1.0, 0.0)  # its clock is finite in pure noise


@spec("P.22")
@given(falling(3))
def test_the_weights_add_up_to_one_and_are_three_halves_and_minus_a_half_for_equal_steps(ts):
    for solver in (AB2, DPM_2M):
        agree(sum(solver.weights(*map(Straight().level, ts))), 1.0, bound=1e-13, of="P.22")
    agree(AB2.weights(*map(Straight().level, (0.75, 0.5, 0.25))), (1.5, -0.5), bound=1e-14, of="P.22")


@spec("P.27")
@given(falling(3))
def test_a_step_on_the_arc_is_one_of_its_ode(ts):
    """y_s = y_t + h (w v_t + (1 - w) v_before), on any path: v = dy/dφ, with weights that do not know of the turn."""
    r = np.random.default_rng(0)
    for path in (Straight(), Exploding()):
        b, t, s = map(path.level, ts)
        x, x_0, eps, before = r.normal(size=(4, 5))
        x = t.alpha * x_0 + t.sigma * eps
        answer = AB2_ARC.answer
        now, past = AB2_ARC.weights(b, t, s)
        F_bar = adams(answer.target(x_0, eps, t), before, (now, past)) + AB2_ARC.of_x(t, s) * x
        unit = lambda at: (at.alpha**2 + at.sigma**2) ** 0.5
        h, rate = angle(s) - angle(t), (angle(s) - angle(t)) / (angle(t) - angle(b))
        v = np.cos(angle(t)) * eps - np.sin(angle(t)) * x_0
        v_bar = (1 + rate / 2) * v - rate / 2 * before
        agree(step(*answer.pair(F_bar, x, t), s) / unit(s), x / unit(t) + h * v_bar, bound=1e-9, of="P.27")


def test_clocks_are_the_times_of_the_paths():
    for t in (0.2, 0.7):
        assert abs(share(Straight().level(t)) - t) < 1e-15
        assert noise_over_signal(Exploding().level(3 * t)) == 3 * t
    assert noise_over_signal(Level(0.0, 1.0)) == float("inf") and log_snr(Level(1.0, 0.0)) == float("inf")


def test_a_constant_answer_is_walked_exactly_by_every_solver():
    """Data of one point: u is constant along a trajectory, so one step is exact and more steps change nothing."""
    point = Mixture.of_points(np.array([[0.7, -0.2]]), path=Straight())
    x = np.array([[1.0, 2.0], [-1.0, 0.5]])
    for solver in (EULER, AB2, HEUN):
        for n in (1, 2, 5):
            agree(solved(solver, point.denoise, x, straight_levels(n)), np.tile(point.means, (2, 1)), bound=1e-12)


@spec("P.22")
def test_solvers_of_one_order_are_not_one_solver():
    """AB2 and DPM-Solver++(2M) on one grid: both close to the flow, and not to each other's last digits."""
    law, x = Gaussian(0.3, 0.25, path=Straight()), np.linspace(-2, 2, 5)[:, None]
    levels = exploding_levels(20)
    a, b = (solved(s, law.denoise, 20 * x, levels) for s in (AB2, DPM_2M))
    flow = law.flow(20 * x, levels[0], levels[-1])
    assert 1e-6 < np.abs(a - b).max() < 0.2 and max(np.abs(a - flow).max(), np.abs(b - flow).max()) < 0.2


@spec("P.6")
def test_an_answer_that_changes_with_the_level_is_not_averaged():
    """u, ε and x_0 stay the same where the pair does. v does not: its mean is of order 1, and a solver refuses it."""
    law, x = Gaussian(0.3, 0.25, path=Straight()), np.linspace(-2, 2, 5)[:, None]
    for answer in (U, EPS, X_0):
        error = []
        for n in (30, 60):
            levels = [level(np.cos(theta) ** 2) for theta in np.linspace(1.4, 0.2, n + 1)]
            error.append(np.abs(solved(Solver(answer), law.denoise, x, levels) - law.flow(x, levels[0], levels[-1])).max())
        assert 3.4 < error[0] / error[1] < 4.6, error
    with pytest.raises(ValueError, match=r"only answers .* not 'v'"):
        Solver(V)
    with pytest.raises(ValueError, match="on the arc extrapolates in its angle"):
        Solver(AB2_ARC.answer)
