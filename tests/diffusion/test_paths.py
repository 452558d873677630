"""Chapter P: one level, five answers, one step; the ladder's laws are its rows."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from diffusion.draws import ladders, level, pictures, steps
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.diffusion import loss, variance
from minidit.diffusion.ddim import ddim_step
from minidit.diffusion.ddpm import ddpm_step
from minidit.diffusion.fresh import DDPM, DDPM_LARGE, DDPM_LEARNED, EVERYTHING, Fresh, ddim, posterior_std
from minidit.diffusion.level import Level, climb, climb_coefficients, mix, posterior_variance
from minidit.diffusion.prediction import EPS, X_0, Prediction, U, V, edm
from minidit.diffusion.row import row_at, table_of, walk_step
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.step import posterior_coefficients, step
from minidit.diffusion.threshold import static

ANSWERS = [EPS, X_0, V, U, edm(0.5)]


@st.composite
def levels(draw, n=1):
    """n levels with falling noise (log SNR at least 0.2 apart), anywhere, not only where α² + σ² = 1."""
    alphas = [draw(st.floats(0.05, 2)) for _ in range(n)]
    snrs = sorted(k / 10 for k in draw(st.sets(st.integers(-40, 40), min_size=n, max_size=n)))
    return [Level(a, a * float(np.exp(-snr))) for a, snr in zip(alphas, snrs, strict=True)]


@spec("P.1")
def test_one_sample_by_hand():
    """α = 3, σ = 4: 3 · 2 - 4 · 0.5."""
    agree(mix(np.array([[2.0]]), np.array([[-0.5]]), Level(3.0, 4.0)), [[4.0]], bound=0, of="P.1")


@spec("P.1")
@given(st.data(), ladders())
def test_the_level_of_a_rung_has_the_variance_one_and_the_ladders_signal(xp, data, sch):
    t = data.draw(st.integers(0, sch.T))
    at, one = sch.level(xp.asarray([t, 0])), sch.level(t)
    agree(host(at.alpha), [one.alpha, 1.0], bound=1e-15, of="P.1")
    agree(host(at.sigma), [one.sigma, 0.0], bound=1e-15, of="P.1")
    agree(one.alpha**2 + one.sigma**2, 1.0, bound=1e-14, of="P.1")
    assert sch.levels.alpha is sch.levels.alpha and not sch.levels.alpha.flags.writeable  # made once, copied to a device once


@spec("P.1", "P.2", "P.3")
@given(levels(), pictures(2))
def test_every_answer_leads_back_to_the_true_pair_on_every_level(xs_level, xs):
    (at,), (x_0, eps) = xs_level, xs
    x_t, scale = mix(x_0, eps, at), 1 + at.alpha / at.sigma + at.sigma / at.alpha
    for answer in ANSWERS:
        x_0_hat, eps_hat = answer.pair(answer.target(x_0, eps, at), x_t, at)
        agree(x_0_hat / scale, x_0 / scale, bound=1e-13, of="P.3")
        agree(eps_hat / scale, eps / scale, bound=1e-13, of="P.3")


@spec("P.2")
@given(levels(), pictures(2))
def test_edms_row_is_its_preconditioning(xs_level, xs):
    """D = c_skip x + c_out F with α = 1, as the paper writes it: the network's target is (x_0 - c_skip x)/c_out."""
    sigma, (x_0, eps), d = xs_level[0].sigma, xs, 0.5
    x = x_0 + sigma * eps
    c_skip, c_out = d**2 / (sigma**2 + d**2), sigma * d / (sigma**2 + d**2) ** 0.5
    scale = 1 + 1 / sigma
    agree(edm(d).target(x_0, eps, Level(1.0, sigma)) / scale, (x_0 - c_skip * x) / c_out / scale, bound=1e-12, of="P.2")


@spec("P.2", "P.3")
@pytest.mark.parametrize("answer", [EPS, X_0])
def test_an_answer_that_is_one_part_of_the_pair_is_that_part_to_the_bit(answer):
    F, x_t = np.float32([[0.1, -7.3]]), np.float32([[2.2, 0.4]])
    assert answer.pair(F, x_t, level(0.3))[0 if answer is X_0 else 1] is F
    assert answer.target(F, F, level(0.3)) is F


