"""Chapter D, predictions: ε, x_0, v and the score say the same thing."""

import numpy as np
import pytest
from diffusion.draws import LINEAR, pictures, rungs_of_batch, steps
from finite import check_slope
from hypothesis import given
from hypothesis import strategies as st
from support import agree, spec

from minidit.diffusion.ddpm import q_sample
from minidit.diffusion.level import Level
from minidit.diffusion.prediction import (
    EPS,
    PREDICTIONS,
    X_0,
    V,
    eps_of_score,
    predict_eps,
    predict_score,
    predict_v,
    predict_x_0,
)
from minidit.diffusion.schedule import Schedule, zero_terminal_snr


@spec("D.1", "D.4", "D.5", "D.10")
def test_one_pixel_by_hand():
    """ᾱ = 0.36: signal 0.6, noise 0.8."""
    sch = Schedule.from_betas([0.64])
    x_0, eps = np.array([[2.0]]), np.array([[0.5]])
    agree(q_sample(x_0, 1, eps, sch), [[0.6 * 2 + 0.8 * 0.5]], bound=1e-15, of="D.1")
    agree(predict_x_0(np.array([[1.6]]), eps, 1, sch), x_0, bound=1e-15, of="D.4")
    agree(predict_eps(np.array([[1.6]]), x_0, 1, sch), eps, bound=1e-15, of="D.5")
    agree(predict_v(x_0, eps, 1, sch), [[0.6 * 0.5 - 0.8 * 2]], bound=1e-15, of="D.10")
    agree(predict_score(eps, 1, sch), [[-0.5 / 0.8]], bound=1e-15, of="D.11")


@spec("D.4", "D.5", "D.10", "D.11")
@given(steps(), pictures(2))
def test_every_prediction_leads_back_to_the_true_pair(ladder, xs):
    (sch, t, _), (x_0, eps) = ladder, xs
    x_t, at = q_sample(x_0, t, eps, sch), sch.level(t)
    for p in PREDICTIONS.values():
        x_0_hat, eps_hat = p.pair(p.target(x_0, eps, at), x_t, at)
        agree(x_0_hat, x_0, bound=1e-10, of="D.4")
        agree(eps_hat, eps, bound=1e-10, of="D.5")
    agree(predict_x_0(x_t, eps, t, sch), x_0, bound=1e-10, of="D.4")
    agree(predict_eps(x_t, x_0, t, sch), eps, bound=1e-10, of="D.5")
    agree(predict_v(x_0, eps, t, sch), V.target(x_0, eps, at), bound=1e-15, of="D.10")
    agree(eps_of_score(predict_score(eps, t, sch), t, sch), eps, bound=1e-12, of="D.11")


@spec("D.11")
@given(steps(), pictures(2))
def test_the_score_points_from_the_picture_to_its_signal(ladder, xs):
    """∇ log N(x_t; √ᾱ x_0, 1-ᾱ) = -(x_t - √ᾱ x_0)/(1-ᾱ)."""
    (sch, t, _), (x_0, eps) = ladder, xs
    x_t, a = q_sample(x_0, t, eps, sch), sch.alpha_bar[t]
    agree(predict_score(eps, t, sch), -(x_t - a**0.5 * x_0) / (1 - a), bound=1e-10, of="D.11")


@spec("D.10")
@given(pictures(2))
def test_v_is_the_noise_of_a_clean_picture_and_minus_the_picture_in_noise(xs):
    x_0, eps = xs
    agree(V.target(x_0, eps, Level(1.0, 0.0)), eps, bound=0, of="D.10")
    agree(V.target(x_0, eps, Level(0.0, 1.0)), -x_0, bound=0, of="D.10")


@spec("D.10")
@given(steps(), pictures(2))
def test_v_is_the_velocity_of_the_picture_along_the_angle(ladder, xs):
    """With √ᾱ = cos φ the forward process turns x_φ = cos φ x_0 + sin φ ε, and v = dx/dφ."""
    (sch, t, _), (x_0, eps) = ladder, xs
    phi = np.arccos(sch.alpha_bar[t] ** 0.5)
    turned = lambda s: np.cos(phi + s) * x_0 + np.sin(phi + s) * eps
    check_slope(predict_v(x_0, eps, t, sch), turned, bound=1e-10, of="D.10")


@spec("D.39")
@given(steps(), pictures(3))
def test_the_gain_relates_the_errors_of_all_predictions(ladder, xs):
    (sch, t, _), (x_0, eps, wrong) = ladder, xs
    x_t, at = q_sample(x_0, t, eps, sch), sch.level(t)
    for p in PREDICTIONS.values():
        x_0_hat, eps_hat = X_0.pair(wrong, x_t, at)
        error = np.sum((p.target(x_0_hat, eps_hat, at) - p.target(x_0, eps, at)) ** 2)
        agree(error / np.sum((wrong - x_0) ** 2) / p.gain(at), 1.0, bound=1e-10, of="D.39")


@spec("D.1", "D.4", "D.5", "D.10")
@given(st.data(), steps(), pictures(2))
def test_a_rung_for_each_sample_is_the_same_as_one_at_a_time(data, ladder, xs):
    (sch, _, _), (x_0, eps) = ladder, xs
    t = data.draw(rungs_of_batch(sch))
    for law in (lambda x, t, e: q_sample(x, t, e, sch), lambda x, t, e: predict_x_0(x, e, t, sch),
                lambda x, t, e: predict_eps(x, e, t, sch), lambda x, t, e: predict_v(x, e, t, sch)):  # fmt: skip
        alone = np.concatenate([law(x_0[i : i + 1], int(t[i]), eps[i : i + 1]) for i in range(2)])
        agree(law(x_0, t, eps), alone, bound=1e-14, of=("D.1", "D.4", "D.5", "D.10"))


@given(st.data(), steps(), pictures(2))
def test_float32_pictures_stay_float32_and_lose_only_their_own_digits(data, ladder, xs):
    (sch, _, _), (x_0, eps) = ladder, xs
    t = data.draw(rungs_of_batch(sch))
    x_t = q_sample(x_0.astype(np.float32), t, eps.astype(np.float32), sch)
    assert x_t.dtype == np.float32
    agree(x_t, q_sample(x_0, t, eps, sch), bound=1e-6)


@pytest.mark.parametrize("t", [0, 1001, -1, np.array([0, 5]), np.array([5, 1001]), np.array([1, 2, 3]), [5, 5]])
def test_rungs_off_the_ladder_are_refused_with_their_value(t):
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"rung"):
        q_sample(x, t, x, LINEAR)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        q_sample(np.zeros((2, 3)), 1, np.zeros(3), LINEAR)


def test_epsilon_at_zero_snr_is_refused_but_not_v():
    sch, x = zero_terminal_snr(LINEAR), np.ones((1, 2))
    with pytest.raises(ValueError, match="predict v or x_0"):
        predict_x_0(x, x, sch.T, sch)
    noise = Level(0.0, 1.0)
    with pytest.raises(ValueError, match="does not determine"):
        EPS.pair(x, x, noise)
    assert np.isfinite(V.pair(x, x, noise)).all() and EPS.target(x, 2 * x, noise)[0, 0] == 2
