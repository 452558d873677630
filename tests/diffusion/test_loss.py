"""Chapter D, losses: weights that agree, a hybrid that adds up, an importance sampler without bias."""

import numpy as np
import pytest
from diffusion.draws import LINEAR, ladders, level, pictures, steps
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import Tensor
from minidit.diffusion import loss
from minidit.diffusion.ddpm import posterior, q_sample
from minidit.diffusion.path import Straight
from minidit.diffusion.prediction import EPS, X_0, U, V, predict_x_0
from minidit.diffusion.schedule import zero_terminal_snr
from minidit.diffusion.variance import small


@spec("D.34")
def test_four_pixels_by_hand():
    out, target = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 2.0], [3.0, 1.0]])
    agree(loss.simple(out, target), 2.5, bound=0, of="D.34")
    agree(loss.simple(out, target, np.array([3.0, 1.0])), 3.0, bound=0, of="D.34")
    agree(loss.per_sample(out, target), [0.5, 4.5], bound=0, of="D.34")


@spec("D.34")
@given(pictures(2))
def test_the_simple_loss_is_the_mean_of_the_samples_and_has_its_gradient(xp, xs):
    out, target = map(xp.asarray, xs)
    agree(loss.simple(out, target), host(loss.per_sample(out, target)).mean(), bound=1e-14, of="D.34")
    x, w = Tensor(out), xp.asarray([2.0, 0.5])
    loss.simple(x, target, w).backward()
    slope = 2 * (xs[0] - xs[1]) / xs[0].size * np.array([2.0, 0.5])[:, None, None, None]
    agree(x.grad, slope, bound=1e-14, of="D.34")


@spec("D.35")
@given(ladders(), st.floats(0.1, 100))
def test_min_snr_is_one_weight_in_three_coordinates(xp, sch, gamma):
    a = sch.alpha_bar[1:]
    snr = a / (1 - a)
    given_by = np.minimum(snr, gamma)
    on = level(xp.asarray(a))
    agree(loss.min_snr(X_0, on, gamma), given_by, bound=1e-10, of="D.35")
    agree(loss.min_snr(EPS, on, gamma), given_by / EPS.gain(level(a)), bound=1e-10, of="D.35")
    agree(loss.min_snr(V, on, gamma), given_by / V.gain(level(a)), bound=1e-10, of="D.35")
    agree(loss.min_snr(V, on, gamma), given_by / (snr + 1), bound=1e-10, of="D.35")


@spec("D.35")
@given(ladders())
def test_without_a_cap_min_snr_is_snr_one_and_snr_over_snr_plus_one(sch):
    a = sch.alpha_bar[1:]
    snr = a / (1 - a)
    agree(loss.min_snr(X_0, level(a), 1e12) / snr, np.ones_like(a), bound=1e-10, of="D.35")
    agree(loss.min_snr(EPS, level(a), 1e12), np.ones_like(a), bound=1e-10, of="D.35")
    agree(loss.min_snr(V, level(a), 1e12), snr / (snr + 1), bound=1e-10, of="D.35")


@spec("D.35")
def test_at_snr_gamma_the_v_weight_is_gamma_over_gamma_plus_one():
    agree(loss.min_snr(V, level(5 / 6)), 5 / 6, bound=1e-15, of="D.35")


@spec("D.35")
def test_min_snr_is_finite_at_both_ends_of_a_zero_snr_ladder():
    ends = zero_terminal_snr(LINEAR).levels
    weights = np.array([loss.min_snr(answer, ends) for answer in (EPS, X_0, V)])
    agree(weights[:, -1], [1, 0, 0], bound=0, of="D.35")
    agree(weights[:, 0], [0, 5, 0], bound=0, of="D.35")


@spec("D.36")
def test_the_hybrid_factor_is_one_for_a_thousand_rungs():
    agree([loss.hybrid(0.5, 2.0, 1000), loss.hybrid(0.5, 2.0, 50)], [2.5, 0.6], bound=1e-15, of="D.36")


@spec("D.37")
@given(st.integers(0, 999), st.integers(2, 30))
def test_importance_sampling_is_unbiased_and_follows_the_second_moment(xp, seed, T):
    rng = np.random.default_rng(seed)
    history = rng.gamma(1.0, size=(T, 10))
    p = loss.importance(xp.asarray(history))
    t, current = xp.asarray(np.arange(1, T + 1)), rng.normal(size=T)
    w = loss.importance_weight(p, t)
    agree(host(p).sum(), 1.0, bound=1e-12, of="D.37")
    agree(np.sum(host(p)[1:] * host(w) * current), current.mean(), bound=1e-12, of="D.37")
    root = np.sqrt((history**2).mean(axis=1))
    agree(p[1:], 0.999 * root / root.sum() + 0.001 / T, bound=1e-12, of="D.37")
    agree(p[0], 0.0, bound=0, of="D.37")
    history[seed % T, 3] = np.nan
    agree(loss.importance(xp.asarray(history))[1:], np.full(T, 1 / T), bound=1e-15, of="D.37")


@spec("D.47")
@given(steps(min_s=1), pictures(3))
def test_the_bound_weighs_the_noise_error_as_the_paper_says(ladder, xs):
    """Half the squared distance of the two posterior means over the variance."""
    (sch, t, s), (x_0, eps, eps_hat) = ladder, xs
    x_t, sigma2 = q_sample(x_0, t, eps, sch), small(t, s, sch)
    mean, _ = posterior(x_t, x_0, t, s, sch)
    guess, _ = posterior(x_t, predict_x_0(x_t, eps_hat, t, sch), t, s, sch)
    nats = (mean - guess) ** 2 / (2 * sigma2)
    agree(loss.bound_weight(t, s, sch, sigma2) * (eps - eps_hat) ** 2, nats, bound=1e-10, of="D.47")


def test_losses_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        loss.simple(np.zeros((2, 3)), np.zeros((2, 1)))


@spec("D.52")
@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.01, 0.9))
def test_the_weight_by_noise_is_one_weight_on_x_0_whatever_the_answer(t, floor):
    at = Straight().level(t)
    on_x_0 = loss.by_noise(X_0, at, floor)
    agree(on_x_0, np.float64(1 / max(t, floor)), bound=1e-12, of="D.52")
    for answer in (U, V):
        agree(loss.by_noise(answer, at, floor) * answer.gain(at), np.float64(on_x_0), bound=1e-9, of="D.52")


@spec("D.52")
def test_the_weight_by_noise_is_finite_at_both_ends(xp):
    at = Straight().level(xp.asarray([0.0, 0.5, 1.0]))
    assert host(loss.by_noise(X_0, at)).tolist() == [10.0, 2.0, 1.0]