@spec("P.3")
@given(st.data(), pictures(2), levels(2))
def test_one_level_per_sample_is_the_same_as_one_at_a_time(xp, data, xs, two):
    answer = data.draw(st.sampled_from(ANSWERS))
    both = Level(*(xp.asarray([float(c) for c in pair]) for pair in zip(*two, strict=True)))
    x_0, eps = xs
    out = answer.pair(xp.asarray(eps), xp.asarray(x_0), both)
    for i, at in enumerate(two):
        alone = answer.pair(eps[i : i + 1], x_0[i : i + 1], at)
        for a, b in zip(out, alone, strict=True):
            agree(host(a)[i : i + 1], b, bound=1e-13, of="P.3")


@spec("P.8")
@given(levels(), pictures(3))
def test_the_gain_relates_the_error_of_an_answer_to_that_of_the_clean_guess(xs_level, xs):
    (at,), (F, wrong, x_t) = xs_level, xs
    for answer in ANSWERS:
        error = answer.pair(F, x_t, at)[0] - answer.pair(wrong, x_t, at)[0]
        agree(np.sum((F - wrong) ** 2) / np.sum(error**2) / answer.gain(at), 1.0, bound=1e-9, of="P.8")


@spec("P.8", "D.35")
@given(levels(), st.floats(0.1, 100))
def test_min_snr_is_one_weight_for_every_answer_on_every_level(xs_level, gamma):
    (at,) = xs_level
    for answer in ANSWERS:
        least = min((at.alpha / at.sigma) ** 2, gamma)
        agree(loss.min_snr(answer, at, gamma) * answer.gain(at) / least, 1.0, bound=1e-10, of="D.35")


@spec("P.2")
@given(pictures(2), levels())
def test_u_is_the_noise_minus_the_picture_and_any_row_is_an_answer(xs, xs_level):
    (x_0, eps), (at,) = xs, xs_level
    agree(U.target(x_0, eps, at), eps - x_0, bound=0, of="P.2")
    twice = Prediction("2 ε", lambda at: 0.0, lambda at: 2.0)
    agree(twice.target(x_0, eps, at), 2 * eps, bound=0, of="P.2")
    agree(twice.pair(2 * eps, mix(x_0, eps, at), at)[1], eps, bound=1e-12, of="P.3")


@spec("P.4")
@given(levels(2), pictures(3), st.floats(0, 1))
def test_the_true_pair_steps_to_the_marginal_of_the_next_level(two, xs, share):
    """ε and z are independent: the squares of their weights add up to σ_s², and what is left is α_s x_0."""
    _, s = two
    x_0, eps, z = xs
    zero, c = np.zeros_like(x_0), share * s.sigma
    agree(step(x_0, zero, s, c=c, z=zero), s.alpha * x_0, bound=1e-14, of="P.4")
    weights = step(zero, eps, s, c=c) / eps, step(zero, zero, s, c=c, z=z) / z
    agree(weights[0] ** 2 + weights[1] ** 2, np.full(eps.shape, s.sigma**2), bound=1e-13, of="P.4")


@spec("P.4", "P.5")
@given(levels(2), pictures(3))
def test_the_posteriors_noise_makes_the_step_bayes_rule(two, xs):
    """q(x_s | x_t, x_0) has the precision 1/σ_s² + (α_t/α_s)²/(variance of the climb), and its own mean."""
    t, s = two
    x_0, eps, _ = xs
    signal, added = climb_coefficients(s, t)
    precision = 1 / s.sigma**2 + signal**2 / added
    agree(posterior_variance(t, s) * precision, 1.0, bound=1e-9, of="P.5")
    x_t = mix(x_0, eps, t)
    mean = (s.alpha * x_0 / s.sigma**2 + signal * x_t / added) / precision
    agree(step(x_0, eps, s, c=posterior_variance(t, s) ** 0.5), mean, bound=1e-8, of=("P.4", "P.5"))


@spec("P.7")
@given(levels(3), pictures(2))
def test_climbs_compose_and_lead_to_the_marginal(three, xs):
    t, r, s = three
    x, zero = xs[0], np.zeros_like(xs[0])
    agree(climb(climb(x, s, r, zero), r, t, zero), climb(x, s, t, zero), bound=1e-12, of="P.7")
    (a, v), (b, w), (c, u) = climb_coefficients(s, r), climb_coefficients(r, t), climb_coefficients(s, t)
    agree([a * b / c, (b**2 * v + w) / u], [1.0, 1.0], bound=1e-9, of="P.7")
    agree((c * s.sigma) ** 2 + u, t.sigma**2, bound=1e-12, of="P.7")


