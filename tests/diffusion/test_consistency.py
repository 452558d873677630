"""Chapter S: the boundary, several steps, pseudo-Huber, curricula, the index law, and what is exact for Gaussian data."""

import itertools
import math

import numpy as np
import pytest
from diffusion.draws import pictures
from finite import check_slope
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import Tensor
from minidit.diffusion import consistency as c
from minidit.diffusion.exact import Gaussian
from minidit.diffusion.fresh import EVERYTHING
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding
from minidit.diffusion.prediction import EPS, X_0, edm
from minidit.diffusion.row import table_of, walk_step
from minidit.diffusion.solver import HEUN_EDM, heun
from minidit.diffusion.step import step
from minidit.diffusion.times import down, karras

END = 0.002


# ------------------------------------------------------------------------------------------------ the boundary


@spec("S.1")
@given(pictures(2), st.sampled_from([0.002, 0.01, 1e-4]), st.sampled_from(["float32", "float64"]))
def test_at_the_end_the_function_is_the_identity_to_the_bit(xp, xs, end, dtype):
    x, F = (xp.asarray(a.astype(dtype)) for a in xs)
    for t in (end, xp.full(len(x), end)):
        f = c.end_of(1e6 * F, x, t, end)
        assert f.dtype == dtype and np.array_equal(host(f), host(x))


@spec("S.1")
@given(pictures(2), st.floats(0.01, 80), st.floats(0.1, 2))
def test_with_the_end_at_zero_it_is_edms_preconditioning(xs, t, d):
    F, x = xs
    agree(c.end_of(F, x, t, 0.0, d), edm(d).pair(F, x, Level(1.0, t))[0], bound=1e-11, of="S.1")


@spec("S.1")
@given(pictures(2, (2, 3)), st.lists(st.floats(0.01, 80), min_size=2, max_size=2))
def test_one_time_per_sample_is_one_at_a_time(xp, xs, t):
    F, x = map(xp.asarray, xs)
    both = c.end_of(F, x, xp.asarray(t))
    for i in range(2):
        agree(host(both)[i : i + 1], host(c.end_of(F[i : i + 1], x[i : i + 1], t[i])), bound=1e-13, of="S.1")


@spec("S.1")
def test_under_the_root_stands_the_time_itself():
    """By hand for t = 0.5, ε = 0.3, σ_d = 0.4: c_skip = .16/.2 and c_out = .08/√.41."""
    skip, out = c.scalings(0.5, 0.3, 0.4)
    agree([skip, out], [0.8, 0.08 / 0.41**0.5], bound=1e-15, of="S.1")


# ------------------------------------------------------------------------------------------------ several steps


@spec("S.2", "P.4", "P.3")
@given(pictures(3), st.floats(0.5, 80), st.floats(0.01, 0.4))
def test_a_step_of_a_consistency_model_is_a_row_of_the_walk_with_all_noise_fresh(xs, t, s):
    """x_s = f(x_t, t) + √(s²-ε²) z, as the paper has it."""
    (x_t, F, z), path = xs, Exploding(0.5, end=END)
    f = c.end_of(F, x_t, t)
    agree(c.consistency().pair(F, x_t, path.level(t))[0], f, bound=1e-11, of=("S.2", "P.3"))
    want = f + (s**2 - END**2) ** 0.5 * z
    x_s, guess = walk_step(x_t, F, table_of(c.consistency(), path, [(t, s)], EVERYTHING), 0, z=z)
    agree(guess, f, bound=1e-11, of="S.2")
    agree(x_s, want, bound=1e-11, of=("S.2", "P.4"))
    agree(step(f, F, path.level(s), c=path.level(s).sigma, z=z), want, bound=1e-12, of="S.2")


