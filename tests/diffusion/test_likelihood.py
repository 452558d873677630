"""Chapter K: the bound, term by term, against closed forms."""

import functools
import math
import sys

import numpy as np
import pytest
from diffusion.draws import LINEAR, MEAN, VAR, ladders, level, pictures, rungs_of_batch, steps
from finite import check_slope
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import Tensor
from minidit.diffusion import gaussian
from minidit.diffusion.ddpm import posterior, q_sample
from minidit.diffusion.exact import Gaussian
from minidit.diffusion.likelihood import (
    Bound,
    bits,
    bound_term,
    continuous_nll,
    discretised_nll,
    exact_cdf,
    kl_term,
    normal_kl,
    prior_term,
    tanh_cdf,
    trained_decoder,
)
from minidit.diffusion.prediction import X_0, predict_x_0
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.variance import beta, large, log_learned_range, log_small, optimal, small

levels_of = st.sampled_from([2, 3, 17, 256])
means = st.floats(-1.5, 1.5)
stds = st.floats(0.002, 2)
LEGENDRE = np.polynomial.legendre.leggauss(120)


# ------------------------------------------------------------------------------------------------ single laws


@spec("K.1")
def test_a_divergence_by_hand():
    """KL(N(1, 1) ‖ N(0, 4)) = ½(ln 4 - 1 + ¼ + ¼)."""
    agree(normal_kl(1.0, 0.0, 0.0, math.log(4)), 0.5 * (math.log(4) - 0.5), bound=1e-15, of="K.1")


@spec("K.1")
@given(means, stds, means, stds)
def test_the_divergence_is_the_integral_and_never_negative(m_1, s_1, m_2, s_2):
    x, w = np.polynomial.hermite_e.hermegauss(20)
    x = m_1 + s_1 * x
    log_ratio = np.log(s_2 / s_1) - (x - m_1) ** 2 / (2 * s_1**2) + (x - m_2) ** 2 / (2 * s_2**2)
    kl = normal_kl(m_1, 2 * math.log(s_1), m_2, 2 * math.log(s_2))
    expected = float(w @ log_ratio) / math.sqrt(2 * math.pi)
    agree(kl / max(1, kl), expected / max(1, kl), bound=1e-10, of="K.1")
    assert kl >= -1e-12 and abs(normal_kl(m_1, 2 * math.log(s_1), m_1, 2 * math.log(s_1))) < 1e-12


@spec("K.2")
def test_the_prior_term_has_its_published_bits():
    agree(bits(prior_term(np.zeros((1, 4)), LINEAR)) / 5.87478e-10, [1.0], bound=1e-5)
    agree(bits(prior_term(np.ones((1, 4)), LINEAR)) / 2.91129e-05, [1.0], bound=1e-5)


@spec("K.2")
@given(ladders(), pictures(1))
def test_the_prior_term_is_the_divergence_of_the_noisiest_rung(xp, sch, xs):
    x_0, a = xp.asarray(xs[0]), float(sch.alpha_bar[-1])
    agree(prior_term(x_0, sch), normal_kl(a**0.5 * x_0, math.log(1 - a), 0.0, 0.0), bound=1e-12, of="K.2")


@spec("K.5")
def test_the_tanh_form_is_close_to_phi_and_not_phi():
    z = np.linspace(-6, 6, 200001)
    agree(np.abs(tanh_cdf(z) - exact_cdf(z)).max(), 1.789e-4, bound=1e-7)


@spec("K.4", "K.5")
@given(levels_of, means, stds, st.sampled_from([exact_cdf, tanh_cdf]))
def test_the_probabilities_of_all_grey_levels_add_up_to_one(xp, levels, mean, std, cdf):
    x = np.linspace(-1, 1, levels)[:, None]
    m = xp.asarray(np.full_like(x, mean))
    nll = discretised_nll(xp.asarray(x), m, 2 * math.log(std), levels=levels, cdf=cdf, floor=1e-300)
    agree(np.exp(-host(nll)).sum(), 1.0, bound=1e-12, of=("K.4", "K.5"))