@spec("P.5", "D.6", "D.18", "D.19")
@given(steps(), st.floats(0, 1))
def test_on_the_ladder_the_noise_is_that_of_ddim_and_ddpm(ladder, eta):
    sch, t, s = ladder
    a, b = sch.level(t), sch.level(s)
    small = posterior_coefficients(float(sch.alpha_bar[t]), float(sch.alpha_bar[s]))[2]
    agree(ddim(eta).c(a, b) ** 2, eta**2 * small, bound=1e-12, of="D.6")
    agree(DDPM.c(a, b) ** 2, small, bound=1e-12, of="D.18")
    agree(DDPM_LARGE.std(a, b) ** 2, variance.beta(t, s, sch), bound=1e-12, of="D.19")
    assert EVERYTHING.c(a, b) == b.sigma and not ddim().noisy


def test_noise_that_a_level_does_not_hold_is_refused():
    sch = Schedule.linear(1000)
    with pytest.raises(ValueError, match=r"variance 0.0483, .* 0.029: choose a smaller η"):
        table_of(EPS, sch, [(100, 50)], ddim(1.5))
    with pytest.raises(ValueError, match="must not be negative"):
        ddim(-0.1)


def test_the_noise_of_a_step_cannot_be_changed_and_is_learned_only_where_it_says_so():
    assert Fresh(posterior_std) == DDPM and not DDPM.learned and DDPM.noisy and DDPM_LEARNED.learned
    with pytest.raises(FrozenInstanceError):
        DDPM.noisy = False


def test_a_table_is_read_only_and_holds_logarithms_where_a_variance_is_learned():
    table, learned = (table_of(EPS, ladder_of_three(), [(3, 2), (2, 0)], fresh) for fresh in (DDPM, DDPM_LEARNED))
    assert not table.flags.writeable and (table[:, -2:] == 0).all()
    assert (learned[0, -2:] < 0).all() and (learned[1, -2:] == 0).all() and learned[1, 9] == 0


def ladder_of_three():
    return Schedule.from_betas([0.02, 0.3, 0.6])


# ------------------------------------------------------------------------------------------------ rows


@spec("P.3", "P.4")
@given(st.data(), steps(), pictures(3))
def test_a_row_of_a_walk_is_ddim_and_ddpm(xp, data, ladder, xs):
    (sch, t, s), (x_t, eps_hat, z) = ladder, map(xp.asarray, xs)
    k = data.draw(st.sampled_from([0, xp.zeros((1,), np.int64)]))
    for fresh, door in (
        (ddim(), ddim_step(x_t, eps_hat, t, s, sch)),
        (ddim(0.5), ddim_step(x_t, eps_hat, t, s, sch, eta=0.5, z=z)),
        (DDPM, ddpm_step(x_t, eps_hat, t, s, sch, z=z)),
        (DDPM_LARGE, ddpm_step(x_t, eps_hat, t, s, sch, z=z, variance=variance.large(t, s, sch))),
    ):
        x_s, _ = walk_step(x_t, eps_hat, table_of(EPS, sch, [(t, s)], fresh), k, z=z if fresh.noisy else None)
        agree(x_s, door, bound=1e-10, of=("P.4", "D.7"))


@spec("D.22", "D.17")
@given(steps(), pictures(3))
def test_a_learned_variance_is_read_between_the_two_laws(ladder, xs):
    (sch, t, s), (x_t, v, z) = ladder, xs
    table = table_of(EPS, sch, [(t, s)], DDPM_LEARNED)
    noise = walk_step(x_t, x_t, table, 0, z=z, v=v)[0] - walk_step(x_t, x_t, table, 0)[0]
    std = variance.learned_range(v, t, s, sch) ** 0.5 if s else 0.0
    agree(noise, std * z, bound=1e-9, of="D.22")


@given(steps(), pictures(2))
def test_a_limited_guess_is_in_its_range_and_brings_its_own_noise(ladder, xs):
    (sch, t, s), (x_t, eps_hat) = ladder, xs
    table = table_of(EPS, sch, [(t, s)], ddim())
    x_s, x_0_hat = walk_step(x_t, eps_hat, table, 0, limit=static)
    at, below = sch.level(t), sch.level(s)
    assert np.abs(x_0_hat).max() <= 1
    agree(x_s, below.alpha * x_0_hat + below.sigma * (x_t - at.alpha * x_0_hat) / at.sigma, bound=1e-10, of="D.33")


def test_a_row_is_read_alike_by_number_and_by_counter(xp):
    table = table_of(V, ladder_of_three(), [(3, 2), (2, 1), (1, 0)], DDPM)
    for k in range(3):
        agree([float(c) for c in row_at(table, xp.asarray([k]))], list(row_at(table, k)), bound=0)
