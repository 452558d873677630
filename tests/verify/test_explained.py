"""What is different is said in the letters of the law where no mistake of the bank explains it, and nothing that is not so."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verify import foreign_dit, fresh_laws, fresh_layers, fresh_losses
from verify.strange_laws import CONVERSIONS, GUIDANCE, LOSSES, STEPS, TABLES, noised
from verify.strange_layers import EMBEDDINGS, LATENTS, LAYERS, NETWORK, TRAINING

import minidit as md
from minidit.verify.bank.fits import placed
from minidit.verify.core.arguments import guesses
from minidit.verify.core.lists import in_words
from minidit.verify.core.reference import Reference
from minidit.verify.core.relations import Pair, relation
from minidit.verify.topics import TOPICS, network

STRANGE = [*CONVERSIONS, *STEPS, *TABLES, *GUIDANCE, *LOSSES, *LAYERS, *EMBEDDINGS, *NETWORK, *TRAINING, *LATENTS]


def finding(**targets):
    (f,) = md.verify.check(targets).findings
    return f


def said(**targets):
    return "; ".join(finding(**targets).sentences)


@functools.cache
def strange(k):
    _, topic, wrong = STRANGE[k]
    return finding(**{topic: wrong})


@pytest.mark.parametrize("k", range(len(STRANGE)), ids=[f"{t}: {n}" for n, t, _ in STRANGE])
def test_a_strange_mistake_is_seen(k):
    assert not strange(k).passed


def test_most_of_them_are_named_or_explained():
    assert sum(bool(strange(k).candidates or strange(k).sentences) for k in range(len(STRANGE))) >= 0.9 * len(STRANGE)


ROOT = lambda x, e, t, a: noised(x, e, t, a, q=lambda a: (1 - a) ** 0.25)
SAYS = {  # topic, function -> what is said
    "its root": ("q_sample", ROOT,
                 "the coefficient of ε is the root of the right one (got 0.364496, expected 0.132858 at linear, t = 37)"),
    "a formula": ("q_sample", lambda x, e, t, a: noised(x, e, t, a, p=lambda a: a),
                  "the coefficient of x_0 is the square of the right one: ᾱ_t for √ᾱ_t "
                  "(got 0.982349, expected 0.991135 at linear, t = 37)"),
    "exchanged": ("q_sample", lambda x, e, t, a: noised(e, x, t, a), "equals D.1 with x_0 and ε exchanged"),
    "one t": ("q_sample", lambda x, e, t, a: noised(x, e, t[:1], a), "equals D.1 with the first t for all"),
    "bfloat16": ("q_sample", lambda x, e, t, a: noised(x, e, t, a.astype(np.float16).astype(float)),
                 "equals D.1 with ᾱ rounded to float16"),
    "a sign": ("silu", lambda x: -fresh_layers.silu(x), "the answer is minus the right one"),
    "base 10": ("posterior_log_variance", lambda a: np.array(
        [fresh_laws.log_small(a, t, t - 1) for t in range(len(a))]) / np.log(10), "the answer is 1/ln 10 times the right one"),
    "another size": ("alpha_bar", lambda b: np.append(1, np.cumprod(1 - b)),
                     "5 entries, 4 asked for; 1 in front is too much, the others are right"),
    "too many": ("leading_timesteps", lambda T, N, o: [*fresh_laws.leading(T, N, o), 0],
                 "6 entries, 5 asked for; 0 more than once"),
    "to itself": ("step_pairs", lambda n, T: [*fresh_laws.pairs(n, T)[:-1], (int(n[-1]), int(n[-1]))],
                  "(0, 0) is a step to itself"),
    "cut off": ("linspace_timesteps", lambda T, N: [int(k * (T - 1) / (N - 1)) for k in range(N)][::-1],
                "cut off where it should be rounded"),
    "linear": ("scaled_linear_betas", lambda T: fresh_laws.ramp(T, 0.85, 12.0), "it is linear where its root should be"),
    "the sum": ("simple_loss", lambda *a: fresh_losses.simple(*a, form=lambda d: (d * d).sum()),
                "the answer is the number of entries times the right one"),
    "one per sample": ("simple_loss", lambda *a: fresh_losses.simple(*a, form=lambda d: (d * d).mean(axis=(1, 2, 3))),
                       "the answer has shape (3,), expected (): its mean would be right"),
    "all pairs": ("bits_per_dim", lambda n: np.add.outer(n.mean(axis=(1, 2, 3)), 0 * n[:, 0, 0, 0]),
                  "the answer has all pairs of the batch"),
    "another axis": ("layer_norm", lambda x: fresh_layers.norm(x, axis=0),
                     "equals A.14 with axis 0 of x in the place of its last"),
    "a period": ("timestep_embedding", lambda t, n: fresh_layers.waves(t, n, base=1000.0), "equals N.8 with period 1000 of time"),
    "no bias": ("halve", lambda x, w, b: fresh_layers.conv(x, w, 0 * b), "equals L.7 with bias left out"),
    "a half": ("hybrid_gradient", lambda *a: fresh_losses.hybrid_gradient(*a, v_by=-1.0),
               "only the second half of 2C is wrong: it is minus the right one"),
    "too lax": ("linear_betas", lambda T: np.linspace(0.1 / T, 15.0 / T, T), "an answer where it should refuse: T16"),
    "the batch": ("clip_static", lambda x: x / max(1, abs(x).max()), "it depends on its neighbours in the batch"),
    "itself": ("clip_gradients", lambda g, limit: g, "every entry of the answer is gradients itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAYS)
def test_what_is_different_is_said_in_the_letters_of_the_law(case):
    topic, function, words = SAYS[case]
    f = finding(**{topic: function})
    assert words in "; ".join(f.sentences) and words in str(md.verify.report.line(f))
    assert ("no known mistake explains this" in md.verify.report.line(f)) == (not f.whole)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["q_sample", "ddpm_step", "latent_sample", "adamw_update", "modulate", "normal_kl"]), st.data())
def test_whatever_is_done_to_an_argument_an_explanation_reproduces_it(topic, data):
    """A guess drawn from the kit's own, applied by a target: what is said has these answers, though it may say it otherwise."""
    t = TOPICS[topic]
    drawn = data.draw(st.sampled_from([g.words for g in guesses(t.parameters, t.probes()[0].args)]))

    def wrong(*args):
        changed = next(g for g in guesses(t.parameters, args) if g.words == drawn)
        return changed.after(t(Reference(), *changed.change(args)))

    with np.errstate(all="ignore"):
        f = finding(**{topic: wrong})
    assert f.passed or f.candidates or f.sentences or f.note


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=4, max_size=9), st.floats(0.1, 9))
def test_a_relation_is_said_of_no_noise(numbers, by):
    want = np.array(numbers) + np.arange(len(numbers))
    got = want + by * np.sin(1 + 7 * np.arange(len(numbers)) ** 1.7)
    words = relation([Pair(got, want, {"w": by})], 1e-9)
    if words:  # only what reproduces the numbers: a cut, say
        assert words.startswith("the right one") or np.allclose(got, want) or "for all" in words


