"""Chapter D on mixtures and points: scores, transport in one dimension, exact guidance."""

from dataclasses import replace

import numpy as np
from diffusion.draws import LINEAR, MEAN, VAR, ladders, level, pictures, rungs_of_batch, theta_ladder, walk_ddim
from finite import check_slope
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.diffusion.exact import Gaussian, Mixture
from minidit.diffusion.guidance import guide
from minidit.diffusion.prediction import EPS, PREDICTIONS, X_0, predict_score

# ------------------------------------------------------------------------------------------------ mixtures and points


@st.composite
def mixtures(draw, sch, shape=(2,), K=3, classes=None, prediction=X_0):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    w = rng.uniform(0.2, 1, K)
    return Mixture(w / w.sum(), rng.normal(size=(K, *shape)), rng.uniform(0.05, 1, K), classes, path=sch, prediction=prediction)


@spec("D.42")
@given(st.data(), ladders(), pictures(1, (3, 2)))
def test_a_mixture_of_one_is_the_gaussian(xp, data, sch, xs):
    m, t = np.array([0.5, -0.2]), data.draw(rungs_of_batch(sch, 3))
    x, time = xp.asarray(xs[0]), xp.asarray(sch.time[t])
    one = Mixture(np.ones(1), m[None], np.array([VAR]), path=sch)
    agree(one(x, time), Gaussian(m, VAR, path=sch)(x, time), bound=1e-10, of="D.42")


@spec("D.42", "D.11")
@given(st.data(), ladders(), pictures(1, (1, 2)))
def test_a_mixtures_noise_is_the_gradient_of_its_density(data, sch, xs):
    """ε̂ = -√(1-ᾱ) ∇ log p_t, by central differences of the log density."""
    t, x = data.draw(st.integers(1, sch.T)), 0.7 * xs[0]
    model = data.draw(mixtures(sch, prediction=EPS))
    a = sch.alpha_bar[t]
    S = a * model.variances + 1 - a

    def log_p(x):
        return np.log(np.sum(model.weights * np.exp(-np.sum((x - a**0.5 * model.means) ** 2, axis=1) / (2 * S)) / S))

    for e, part in zip(np.eye(2), model(x, int(sch.time[t]))[0], strict=True):
        check_slope(-part, lambda s, u=(1 - a) ** 0.5 * e: log_p(x + s * u), bound=1e-6)


@spec("D.42")
@given(st.data(), ladders(), pictures(1, (4, 2, 3)))
def test_every_prediction_of_one_mixture_names_the_same_guess(xp, data, sch, xs):
    t, x = data.draw(rungs_of_batch(sch, 4)), xp.asarray(xs[0])
    model, a = data.draw(mixtures(sch, shape=(2, 3))), sch.alpha_bar[t]
    guess = model(x, xp.asarray(sch.time[t]))
    for p in PREDICTIONS.values():
        other = Mixture(model.weights, model.means, model.variances, path=sch, prediction=p)
        agree(p.pair(other(x, xp.asarray(sch.time[t])), x, level(xp.asarray(a)))[0], guess, bound=1e-10, of="D.42")


@spec("D.43")
def test_two_points_are_a_hyperbolic_tangent():
    """μ = ±1: x̂_0 = tanh(√ᾱ x/(1-ᾱ))."""
    model = Mixture.of_points(np.array([[1.0], [-1.0]]), path=LINEAR, prediction=X_0)
    x, t = np.linspace(-2, 2, 9)[:, None], 400
    a = LINEAR.alpha_bar[t]
    agree(model(x, t - 1), np.tanh(a**0.5 * x / (1 - a)), bound=1e-12, of="D.43")


@spec("D.43")
@given(st.data(), ladders(), pictures(1, (3, 4)))
def test_a_data_set_of_points_is_an_attention_layer(xp, data, sch, xs):
    """softmax(q kᵀ - ‖k‖²/2) over keys √ᾱ μ/(1-ᾱ)^½ and values μ."""
    points, x = np.random.default_rng(1).normal(size=(5, 4)), xs[0]
    t = data.draw(st.integers(1, sch.T))
    a = sch.alpha_bar[t]
    key = (a / (1 - a)) ** 0.5 * points
    score = (x / (1 - a) ** 0.5) @ key.T - 0.5 * np.sum(key**2, axis=1)
    p = np.exp(score - score.max(axis=1, keepdims=True))
    model = Mixture.of_points(points, path=sch, prediction=X_0)
    agree(model(xp.asarray(x), int(sch.time[t])), p / p.sum(axis=1, keepdims=True) @ points, bound=1e-10, of="D.43")


