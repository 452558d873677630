"""Mistakes that are in no catalogue: they are seen, nothing is blamed for them, and the first wrong equation is shown."""

import numpy as np
import pytest

import minidit as md
from minidit.verify.bank import DEVIATIONS
from minidit.verify.bank.wrap import arguments, instead, then
from minidit.verify.cases import topics_named
from minidit.verify.core.finding import ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.core.search import examine
from minidit.verify.table import Bench
from minidit.verify.topics import TOPICS, chains, conversions, ddim, guidance, likelihood, losses, posterior, schedules, timesteps


def mistake(name, patches):
    return Deviation(name, name, "", wrong="", right="", patches=patches)


def _skips_second(R, timesteps, T):
    pairs = [(int(t), timesteps.below(R, timesteps, k, T)) for k, t in enumerate(timesteps)]
    return np.array([p for k, p in enumerate(pairs) if k != 1])


def _per_batch(R, eps, eps_c, phi):
    return phi * eps * eps_c.std() / eps.std() + (1 - phi) * eps


def _closed(R, x, mean, log_variance):
    std = np.exp(log_variance / 2)
    return likelihood.cdf(R, (x - mean + 1 / 255) / std) - likelihood.cdf(R, (x - mean - 1 / 255) / std)


def _without_root(R, x_0, eps, t, alpha_bar):
    a = conversions.level(R, alpha_bar, t)
    return a**0.5 * x_0 + (1 - a) * eps


def _not_divided(R, x_0, p, most):
    q = guidance.saturation(R, x_0, p, most)
    return np.clip(x_0, -q, q)