@pytest.mark.parametrize("got, want, words", [
    ([5, 3, 3, 0], [5, 3, 1, 0], "3 more than once; 1 is missing"), ([0, 3, 5], [5, 3, 0], "the right ones backwards"),
    ([6, 4, 1], [5, 3, 0], "every entry is larger by 1"), ([5, 3], [5, 3, 0], "2 entries, 3 asked for; 0 is missing"),
    ([9, 5, 1], [8, 5, 1], "8 is missing; 9 does not belong there"),
])  # fmt: skip
def test_a_list_is_told_in_words(got, want, words):
    assert "; ".join(map(str, in_words([(np.array(got), np.array(want))]))) == words


def test_what_is_true_of_one_question_only_is_not_said_of_all():
    cut = (np.array([9, 5, 3, 1, 0]), np.array([9, 6, 4, 2, 0]))
    assert [*map(str, in_words([cut]))] == ["cut off where it should be rounded"]
    assert "cut off where it should be rounded" not in map(str, in_words([cut, (np.array([9, 4, 0]), np.array([9, 6, 0]))]))
    words = said(trailing_timesteps=lambda T, N: fresh_laws.leading(T, N, 0))  # smaller by 1 in the first question only
    assert words == "a fixed stride of 2, from 8 to 0; right: 9 to 1"


