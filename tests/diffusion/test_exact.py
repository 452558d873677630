"""Chapter D on data where the answer is known: Gaussians, mixtures, points. The samplers' own code runs here."""

import numpy as np
import pytest
from diffusion.draws import (
    LINEAR,
    MEAN,
    VAR,
    ladders,
    level,
    pictures,
    rungs_of_batch,
    steps,
    subsets,
    theta_ladder,
    walk_ddim,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, spec

from minidit.autograd import Gradients
from minidit.diffusion import gaussian
from minidit.diffusion.ddim import ddim_invert_step, ddim_std, ddim_step
from minidit.diffusion.ddpm import ddpm_step, q_climb, q_sample
from minidit.diffusion.exact import Gaussian
from minidit.diffusion.loss import simple
from minidit.diffusion.prediction import EPS, PREDICTIONS, X_0, V
from minidit.diffusion.rungs import leading, linspace, pairs, trailing
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.variance import large, optimal, small
from minidit.nn import Embedding, Module
from minidit.optim import AdamW, OptimConfig
from minidit.random import Philox

S_T = float(gaussian.spread(level(LINEAR.alpha_bar[-1]), VAR))


def probe(law, model, sch, t, s, **rest):
    """(g, h) of a sampler step with a linear network, x_s = g x_t + h, by asking it twice."""
    x = np.array([[0.0], [1.0]])
    y = law(x, model(x, int(sch.time[t])), t, s, sch, **rest)[:, 0]
    return y[1] - y[0], y[0]


def walk_ddpm(rungs, noise, mean=0.0, var=1.0):
    """(mean, var) of x_0 when ddpm_step walks down from N(mean, var) with the perfect network for N(0.3, 0.25)."""
    model = Gaussian(MEAN, VAR, path=LINEAR)
    for t, s in pairs(rungs):
        g, h = probe(ddpm_step, model, LINEAR, t, s, z=np.zeros((2, 1)))
        mean, var = g * mean + h, g**2 * var + (noise(t, s) if s > 0 else 0)
    return mean, var


# ------------------------------------------------------------------------------------------------ Gaussian data


@spec("D.38", "D.39")
def test_a_standard_normal_by_hand():
    """For N(0, 1) every x_t is N(0, 1): x̂_0 = √ᾱ x, ε̂ = √(1-ᾱ) x, v = 0."""
    x = np.array([[1.5]])
    for p, expected in ((X_0, 0.6 * 1.5), (EPS, 0.8 * 1.5), (V, 0.0)):
        model = Gaussian(0.0, 1.0, path=Schedule.from_betas([0.64]), prediction=p)
        agree(model(x, 0), [[expected]], bound=1e-15, of="D.38")
    agree(gaussian.remaining(level(0.36), 1.0), 0.64, bound=1e-15, of="D.39")


@spec("D.38")
@given(st.data(), ladders())
def test_a_covariance_is_its_eigenvalues_in_its_own_basis(xp, data, sch):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    root, m, x = rng.normal(size=(6, 6)), rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3))
    cov, t = root @ root.T, data.draw(rungs_of_batch(sch, 4))
    model = Gaussian.of_covariance(m, cov, path=sch, prediction=X_0)
    expected = []
    for a, row in zip(sch.alpha_bar[t], x, strict=True):
        k = a**0.5 * cov @ np.linalg.inv(a * cov + (1 - a) * np.eye(6))
        expected.append(m + (k @ (row - a**0.5 * m).ravel()).reshape(2, 3))
    agree(model(xp.asarray(x), xp.asarray(sch.time[t])), np.array(expected), bound=1e-10, of="D.38")
    plain = Gaussian(m, np.full((2, 3), 0.7), path=sch)
    turned = Gaussian.of_covariance(m, 0.7 * np.eye(6), path=sch)
    agree(plain(xp.asarray(x), int(sch.time[t[0]])), turned(xp.asarray(x), int(sch.time[t[0]])), bound=1e-10, of="D.38")