@spec("D.43")
@given(pictures(1, (4, 6)))
def test_at_little_noise_the_memoriser_returns_the_nearest_point(xs):
    points = xs[0]
    model = Mixture.of_points(points, path=LINEAR, prediction=X_0)
    agree(model(points + 1e-3, 0), points, bound=1e-10, of="D.43")


@spec("D.44")
@settings(max_examples=10)
@given(st.data())
def test_the_transport_keeps_the_cdf_and_is_the_flow_of_a_gaussian(data):
    model = data.draw(mixtures(LINEAR, shape=()))
    x = np.linspace(-6, 6, 13)
    a_t, a_s = (float(LINEAR.alpha_bar[data.draw(st.integers(1, 1000))]) for _ in range(2))
    y = model.transport(x, level(a_t), level(a_s))
    agree(model.cdf(y, level(a_s)), model.cdf(x, level(a_t)), bound=1e-10, of="D.44")
    agree(model.cdf(x, level(a_t)) + model.cdf(x, level(a_t), upper=True), np.ones(13), bound=1e-14, of="D.44")
    agree(model.transport(y, level(a_s), level(a_t)), x, bound=1e-10, of="D.44")
    one = Mixture(np.ones(1), np.array([MEAN]), np.array([VAR]), path=LINEAR)
    agree(
        one.transport(x, level(a_t), level(a_s)),
        Gaussian(MEAN, VAR, path=LINEAR).flow(x, level(a_t), level(a_s)),
        bound=1e-10,
        of="D.44",
    )


@spec("D.44", "D.7")
def test_ddim_on_a_bimodal_density_converges_to_the_transport_with_order_one():
    weights, means, variances = np.array([0.4, 0.6]), np.array([-1.0, 0.8]), np.array([0.09, 0.04])
    x_T, errors = np.linspace(-1.5, 1.5, 7), []
    for N in (50, 100, 200, 400):
        sch = theta_ladder(N)
        model = Mixture(weights, means[:, None], variances, path=sch)
        exact = Mixture(weights, means, variances, path=sch).transport(x_T, level(float(sch.alpha_bar[-1])), level(1.0))
        errors.append(np.abs(walk_ddim(range(1, N + 1), model, x_T[:, None], sch)[:, 0] - exact).mean())
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(order > 0.9) and abs(order[-1] - 1) < 0.03, order


@spec("D.46", "D.43")
def test_pictures_fed_back_at_one_level_end_at_a_few_points():
    """x_0 <- x̂_0(√ᾱ x_0): mean shift climbs to the modes of the smoothed data; at much noise one mode is left."""
    points = np.array([[1.0, 0.0], [-1.0, 0.2], [0.0, -1.0]])
    model = Mixture.of_points(points, path=LINEAR, prediction=X_0)
    start = np.random.default_rng(0).normal(size=(200, 2))
    for t, modes in ((100, 3), (600, 1)):
        x = start
        for _ in range(200):
            x = model(LINEAR.alpha_bar[t] ** 0.5 * x, t - 1)
        assert len(np.unique(np.round(x, 6), axis=0)) == modes


# ------------------------------------------------------------------------------------------------ exact guidance


@spec("G.6")
@given(st.data(), ladders(), pictures(1, (4, 2)))
def test_a_class_is_its_own_components_and_the_null_label_is_everybody(xp, data, sch, xs):
    classes, null = np.array([0, 1, 1]), 7  # of eight classes, of which five have no component here
    model = replace(data.draw(mixtures(sch, classes=classes, prediction=EPS)), null=null)
    t, x = data.draw(st.integers(1, sch.T)), xp.asarray(xs[0])
    time = int(sch.time[t])
    out = model(x, time, xp.asarray([0, 1, null, 0]))
    alone = Gaussian(model.means[0], model.variances[0], path=sch)(x, time)
    agree(host(out)[[0, 3]], host(alone)[[0, 3]], bound=1e-10, of="G.6")
    agree(out[2], model(x, time)[2], bound=1e-12, of="G.6")
    w = model.weights[1:] / model.weights[1:].sum()
    pair = Mixture(w, model.means[1:], model.variances[1:], path=sch, prediction=EPS)
    agree(out[1], pair(x, time)[1], bound=1e-10, of="G.6")


