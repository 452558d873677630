"""Chapter D, the step: DDPM and DDIM are one update, and it walks the marginals."""

import numpy as np
import pytest
from diffusion.draws import LINEAR, ladders, level, pictures, rungs_of_batch, steps, subsets
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.diffusion.ddim import ddim_from_pair, ddim_invert_step, ddim_std, ddim_step
from minidit.diffusion.ddpm import core_formula, ddpm_from_pair, ddpm_step, posterior, q_climb, q_sample, x_0_of_x_s
from minidit.diffusion.prediction import V
from minidit.diffusion.rungs import pairs
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.diffusion.step import add_noise, jump, posterior_coefficients, step
from minidit.diffusion.variance import large, small


@spec("D.7")
def test_one_step_by_hand():
    """From (x̂_0, ε̂) = (1, 2) to ᾱ_s = 0.64 with c = 0.36: 0.8 · 1 + √(0.36 - 0.1296) · 2 + 0.36 · 3."""
    x = step(np.array([[1.0]]), np.array([[2.0]]), level(0.64), c=0.36, z=np.array([[3.0]]))
    agree(x, [[0.8 + 0.48 * 2 + 0.36 * 3]], bound=1e-15, of="D.7")


@spec("D.3")
@given(steps(), pictures(3))
def test_noise_upon_noise_is_noise(ladder, xs):
    """The mean and the noise of x_s, sent up by q(x_t|x_s), are those of q(x_t|x_0)."""
    (sch, t, s), (x_0, eps, z) = ladder, xs
    zero = np.zeros_like(x_0)
    mean = q_climb(q_sample(x_0, s, zero, sch) if s else x_0, s, t, zero, sch)
    agree(mean, q_sample(x_0, t, zero, sch), bound=1e-12, of="D.3")
    from_s = q_climb(q_sample(zero, s, eps, sch) if s else zero, s, t, zero, sch)
    fresh = q_climb(zero, s, t, z, sch)
    slope = lambda x, of: float(np.vdot(x, of) / np.vdot(of, of))
    agree(slope(from_s, eps) ** 2 + slope(fresh, z) ** 2, 1 - sch.alpha_bar[t], bound=1e-12, of="D.3")


@spec("D.7")
@given(st.data(), ladders(), pictures(2))
def test_true_noise_walks_the_marginals_through_any_subsequence(xp, data, sch, xs):
    x_0, eps = map(xp.asarray, xs)
    walk = pairs(data.draw(subsets(sch.T)))
    x = q_sample(x_0, walk[0][0], eps, sch)
    for t, s in walk:
        x = ddim_step(x, eps, t, s, sch)
        agree(x, q_sample(x_0, s, eps, sch) if s else x_0, bound=1e-10, of="D.7")


@spec("D.7")
@given(steps(), pictures(2), st.floats(0, 1))
def test_a_step_with_noise_keeps_the_variance_of_the_rung(ladder, xs, share):
    """(1-ᾱ_s-c²) + c² = 1-ᾱ_s: the weights of ε̂ and z, squared, add up to what the rung holds."""
    (sch, _, s), (eps, z) = ladder, xs
    at, zero = sch.level(s), np.zeros_like(eps)
    c = share**0.5 * at.sigma
    direction, fresh = step(zero, eps, at, c=c) / eps, step(zero, zero, at, c=c, z=z) / z
    agree(direction**2 + fresh**2, np.full(eps.shape, at.sigma**2), bound=1e-12, of="D.7")


@spec("D.6", "D.7", "D.8")
@given(steps(), pictures(3))
def test_ddim_at_eta_one_is_the_ddpm_posterior(xp, ladder, xs):
    (sch, t, s), (x_t, eps_hat, z) = ladder, map(xp.asarray, xs)
    x_s = ddim_step(x_t, eps_hat, t, s, sch, eta=1.0, z=z)
    agree(x_s, ddpm_step(x_t, eps_hat, t, s, sch, z=z), bound=1e-10, of=("D.6", "D.7"))
    agree(ddim_std(t, s, sch, 1.0) ** 2, small(t, s, sch), bound=1e-15, of="D.6")


@spec("D.7", "D.8", "D.9")
@given(steps(), pictures(3))
def test_the_core_formula_is_the_posterior_is_the_step(xp, ladder, xs):
    (sch, t, s), (x_0, eps, z) = ladder, map(xp.asarray, xs)
    x_t = q_sample(x_0, t, eps, sch)
    mean, var = posterior(x_t, x_0, t, s, sch)
    by_step = step(x_0, eps, sch.level(s), c=var**0.5, z=z)
    by_formula = core_formula(x_t, eps, t, s, sch, sigma=var**0.5, z=z)
    agree(by_step, mean + var**0.5 * z, bound=1e-10, of=("D.7", "D.8"))
    agree(by_formula, by_step, bound=1e-10, of="D.9")
    agree(ddpm_step(x_t, eps, t, s, sch, z=z), by_formula, bound=1e-10, of="D.9")


