"""The kit's reference is minidit: where a part states an equation itself, it equals the package's own law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidit.autograd import Tensor
from minidit.diffusion import ddim, ddpm, guidance, likelihood, loss, prediction, rungs, threshold, variance
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.random import Philox
from minidit.verify.core.denoiser import Linear, coefficients, first_wrong_step, perfect
from minidit.verify.core.finding import ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Reference
from minidit.verify.topics import TOPICS
from minidit.verify.topics.chains import ddim_sample, ddpm_gaussian, ddpm_sample
from minidit.verify.topics.conversions import (
    eps_from_score,
    eps_from_v,
    eps_from_x_0,
    q_sample,
    score_from_eps,
    v_from_pair,
    x_0_from_eps,
    x_0_from_v,
    x_0_of_eps,
)
from minidit.verify.topics.ddim import ddim_invert_step, ddim_step, ddim_step_clipped
from minidit.verify.topics.ddpm import ddpm_step, ddpm_step_clipped, ddpm_step_large, ddpm_step_learned
from minidit.verify.topics.guidance import (
    clip_dynamic,
    guidance_interval,
    guide,
    guide_cond_first,
    guide_omega,
    guide_uncond_first,
)
from minidit.verify.topics.likelihood import continuous_nll, discretised_nll, prior_bits
from minidit.verify.topics.losses import bound_weight, hybrid_gradient, hybrid_loss, importance_weights
from minidit.verify.topics.posterior import (
    fixed_large_variance,
    learned_range_variance,
    posterior_log_variance,
    posterior_mean,
    posterior_variance,
)
from minidit.verify.topics.schedules import (
    alpha_bar,
    cosine_alpha_bar,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    zero_snr_betas,
)
from minidit.verify.topics.timesteps import network_time, respaced_betas, sampling_timesteps, space_timesteps, step_pairs
from tests.support import spec

R = Reference()
SCH = Schedule.linear(1000)
TABLE = SCH.alpha_bar[1:]
LAWS = ("schedules", "conversions", "samplers", "chains", "guidance", "losses", "likelihood")


def drawn(seed, *shape, number=2):
    rng = Philox(seed)
    return [rng.normal(shape, dtype=np.float64) for _ in range(number)]


def near(a, b, tol=1e-12):
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol * max(1.0, float(np.max(abs(np.asarray(b))))))


@pytest.mark.parametrize("name", [t.name for t in TOPICS.values() if t.group in LAWS])
def test_the_reference_answers_its_own_questions_and_passes(name):
    topic = TOPICS[name]
    assert len({p.name for p in topic.probes()}) == len(topic.probes())
    finding = Judge().judge(topic, ask(topic.by(Reference()), topic), [])
    assert finding.passed and finding.verdict == "equal"


@pytest.mark.parametrize("T", [21, 250, 1000])
def test_ladders_are_those_of_the_schedule(T):
    near(linear_betas(R, T), Schedule.linear(T).beta[1:], 1e-10)
    near(scaled_linear_betas(R, T), Schedule.scaled_linear(T).beta[1:], 1e-10)
    near(cosine_betas(R, T), Schedule.cosine(T).beta[1:], 1e-10)
    near(cosine_alpha_bar(R, T), Schedule.cosine(T).alpha_bar[1:])
    near(alpha_bar(R, cosine_betas(R, T)), Schedule.cosine(T).alpha_bar[1:])
    near(zero_snr_betas(R, SCH.beta[1:]), zero_terminal_snr(SCH).beta[1:])


@given(st.sampled_from([10, 101, 1000]), st.integers(1, 10))
def test_timesteps_are_our_rungs_less_one(T, N):
    for name in ("leading", "linspace", "trailing"):
        args = (T, N, 0) if name == "leading" else (T, N)
        ours = sorted(getattr(rungs, name)(T, N), reverse=True)
        assert list(TOPICS[f"{name}_timesteps"](R, *args)) == [r - 1 for r in ours]
        pairs = [(t - 1, s - 1) for t, s in rungs.pairs(ours)]
        assert [tuple(p) for p in step_pairs(R, np.array(ours) - 1, T)] == pairs
        kept = sorted(ours)
        near(respaced_betas(R, Schedule.cosine(T).alpha_bar[1:], np.array(kept) - 1), Schedule.cosine(T).respace(kept).beta[1:])
        assert list(network_time(R, np.array(kept) - 1, np.arange(N), T)) == list(Schedule.cosine(T).respace(kept).time[1:])


def test_openai_s_notation_is_ours_less_one():
    for T, text in ((300, "10,15,20"), (1000, "ddim50"), (1000, "250")):
        assert list(space_timesteps(R, T, text)) == [r - 1 for r in rungs.from_text(text, T)]


@given(st.integers(1, 1000))
def test_conversions_are_those_of_prediction(t):
    x, y = drawn(1, 1, 2, 2, 3)
    at = np.array([t - 1])
    near(q_sample(R, x, y, at, TABLE), ddpm.q_sample(x, t, y, SCH))
    near(x_0_from_eps(R, x, y, at, TABLE), prediction.predict_x_0(x, y, t, SCH))
    near(eps_from_x_0(R, x, y, at, TABLE), prediction.predict_eps(x, y, t, SCH))
    near(v_from_pair(R, x, y, at, TABLE), prediction.predict_v(x, y, t, SCH))
    x_0, eps = prediction.V.pair(y, x, SCH.level(t))
    near(x_0_from_v(R, x, y, at, TABLE), x_0)
    near(eps_from_v(R, x, y, at, TABLE), eps)
    near(score_from_eps(R, x, at, TABLE), prediction.predict_score(x, t, SCH))
    near(eps_from_score(R, x, at, TABLE), prediction.eps_of_score(x, t, SCH))


@spec("D.7", "D.9", "D.17")
@given(st.integers(2, 1000), st.integers(0, 999), st.sampled_from([0.0, 0.4, 1.0]))
def test_steps_are_ddim_and_ddpm(t, s, eta):
    s = s % t
    x, eps, z = drawn(2, 2, 1, 2, 3, number=3)
    near(ddim_step(R, x, eps, t - 1, s - 1, TABLE, eta, z), ddim.ddim_step(x, eps, t, s, SCH, eta=eta, z=z), 1e-10)
    near(ddpm_step(R, x, eps, t - 1, s - 1, TABLE, z), ddpm.ddpm_step(x, eps, t, s, SCH, z=z), 1e-9)
    var = variance.large(t, s, SCH)
    near(ddpm_step_large(R, x, eps, t - 1, s - 1, TABLE, z), ddpm.ddpm_step(x, eps, t, s, SCH, z=z, variance=var), 1e-9)
    near(posterior_mean(R, x, eps, t - 1, s - 1, TABLE), ddpm.posterior(eps, x, t, s, SCH)[0])
    out = np.concatenate([eps, x], axis=1)
    for name, kind in prediction.PREDICTIONS.items():
        pair = kind.pair(eps, z, SCH.level(t))
        head = variance.learned_range(x, t, s, SCH)
        near(learned_range_variance(R, x, t - 1, s - 1, TABLE), head, 1e-9)
        want = ddpm.ddpm_from_pair(*pair, t, s, SCH, z=z, variance=head)
        near(ddpm_step_learned(R, z, out, t - 1, s - 1, TABLE, z, name), want, 1e-8)
    x_0 = prediction.predict_x_0(x, eps, t, SCH)
    pair = threshold.rederived(x_0, x, SCH.level(t))
    near(ddim_step_clipped(R, x, eps, t - 1, s - 1, TABLE, eta, z), ddim.ddim_from_pair(*pair, t, s, SCH, eta=eta, z=z), 1e-9)
    near(ddpm_step_clipped(R, x, eps, t - 1, s - 1, TABLE, z), ddpm.ddpm_from_pair(*pair, t, s, SCH, z=z), 1e-8)
    if s:
        near(ddim_invert_step(R, x, eps, s - 1, t - 1, TABLE), ddim.ddim_invert_step(x, eps, s, t, SCH), 1e-10)


def test_variance_tables_are_the_variance_laws_with_the_numbers_of_the_papers_code():
    t = np.arange(1, 1001)
    near(posterior_variance(R, TABLE), variance.small(t, t - 1, SCH))
    near(posterior_log_variance(R, TABLE)[:-1], [variance.log_small(k, k - 1, SCH) for k in range(1, 1000)], 1e-9)
    near(fixed_large_variance(R, TABLE)[:-1], [variance.large(k, k - 1, SCH) for k in range(1, 1000)])
    assert abs(posterior_log_variance(R, TABLE)[0] - -9.81672513529567) < 1e-9


def test_guidance_and_ranges_are_those_of_the_laws():
    u, c = drawn(3, 2, 4, 2, 3)
    near(guide(R, u, c, 3.0), guidance.guide(u, c, 3.0))
    near(guide_omega(R, u, c, 2.0), guidance.guide_from_conditional(u, c, 2.0))
    near(guide_cond_first(R, np.concatenate([c, u]), 3.0), guide(R, u, c, 3.0))
    near(guide_uncond_first(R, np.concatenate([u, c]), 3.0), guide(R, u, c, 3.0))
    near(clip_dynamic(R, 5 * u, 0.9, 3.0), threshold.dynamic(5 * u, p=0.9, most=3.0))
    assert list(guidance_interval(R, 3.0, np.arange(6), 2, 4)) == [1, 1, 3, 3, 1, 1]


@spec("K.4", "K.6", "K.8")
def test_the_bound_is_that_of_likelihood():
    x, mean, lv = TOPICS["discretised_nll"].probes()[1].args
    near(discretised_nll(R, x, mean, lv), likelihood.discretised_nll(x, mean, lv), 1e-9)
    near(continuous_nll(R, x, mean, lv), likelihood.continuous_nll(x, mean, lv))
    near(prior_bits(R, x, TABLE), likelihood.bits(likelihood.prior_term(x, SCH)))
    for name, decoder in (("vb_term", likelihood.discretised_nll), ("vb_term_latents", likelihood.continuous_nll)):
        for p in TOPICS[name].probes():
            x_0, x_t, guess, lv, t, _ = p.args
            near(TOPICS[name](R, *p.args), likelihood.bound_term(x_0, x_t, guess, lv, t + 1, SCH, decoder=decoder), 1e-8)


@spec("D.36")
def test_the_hybrid_gradient_is_that_of_autograd():
    for p in TOPICS["hybrid_gradient"].probes():
        out, x_0, eps, t, table = p.args
        sch = Schedule.from_betas(respaced_betas(R, table, np.arange(len(table))))
        said, t = Tensor(out), t + 1
        eps_hat, v = said[:, :2], said[:, 2:]
        x_t = ddpm.q_sample(x_0, t, eps, sch)
        guess = prediction.predict_x_0(x_t, out[:, :2], t, sch)
        log_variance = variance.log_learned_range(v, t, t - 1, sch)
        term = likelihood.bound_term(x_0, x_t, guess, log_variance, t, sch, decoder=likelihood.continuous_nll)
        total = loss.hybrid(loss.per_sample(eps_hat, eps), term, sch.T).sum()
        total.backward()
        near(hybrid_gradient(R, *p.args), said.grad, 1e-8)
        near(hybrid_loss(R, *p.args).sum(), total.data, 1e-9)


def test_weights_of_t_are_those_of_the_losses():
    a, levels = SCH.alpha_bar[1:], SCH.level(np.arange(1, SCH.T + 1))
    for name, answer in prediction.PREDICTIONS.items():
        near(TOPICS[f"min_snr_{name}"](R, a, 5.0), loss.min_snr(answer, levels))
    p = loss.importance(TOPICS["importance_probabilities"].probes()[0].args[0])
    near(importance_weights(R, p[1:], np.array([0, 4])), loss.importance_weight(p, np.array([1, 5])))
    near(bound_weight(R, 499, 449, TABLE, 0.1), loss.bound_weight(500, 450, SCH, 0.1))


def test_the_sampler_walks_the_pairs_of_rungs_and_tells_the_time_of_the_schedule():
    denoise, x, N, alpha_bar, eta, z = TOPICS["ddim_sample"].probes()[0].args
    assert eta == 0.0
    want, sch = ddim_sample(R, denoise.fresh(), x, N, alpha_bar, eta, z), Schedule(np.append(1.0, alpha_bar), np.arange(1001) - 1)
    for t, s in rungs.pairs(rungs.linspace(1000, N)):
        x = ddim.ddim_step(x, denoise(x, int(sch.time[t])), t, s, sch)
    near(x, want, 1e-10)


@spec("D.45")
def test_the_affine_probe_recovers_the_coefficients_of_every_step():
    denoise, x, N, alpha_bar, eta, z = TOPICS["ddim_sample"].probes()[1].args
    denoise = denoise.fresh()
    last = ddim_sample(R, denoise, x, N, alpha_bar, eta, z)
    found = coefficients(denoise.seen, last, z)
    for (t, (a, b, c), rest), (rung, s) in zip(found, step_pairs(R, sampling_timesteps(R, 1000, N), 1000), strict=True):
        a_t, a_s = alpha_bar[rung], alpha_bar[s] if s >= 0 else 1.0
        sigma = eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)) ** 0.5
        assert t == rung and rest < 1e-10
        near(a, (a_s / a_t) ** 0.5, 1e-8)
        near(b, (1 - a_s - sigma**2) ** 0.5 - (a_s * (1 - a_t) / a_t) ** 0.5, 1e-8)
        near(c, sigma, 1e-8)
    assert first_wrong_step(found, found, 1e-10) == ""
    assert first_wrong_step(found[1:], found, 1e-10) == "5 calls of the network, expected 6"


@spec("D.45")
def test_the_moments_are_those_of_many_samples():
    denoise, x, N, alpha_bar = TOPICS["ddpm_gaussian"].probes()[0].args
    rng = Philox(99)
    known = ddpm_gaussian(R, denoise, x, N, alpha_bar)
    draws = np.stack([rng.normal(x.shape, dtype=np.float64) for _ in range(N)])
    got = ddpm_sample(R, denoise, x, N, alpha_bar, draws)
    assert abs(got.mean() - known.mean) < 5e-3 and abs(got.var() - known.var) < 5e-3


def test_a_linear_denoiser_is_the_perfect_one_and_takes_fractions_of_a_timestep():
    denoise = perfect(TABLE)
    x = drawn(5, 1, 1, 2, 2)[0]
    a = TABLE[500]
    x_0 = x_0_of_eps(R, x, denoise(x, 500), a)
    near(x_0, 0.3 + a**0.5 * 0.25 / (a * 0.25 + 1 - a) * (x - a**0.5 * 0.3), 1e-10)
    near(Linear([0.0, 1.0], [0.0, 2.0])(x, 0.5), 0.5 * x + 1.0)
    assert len(denoise.seen) == 1 and not denoise.fresh().seen
