"""Every mistake of the catalogue, put into the reference, is seen and named; none is seen where there is none."""

import dataclasses

import numpy as np
import pytest

import minidit as md
from minidit.verify.check import Answer, ask, examine
from minidit.verify.deviations import DEVIATIONS, likelihood, samplers, schedules
from minidit.verify.dialects import DIALECTS
from minidit.verify.reference import PARTS, TOPICS, Reference
from minidit.verify.table import Bench, Table

LAWS = ("schedules", "conversions", "samplers", "chains", "guidance", "losses", "likelihood")
BANK = [*schedules.BANK, *samplers.BANK, *likelihood.BANK]
IDS = [d.id for d in BANK]
# the rows of the catalogue on schedules, samplers, the bound and guidance
NUMBERS = (
    1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 15, 17, 18, 21, 22, 24, 25, 26, 27, 29, 30, 31, 32, 33, 34, 36, 37, 38, 39,
    40, 41, 42, 43, 44, 45, 46, 48, 49, 50, 51, 53, 54, 84, 85, 86,
)


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
    assert not [n for n in NUMBERS if f"M{n:02}" not in DEVIATIONS]
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize("deviation", BANK, ids=IDS)
def test_a_record_says_what_is_wrong_and_what_is_right(deviation):
    assert deviation.wrong and deviation.right and deviation.patches
    assert deviation.patches.keys() <= PARTS.keys()


@pytest.mark.parametrize("deviation", BANK, ids=IDS)
def test_each_mistake_is_seen_and_named_alone(bench, deviation):
    row = bench.row((deviation,))
    assert row.detected
    assert row.named and row.said == (deviation.id,)


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


@pytest.mark.parametrize("name", ["openai", "dit-official", "diffusers", "ldm"])
def test_a_dialect_is_right_by_its_own_conventions_and_known_where_none_is_declared(bench, name):
    R = Reference(d for d in DIALECTS[name].deviations if d in BANK)
    mine = {t.name: getattr(R, t.name) for t in bench.topics}
    assert md.verify.check(mine, dialect=name).ok
    report = md.verify.check(mine)
    assert not report.ok and name in report.fits


def test_a_mistake_on_top_of_a_dialect_is_named_relative_to_it(bench):
    habits = [d for d in DIALECTS["ldm"].deviations if d in BANK]
    R = Reference([*habits, DEVIATIONS["M34"]])
    report = md.verify.check({t.name: getattr(R, t.name) for t in bench.topics}, dialect="ldm")
    assert report.mistakes == ["M34"]
    assert {f.topic.name for f in report.findings if not f.passed} == {"ddim_step", "ddim_step_clipped", "ddim_sample"}


def test_pairs_of_mistakes_are_seen_always_and_named_mostly(bench):
    rows = [bench.row(*drawn) for drawn in bench.draw(20, 40)]
    assert Table.share(rows, named=False) == 1.0
    assert Table.share(rows, named=True) >= 0.8


def test_a_mistake_that_shows_only_through_another_is_found_with_it():
    R = Reference((DEVIATIONS["M32b"], DEVIATIONS["M31"]))
    (finding,) = md.verify.check({"ddim_step": R.ddim_step}).findings
    assert [{d.id for d in names} for names in finding.candidates] == [{"M31", "M32b"}]


def test_the_target_s_arguments_are_its_own_to_spoil():
    def spoils(x_0, eps, t, alpha_bar):
        out = Reference().q_sample(x_0, eps, t, alpha_bar)
        for a in (x_0, eps, alpha_bar):
            a[:] = 0
        return out

    assert md.verify.check({"q_sample": spoils}).ok
    assert all(a.error == "" for a in ask(spoils, TOPICS["q_sample"]))