@spec("K.4")
def test_three_levels_by_hand():
    """Levels -1, 0, 1 have bins up to -½, between, and from ½; σ = ½, μ = 0: Φ(-1), Φ(1) - Φ(-1), Φ(-1)."""
    x = np.array([[-1.0, 0.0, 1.0]])
    tail = 0.5 * math.erfc(1 / math.sqrt(2))
    nll = discretised_nll(x, np.zeros_like(x), 2 * math.log(0.5), levels=3)
    agree(np.exp(-nll), [[tail, 1 - 2 * tail, tail]], bound=1e-15, of="K.4")


@spec("K.4")
@given(levels_of, means, st.floats(0.05, 1))
def test_a_bin_is_the_integral_of_the_density_over_it(levels, mean, std):
    h = 1 / (levels - 1)
    x = np.linspace(-1, 1, levels)[:, None]
    u, w = LEGENDRE
    grid = x + h * u
    inside = h * np.sum(w * np.exp(-((grid - mean) ** 2) / (2 * std**2)), axis=1) / (std * math.sqrt(2 * math.pi))
    p = np.exp(-discretised_nll(x, np.full_like(x, mean), 2 * math.log(std), levels=levels, floor=1e-300))[:, 0]
    agree(p[1:-1], inside[1:-1], bound=1e-10, of="K.4")
    edge = lambda z: 0.5 * math.erfc(-z / std / math.sqrt(2))
    agree([p[0], p[-1]], [edge(-1 + h - mean), edge(mean - 1 + h)], bound=1e-12, of="K.4")


@spec("K.4")
def test_both_tails_keep_their_digits_and_the_floor_holds():
    """The bins far above the mean cost as much as those far below: no 1 - 1 is taken."""
    x = np.linspace(-1, 1, 256)[:, None]
    nll = discretised_nll(x, np.zeros_like(x), 2 * math.log(0.03), floor=1e-300)
    agree(nll, nll[::-1], bound=1e-12, of="K.4")
    assert nll.max() > 500 and discretised_nll(x, np.zeros_like(x), 2 * math.log(0.03)).max() == pytest.approx(-math.log(1e-12))


@spec("K.4", "K.6")
@given(means, st.floats(0.5, 2))
def test_many_narrow_bins_are_the_density(mean, std):
    levels = 20001
    x = np.array([[-0.5, 0.0, 0.25]])
    m, lv = np.full_like(x, mean), 2 * math.log(std)
    discrete = discretised_nll(x, m, lv, levels=levels) + math.log(2 / (levels - 1))
    agree(discrete, continuous_nll(x, m, lv), bound=1e-7)


@spec("K.6")
@given(means, means, stds)
def test_the_continuous_decoder_is_the_log_density(x, mean, std):
    density = math.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
    got = continuous_nll(np.array([[x]]), np.array([[mean]]), 2 * math.log(std))[0, 0]
    agree(got, 0.5 * math.log(2 * math.pi * std**2) + (x - mean) ** 2 / (2 * std**2), bound=1e-10, of="K.6")
    assert density < sys.float_info.min or math.isclose(math.exp(-got), density, rel_tol=1e-6)


@spec("K.7")
def test_one_bit_is_a_fair_coin():
    agree(bits(np.full((3, 2, 2), math.log(2))), np.ones(3), bound=1e-15, of="K.7")


# ------------------------------------------------------------------------------------------------ the terms of the bound


@spec("K.3")
@given(steps(min_s=1), pictures(3), st.floats(-8, 0))
def test_a_term_is_the_divergence_of_two_posteriors(xp, ladder, xs, logvar):
    (sch, t, s), (x_0, eps, guess) = ladder, map(xp.asarray, xs)
    x_t = q_sample(x_0, t, eps, sch)
    got = kl_term(x_0, x_t, guess, logvar, t, s, sch)
    mean, var = posterior(x_t, x_0, t, s, sch)
    other, _ = posterior(x_t, guess, t, s, sch)
    expected = 0.5 * (logvar - math.log(var) - 1 + (var + (host(mean) - host(other)) ** 2) / math.exp(logvar))
    agree(got, expected, bound=1e-10, of="K.3")
    agree(kl_term(x_0, x_t, x_0, log_small(t, s, sch), t, s, sch), np.zeros(x_0.shape), bound=1e-12, of="K.3")