@spec("D.39")
@given(steps(), st.floats(0.01, 4), st.floats(-1, 1))
def test_no_prediction_beats_its_floor(ladder, s2, m):
    """E|target - model|², exactly, by propagating the coefficients of the two independent normals."""
    sch, t, _ = ladder
    a = float(sch.alpha_bar[t])
    for p in PREDICTIONS.values():
        model = Gaussian(m, s2, path=sch, prediction=p)

        def error(x_0, eps, model=model, p=p):
            return float((p.target(x_0, eps, level(a)) - model(q_sample(x_0, t, eps, sch), int(sch.time[t])))[0, 0])

        at = lambda u, e: (np.array([[m + s2**0.5 * u]]), np.array([[float(e)]]))
        bias = error(*at(0, 0))
        mse = bias**2 + (error(*at(1, 0)) - bias) ** 2 + (error(*at(0, 1)) - bias) ** 2
        agree(mse, gaussian.remaining(level(a), s2) * p.gain(level(a)), bound=1e-10, of="D.39")
    agree(gaussian.remaining(level(a), s2) * EPS.gain(level(a)), a * s2 / gaussian.spread(level(a), s2), bound=1e-10, of="D.39")
    agree(gaussian.remaining(level(a), s2) * V.gain(level(a)), s2 / gaussian.spread(level(a), s2), bound=1e-10, of="D.39")


@spec("D.45")
@given(steps(), st.floats(0.05, 2), st.floats(-1, 1))
def test_the_sampler_with_the_perfect_network_is_the_affine_recursion(ladder, s2, m):
    sch, t, s = ladder
    g, h = probe(ddpm_step, Gaussian(m, s2, path=sch), sch, t, s, z=np.zeros((2, 1)))
    a_t, a_s, sigma2 = sch.alpha_bar[t], sch.alpha_bar[s], small(t, s, sch)
    mean, var = gaussian.ancestral(0.4, 0.9, level(a_t), level(a_s), m, s2, sigma2)
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
    model, mean, var = Gaussian(MEAN, VAR, path=LINEAR), MEAN * LINEAR.alpha_bar[-1] ** 0.5, S_T
    for t, s in pairs(rungs):
        g, h = probe(ddpm_step, model, LINEAR, t, s, z=np.zeros((2, 1)))
        mean, var = g * mean + h, g**2 * var + (optimal(t, s, LINEAR, VAR) if s > 0 else 0)
        if s > 0:
            a = LINEAR.alpha_bar[s]
            agree([mean, var], [MEAN * a**0.5, gaussian.spread(level(a), VAR)], bound=1e-10, of=("D.20", "D.45"))
    agree([mean, var], [MEAN, VAR - gaussian.remaining(level(LINEAR.alpha_bar[1]), VAR)], bound=1e-10, of="D.20")
    from_noise = walk_ddpm(rungs, lambda t, s: optimal(t, s, LINEAR, VAR))
    agree(from_noise, [0.299996973036, 0.2499000300], bound=2e-10)


@spec("D.41")
@given(steps(), pictures(1, (2, 3)), st.floats(0.01, 3), st.floats(-1, 1))
def test_a_ddim_step_shrinks_by_its_closed_factor_down_and_up(ladder, xs, s2, m):
    (sch, t, s), x = ladder, xs[0]
    a_t, a_s = sch.alpha_bar[t], sch.alpha_bar[s]
    model = Gaussian(m, s2, path=sch)
    down = ddim_step(x, model(x, int(sch.time[t])), t, s, sch)
    agree(down - a_s**0.5 * m, gaussian.step_factor(level(a_t), level(a_s), s2) * (x - a_t**0.5 * m), bound=1e-10, of="D.41")
    if s > 0:
        up = ddim_invert_step(x, model(x, int(sch.time[s])), s, t, sch)
        agree(up - a_t**0.5 * m, gaussian.step_factor(level(a_s), level(a_t), s2) * (x - a_s**0.5 * m), bound=1e-10, of="D.41")


