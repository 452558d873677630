"""Chapter D on data where the answer is known: Gaussians, mixtures, points. The samplers' own code runs here."""

import numpy as np
import pytest
from diffusion.draws import LINEAR, MEAN, VAR, ladders, pictures, rungs_of_batch, steps, subsets
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.diffusion import gaussian
from minidit.diffusion.ddim import ddim_invert_step, ddim_step
from minidit.diffusion.ddpm import ddpm_step, q_climb, q_sample
from minidit.diffusion.exact import Gaussian, Mixture
from minidit.diffusion.guidance import guide
from minidit.diffusion.prediction import EPS, PREDICTIONS, X_0, V
from minidit.diffusion.rungs import leading, linspace, pairs, trailing
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.variance import large, optimal, small

S_T = float(gaussian.spread(LINEAR.alpha_bar[-1], VAR))


def probe(law, model, sch, t, s, **rest):
    """(g, h) of a sampler step with a linear network, x_s = g x_t + h, by asking it twice."""
    x = np.array([[0.0], [1.0]])
    y = law(x, model(x, int(sch.time[t])), t, s, sch, **rest)[:, 0]
    return y[1] - y[0], y[0]


def walk_ddpm(rungs, noise, mean=0.0, var=1.0):
    """(mean, var) of x_0 when ddpm_step walks down from N(mean, var) with the perfect network for N(0.3, 0.25)."""
    model = Gaussian(MEAN, VAR, sch=LINEAR)
    for t, s in pairs(rungs):
        g, h = probe(ddpm_step, model, LINEAR, t, s, z=np.zeros((2, 1)))
        mean, var = g * mean + h, g**2 * var + (noise(t, s) if s > 0 else 0)
    return mean, var


def walk_ddim(rungs, model, x, sch=LINEAR):
    for t, s in pairs(rungs):
        x = ddim_step(x, model(x, int(sch.time[t])), t, s, sch)
    return x


# ------------------------------------------------------------------------------------------------ Gaussian data


@spec("D.38", "D.39")
def test_a_standard_normal_by_hand():
    """For N(0, 1) every x_t is N(0, 1): x̂_0 = √ᾱ x, ε̂ = √(1-ᾱ) x, v = 0."""
    x = np.array([[1.5]])
    for p, expected in ((X_0, 0.6 * 1.5), (EPS, 0.8 * 1.5), (V, 0.0)):
        model = Gaussian(0.0, 1.0, sch=Schedule.from_betas([0.64]), prediction=p)
        agree(model(x, 0), [[expected]], bound=1e-15, of="D.38")
    agree(gaussian.remaining(0.36, 1.0), 0.64, bound=1e-15, of="D.39")


@spec("D.38")
@given(st.data(), ladders())
def test_a_covariance_is_its_eigenvalues_in_its_own_basis(xp, data, sch):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    root, m, x = rng.normal(size=(6, 6)), rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3))
    cov, t = root @ root.T, data.draw(rungs_of_batch(sch, 4))
    model = Gaussian.of_covariance(m, cov, sch=sch, prediction=X_0)
    expected = []
    for a, row in zip(sch.alpha_bar[t], x, strict=True):
        k = a**0.5 * cov @ np.linalg.inv(a * cov + (1 - a) * np.eye(6))
        expected.append(m + (k @ (row - a**0.5 * m).ravel()).reshape(2, 3))
    agree(model(xp.asarray(x), xp.asarray(sch.time[t])), np.array(expected), bound=1e-10, of="D.38")
    plain = Gaussian(m, np.full((2, 3), 0.7), sch=sch)
    turned = Gaussian.of_covariance(m, 0.7 * np.eye(6), sch=sch)
    agree(plain(xp.asarray(x), int(sch.time[t[0]])), turned(xp.asarray(x), int(sch.time[t[0]])), bound=1e-10, of="D.38")


@spec("D.39")
@given(steps(), st.floats(0.01, 4), st.floats(-1, 1))
def test_no_prediction_beats_its_floor(ladder, s2, m):
    """E|target - model|², exactly, by propagating the coefficients of the two independent normals."""
    sch, t, _ = ladder
    a = float(sch.alpha_bar[t])
    for p in PREDICTIONS.values():
        model = Gaussian(m, s2, sch=sch, prediction=p)

        def error(x_0, eps, model=model, p=p):
            return float((p.target(x_0, eps, a) - model(q_sample(x_0, t, eps, sch), int(sch.time[t])))[0, 0])

        at = lambda u, e: (np.array([[m + s2**0.5 * u]]), np.array([[float(e)]]))
        bias = error(*at(0, 0))
        mse = bias**2 + (error(*at(1, 0)) - bias) ** 2 + (error(*at(0, 1)) - bias) ** 2
        agree(mse, gaussian.remaining(a, s2) * p.gain(a), bound=1e-10, of="D.39")
    agree(gaussian.remaining(a, s2) * EPS.gain(a), a * s2 / gaussian.spread(a, s2), bound=1e-10, of="D.39")
    agree(gaussian.remaining(a, s2) * V.gain(a), s2 / gaussian.spread(a, s2), bound=1e-10, of="D.39")