@spec("K.8")
@given(st.data(), ladders(min_T=3), pictures(3, (3, 2, 2)))
def test_the_decoder_stands_at_rung_one_and_the_divergence_above(xp, data, sch, xs):
    x_0, eps, guess = map(xp.asarray, xs)
    t = np.array([1, *data.draw(rungs_of_batch(sch, 2))])
    x_t = q_sample(x_0, xp.asarray(t), eps, sch)
    term = functools.partial(bound_term, decoder=continuous_nll)
    each = [host(term(x_0[i : i + 1], x_t[i : i + 1], guess[i : i + 1], -3.0, int(t[i]), sch))[0] for i in range(3)]
    agree(term(x_0, x_t, guess, -3.0, xp.asarray(t), sch), each, bound=1e-12, of="K.8")
    agree(each[0], bits(continuous_nll(x_0[:1], guess[:1], -3.0))[0], bound=1e-12, of="K.8")


def gaussian_bound(law, sch=LINEAR):
    """Σ of the closed terms for N(0.3, 0.25), model variances from the law and the best one in the decoder."""
    a = sch.alpha_bar
    t = np.arange(2, sch.T + 1)
    model = np.array([law(int(r), int(r) - 1) for r in t])
    kls = gaussian.kl_nats(level(a[t]), level(a[t - 1]), VAR, model)
    decoder = gaussian.decoder_nats(level(a[1]), VAR, gaussian.remaining(level(a[1]), VAR))
    return gaussian.prior_nats(level(a[-1]), MEAN, VAR) + kls.sum() + decoder


@spec("K.9", "K.8")
def test_the_printed_bounds_of_gaussian_data():
    agree(gaussian.entropy(VAR), 0.7257913526, bound=1e-10, of="K.9")
    agree(gaussian_bound(lambda t, s: small(t, s, LINEAR)), 1.1821415822, bound=1e-10, of="K.9")
    agree(gaussian_bound(lambda t, s: large(t, s, LINEAR)), 0.7268854016, bound=1e-10, of="K.9")


@spec("K.9", "D.20")
def test_with_the_optimal_variance_the_bound_misses_the_entropy_by_the_divergence_of_the_prior():
    gap = gaussian_bound(lambda t, s: optimal(t, s, LINEAR, VAR)) - gaussian.entropy(VAR)
    a = float(LINEAR.alpha_bar[-1])
    kl = normal_kl(a**0.5 * MEAN, math.log(gaussian.spread(level(a), VAR)), 0.0, 0.0)
    agree(gap, kl, bound=1e-10, of=("K.9", "D.20"))
    agree(kl * 1e6, 1.8163524479, bound=1e-7)


@spec("K.9", "D.20")
@given(ladders(), st.floats(0.05, 3), st.floats(-1, 1))
def test_the_gap_identity_holds_on_every_ladder(sch, s2, m):
    a, t = sch.alpha_bar, np.arange(2, sch.T + 1)
    kls = gaussian.kl_nats(level(a[t]), level(a[t - 1]), s2, gaussian.reverse(level(a[t]), level(a[t - 1]), s2))
    total = (
        gaussian.prior_nats(level(a[-1]), m, s2)
        + kls.sum()
        + gaussian.decoder_nats(level(a[1]), s2, gaussian.remaining(level(a[1]), s2))
    )
    S = gaussian.spread(level(a[-1]), s2)
    agree(total - gaussian.entropy(s2), 0.5 * (a[-1] * m**2 + S - 1 - np.log(S)), bound=1e-10, of="K.9")


