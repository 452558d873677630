"""What is said of wrong answers is true of further questions; where a step leads; and laws in the place of others have names."""

import functools

import numpy as np
import pytest
from verify import fresh_layers as fresh
from verify import strange_third_flows as flows
from verify import strange_third_laws as laws
from verify import strange_third_layers as layers
from verify.fresh_losses import guide

import minidit as md
from minidit.verify.bank.nonlinear import BLOCKS, MEANS, PENALTIES, WARMUPS, WEIGHTS
from minidit.verify.core.further import further, letters_of
from minidit.verify.core.levels import rung
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import TOPICS, block
from minidit.verify.topics import layers as parts
from minidit.verify.topics.losses import averaged, penalty
from minidit.verify.topics.training import warm_share

R = Reference()


def finding(**targets):
    (f,) = md.verify.check(targets).findings
    return f


def said(**targets):
    return "; ".join(finding(**targets).sentences)


# ------------------------------------------------------------------------------------------------ further questions


def test_what_a_topic_takes_says_which_axes_its_arguments_have():
    assert letters_of(TOPICS["q_sample"]) == {
        "x_0": ("B", "C", "H", "W"), "eps": ("B", "C", "H", "W"), "t": ("B",), "alpha_bar": ("T",)}  # fmt: skip
    assert letters_of(TOPICS["label_embedding"])["table"] == ("K+1", "D")


@pytest.mark.parametrize("topic", ["q_sample", "ddim_step", "linear", "guide", "edm_denoised", "weighted_loss", "ict_weights"])
def test_further_questions_are_others_and_have_answers(topic):
    t = TOPICS[topic]
    asked = list(further(t))
    assert asked and len({p.name for p in asked} | {p.name for p in t.probes()}) == len(asked) + len(t.probes())
    for probe in asked:
        assert t(R, *probe.args) is not None and not np.array_equal(t(R, *probe.args), t(R, *t.probes()[0].args))