@spec("D.45")
@given(steps(), st.floats(0.05, 2), st.floats(-1, 1))
def test_the_sampler_with_the_perfect_network_is_the_affine_recursion(ladder, s2, m):
    sch, t, s = ladder
    g, h = probe(ddpm_step, Gaussian(m, s2, sch=sch), sch, t, s, z=np.zeros((2, 1)))
    a_t, a_s, sigma2 = sch.alpha_bar[t], sch.alpha_bar[s], small(t, s, sch)
    mean, var = gaussian.ancestral(0.4, 0.9, a_t, a_s, m, s2, sigma2)
    agree([mean, var], [g * 0.4 + h, g**2 * 0.9 + sigma2], bound=1e-10, of="D.45")


@spec("D.45", "D.18", "D.19", "D.20")
@pytest.mark.parametrize("N, law, expected", [
    (1000, small, 0.24612521), (1000, large, 0.25075208),
    (250, small, 0.23601551), (250, large, 0.25334560),
    (50, small, 0.19642024), (50, large, 0.26788287),
    (10, small, 0.10422249), (10, large, 0.35852122),
])  # fmt: skip
def test_the_printed_variances_of_a_ddpm_sampler_from_pure_noise(N, law, expected):
    mean, var = walk_ddpm(linspace(1000, N), lambda t, s: law(t, s, LINEAR))
    agree(mean, MEAN * (1 - LINEAR.alpha_bar[-1] * VAR / S_T), bound=1e-10, of="D.45")
    agree(mean, 0.299996973036, bound=1e-11, of="D.45")
    agree(var, expected, bound=6e-9)


@spec("D.45", "D.24", "D.26")
def test_the_printed_variances_of_other_spacings():
    noise = lambda t, s: small(t, s, LINEAR)
    agree(walk_ddpm(leading(1000, 10), noise)[1], 0.11106430, bound=6e-9)
    agree(walk_ddpm(trailing(1000, 10), noise)[1], 0.11120562, bound=6e-9)


@spec("D.20", "D.45")
@settings(max_examples=15)
@given(subsets(1000, max_size=12).map(lambda r: sorted({1, *r, 1000})))
def test_the_optimal_variance_gives_the_exact_marginals_through_any_subsequence(rungs):
    model, mean, var = Gaussian(MEAN, VAR, sch=LINEAR), MEAN * LINEAR.alpha_bar[-1] ** 0.5, S_T
    for t, s in pairs(rungs):
        g, h = probe(ddpm_step, model, LINEAR, t, s, z=np.zeros((2, 1)))
        mean, var = g * mean + h, g**2 * var + (optimal(t, s, LINEAR, VAR) if s > 0 else 0)
        if s > 0:
            a = LINEAR.alpha_bar[s]
            agree([mean, var], [MEAN * a**0.5, gaussian.spread(a, VAR)], bound=1e-10, of=("D.20", "D.45"))
    agree([mean, var], [MEAN, VAR - gaussian.remaining(LINEAR.alpha_bar[1], VAR)], bound=1e-10, of="D.20")
    from_noise = walk_ddpm(rungs, lambda t, s: optimal(t, s, LINEAR, VAR))
    agree(from_noise, [0.299996973036, 0.2499000300], bound=2e-10)


@spec("D.41")
@given(steps(), pictures(1, (2, 3)), st.floats(0.01, 3), st.floats(-1, 1))
def test_a_ddim_step_shrinks_by_its_closed_factor_down_and_up(ladder, xs, s2, m):
    (sch, t, s), x = ladder, xs[0]
    a_t, a_s = sch.alpha_bar[t], sch.alpha_bar[s]
    model = Gaussian(m, s2, sch=sch)
    down = ddim_step(x, model(x, int(sch.time[t])), t, s, sch)
    agree(down - a_s**0.5 * m, gaussian.ddim_factor(a_t, a_s, s2) * (x - a_t**0.5 * m), bound=1e-10, of="D.41")
    if s > 0:
        up = ddim_invert_step(x, model(x, int(sch.time[s])), s, t, sch)
        agree(up - a_t**0.5 * m, gaussian.ddim_factor(a_s, a_t, s2) * (x - a_s**0.5 * m), bound=1e-10, of="D.41")