@spec("K.3", "K.6", "K.9")
@given(ladders(min_T=3), st.floats(0.05, 2))
def test_the_closed_terms_are_the_expectations_of_the_laws(sch, s2):
    """E over x_0 and ε of kl_term and continuous_nll, exact by Gauss-Hermite, equals the closed form."""
    u, w = np.polynomial.hermite_e.hermegauss(4)  # the terms are quadratic
    x_0, eps = (g.reshape(-1, 1) for g in np.meshgrid(MEAN + s2**0.5 * u, u))
    weight = np.outer(w, w).reshape(-1, 1) / (2 * math.pi)
    model, a, t = Gaussian(MEAN, s2, path=sch, prediction=X_0), sch.alpha_bar, sch.T
    x_t, variance = q_sample(x_0, t, eps, sch), large(t, t - 1, sch)
    kl = kl_term(x_0, x_t, model(x_t, int(sch.time[t])), math.log(variance), t, t - 1, sch)
    agree(np.sum(weight * kl), gaussian.kl_nats(level(a[t]), level(a[t - 1]), s2, variance), bound=1e-10, of=("K.3", "K.9"))
    x_1 = q_sample(x_0, 1, eps, sch)
    nll = continuous_nll(x_0, model(x_1, 0), math.log(small(2, 1, sch)))
    closed = gaussian.decoder_nats(level(a[1]), s2, small(2, 1, sch))
    agree(np.sum(weight * nll) / max(1, closed), closed / max(1, closed), bound=1e-10, of=("K.6", "K.9"))
    agree(np.sum(weight * prior_term(x_0, sch)), gaussian.prior_nats(level(a[-1]), MEAN, s2), bound=1e-12, of=("K.2", "K.9"))


@spec("K.8")
@given(pictures(2, (3, 1, 2, 2)))
def test_the_total_is_a_sum_over_all_rungs(xs):
    sch = Schedule.linear(30)
    x_0 = np.tanh(xs[0])
    terms = []
    for t in range(1, sch.T + 1):
        x_t = q_sample(x_0, t, xs[1], sch)
        terms.append(bound_term(x_0, x_t, 0.9 * x_0, log_small(t, t - 1, sch), t, sch, decoder=discretised_nll))
    bound = Bound(bits(prior_term(x_0, sch)), np.array(terms))
    t = np.repeat(np.arange(1, 31), 3)  # the same with all rungs in one batch
    many = [np.tile(a, (30, 1, 1, 1)) for a in (x_0, xs[1])]
    x_t = q_sample(many[0], t, many[1], sch)
    all_terms = bound_term(many[0], x_t, 0.9 * many[0], log_small(t, t - 1, sch), t, sch, decoder=discretised_nll)
    agree(bound.total, bound.prior + all_terms.reshape(30, 3).sum(axis=0), bound=1e-10, of="K.8")
    agree(bound.total - bound.prior, 30 * bound.terms.mean(axis=0), bound=1e-10, of="K.8")


# ------------------------------------------------------------------------------------------------ as a training loss


@spec("K.8", "D.22", "D.36")
@given(st.data(), ladders(min_T=3), pictures(4, (3, 2, 2)))
def test_the_bound_teaches_the_variance_and_never_the_mean(xp, data, sch, xs):
    """ε̂ comes in as a plain array, so only v gets a gradient: the one of (K.1), d/dv = ¼ ln(β/β̃)(1 - (β̃ + Δ²)/V)."""
    t = np.array(data.draw(st.lists(st.integers(2, sch.T), min_size=3, max_size=3)))
    x_0, eps, eps_hat, v = map(xp.asarray, xs)
    rungs, x_t = xp.asarray(t), q_sample(x_0, t, eps, sch)
    head = Tensor(v)
    x_0_hat = predict_x_0(x_t, eps_hat, rungs, sch)
    logvar = log_learned_range(head, rungs, rungs - 1, sch)
    bound_term(x_0, x_t, x_0_hat, logvar, rungs, sch, decoder=continuous_nll).sum().backward()
    low, high = (np.array([law(int(r), int(r) - 1, sch) for r in t])[:, None, None] for law in (small, beta))
    V = np.exp(np.log(low) + (xs[3] + 1) / 2 * np.log(high / low))
    mean, guess = (host(posterior(x_t, g, rungs, rungs - 1, sch)[0]) for g in (x_0, x_0_hat))
    expected = 0.25 * np.log(high / low) * (1 - (low + (mean - guess) ** 2) / V) / (4 * math.log(2))
    size = max(1.0, float(np.abs(expected).max()))
    agree(host(head.grad) / size, expected / size, bound=1e-10, of=("K.8", "D.22", "D.36"))


@spec("K.4", "K.5", "K.6")
@given(pictures(2, (2, 3)))
def test_both_decoders_differentiate_in_the_log_variance(xp, xs):
    x = np.round(np.clip(xs[0], -1, 1) * 8) / 8
    x_0, mean = xp.asarray(x), xp.asarray(0.5 * xs[1])
    for decoder in (continuous_nll, functools.partial(discretised_nll, levels=17, cdf=tanh_cdf)):
        logvar = Tensor(xp.zeros((2, 3)) - 1.0)
        decoder(x_0, mean, logvar).sum().backward()
        check_slope(logvar.grad, lambda s, nll=decoder, at=logvar.data: nll(x_0, mean, at + s), bound=1e-7)