@spec("S.2")
@given(pictures(3), st.floats(0.5, 80))
def test_the_last_step_ends_at_the_sample_itself_without_noise(xs, t):
    (x_t, F, z), path = xs, Exploding(0.5, end=END)
    table = table_of(c.consistency(), path, [(t, END)], EVERYTHING)
    agree(walk_step(x_t, F, table, 0, z=z)[0], c.end_of(F, x_t, t), bound=1e-11, of="S.2")


@spec("S.2", "G.1")
def test_fresh_noise_keeps_the_law_of_the_data_but_not_that_of_guided_ends():
    """Perfect f of a Gaussian class within Gaussian data, by a fine walk: more steps change nothing, unless f is guided."""
    whole, part = Gaussian(0.0, 1.0, path=Exploding()), Gaussian(0.5, 0.25, path=Exploding())
    rng = np.random.default_rng(0)

    def end(x, t, w):
        for a, b in down([*karras(60, END, t), 0.0]):
            at = Level(1.0, a)
            x_0 = guide(whole.denoise(x, at), part.denoise(x, at), w)
            x = step(x_0, (x - x_0) / a, Level(1.0, b))
        return x

    def mean_after(times, w):
        z = rng.normal(size=(20_000, 1))
        x = end(20.0 * z, 20.0, w)
        for t in times:
            x = end(x + t * rng.normal(size=x.shape), t, w)
        return x.mean(), x.std()

    one, three = mean_after([], 1.0), mean_after([2.0, 0.5], 1.0)
    agree(three, one, bound=0.03, of="S.2")
    agree(one, (0.5, 0.5), bound=0.03, of="S.2")
    guided = [mean_after(times, 3.0)[0] for times in ([], [2.0], [2.0, 0.5])]
    assert guided[0] > 0.72 and guided[1] < guided[0] - 0.015 and guided[2] < guided[1] - 0.015, guided


# ------------------------------------------------------------------------------------------------ pseudo-Huber


@spec("S.3")
@given(pictures(2), st.floats(0.01, 3))
def test_it_is_of_the_whole_samples_norm(xs, const):
    x, y = xs
    norm = ((x - y) ** 2).sum(axis=(1, 2, 3)) ** 0.5
    agree(c.pseudo_huber(x, y, const), (norm**2 + const**2) ** 0.5 - const, bound=1e-12, of="S.3")
    agree(c.pseudo_huber(x, y), c.pseudo_huber(x, y, 0.00054 * 48**0.5), bound=1e-13, of="S.3")


@spec("S.3")
@given(pictures(1, (2, 3, 4)))
def test_small_errors_count_as_squares_and_large_ones_as_norms(xs):
    e, y = xs[0], np.zeros((2, 3, 4))
    norm = ((e**2).sum(axis=(1, 2))) ** 0.5
    agree(c.pseudo_huber(1e-3 * e, y, 1.0) / (1e-6 * norm**2 / 2), np.ones(2), bound=1e-4, of="S.3")
    agree(c.pseudo_huber(1e6 * e, y, 1.0) - (1e6 * norm - 1), np.zeros(2), bound=1e-5, of="S.3")
    assert np.array_equal(c.pseudo_huber(y, y), np.zeros(2))


@spec("S.3")
@given(pictures(2, (2, 3)), st.floats(0.01, 2))
def test_its_gradient_is_shorter_than_one(xs, const):
    x, y = xs
    leaf = Tensor(x)
    c.pseudo_huber(leaf, y, const).sum().backward()
    assert np.all((leaf.grad**2).sum(axis=1) < 1)
    check_slope(np.sum(leaf.grad * y), lambda s: c.pseudo_huber(x + s * y, y, const).sum(), bound=1e-5)


# ------------------------------------------------------------------------------------------------ curricula


@spec("S.4")
@given(st.integers(2, 10), st.integers(20, 300), st.integers(1, 1000))
def test_the_levels_of_consistency_training_rise_from_s0_to_s1_plus_one(s_0, s_1, K):
    N = [c.levels_at(k, K, s_0, s_1) for k in range(K + 1)]
    assert N[0] == s_0 and N[-1] == s_1 + 1 and all(a <= b for a, b in itertools.pairwise(N))