@spec("D.41")
def test_the_printed_fifty_step_ddim_sample():
    model = Gaussian(MEAN, VAR, sch=LINEAR)
    x = walk_ddim(linspace(1000, 50), model, np.array([[0.0], [1.0]]))[:, 0]
    agree([x[0], (x[1] - x[0]) ** 2], [0.29910060, 0.22270387], bound=6e-9)


@spec("D.40")
@given(st.data(), ladders(), pictures(1, (3, 2)), st.floats(0.05, 3))
def test_the_flow_is_a_group_that_carries_the_marginals(xp, data, sch, xs, s2):
    m, x = np.array([0.2, -1.0]), xp.asarray(xs[0])
    model = Gaussian(m, s2, sch=sch)
    a, b, c = (float(sch.alpha_bar[data.draw(st.integers(0, sch.T))]) for _ in range(3))
    agree(model.flow(model.flow(x, a, b), b, c), model.flow(x, a, c), bound=1e-10, of="D.40")
    agree(model.flow(x, a, a), x, bound=1e-12, of="D.40")
    agree(gaussian.flow_factor(a, b, s2) ** 2 * gaussian.spread(a, s2), gaussian.spread(b, s2), bound=1e-12, of="D.40")


def theta_ladder(N):
    """N even steps in the angle, √ᾱ = cos θ, so that the order of a solver is not polluted by integer rungs."""
    theta = np.linspace(0, np.arccos(LINEAR.alpha_bar[-1] ** 0.5), N + 1)
    return Schedule(np.append(1.0, np.cos(theta[1:]) ** 2), np.arange(N + 1) - 1)


def theta_sample(N):
    """(what N DDIM steps make of a centred 1, what the exact flow makes of it)."""
    sch = theta_ladder(N)
    model = Gaussian(0.0, VAR, sch=sch)
    x = np.ones((1, 1))
    return walk_ddim(range(1, N + 1), model, x, sch)[0, 0], model.flow(x, float(sch.alpha_bar[-1]), 1.0)[0, 0]


@spec("D.40", "D.41")
def test_ddim_converges_to_the_flow_with_order_one_and_extrapolated_with_order_two():
    sizes = [10, 20, 40, 80, 160, 320, 640]
    x = [theta_sample(N)[0] for N in sizes]
    exact = theta_sample(10)[1]
    error = np.abs(np.array(x) - exact)
    agree(error[:-1] / error[1:], [1.936, 1.965, 1.982, 1.991, 1.995, 1.998], bound=1e-3)
    richardson = np.abs(2 * np.array(x[1:]) - np.array(x[:-1]) - exact)
    agree((richardson[:-1] / richardson[1:])[1:], [3.78, 3.89, 3.94, 3.97], bound=5e-3)


@spec("D.41")
@given(st.floats(0.05, 1.5), st.floats(0.05, 1.5))
def test_on_unit_variance_a_ddim_step_is_the_cosine_of_its_angle(theta, phi):
    agree(gaussian.ddim_factor(np.cos(theta) ** 2, np.cos(phi) ** 2, 1.0), np.cos(theta - phi), bound=1e-12, of="D.41")


@spec("D.23", "D.41")
def test_encoding_and_decoding_loses_half_as_much_with_twice_the_steps():
    loss = []
    for N in (20, 40, 80, 160, 320):
        sch = theta_ladder(N)
        model, x = Gaussian(0.0, VAR, sch=sch), np.ones((1, 1))
        for s in range(1, N):
            x = ddim_invert_step(x, model(x, int(sch.time[s])), s, s + 1, sch)
        for t in range(N, 1, -1):
            x = ddim_step(x, model(x, int(sch.time[t])), t, t - 1, sch)
        loss.append(abs(x[0, 0] - 1))
    away = 2 - np.array(loss[:-1]) / loss[1:]
    assert np.all(away[1:] / away[:-1] < 0.55) and away[-1] < 0.03, loss


# ------------------------------------------------------------------------------------------------ feeding the picture back


