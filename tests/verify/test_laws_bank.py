"""Every mistake of the catalogue, put into the reference, is seen and named; none is seen where there is none."""

import collections
import re

import pytest
from verify.test_bank import bench

import minidit as md
from minidit.verify.bank import DEVIATIONS
from minidit.verify.bank.dialects import ASPECTS, CONTINUOUS_ASPECTS, DIALECTS, TOKEN_ASPECTS, sharing
from minidit.verify.core.finding import Answer, ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Reference
from minidit.verify.topics import TOPICS
from minidit.verify.topics.conversions import q_sample
from minidit.verify.topics.ddim import ddim_step

SINGLE = (
    2, 4, 6, 9, 12, 18, 21, 22, 24, 25, 29, 31, 38, 39, 40, 41, 43, 44, 45, 49, 50, 54, 57, 58, 59, 62, 64, 73, 76, 77, 83, 84,
    86, 88, 91, 94, 97, 99,
)  # fmt: skip
SEVERAL = {  # rows that hold more than one mistake: how many
    1: 3, 3: 2, 5: 2, 8: 2, 10: 2, 14: 2, 15: 2, 17: 2, 26: 2, 27: 2, 30: 3, 32: 2, 33: 3, 34: 2, 36: 3, 37: 2, 42: 2, 46: 2,
    48: 3, 51: 3, 53: 3, 55: 3, 56: 2, 61: 2, 65: 2, 66: 2, 68: 2, 69: 2, 70: 3, 72: 1, 75: 2, 79: 4, 81: 2, 82: 2, 85: 2, 89: 2,
    90: 2, 93: 2, 95: 2, 98: 2,
}  # fmt: skip


def test_every_row_of_the_catalogue_is_in_the_bank():
    switches = collections.Counter(int(i[1:3]) for i in DEVIATIONS if i[0] == "M")
    assert not {n: k for n, k in (dict.fromkeys(SINGLE, 1) | SEVERAL).items() if switches[n] < k}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_dialect_says_what_it_does_in_every_aspect(dialect):
    tables = ((ASPECTS, dialect.does), (CONTINUOUS_ASPECTS, dialect.continuously), (TOKEN_ASPECTS, dialect.with_tokens))
    assert list(dialect.conventions) == [a for aspects, words in tables if words for a in aspects]
    assert dialect.conventions and all(dialect.conventions.values())
    told = set(re.findall(r"[MC][0-9]{2,3}[a-z]?", " ".join(w for _, words in tables for w in words)))
    assert told <= {*dialect.habits, *dialect.also} <= set(DEVIATIONS)


@pytest.mark.parametrize("identifier", ["M05", "M06b", "M17", "M25", "M31", "M50", "M54", "M61b", "M76", "M86"])
def test_habits_of_released_libraries_are_told_with_the_dialects_that_share_them(identifier):
    assert sharing(identifier)
    R = Reference((DEVIATIONS[identifier],))
    judge, parts = Judge(), DEVIATIONS[identifier].patches.keys()
    topic = next(t for t in TOPICS.values() if parts & judge.reached(t) and moves(identifier, t))
    text = str(md.verify.check({topic.name: topic.by(R)}))
    assert identifier in text and f"a habit of {', '.join(sharing(identifier))}" in text


def moves(identifier, topic):
    judge = Judge()
    right = [Answer(p, judge.expected(topic, p)) for p in topic.probes()]
    return not judge.explains(topic, right, (DEVIATIONS[identifier],), 1e-9)


def old_ddpm(x, eps, t, s, alpha_bar, z):
    """The step of diffusers 0.11: everything from the training ladder, noise unless t is 0."""
    before = alpha_bar[t - 1] if t > 0 else 1.0
    beta, rest = 1 - alpha_bar[t] / before, 1 - alpha_bar[t]
    x_0 = (x - rest**0.5 * eps) / alpha_bar[t] ** 0.5
    mean = before**0.5 * beta / rest * x_0 + (1 - beta) ** 0.5 * (1 - before) / rest * x
    return mean + ((1 - before) / rest * beta) ** 0.5 * z if t > 0 else mean


