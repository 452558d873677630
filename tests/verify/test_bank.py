"""The bank: every mistake put into the reference is seen and named, alone and in pairs; none is seen where there is none."""

import dataclasses
import functools

import numpy as np
import pytest

import minidit as md
from minidit.verify.bank import (
    DEVIATIONS,
    clips,
    codes,
    consistency,
    flows,
    guided,
    likelihood,
    paths,
    samplers,
    schedules,
    streams,
    times,
    tokens,
    unet,
)
from minidit.verify.bank.dialects import DIALECTS
from minidit.verify.core.finding import Answer
from minidit.verify.core.reference import Part, Reference
from minidit.verify.core.search import examine
from minidit.verify.table import Bench, Table
from minidit.verify.topics import TOPICS

LAWS = ("schedules", "conversions", "samplers", "chains", "guidance", "losses", "likelihood")
ROOMS = {  # groups of topics, further topics, modules of the bank, and for drawn pairs a seed and a number
    "laws": (LAWS, (), (schedules, samplers, likelihood), (20, 16)),
    "around": ((*LAWS, "training", "latents"), (), (guided,), (5, 8)),
    "continuous": (("paths", "times", "flows", "consistency", "unet"), ("straight_embedding",),
                   (paths, times, flows, consistency, unet), (3, 30)),
    "tokens": (("codes", "tokens", "streams"), (), (codes, tokens, streams, clips), (4, 30)),
}  # fmt: skip
EACH = [pytest.param(room, d, id=d.id) for room, (_, _, modules, _) in ROOMS.items() for m in modules for d in m.BANK]


@functools.cache
def bench(room):
    groups, more, modules, _ = ROOMS[room]
    topics = [t for t in TOPICS.values() if t.group in groups or t.name in more]
    return Bench(topics, [d for m in modules for d in m.BANK])


def half(value):
    """An answer as float32 code gives it."""
    if isinstance(value, dict):
        return {k: half(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(half, value))
    return np.asarray(value).astype(np.float32) if np.asarray(value).dtype == np.float64 else value


def in_float32(asked):
    return {name: [dataclasses.replace(a, value=half(a.value)) for a in answers] for name, answers in asked.items()}


def test_the_rooms_and_the_networks_hold_the_bank():
    """What is not listed here is asked in test_network_deviations.py."""
    mine = [p.values[1].id for p in EACH]
    assert len(set(mine)) == len(mine) and set(mine) < set(DEVIATIONS)


@pytest.mark.parametrize("room, deviation", EACH)
def test_a_record_says_what_is_wrong_and_what_is_right(room, deviation):
    assert deviation.wrong and deviation.right and deviation.patches
    assert all(isinstance(part, Part) for part in deviation.patches)


def right(b, asked):
    """Whether all topics pass, at the tolerance of their answers' own type."""
    return all(b.judge.explains(TOPICS[t], answers, (), b.judge.tolerance(TOPICS[t], answers)) for t, answers in asked.items())


@pytest.mark.parametrize("room, deviation", EACH)
def test_each_mistake_is_seen_and_named_alone_and_seen_in_float32(room, deviation):
    b = bench(room)
    asked = b.answers((deviation,))
    row = b.row((deviation,), asked)
    assert row.detected and row.named and row.explanations == (deviation.id,)
    assert not right(b, in_float32({name: asked[name] for name in row.detected}))


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_is_found_in_right_answers_of_either_precision(room):
    b, right = bench(room), {}
    for t in b.topics:
        answers = [(p, b.judge.expected(t, p)) for p in t.probes()]
        right[t.name] = [Answer(p, error=str(m)) if isinstance(m, Exception) else Answer(p, m) for p, m in answers]
    for asked in (right, in_float32(right)):
        assert [f.topic.name for f in examine(b.topics, asked, b.bank, b.judge) if not f.passed] == []


SPOKEN = [("laws", name) for name, d in DIALECTS.items() if d.does]
SPOKEN += [("continuous", name) for name, d in DIALECTS.items() if d.continuously]
SPOKEN += [("tokens", name) for name, d in DIALECTS.items() if d.with_tokens]


@pytest.mark.parametrize("room, name", SPOKEN)
def test_a_dialect_is_right_by_its_own_conventions_and_known_where_none_is_declared(room, name):
    b = bench(room)
    R = Reference(DIALECTS[name].deviations)
    mine = {t.name: t.by(R) for t in b.topics}
    assert md.verify.check(mine, dialect=name).ok
    report = md.verify.check(mine)
    assert not report.ok and name in report.fits


@pytest.mark.parametrize("room", ROOMS)
def test_pairs_of_mistakes_are_seen_always_and_named_mostly(room):
    rows = [bench(room).row(*drawn) for drawn in bench(room).draw(*ROOMS[room][3])]
    assert Table.share(rows, named=False) == 1.0
    assert Table.share(rows, named=True) >= 0.8