def tanh_bin(x, mean, std, levels):
    """The probability of a grey level and its derivative in ln σ², from the tanh form of Φ, written out."""
    slope = math.sqrt(2 / math.pi)
    phi = lambda z: 0.5 * (1 + np.tanh(slope * (z + 0.044715 * z**3)))
    density = lambda z: 0.5 * slope * (1 + 3 * 0.044715 * z**2) * (1 - np.tanh(slope * (z + 0.044715 * z**3)) ** 2)
    h, last = 1 / (levels - 1), 1 - 0.5 / (levels - 1)
    u, l = (x - mean + h) / std, (x - mean - h) / std
    upper, lower = np.where(x > last, 1.0, phi(u)), np.where(x < -last, 0.0, phi(l))
    bars = np.where(x > last, 0.0, u * density(u)) - np.where(x < -last, 0.0, l * density(l))
    return upper - lower, bars / (2 * (upper - lower))


@spec("K.11", "K.4", "K.5")
@given(levels_of, st.floats(0.02, 1), st.integers(0, 2**32 - 1))
def test_the_decoder_of_grey_levels_teaches_the_variance_by_its_bins(xp, levels, std, seed):
    """∂L_0/∂λ = (u Φ'(u) - l Φ'(l))/2p, with one term less in the open bins at both ends."""
    rng = np.random.default_rng(seed)
    x = (2 * rng.integers(0, levels, (3, 4)) / (levels - 1) - 1.0).astype(np.float64)
    x[0, :2] = -1, 1
    mean = x + std * rng.uniform(-2, 2, x.shape)
    logvar = Tensor(xp.full(x.shape, 2 * math.log(std)))
    nll = trained_decoder(levels)(xp.asarray(x), xp.asarray(mean), logvar)
    nll.sum().backward()
    p, slope = tanh_bin(x, mean, std, levels)
    agree(np.exp(-host(nll)), p, bound=1e-12, of="K.11")
    agree(host(logvar.grad), slope, bound=1e-8, of="K.11")


@spec("K.11", "K.6")
@given(st.floats(0.3, 2), st.integers(0, 2**32 - 1))
def test_narrow_bins_teach_what_a_density_teaches(std, seed):
    levels, rng = 8001, np.random.default_rng(seed)
    x = 2 * rng.integers(1, levels - 1, (2, 3)) / (levels - 1) - 1
    mean, slopes = x + std * rng.uniform(-2, 2, x.shape), []
    for decoder in (trained_decoder(levels), trained_decoder(None)):
        logvar = Tensor(np.full(x.shape, 2 * math.log(std)))
        decoder(x, mean, logvar).sum().backward()
        slopes.append(logvar.grad)
    agree(slopes[0], slopes[1], bound=0.02)  # the tanh form is not Φ: its slope is 0.011 off here
    assert trained_decoder(None) is continuous_nll


@spec("K.11")
def test_a_hopeless_pixel_teaches_nothing_and_single_precision_is_enough():
    """At the floor of the probability the gradient stops; elsewhere float32 keeps the digits that training needs."""
    x, far = np.array([[2 * 153 / 255 - 1]]), np.array([[-0.9]])
    lost = Tensor(np.array([[2 * math.log(0.01)]]))
    nll = trained_decoder(256)(x, far, lost)
    nll.sum().backward()
    agree(nll, [[-math.log(1e-12)]], bound=1e-12, of="K.11")
    assert host(lost.grad) == 0
    levels, means = np.arange(256) / 127.5 - 1, np.linspace(-2, 2, 256) * 0.02
    slopes = []
    for dtype in (np.float64, np.float32):
        logvar = Tensor(np.full(256, 2 * math.log(0.02), dtype)[None])
        trained_decoder(256)(levels[None].astype(dtype), (levels + means)[None].astype(dtype), logvar).sum().backward()
        slopes.append(logvar.grad)
    agree(slopes[1], slopes[0], bound=1e-4)