@spec("S.4")
def test_the_targets_decay_starts_at_its_printed_value():
    agree(c.target_decay(0, 800_000), 0.9, bound=1e-15, of="S.4")
    agree(math.exp(2 * math.log(0.9) / (c.levels_at(0, 800_000) - 1)), 0.81, bound=1e-15)  # with N - 1, as published
    mu = [c.target_decay(k, 1000) for k in range(0, 1001, 50)]
    assert all(a <= b < 1 for a, b in itertools.pairwise(mu))
    agree(mu[-1], 0.9 ** (2 / 151), bound=1e-15, of="S.4")


@spec("S.5")
def test_the_levels_of_ict_double_eight_times():
    N = [c.doubled_levels_at(k, 400_000) for k in range(0, 400_000, 50_000)]
    assert N == [11, 21, 41, 81, 161, 321, 641, 1281] and c.doubled_levels_at(400_000, 400_000) == 1281
    assert [c.doubled_levels_at(k, 3, 10, 160) for k in range(3)] == [11, 21, 41]  # fewer updates than stages


@spec("S.6", "P.19")
@given(st.integers(3, 200), st.floats(-2, 1), st.floats(0.5, 3))
def test_the_index_law_has_its_masses_and_they_add_up_to_one(xp, N, mean, std):
    t = c.rising_grid(N)
    p = c.index_masses(t, mean, std)
    assert t[0] == 0.002 and t[-1] == 80.0 and np.all(np.diff(t) > 0) and np.all(p >= 0)
    agree(p.sum(), 1.0, bound=1e-14, of="S.6")
    u = (np.arange(50_000) + 0.5) / 50_000
    i = c.index_law(t, mean, std)(u)
    assert i.dtype == np.int64 and i.min() >= 0 and i.max() <= N - 2
    agree(np.bincount(i, minlength=N - 1) / 50_000, p, bound=3e-5, of="S.6")
    assert np.array_equal(host(c.index_law(t, mean, std)(xp.asarray(u[::500]))), i[::500])


@spec("S.6")
def test_an_interval_owns_its_lower_edge():
    """Three times that are even in the logarithm: two masses of one half, and u = ½ belongs to the upper interval."""
    law = c.index_law(np.array([0.5, 1.0, 2.0]), 0.0, 1.0)
    assert law(np.array([0.25, np.nextafter(0.5, 0), 0.5, 0.75])).tolist() == [0, 0, 1, 1]


@spec("S.6")
def test_with_the_papers_mean_the_top_of_a_short_grid_is_starved():
    p = c.index_masses(c.rising_grid(11))
    agree(p[-2:].sum(), 0.013, bound=1e-3, of="S.6")
    assert c.index_masses(c.rising_grid(11), mean=1.1)[-2:].sum() > 7 * p[-2:].sum()
    assert c.index_law(c.rising_grid(11))(np.array([2.0**-33, 1 - 2.0**-33])).tolist() == [0, 9]


# ------------------------------------------------------------------------------------------------ Gaussian data


@spec("S.7", "D.40")
@given(st.floats(-1, 1), st.floats(0.1, 2), st.floats(0.05, 80), st.floats(0, 1), pictures(1, (4, 1)))
def test_the_same_end_is_reached_from_every_point_of_a_trajectory(m, s, t, share, xs):
    """f*(x, t) = m + (x-m) √((s²+ε²)/(s²+t²)); following the flow first changes nothing; at ε it is x."""
    x, law = xs[0] * t, Gaussian(m, s**2, path=Exploding())
    f = c.gaussian_end(x, t, m, s**2)
    agree(f, m + (x - m) * ((s**2 + END**2) / (s**2 + t**2)) ** 0.5, bound=1e-12, of="S.7")
    middle = END + share * (t - END)
    agree(c.gaussian_end(law.flow(x, Level(1.0, t), Level(1.0, middle)), middle, m, s**2), f, bound=1e-11, of=("S.7", "D.40"))
    agree(c.gaussian_end(x, END, m, s**2), x, bound=1e-14, of="S.7")