# name of the mistake -> what it changes, and the first topic (in the order of the kit) that it spoils
INVENTED = {
    "direction loses σ, not σ²": (
        {ddim.ddim_direction: instead(lambda R, x, e, a, c: a**0.5 * x + ((1 - a) ** 0.5 - c) * e)}, "ddim_step"),
    "η is squared": ({ddim.ddim_sigma: arguments(lambda a_t, a_s, eta: (a_t, a_s, eta**2))}, "ddim_step"),
    "σ is halved": ({ddim.ddim_sigma: then(lambda sigma: sigma / 2)}, "ddim_step"),
    "c_2 with √ᾱ_t": (
        {posterior.posterior_weights: lambda f: lambda R, ab, t, a_t, a_s: (
            f(R, ab, t, a_t, a_s)[0], a_t**0.5 * (1 - a_s) / (1 - a_t))}, "posterior_mean"),
    "noise without its root": (
        {conversions.q_sample: instead(_without_root)}, "q_sample"),
    "cosine offset 0.08": (
        {schedules.cosine_f: instead(lambda R, T: np.cos((schedules.cosine_grid(R, T) + 0.08) / 1.08 * np.pi / 2) ** 2)},
        "cosine_betas"),
    "cosine cap 0.99": ({schedules.cosine_cap: instead(lambda R, betas: np.minimum(betas, 0.99))}, "cosine_betas"),
    "β along a geometric row": (
        {schedules.linear_betas: instead(lambda R, T: schedules.possible(R, np.geomspace(*schedules.ends(R, T, 1e-4, 0.02), T)))},
        "linear_betas"),
    "β ends at 0.0201": ({schedules.ends: arguments(lambda T, a, b: (T, a, b * 1.005))}, "linear_betas"),
    "trailing cut off, not rounded": (
        {timesteps.trailing_timesteps: instead(lambda R, T, N: np.arange(T, 0, -T / N).astype(int) - 1)}, "trailing_timesteps"),
    "a step is skipped": ({timesteps.step_pairs: instead(_skips_second)}, "step_pairs"),
    "fresh noise of another step": (
        {chains.walk: lambda f: lambda R, step, *a: f(R, lambda x, e, t, s, k: step(x, e, t, s, 0), *a)}, "ddim_sample"),
    "one wrong level": ({posterior.alpha_below: lambda f: lambda R, ab, t, s: f(R, ab, t, s) * (1.001 if 400 < s < 500 else 1)},
                        "posterior_variance"),
    "the network told t - 1": ({timesteps.network_time: then(lambda t: np.maximum(np.asarray(t) - 1, 0))}, "network_time"),
    "guidance normalised": ({guidance.combined: lambda f: lambda R, u, c, w: f(R, u, c, w) / max(abs(w), 1)}, "guide"),
    "contrast of the batch": ({guidance.rescale_guided: instead(_per_batch)}, "rescale_guided"),
    "threshold without division": (
        {guidance.clip_dynamic: instead(_not_divided)}, "clip_dynamic"),
    "tanh on the variance head": ({posterior.learned_fraction: arguments(lambda v: (np.tanh(v),))}, "learned_range_variance"),
    "KL the other way round": ({likelihood.normal_kl: arguments(lambda a, b, c, d: (c, d, a, b))}, "normal_kl"),
    "end bins closed": (
        {likelihood.bin_probability: instead(_closed)},
        "discretised_nll"),
    "min-SNR takes the larger": (
        {losses.min_snr_x_0: instead(lambda R, ab, g: np.maximum(losses.snr(R, ab), g))}, "min_snr_x_0"),
    "history by its mean": (
        {losses.importance_probabilities: lambda f: lambda R, h: f(R, h**0.5)}, "importance_probabilities"),
    "v with a plus": ({conversions.v_of: instead(lambda R, x, e, a: a**0.5 * e + (1 - a) ** 0.5 * x)}, "v_from_pair"),
    "√ᾱ shifted, not stretched": ({schedules.zero_snr: instead(lambda R, ab: (ab**0.5 - ab[-1] ** 0.5) ** 2)}, "zero_snr_betas"),
    "score without its root": (
        {conversions.score_from_eps: instead(lambda R, e, t, ab: -e / (1 - conversions.level(R, ab, t)))}, "score_from_eps"),
    "bound weight without ½": ({losses.bound_weight: then(lambda w: 2 * w)}, "bound_weight"),
    "t never reaches T-1": ({losses.draw_timesteps: then(lambda t: np.minimum(t, 8))}, "draw_timesteps"),
    "noise a tenth too wide": ({losses.noise: then(lambda z: 1.1 * z)}, "noise"),
    "λ of 0.01": ({losses.bound_factor: then(lambda f: 10 * f)}, "hybrid_loss"),
    "bits to base 10": ({likelihood.per_bit: instead(lambda R: np.log(10))}, "bits_per_dim"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bench():
    return Bench()


@pytest.mark.parametrize("name", INVENTED)
def test_a_mistake_outside_the_catalogue_is_seen_and_nothing_else_is_blamed(bench, name):
    patches, first = INVENTED[name]
    d = mistake(name, patches)
    failed = [f for f in bench.findings((d,)) if not f.passed]
    assert failed, "not detected"
    assert failed[0].topic.name == first
    assert not [f.topic.name for f in failed if f.candidates]
    assert failed[0].probe is not None and failed[0].worst.error > failed[0].tolerance


def test_of_a_wrong_sampler_the_first_wrong_coefficient_is_told():
    R = Reference((mistake("levels", INVENTED["one wrong level"][0]),))
    report = md.verify.check({"ddim_sample": chains.ddim_sample.by(R)})
    (finding,) = report.findings
    assert "coefficient of x" in finding.layer or "coefficient of ε̂" in finding.layer
    assert "t = 5" in finding.layer or "t = 4" in finding.layer or "t = 6" in finding.layer


def test_a_sampler_that_clips_is_told_to_be_not_affine():
    def clips(denoise, x, N, alpha_bar, eta, z):
        return chains.ddim_sample(Reference((DEVIATIONS["M32b"],)), denoise, x, N, alpha_bar, eta, z)

    (finding,) = md.verify.check({"ddim_sample": clips}).findings
    assert "not affine" in finding.layer or "coefficient" in finding.layer
    assert [d.id for d in finding.candidates[0]] == ["M32b"]


def test_a_float16_table_is_seen_through_float64_answers():
    def mine(x_t, eps, t, alpha_bar):
        return conversions.x_0_from_eps(Reference(), x_t, eps, t, alpha_bar.astype(np.float16).astype(np.float64))

    (finding,) = md.verify.check({"x_0_from_eps": mine}).findings
    assert not finding.passed and not finding.candidates


def test_refusals_everywhere_are_reported_as_such():
    def broken(*args):
        raise KeyError("no such thing")

    judge = Judge()
    asked = {"q_sample": ask(broken, TOPICS["q_sample"])}
    (finding,) = examine([TOPICS["q_sample"]], asked, list(DEVIATIONS.values()), judge)
    assert finding.verdict == "raises" and "no such thing" in finding.note


def test_one_topic_may_be_named_alone_and_a_misspelt_function_is_told_its_name():
    assert [t.name for t in topics_named("gelu")] == ["gelu"]
    mine = type("Mine", (), {"__name__": "mine", "ddim_stp": staticmethod(lambda *args: 0)})()
    with pytest.raises(ValueError, match="mine answers to no topic: it needs callables named as the topics are: ddim_step"):
        md.verify.check(mine)