def test_an_old_version_s_step_is_right_in_its_own_dialect():
    assert md.verify.check({"ddpm_step": old_ddpm}, dialect="diffusers-0.11-ddpm").ok
    report = md.verify.check({"ddpm_step": old_ddpm})
    assert report.fits == ["diffusers-0.11-ddpm"] and "M02" in report.mistakes


def test_a_mistake_on_top_of_a_dialect_is_named_relative_to_it():
    habits = [d for d in DIALECTS["ldm"].deviations if d in bench("laws").bank]
    R = Reference([*habits, DEVIATIONS["M34"]])
    report = md.verify.check({t.name: t.by(R) for t in bench("laws").topics}, dialect="ldm")
    assert report.mistakes == ["M34"]
    assert {f.topic.name for f in report.findings if not f.passed} == {
        "ddim_step", "ddim_step_clipped", "ddim_sample", "ddim_along", "guided_sample",
    }  # fmt: skip


def walk_down(data, with_noise):
    """DDIM down a list, as somebody writes it in one loop. data: ᾱ past the last rung, from the table; with_noise: also there."""

    def along(denoise, x, timesteps, alpha_bar, eta, z):
        for k, t in enumerate(timesteps):
            last, a_t = k + 1 == len(timesteps), alpha_bar[t]
            a_s = data(alpha_bar) if last else alpha_bar[timesteps[k + 1]]
            sigma = 0.0 if last and not with_noise else eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)) ** 0.5
            eps = denoise(x, t)
            x = a_s**0.5 * (x - (1 - a_t) ** 0.5 * eps) / a_t**0.5 + (1 - a_s - sigma**2) ** 0.5 * eps + sigma * z[k]
        return x

    return along


@pytest.mark.parametrize(
    ("data", "with_noise", "mistakes"),
    [
        (lambda alpha_bar: 1.0, True, []), (lambda alpha_bar: 1.0, False, []),
        (lambda alpha_bar: alpha_bar[0], True, ["M08c"]), (lambda alpha_bar: alpha_bar[0], False, ["C22"]),
    ],
)  # fmt: skip
def test_the_last_step_of_a_list_that_ends_above_0_is_asked_for(data, with_noise, mistakes):
    report = md.verify.check({"ddim_along": walk_down(data, with_noise)})
    assert report.mistakes == mistakes and report.ok is not bool(mistakes)
    assert [len(f.candidates) for f in report.findings] == [len(mistakes)]


def test_noise_that_is_left_out_at_t_0_only_is_seen_where_the_list_ends_above_it():
    def along(denoise, x, timesteps, alpha_bar, z):
        for k, (t, s) in enumerate(zip(timesteps, [*timesteps[1:], -1], strict=True)):
            a_s, a_t = alpha_bar[s] if s >= 0 else 1.0, alpha_bar[t]
            mean = (x - (1 - a_t / a_s) / (1 - a_t) ** 0.5 * denoise(x, t)) / (a_t / a_s) ** 0.5
            x = mean + (t > 0) * (1 - a_t / a_s) ** 0.5 * z[k]
        return x

    assert {*md.verify.check({"ddpm_along": along}).mistakes} == {"M21b", "C04"}  # C04: β, where β̃ of the step before belongs


def test_a_mistake_that_shows_only_through_another_is_found_with_it():
    R = Reference((DEVIATIONS["M32b"], DEVIATIONS["M31"]))
    (finding,) = md.verify.check({"ddim_step": ddim_step.by(R)}).findings
    assert [{d.id for d in names} for names in finding.candidates] == [{"M31", "M32b"}]


def test_the_target_s_arguments_are_its_own_to_spoil():
    def spoils(x_0, eps, t, alpha_bar):
        out = q_sample(Reference(), x_0, eps, t, alpha_bar)
        for a in (x_0, eps, alpha_bar):
            a[:] = 0
        return out

    assert md.verify.check({"q_sample": spoils}).ok
    assert all(a.error == "" for a in ask(spoils, TOPICS["q_sample"]))