@spec("S.7", "S.1")
@given(st.floats(0.01, 80))
def test_the_network_of_the_perfect_function_is_linear_and_stays_finite(t):
    """Data N(0, σ_d²): F* = slope c_in x. It is almost 0 near ε and almost 1 at much noise."""
    skip, out = c.scalings(t)
    slope = (c.gaussian_end(np.ones(1), t, 0.0, 0.25)[0] - skip) / out * (t**2 + 0.25) ** 0.5
    assert -0.0041 < slope < 1
    if t > 70:
        assert slope > 0.98


@spec("S.7")
def test_one_euler_step_ends_at_the_mean_and_the_consistency_function_at_the_data():
    """The closed-form headline: standard deviations 0.0031 and 0.5000, from noise of 80."""
    x = np.array([[-1.0], [1.0]]) * (80**2 + 0.25) ** 0.5
    law = Gaussian(0.0, 0.25, path=Exploding())
    euler = step(*X_0.pair(law.denoise(x, Level(1.0, 80.0)), x, Level(1.0, 80.0)), Level(1.0, 0.0))
    agree(np.abs(euler[:, 0]), np.full(2, 0.0031), bound=5e-5, of="S.7")
    agree(np.abs(c.gaussian_end(x, 80.0, 0.0, 0.25)[:, 0]), np.full(2, 0.5), bound=1e-5, of="S.7")


@spec("S.7", "P.4", "P.6")
@pytest.mark.parametrize("solver, order", [("euler", 2), (HEUN_EDM, 3)], ids=["Euler", "Heun"])
def test_the_defect_of_one_solvers_step_has_the_order_of_its_local_error(solver, order):
    """f*(solver's x_s, s) against f*(x_t, t), where t = s + h."""
    law, x, s, defects = Gaussian(0.0, 0.25, path=Exploding()), np.array([[1.3]]), 1.0, []
    for h in (0.4, 0.2, 0.1, 0.05):
        t, below = Level(1.0, s + h), Level(1.0, s)
        eps = X_0.pair(law.denoise(x, t), x, t)[1]
        y = step(*EPS.pair(eps, x, t), below)
        if solver is HEUN_EDM:
            y = step(*EPS.pair(heun(eps, X_0.pair(law.denoise(y, below), y, below)[1]), x, t), below)
        gap = c.gaussian_end(y, s, 0.0, 0.25) - c.gaussian_end(x, s + h, 0.0, 0.25)
        defects.append(abs(float(gap[0, 0])))
    ratios = np.log2(np.array(defects[:-1]) / defects[1:])
    assert abs(ratios[-1] - order) < 0.25, (defects, ratios)


@spec("S.7", "D.38")
@given(st.floats(0.05, 20), st.floats(-1, 1), st.floats(0.1, 2), st.floats(-3, 3))
def test_training_without_a_teacher_takes_the_teachers_step_on_average(t, m, s, place):
    """E[(x_t - x_0)/t | x_t] = (x_t - D)/t: the noise of the datum is the slope of the flow, in the mean, by quadrature."""
    x = m + place * (s**2 + t**2) ** 0.5
    u, w = np.polynomial.hermite_e.hermegauss(20)
    variance = s**2 * t**2 / (s**2 + t**2)
    D = float(Gaussian(m, s**2, path=Exploding()).denoise(np.array([[x]]), Level(1.0, t))[0, 0])
    mean = float(np.sum(w * (x - (D + variance**0.5 * u)) / t) / np.sum(w))
    agree(mean, (x - D) / t, bound=1e-11, of="S.7")