@spec("D.46")
@given(steps(), pictures(1, (5, 2)), st.floats(0.01, 4), st.integers(1, 6))
def test_feeding_the_picture_back_shrinks_all_pictures_to_the_mean(ladder, xs, s2, rounds):
    """x <- √ᾱ x̂_0(x) at a fixed rung multiplies every deviation by ᾱ s²/S < 1 in each round."""
    (sch, t, _), x = ladder, xs[0]
    a = float(sch.alpha_bar[t])
    m, model, start = a**0.5 * MEAN, Gaussian(MEAN, s2, sch=sch, prediction=X_0), x
    for _ in range(rounds):
        x = a**0.5 * model(x, int(sch.time[t]))
    factor = gaussian.feedback_factor(a, s2)
    assert 0 < factor < 1
    agree(x - m, factor**rounds * (start - m), bound=1e-10, of="D.46")
    agree(factor, a * s2 / gaussian.spread(a, s2), bound=1e-14, of="D.46")


@spec("D.46", "D.3")
@given(steps(), st.floats(0.01, 4))
def test_noise_and_a_posterior_sample_would_keep_the_spread_that_the_mean_loses(ladder, s2):
    """Down by a sample of q(x_0|x_t), up by q(x_t|x_0) keeps S; down by the mean leaves less."""
    sch, t, _ = ladder
    a = float(sch.alpha_bar[t])
    S, k = gaussian.spread(a, s2), gaussian.gain(a, s2)
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    signal, noise = q_climb(one, 0, t, zero, sch)[0, 0], q_climb(zero, 0, t, one, sch)[0, 0]
    agree(signal**2 * (k**2 * S + gaussian.remaining(a, s2)) + noise**2, S, bound=1e-10, of="D.46")
    assert signal**2 * k**2 * S + noise**2 < S


# ------------------------------------------------------------------------------------------------ mixtures and points


@st.composite
def mixtures(draw, sch, shape=(2,), K=3, classes=None, prediction=X_0):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    w = rng.uniform(0.2, 1, K)
    return Mixture(w / w.sum(), rng.normal(size=(K, *shape)), rng.uniform(0.05, 1, K), classes, sch=sch, prediction=prediction)


@spec("D.42")
@given(st.data(), ladders(), pictures(1, (3, 2)))
def test_a_mixture_of_one_is_the_gaussian(xp, data, sch, xs):
    m, t = np.array([0.5, -0.2]), data.draw(rungs_of_batch(sch, 3))
    x, time = xp.asarray(xs[0]), xp.asarray(sch.time[t])
    one = Mixture(np.ones(1), m[None], np.array([VAR]), sch=sch)
    agree(one(x, time), Gaussian(m, VAR, sch=sch)(x, time), bound=1e-10, of="D.42")


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

    h = 1e-5 * (1 - a) ** 0.5
    slope = [(log_p(x + h * e) - log_p(x - h * e)) / (2 * h) for e in np.eye(2)[:, None]]
    agree(model(x, int(sch.time[t])), [-((1 - a) ** 0.5) * np.array(slope)], bound=1e-6)


@spec("D.42")
@given(st.data(), ladders(), pictures(1, (4, 2, 3)))
def test_every_prediction_of_one_mixture_names_the_same_guess(xp, data, sch, xs):
    t, x = data.draw(rungs_of_batch(sch, 4)), xp.asarray(xs[0])
    model, a = data.draw(mixtures(sch, shape=(2, 3))), sch.alpha_bar[t]
    guess = model(x, xp.asarray(sch.time[t]))
    for p in PREDICTIONS.values():
        other = Mixture(model.weights, model.means, model.variances, sch=sch, prediction=p)
        agree(p.pair(other(x, xp.asarray(sch.time[t])), x, xp.asarray(a))[0], guess, bound=1e-10, of="D.42")


@spec("D.43")
def test_two_points_are_a_hyperbolic_tangent():
    """μ = ±1: x̂_0 = tanh(√ᾱ x/(1-ᾱ))."""
    model = Mixture.of_points(np.array([[1.0], [-1.0]]), sch=LINEAR, prediction=X_0)
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
    model = Mixture.of_points(points, sch=sch, prediction=X_0)
    agree(model(xp.asarray(x), int(sch.time[t])), p / p.sum(axis=1, keepdims=True) @ points, bound=1e-10, of="D.43")


@spec("D.43")
@given(pictures(1, (4, 6)))
def test_at_little_noise_the_memoriser_returns_the_nearest_point(xs):
    points = xs[0]
    model = Mixture.of_points(points, sch=LINEAR, prediction=X_0)
    agree(model(points + 1e-3, 0), points, bound=1e-10, of="D.43")