@spec("D.51", "D.6")
@given(steps(), st.floats(0.01, 3), st.floats(-1, 1), st.floats(0, 1))
def test_a_noisy_ddim_step_shrinks_less_and_adds_its_noise(ladder, s2, m, eta):
    sch, t, s = ladder
    a_t, a_s, sigma = sch.alpha_bar[t], sch.alpha_bar[s], float(ddim_std(t, s, sch, eta))
    model = Gaussian(m, s2, path=sch)
    g, h = probe(lambda *a, z: ddim_step(*a, eta=eta, z=z), model, sch, t, s, z=np.zeros((2, 1)))
    agree(
        [g, g * a_t**0.5 * m + h], [gaussian.step_factor(level(a_t), level(a_s), s2, sigma), a_s**0.5 * m], bound=1e-10, of="D.51"
    )
    fresh = ddim_step(np.zeros((1, 1)), np.zeros((1, 1)), t, s, sch, eta=eta, z=np.ones((1, 1)))
    agree(fresh[0, 0], sigma, bound=1e-14, of=("D.6", "D.51"))


@spec("D.51", "D.45")
@given(steps(), st.floats(0.01, 3), st.floats(-1, 1), st.floats(0, 2))
def test_at_eta_one_it_is_the_ddpm_recursion_with_the_small_variance(ladder, s2, m, var):
    sch, t, s = ladder
    a_t, a_s, sigma2 = sch.alpha_bar[t], sch.alpha_bar[s], small(t, s, sch)
    mean, spread = gaussian.ancestral(a_t**0.5 * m, var, level(a_t), level(a_s), m, s2, sigma2)
    noisy = gaussian.step_factor(level(a_t), level(a_s), s2, sigma2**0.5) ** 2 * var + sigma2
    agree([mean, spread], [a_s**0.5 * m, noisy], bound=1e-10, of=("D.45", "D.51"))


@spec("D.41")
def test_the_printed_fifty_step_ddim_sample():
    model = Gaussian(MEAN, VAR, path=LINEAR)
    x = walk_ddim(linspace(1000, 50), model, np.array([[0.0], [1.0]]))[:, 0]
    agree([x[0], (x[1] - x[0]) ** 2], [0.29910060, 0.22270387], bound=6e-9)


@spec("D.40")
@given(st.data(), ladders(), pictures(1, (3, 2)), st.floats(0.05, 3))
def test_the_flow_is_a_group_that_carries_the_marginals(xp, data, sch, xs, s2):
    m, x = np.array([0.2, -1.0]), xp.asarray(xs[0])
    model = Gaussian(m, s2, path=sch)
    a, b, c = (float(sch.alpha_bar[data.draw(st.integers(0, sch.T))]) for _ in range(3))
    agree(
        model.flow(model.flow(x, level(a), level(b)), level(b), level(c)),
        model.flow(x, level(a), level(c)),
        bound=1e-10,
        of="D.40",
    )
    agree(model.flow(x, level(a), level(a)), x, bound=1e-12, of="D.40")
    agree(
        gaussian.flow_factor(level(a), level(b), s2) ** 2 * gaussian.spread(level(a), s2),
        gaussian.spread(level(b), s2),
        bound=1e-12,
        of="D.40",
    )


def theta_sample(N):
    """(what N DDIM steps make of a centred 1, what the exact flow makes of it)."""
    sch = theta_ladder(N)
    model = Gaussian(0.0, VAR, path=sch)
    x = np.ones((1, 1))
    return walk_ddim(range(1, N + 1), model, x, sch)[0, 0], model.flow(x, level(float(sch.alpha_bar[-1])), level(1.0))[0, 0]


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
    agree(
        gaussian.step_factor(level(np.cos(theta) ** 2), level(np.cos(phi) ** 2), 1.0), np.cos(theta - phi), bound=1e-12, of="D.41"
    )