@spec("D.9")
def test_the_core_formula_by_hand():
    """β = (0.2, 0.55): α = 0.45, ᾱ_2 = 0.36. (1 - 0.55/0.8 · 0.4)/√0.45."""
    sch = Schedule.from_betas([0.2, 0.55])
    one = np.ones((1, 1))
    agree(core_formula(one, 0.4 * one, 2, 1, sch, sigma=0.1, z=3 * one), [[(1 - 0.275) / 0.45**0.5 + 0.3]], bound=1e-15, of="D.9")


@spec("D.8")
@given(steps())
def test_the_posterior_is_consistent_with_the_forward_process(ladder):
    """E over x_t returns √ᾱ_s x_0, and the variances add up to that of rung s."""
    sch, t, s = ladder
    a_t, a_s = sch.alpha_bar[t], sch.alpha_bar[s]
    c_1, c_2, var = posterior_coefficients(a_t, a_s)
    agree(c_1 + c_2 * a_t**0.5, a_s**0.5, bound=1e-12, of="D.8")
    agree(c_2**2 * (1 - a_t) + var, 1 - a_s, bound=1e-12, of="D.8")


@spec("D.8")
@given(steps())
def test_the_posterior_is_bayes_rule_in_precisions(ladder):
    """1/β̃ = α/β + 1/(1-ᾱ_s): the two things known about x_s."""
    sch, t, s = ladder
    beta = jump(sch.alpha_bar[t], sch.alpha_bar[s])
    _, _, var = posterior_coefficients(sch.alpha_bar[t], sch.alpha_bar[s])
    if s == 0:
        assert var == 0
    else:
        agree(var * ((1 - beta) / beta + 1 / (1 - sch.alpha_bar[s])), 1.0, bound=1e-10, of="D.8")


@spec("D.7", "D.8", "D.17")
@given(ladders(), pictures(3))
def test_the_last_step_returns_the_guess_exactly_and_adds_no_noise(sch, xs):
    x_0_hat, eps_hat, z = xs
    for t in (1, sch.T):
        assert posterior_coefficients(sch.alpha_bar[t], 1.0) == pytest.approx((1, 0, 0), abs=1e-12)
        assert np.array_equal(ddim_from_pair(x_0_hat, eps_hat, t, 0, sch), x_0_hat)
        for variance in (None, large(t, 0, sch, above=t + 1) if t < sch.T else 0.3, 5.0, np.exp(z)):
            assert np.array_equal(ddpm_from_pair(x_0_hat, eps_hat, t, 0, sch, z=z, variance=variance), x_0_hat)
        assert np.array_equal(ddpm_from_pair(x_0_hat, eps_hat, t, 0, sch, z=None), x_0_hat)


@spec("D.17")
@given(steps(min_s=1), pictures(4))
def test_another_variance_changes_the_noise_and_not_the_mean(ladder, xs):
    (sch, t, s), (x_t, eps_hat, z, logvar) = ladder, xs
    mean = ddpm_step(x_t, eps_hat, t, s, sch, z=np.zeros_like(z))
    for variance in (small(t, s, sch), large(t, s, sch), np.exp(logvar)):
        x_s = ddpm_step(x_t, eps_hat, t, s, sch, z=z, variance=variance)
        agree(x_s, mean + variance**0.5 * z, bound=1e-12, of="D.17")


@spec("D.17")
@given(pictures(2))
def test_only_the_samples_still_moving_get_noise(xp, xs):
    mean, z = map(xp.asarray, xs)
    moved = add_noise(mean, 0.25, z, xp.asarray([0, 3]))
    agree(moved[0], mean[0], bound=0, of="D.17")
    agree(moved[1], mean[1] + 0.5 * z[1], bound=1e-15, of="D.17")


@spec("D.7", "D.8", "D.17", "D.23")
@given(st.data(), ladders(min_T=3), pictures(3))
def test_a_rung_for_each_sample_is_the_same_as_one_at_a_time(xp, data, sch, xs):
    x, eps, z = map(xp.asarray, xs)
    t = data.draw(rungs_of_batch(sch, low=2))
    s = np.array([data.draw(st.integers(1, int(r) - 1)) for r in t])
    for law in (
        lambda x, e, z, t, s: ddpm_step(x, e, t, s, sch, z=z),
        lambda x, e, z, t, s: ddpm_step(x, e, t, s, sch, z=z, variance=large(t, s, sch)),
        lambda x, e, z, t, s: ddim_step(x, e, t, s, sch, eta=0.7, z=z),
        lambda x, e, z, t, s: ddim_invert_step(x, e, s, t, sch),
        lambda x, e, z, t, s: posterior(x, e, t, s, sch)[0],
        lambda x, e, z, t, s: q_climb(x, s, t, z, sch),
        lambda x, e, z, t, s: core_formula(x, e, t, s, sch, sigma=0.1, z=z),
    ):
        one = [host(law(x[i : i + 1], eps[i : i + 1], z[i : i + 1], int(t[i]), int(s[i]))) for i in range(2)]
        agree(law(x, eps, z, xp.asarray(t), xp.asarray(s)), np.concatenate(one), bound=1e-12, of=("D.7", "D.8"))


