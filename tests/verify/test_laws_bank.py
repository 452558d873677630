"""Every mistake of the catalogue, put into the reference, is seen and named; none is seen where there is none."""

import collections
import dataclasses
import re

import numpy as np
import pytest

import minidit as md
from minidit.verify.bank import DEVIATIONS, likelihood, samplers, schedules
from minidit.verify.bank.dialect import ASPECTS, CONTINUOUS_ASPECTS
from minidit.verify.bank.dialects import DIALECTS, sharing
from minidit.verify.core.finding import Answer, ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Part, Reference
from minidit.verify.core.search import examine
from minidit.verify.table import Bench, Table
from minidit.verify.topics import TOPICS
from minidit.verify.topics.conversions import q_sample
from minidit.verify.topics.ddim import ddim_step

LAWS = ("schedules", "conversions", "samplers", "chains", "guidance", "losses", "likelihood")
BANK = [*schedules.BANK, *samplers.BANK, *likelihood.BANK]
IDS = [d.id for d in BANK]
SINGLE = (
    2, 4, 6, 9, 12, 18, 21, 22, 24, 25, 29, 31, 38, 39, 40, 41, 43, 44, 45, 49, 50, 54, 57, 58, 59, 62, 64, 73, 76, 77, 83, 84,
    86, 88, 91, 94, 97, 99,
)  # fmt: skip
SEVERAL = {  # rows that hold more than one mistake: how many
    1: 3, 3: 2, 5: 2, 8: 2, 10: 2, 14: 2, 15: 2, 17: 2, 26: 2, 27: 2, 30: 3, 32: 2, 33: 3, 34: 2, 36: 3, 37: 2, 42: 2, 46: 2,
    48: 3, 51: 3, 53: 3, 55: 3, 56: 2, 61: 2, 65: 2, 66: 2, 68: 2, 69: 2, 70: 3, 72: 1, 75: 2, 79: 4, 81: 2, 82: 2, 85: 2, 89: 2,
    90: 2, 93: 2, 95: 2, 98: 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def bench():
    return Bench([t for t in TOPICS.values() if t.group in LAWS], BANK)


def half(value):
    """An answer as float32 code gives it."""
    if isinstance(value, dict):
        return {k: half(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(half, value))
    return np.asarray(value).astype(np.float32) if np.asarray(value).dtype == np.float64 else value


def in_float32(asked):
    return {name: [dataclasses.replace(a, value=half(a.value)) for a in answers] for name, answers in asked.items()}


def test_every_row_of_the_catalogue_is_in_the_bank():
    switches = collections.Counter(int(i[1:3]) for i in DEVIATIONS if i[0] == "M")
    assert not {n: k for n, k in (dict.fromkeys(SINGLE, 1) | SEVERAL).items() if switches[n] < k}
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_dialect_says_what_it_does_in_every_aspect(dialect):
    tables = ([*ASPECTS], [*CONTINUOUS_ASPECTS], [*ASPECTS, *CONTINUOUS_ASPECTS])
    assert list(dialect.conventions) in tables and all(dialect.conventions.values())
    told = set(re.findall(r"[MC][0-9]{2,3}[a-z]?", " ".join([*dialect.does, *dialect.continuously])))
    assert told <= {*dialect.habits, *dialect.also} <= set(DEVIATIONS)


@pytest.mark.parametrize("identifier", ["M05", "M08", "M17", "M25", "M31", "M50", "M54", "M61b", "M76", "M86"])
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


@pytest.mark.parametrize("deviation", BANK, ids=IDS)
def test_a_record_says_what_is_wrong_and_what_is_right(deviation):
    assert deviation.wrong and deviation.right and deviation.patches
    assert all(isinstance(part, Part) for part in deviation.patches)


@pytest.mark.parametrize("deviation", BANK, ids=IDS)
def test_each_mistake_is_seen_and_named_alone(bench, deviation):
    row = bench.row((deviation,))
    assert row.detected
    assert row.named and row.explanations == (deviation.id,)


@pytest.mark.parametrize("deviation", BANK, ids=IDS)
def test_each_mistake_is_seen_in_float32(bench, deviation):
    assert bench.row((deviation,), in_float32(bench.answers((deviation,)))).detected


def test_nothing_is_found_in_right_answers_of_either_precision(bench):
    right = {}
    for t in bench.topics:
        answers = [(p, bench.judge.expected(t, p)) for p in t.probes()]
        right[t.name] = [Answer(p, error=str(m)) if isinstance(m, Exception) else Answer(p, m) for p, m in answers]
    for asked in (right, in_float32(right)):
        assert [f.topic.name for f in examine(bench.topics, asked, BANK, bench.judge) if not f.passed] == []


@pytest.mark.parametrize("name", [name for name, d in DIALECTS.items() if d.does])
def test_a_dialect_is_right_by_its_own_conventions_and_known_where_none_is_declared(bench, name):
    R = Reference(d for d in DIALECTS[name].deviations if d in BANK)
    mine = {t.name: t.by(R) for t in bench.topics}
    assert md.verify.check(mine, dialect=name).ok
    report = md.verify.check(mine)
    assert not report.ok and name in report.fits


def test_a_mistake_on_top_of_a_dialect_is_named_relative_to_it(bench):
    habits = [d for d in DIALECTS["ldm"].deviations if d in BANK]
    R = Reference([*habits, DEVIATIONS["M34"]])
    report = md.verify.check({t.name: t.by(R) for t in bench.topics}, dialect="ldm")
    assert report.mistakes == ["M34"]
    assert {f.topic.name for f in report.findings if not f.passed} == {"ddim_step", "ddim_step_clipped", "ddim_sample"}


def test_pairs_of_mistakes_are_seen_always_and_named_mostly(bench):
    rows = [bench.row(*drawn) for drawn in bench.draw(20, 16)]
    assert Table.share(rows, named=False) == 1.0
    assert Table.share(rows, named=True) >= 0.8


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