@spec("D.23", "D.41")
def test_encoding_and_decoding_loses_half_as_much_with_twice_the_steps():
    loss = []
    for N in (20, 40, 80, 160, 320):
        sch = theta_ladder(N)
        model, x = Gaussian(0.0, VAR, path=sch), np.ones((1, 1))
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
    m, model, start = a**0.5 * MEAN, Gaussian(MEAN, s2, path=sch, prediction=X_0), x
    for _ in range(rounds):
        x = a**0.5 * model(x, int(sch.time[t]))
    factor = gaussian.feedback_factor(level(a), s2)
    assert 0 < factor < 1
    agree(x - m, factor**rounds * (start - m), bound=1e-10, of="D.46")
    agree(factor, a * s2 / gaussian.spread(level(a), s2), bound=1e-14, of="D.46")


@spec("D.46", "D.3")
@given(steps(), st.floats(0.01, 4))
def test_noise_and_a_posterior_sample_would_keep_the_spread_that_the_mean_loses(ladder, s2):
    """Down by a sample of q(x_0|x_t), up by q(x_t|x_0) keeps S; down by the mean leaves less."""
    sch, t, _ = ladder
    a = float(sch.alpha_bar[t])
    S, k = gaussian.spread(level(a), s2), gaussian.gain(level(a), s2)
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    signal, noise = q_climb(one, 0, t, zero, sch)[0, 0], q_climb(zero, 0, t, one, sch)[0, 0]
    agree(signal**2 * (k**2 * S + gaussian.remaining(level(a), s2)) + noise**2, S, bound=1e-10, of="D.46")
    assert signal**2 * k**2 * S + noise**2 < S


# ------------------------------------------------------------------------------------------------ a floor that is reached


class Linear(Module):
    """ε̂ = w_t x + b_t: the most that a linear model can know, a slope and an offset for every rung."""

    def __init__(self, T):
        self.slope, self.offset = Embedding(T, 1), Embedding(T, 1)

    def forward(self, x, time):
        return self.slope(time) * x + self.offset(time)


@spec("D.48", "D.34", "D.39")
def test_a_trained_linear_model_reaches_the_floor_of_the_loss_and_never_beats_it():
    """The loss of every step is exact, by Gauss-Hermite over x_0 and ε at every rung: it is quadratic in both."""
    sch, steps = Schedule.linear(25), 500
    u, w = np.polynomial.hermite_e.hermegauss(3)
    t, i, j = (g.ravel() for g in np.meshgrid(np.arange(1, 26), range(3), range(3), indexing="ij"))
    x_0, eps, weight = (MEAN + VAR**0.5 * u[i])[:, None], u[j][:, None], 9 * w[i] * w[j] / (2 * np.pi)
    x_t, time = q_sample(x_0, t, eps, sch), sch.time[t]
    model = Linear(25).build(Philox(0), dtype=np.float64)
    optimiser, bar, told = AdamW(model, OptimConfig(lr=0.05, final_lr=0.0), steps), np.zeros(model.layout.size), []
    for n in range(1, steps + 1):
        value = simple(model(x_t, time), eps, weight)
        with Gradients([p.data for p in model.parameters()], model.views(bar)):
            value.backward()
        optimiser.step(bar, n)
        told.append(float(value))
    floor = gaussian.simple_floor(sch.levels, VAR)
    assert min(told) >= floor * (1 - 1e-12) and told[0] > 1.2 * floor
    agree(told[-1] / floor, 1.0, bound=1e-4, of="D.48")
    a = sch.alpha_bar[1:]
    best = (1 - a) ** 0.5 / gaussian.spread(level(a), VAR)
    agree(model.slope.weight.data[:, 0], best, bound=0.02, of="D.38")
    agree(model.offset.weight.data[:, 0], -best * a**0.5 * MEAN, bound=0.02, of="D.38")


@spec("D.48", "D.39")
@given(ladders(), st.floats(0.01, 4))
def test_the_floor_is_the_mean_of_the_floors_of_all_rungs(sch, s2):
    each = [gaussian.remaining(level(a), s2) * a / (1 - a) for a in sch.alpha_bar[1:]]
    agree(gaussian.simple_floor(sch.levels, s2), np.mean(each), bound=1e-12, of="D.48")
    assert 0 < gaussian.simple_floor(sch.levels, s2) < 1