@given(st.data(), ladders(min_T=3), pictures(3))
def test_float32_with_a_rung_for_each_sample_loses_only_its_own_digits(data, sch, xs):
    """Coefficients meet in float64 and are rounded once, where 1 - ᾱ_s - c² in float32 would have lost four digits."""
    t = data.draw(rungs_of_batch(sch, low=2))
    x_0_hat, eps_hat, z = (x.astype(np.float32) for x in xs)
    for law in (ddpm_from_pair, lambda *pair, z: ddim_from_pair(*pair, eta=1.0, z=z)):
        x_s = law(x_0_hat, eps_hat, t, t - 1, sch, z=z)
        assert x_s.dtype == np.float32
        agree(x_s, law(*xs[:2], t, t - 1, sch, z=xs[2]), bound=1e-6)


@spec("D.23")
@given(steps(), pictures(2))
def test_inversion_with_the_true_noise_undoes_a_step_down(ladder, xs):
    (sch, t, s), (x_0, eps) = ladder, xs
    x_t = q_sample(x_0, t, eps, sch)
    x_s = ddim_step(x_t, eps, t, s, sch)
    agree(ddim_invert_step(x_s, eps, s, t, sch), x_t, bound=1e-10, of="D.23")


@spec("D.7", "D.16")
@settings(max_examples=3)
@given(pictures(3))
def test_a_v_network_starts_from_pure_noise(xs):
    sch = zero_terminal_snr(Schedule.scaled_linear(50))
    x_T, v, z = xs
    pair = V.pair(v, x_T, sch.level(sch.T))
    a = sch.alpha_bar[40]
    agree(ddim_from_pair(*pair, 50, 40, sch), -(a**0.5) * v + (1 - a) ** 0.5 * x_T, bound=1e-10, of="D.7")
    for s in range(1, 50):  # all the noise of rung s is fresh: nothing is left for ε̂, on either side of rounding
        for x in (ddim_from_pair(*pair, 50, s, sch, eta=1.0, z=z), ddpm_from_pair(*pair, 50, s, sch, z=z)):
            agree(x, -(sch.alpha_bar[s] ** 0.5) * v + (1 - sch.alpha_bar[s]) ** 0.5 * z, bound=1e-7)


@pytest.mark.parametrize("t, s", [(3, 3), (3, 4), (1001, 0), (5, -1), (0, 0)])
def test_steps_that_do_not_go_down_the_ladder_are_refused(t, s):
    x = np.zeros((1, 2))
    for law in (
        lambda: ddpm_step(x, x, t, s, LINEAR, z=x),
        lambda: ddim_step(x, x, t, s, LINEAR),
        lambda: posterior(x, x, t, s, LINEAR),
    ):
        with pytest.raises(ValueError, match=f"t = {t}, s = {s}"):
            law()


def test_missing_noise_and_too_much_noise_are_refused():
    x = np.zeros((1, 2))
    with pytest.raises(ValueError, match="shapes"):
        ddpm_step(x, x, 3, 2, LINEAR, z=None)
    with pytest.raises(ValueError, match="shapes"):
        ddim_step(x, x, 3, 2, LINEAR, eta=0.5)
    with pytest.raises(ValueError, match="η = 3"):
        ddim_step(x, x, 3, 2, LINEAR, eta=3.0, z=x)
    with pytest.raises(ValueError, match="shapes"):
        ddim_step(x, np.zeros((1, 3)), 3, 2, LINEAR)


@spec("D.49", "D.7", "D.23")
@given(steps(min_s=1), pictures(2))
def test_a_ddim_step_is_eulers_method_in_the_noise_over_the_signal(xp, ladder, xs):
    (sch, t, s), (x, eps) = ladder, map(xp.asarray, xs)
    signal, n = sch.alpha_bar**0.5, ((1 - sch.alpha_bar) / sch.alpha_bar) ** 0.5
    for law, a, b in ((ddim_step, t, s), (ddim_invert_step, s, t)):
        y = x / signal[a] + (n[b] - n[a]) * eps
        agree(law(x, eps, a, b, sch), host(y) * signal[b], bound=1e-10, of="D.49")


@spec("D.50", "D.8")
@given(steps(), pictures(2))
def test_the_next_picture_and_the_clean_one_say_the_same(xp, ladder, xs):
    (sch, t, s), (x_0, x_t) = ladder, map(xp.asarray, xs)
    x_s, _ = posterior(x_t, x_0, t, s, sch)
    back = x_0_of_x_s(x_s, x_t, t, s, sch)
    size = 1 / posterior_coefficients(float(sch.alpha_bar[t]), float(sch.alpha_bar[s]))[0]  # what division loses
    agree(host(back) / size, xs[0] / size, bound=1e-13, of="D.50")
    batch = x_0_of_x_s(x_s, x_t, xp.full(2, t), xp.full(2, s), sch)
    agree(batch, back, bound=1e-12)
    if s == 0:
        agree(back, x_s, bound=0, of="D.50")