def test_a_refusal_that_is_missing_is_no_second_mistake():
    words = said(label_embedding=lambda table, y, drop: table[y] * ~drop[:, None])
    assert "refuse" not in words and "M81" not in words


STREAM = np.random.default_rng(3)
DROPPED = {
    "a tenth": (lambda y, p, K, L, train, seed: np.where(np.random.default_rng(seed).random(len(y)) < 0.1 * train, K, y),
                "of the labels are dropped, expected 0.5"),
    "-7": (lambda y, p, K, L, train, seed: np.where(np.random.default_rng(seed).random(len(y)) < p * train, -7, y),
           "dropped labels become -7, expected 10"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DROPPED)
def test_a_wrong_draw_is_told_in_plain_numbers(kind):
    function, words = DROPPED[kind]
    assert words in said(label_dropout=function)
    assert said(noise=lambda shape: 1.1 * STREAM.standard_normal(shape)).startswith("its variance is 1.2")
    assert said(draw_timesteps=lambda B, T: STREAM.integers(0, T - 1, B)) == "they run from 0 to 8, expected 0 to 9"


def test_a_known_mistake_and_an_unknown_one_are_told_together():
    known = TOPICS["adamw_update"].by(Reference((md.verify.DEVIATIONS["X02c"],)))
    words = said(adamw_update=lambda th, m, v, g, n, lr, *rest: known(th, m, v, g, n, 2 * lr, *rest))
    assert words.startswith("equals O.2 with X02c ") and words.endswith(", and twice lr")
    wrong = TOPICS["ddpm_step"].by(Reference((md.verify.DEVIATIONS["M22"],)))
    words = said(ddpm_step=lambda x_t, eps, t, s, alpha_bar, z: np.clip(wrong(x_t, eps, t, s, alpha_bar, z), -1, 1))
    assert words == "equals D.9 with M22 VARIANCE_AS_STD, and the answer is that of M22, cut to be at most 1 and at least -1"


# ------------------------------------------------------------------------------------------------ networks


def test_a_known_mistake_in_one_place_only_is_told_with_its_place():
    d = next(p for p in placed(md.verify.DEVIATIONS["X25"]) if "final" in p.id)
    assert said(dit=network.dit.by(Reference((d,)))) == "equals T.6 with X25 LN_UNBIASED in the final layer only"
    d = next(p for p in placed(md.verify.DEVIATIONS["M59"]) if "second" in p.id)
    assert said(dit=network.dit.by(Reference((d,)))) == "equals T.6 with M59 GELU_ERF from the second block on"


def test_of_a_layer_that_is_handed_out_it_is_said_what_its_numbers_are_to_the_right_ones():
    f = finding(dit=foreign_dit.dit("half the condition"))
    assert f.layer.startswith("c[") and f.layer.endswith("c is ½ times the right one")


def test_the_modulation_is_a_place_that_is_looked_at():
    R = Reference()
    network.dit(R, *TOPICS["dit"].probes()[4].args)
    names = list(R.taps)
    assert names.index("blocks.0.adaLN_modulation.1") < names.index("blocks.0.attn")
    assert "final_layer.adaLN_modulation.1" in names


def test_a_mistake_that_explains_most_questions_is_told_with_what_it_leaves():
    d = md.verify.DEVIATIONS["X34"]
    known, right = network.dit.by(Reference((d,))), network.dit.by(Reference())

    def mostly(weights, x, t, y, heads, patch_size):
        out = known(weights, x, t, y, heads, patch_size)
        return out if x.shape[2:] != (6, 8) else out + np.sin(right(weights, x, t, y, heads, patch_size) * 3)

    words = said(dit=mostly)
    assert words.startswith("X34 TMLP_GELU explains ") and words.endswith("not 'whole'")