@spec("G.6", "G.1")
@given(pictures(1, (3, 2)), st.floats(0, 6))
def test_guided_noise_is_the_score_of_the_tilted_density(xs, w):
    """ε_∅ + w(ε_c - ε_∅) belongs to p^(1-w) p_c^w; w = 1 walks to exactly the class's own samples."""
    x, t = xs[0], 300
    model = Mixture(np.array([0.5, 0.5]), np.array([[1.0, 0], [-1, 0]]), np.array([VAR, VAR]), np.array([0, 1]), path=LINEAR)
    u, c = model(x, t - 1), model(x, t - 1, np.zeros(3, int))
    a = LINEAR.alpha_bar[t]
    r = model.responsibilities(x, level(float(a)))[:, :1]  # ε_c - ε_∅ = -√(1-ᾱ) ∇ log r_c
    other = model(x, t - 1, np.ones(3, int))
    agree(guide(u, c, w), c + (w - 1) * (1 - r) * (c - other), bound=1e-10, of="G.6")
    agree(guide(u, c, 1.0), Gaussian(np.array([1.0, 0]), VAR, path=LINEAR)(x, t - 1), bound=1e-10, of="G.6")


def test_a_float32_picture_gets_a_float32_answer(xp):
    x = xp.ones((2, 3), dtype="float32")
    for model in (Gaussian(MEAN, VAR, path=LINEAR), Gaussian.of_covariance(np.zeros(3), np.eye(3), path=LINEAR),
                  Mixture.of_points(np.eye(3), path=LINEAR)):  # fmt: skip
        assert model(x, xp.asarray([0, 500])).dtype == "float32" and model(x, 7).dtype == "float32"


@spec("D.44", "D.43")
def test_the_transport_of_points_leaves_the_points_as_soon_as_there_is_noise():
    """Points have no spread, but their noisy copies do: far tails go where their rank in the distribution says."""
    model, x = Mixture.of_points(np.array([-1.0, 0.5, 1.0]), path=LINEAR), np.linspace(-5, 5, 11)
    a_t, a_s = (float(LINEAR.alpha_bar[t]) for t in (900, 400))
    y = model.transport(x, level(a_t), level(a_s))
    assert y[0] < -4 and y[-1] > 4 and np.all(np.diff(y) > 0)
    agree(model.weights, np.full(3, 1 / 3), bound=0, of="D.43")
    agree(model.cdf(np.array([-60.0, 60.0]), level(a_t)), [0.0, 1.0], bound=1e-15, of="D.44")
    agree(model.cdf(y, level(a_s)), model.cdf(x, level(a_t)), bound=1e-12, of="D.44")
    agree(model.cdf(y, level(a_s), upper=True) / model.cdf(x, level(a_t), upper=True), np.ones(11), bound=1e-9)
    agree(model.cdf(y, level(a_s)) / model.cdf(x, level(a_t)), np.ones(11), bound=1e-9)


@spec("D.42", "D.11")
@given(st.data(), ladders(), pictures(1, (4, 2, 3)))
def test_the_guess_is_tweedies_formula(data, sch, xs):
    """x̂_0 = (x + (1-ᾱ) ∇ log p_t)/√ᾱ: with the score the mean of the data behind x is known."""
    t = data.draw(st.integers(1, sch.T))
    model, a = data.draw(mixtures(sch, shape=(2, 3), prediction=EPS)), float(sch.alpha_bar[t])
    time = int(sch.time[t])
    score = predict_score(model(xs[0], time), t, sch)
    guess = Mixture(model.weights, model.means, model.variances, path=sch, prediction=X_0)(xs[0], time)
    agree((xs[0] + (1 - a) * score) / a**0.5, guess, bound=1e-9, of="D.11")


@spec("D.44")
@settings(max_examples=10)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.integers(1, 1000), st.integers(1, 1000))
def test_the_transport_finds_data_far_from_the_origin(m_1, m_2, t, s):
    model = Mixture(np.array([0.3, 0.7]), np.array([m_1, m_2]), np.array([0.2, 3.0]), path=LINEAR)
    a_t, a_s = float(LINEAR.alpha_bar[t]), float(LINEAR.alpha_bar[s])
    centre = a_t**0.5 * np.array([m_1, m_2])
    x = (centre[:, None] + (a_t * np.array([[0.2], [3.0]]) + 1 - a_t) ** 0.5 * np.array([-3.0, 0.0, 3.0])).ravel()
    y = model.transport(x, level(a_t), level(a_s))
    agree(model.cdf(y, level(a_s)), model.cdf(x, level(a_t)), bound=1e-8, of="D.44")
    agree(model.transport(y, level(a_s), level(a_t)) / 1e4, x / 1e4, bound=1e-8 if abs(m_1 - m_2) < 1 else 1e-4)