@spec("D.44")
@settings(max_examples=10)
@given(st.data())
def test_the_transport_keeps_the_cdf_and_is_the_flow_of_a_gaussian(data):
    model = data.draw(mixtures(LINEAR, shape=()))
    x = np.linspace(-6, 6, 13)
    a_t, a_s = (float(LINEAR.alpha_bar[data.draw(st.integers(1, 1000))]) for _ in range(2))
    y = model.transport(x, a_t, a_s)
    agree(model.cdf(y, a_s), model.cdf(x, a_t), bound=1e-10, of="D.44")
    agree(model.cdf(x, a_t) + model.cdf(x, a_t, upper=True), np.ones(13), bound=1e-14, of="D.44")
    agree(model.transport(y, a_s, a_t), x, bound=1e-10, of="D.44")
    one = Mixture(np.ones(1), np.array([MEAN]), np.array([VAR]), sch=LINEAR)
    agree(one.transport(x, a_t, a_s), Gaussian(MEAN, VAR, sch=LINEAR).flow(x, a_t, a_s), bound=1e-10, of="D.44")


@spec("D.44", "D.7")
def test_ddim_on_a_bimodal_density_converges_to_the_transport_with_order_one():
    weights, means, variances = np.array([0.4, 0.6]), np.array([-1.0, 0.8]), np.array([0.09, 0.04])
    x_T, errors = np.linspace(-1.5, 1.5, 7), []
    for N in (50, 100, 200, 400):
        sch = theta_ladder(N)
        model = Mixture(weights, means[:, None], variances, sch=sch)
        exact = Mixture(weights, means, variances, sch=sch).transport(x_T, float(sch.alpha_bar[-1]), 1.0)
        errors.append(np.abs(walk_ddim(range(1, N + 1), model, x_T[:, None], sch)[:, 0] - exact).mean())
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(order > 0.9) and abs(order[-1] - 1) < 0.03, order


@spec("D.46", "D.43")
def test_pictures_fed_back_at_one_level_end_at_a_few_points():
    """x_0 <- x̂_0(√ᾱ x_0): mean shift climbs to the modes of the smoothed data; at much noise one mode is left."""
    points = np.array([[1.0, 0.0], [-1.0, 0.2], [0.0, -1.0]])
    model = Mixture.of_points(points, sch=LINEAR, prediction=X_0)
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
    classes = np.array([0, 1, 1])
    model = data.draw(mixtures(sch, classes=classes, prediction=EPS))
    t, x = data.draw(st.integers(1, sch.T)), xp.asarray(xs[0])
    time = int(sch.time[t])
    out = model(x, time, xp.asarray([0, 1, 2, 0]))
    alone = Gaussian(model.means[0], model.variances[0], sch=sch)(x, time)
    agree(host(out)[[0, 3]], host(alone)[[0, 3]], bound=1e-10, of="G.6")
    agree(out[2], model(x, time)[2], bound=1e-12, of="G.6")
    w = model.weights[1:] / model.weights[1:].sum()
    pair = Mixture(w, model.means[1:], model.variances[1:], sch=sch, prediction=EPS)
    agree(out[1], pair(x, time)[1], bound=1e-10, of="G.6")


@spec("G.6", "G.1")
@given(pictures(1, (3, 2)), st.floats(0, 6))
def test_guided_noise_is_the_score_of_the_tilted_density(xs, w):
    """ε_∅ + w(ε_c - ε_∅) belongs to p^(1-w) p_c^w; w = 1 walks to exactly the class's own samples."""
    x, t = xs[0], 300
    model = Mixture(np.array([0.5, 0.5]), np.array([[1.0, 0], [-1, 0]]), np.array([VAR, VAR]), np.array([0, 1]), sch=LINEAR)
    u, c = model(x, t - 1), model(x, t - 1, np.zeros(3, int))
    a = LINEAR.alpha_bar[t]
    r = model.responsibilities(x, float(a))[:, :1]  # ε_c - ε_∅ = -√(1-ᾱ) ∇ log r_c
    other = model(x, t - 1, np.ones(3, int))
    agree(guide(u, c, w), c + (w - 1) * (1 - r) * (c - other), bound=1e-10, of="G.6")
    agree(guide(u, c, 1.0), Gaussian(np.array([1.0, 0]), VAR, sch=LINEAR)(x, t - 1), bound=1e-10, of="G.6")


def test_a_float32_picture_gets_a_float32_answer(xp):
    x = xp.ones((2, 3), dtype="float32")
    for model in (Gaussian(MEAN, VAR, sch=LINEAR), Gaussian.of_covariance(np.zeros(3), np.eye(3), sch=LINEAR),
                  Mixture.of_points(np.eye(3), sch=LINEAR)):  # fmt: skip
        assert model(x, xp.asarray([0, 500])).dtype == "float32" and model(x, 7).dtype == "float32"