ACCIDENTS = {  # what is true of the topic's own questions, and not so
    "w at most 2 is √w for w = 0, 1, 4": ("guide", lambda u, c, w: guide(u, c, min(w, 2.0)), "root"),
    "√4 biases are 2": ("linear", lambda x, w, b: x @ w.T + b * len(b) ** 0.5, "twice"),
    "1/σ_d is 2": ("edm_denoised", {n: f for n, _, f in flows.PATHS}["c_out without sigma_data"], "twice"),
    "two numbers": ("guidance_interval", lambda w, t, low, high: np.where((t > low) & (t <= high), w, 1.0), "backwards"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCIDENTS)
def test_an_accident_of_few_numbers_is_no_explanation(name):
    topic, function, words = ACCIDENTS[name]
    f = finding(**{topic: function})
    assert not f.passed and words not in "; ".join(f.sentences) and not f.candidates


def test_nor_is_a_name_that_other_sizes_contradict():
    assert finding(halve=functools.partial(fresh.conv, pads=((1, 0), (1, 0)))).candidates == []
    f = finding(halve=lambda x, w, b: layers.conv(x, w, b)[:, :, ::2, ::2])
    assert [d.id for (d,) in f.candidates] == ["M91"]


# ------------------------------------------------------------------------------------------------ where a step leads

ddim, ddpm = (TOPICS[f"{name}_step"].by(R) for name in ("ddim", "ddpm"))


def test_the_level_that_a_step_reaches_is_read_off_its_answer():
    words = said(ddim_step=lambda x, e, t, s, a, eta, z: ddim(x, e, t, max(s - 20, -1), a, eta, z))
    assert words == ("the step from t = 500 lands on the level of t = 437, expected t = 457 (20 too far down, always); "
                     "only the questions with s = -1 are right")  # fmt: skip
    words = said(ddpm_step=lambda x, e, t, s, a, z: ddpm(x, e, min(t + 3, 999), s, a, z))
    assert words == "the step from t = 500 takes x_t for a sample of the level of t = 503 (always 3 above)"


def test_a_level_between_two_rungs_is_said_as_one():
    table = np.array([0.9, 0.5, 0.1])
    assert [rung(table, level) for level in (1.0, 0.5, 0.3)] == ["the data", "t = 1", "t = 1.5"]


class Wandering:
    """A scheduler whose steps lead seven rungs too far."""

    def __init__(self, alpha_bar):
        self.alpha_bar = alpha_bar

    def timesteps(self, N):
        self.below = dict(zip(ts := np.linspace(0, 999, N).round().astype(int)[::-1], [*ts[1:], -1], strict=True))
        return ts

    def step(self, x, eps, t, z):
        return ddim(x, eps, int(t), max(int(self.below[t]) - 7, -1), self.alpha_bar, 0.0, z)


def test_a_scheduler_s_steps_are_told_by_where_they_land():
    reasons = finding(ddim_scheduler=Wandering).sentences
    assert reasons[0] == "N 4: the step from t = 999 lands on the level of t = 659, expected t = 666"


def test_a_sampler_s_first_wrong_step_too():
    walk = functools.partial(laws.loop, step=None)

    def sample(net, x, N, a, eta, z):
        step = lambda x, e, t, s, k: ddim(x, e, t, max(s - 7, -1), a, eta, z[k])
        return walk.func(net, x, laws.grid(len(a), N), step)

    assert finding(ddim_sample=sample).layer.endswith("it lands on the level of t = 659, expected t = 666")


# ------------------------------------------------------------------------------------------------ other laws

OTHER = {
    "simple_loss": (penalty, {n: lambda R, d, g=g: g(d) for n, g in PENALTIES.items()}),
    "flow_loss": (penalty, {n: lambda R, d, g=g: g(d) for n, g in PENALTIES.items()}),
    "weighted_loss": (averaged, {n: lambda R, p, g=g: g(p) for n, g in MEANS.items()}),
    "warmup_rate": (warm_share, {n: lambda R, n, w, g=g: g(n / w) for n, g in WARMUPS.items()}),
    "attention": (parts.softmax, WEIGHTS),
}


@pytest.mark.parametrize("topic, words", [(t, w) for t, (_, forms) in OTHER.items() for w in forms])
def test_a_law_in_the_place_of_another_is_said_as_what_it_is(topic, words):
    part, forms = OTHER[topic]
    wrong = Reference([Deviation("", "", "", "", "", {part: lambda original: forms[words]})])
    f = finding(**{topic: TOPICS[topic].by(wrong)})
    assert not f.passed and (f.candidates or f.whole), f.sentences


@pytest.mark.parametrize("words", BLOCKS)
def test_so_is_where_the_norms_of_a_block_stand(words):
    wrong = TOPICS["block"].by(Reference([Deviation("", "", "", "", "", BLOCKS[words])]))
    f = finding(block=wrong)
    assert f.candidates or f.sentences == [f"equals T.5 with {words}"]
    assert block.block_stream in BLOCKS[words]


# ------------------------------------------------------------------------------------------------ users' mistakes

THIRD = [
    *laws.LADDERS, *laws.CONVERSIONS, *laws.STEPS, *laws.WALKS, *laws.GUIDANCE, *laws.LOSSES, *flows.PATHS, *flows.TIMES,
    *flows.FLOWS, *flows.CONSISTENCY, *layers.LAYERS, *layers.EMBEDDINGS, *layers.UNET, *layers.TRAINING,
]  # fmt: skip


def shares(mistakes):
    """(detected, named or explained)."""
    with np.errstate(all="ignore"):
        found = [finding(**{topic: wrong}) for _, topic, wrong in mistakes]
    seen, explained = [not f.passed for f in found], [bool(f.candidates or f.sentences) for f in found]
    return sum(seen) / len(found), sum(explained) / len(found)


def test_mistakes_of_users_are_seen_and_most_are_explained():
    detected, explained = shares(THIRD)
    assert detected >= 0.99 and explained >= 0.7


def test_so_are_those_of_users_of_torch():
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")
    from verify.strange_third_torch import STRANGE

    as_numpy = [(what, topic, md.verify.torch.functions({topic: wrong})[topic]) for what, topic, wrong in STRANGE]
    detected, explained = shares(as_numpy)
    assert detected >= 0.99 and explained >= 0.7
