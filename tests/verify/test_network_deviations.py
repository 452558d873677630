"""Every mistake of a network or of its training is detected and has its own name; the clean text has none; pairs have two."""

import random

import numpy as np
import pytest
from verify import foreign_dit

from minidit.verify import DEVIATIONS, TOPICS, check
from minidit.verify.bank import embeddings, layers, network, training
from minidit.verify.bank.dialects import DIALECTS
from minidit.verify.core.finding import Answer, ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.core.search import examine
from minidit.verify.table import Bench
from minidit.verify.topics.embeddings import time_angles
from minidit.verify.topics.layers import gelu

GROUPS = ("layers", "embeddings", "network", "parameters", "training", "latents")
MINE = [t for t in TOPICS.values() if t.group in GROUPS]
BANK = [d for module in (layers, embeddings, network, training) for d in module.BANK]
EVERY = list(DEVIATIONS.values())
JUDGE = Judge()


def answers(*wrong, topics=MINE):
    """What the reference with these mistakes says to all questions."""
    R = Reference(wrong)
    return {t.name: ask(t.by(R), t) for t in topics}


def test_ids_are_unique_and_every_row_of_the_networks_catalogue_is_there():
    assert len({d.id for d in BANK}) == len(BANK)
    assert all(DEVIATIONS[d.id] is d for d in BANK), "another module has the same id"
    rows = {d.id[:3] for d in BANK}
    chapter = {f"M{n}" for n in (*range(55, 60), 61, 62, 64, 65, 66, 68, 69, 70, 72, 73, 75, 76, 77, 79, 81, 82, 83, 88, 89, 90,
                                 91, 93, 94, 95, 97, 98, 99)}  # fmt: skip
    assert chapter <= rows
    assert all(d.wrong and d.right for d in BANK)


def test_the_clean_reference_is_right_everywhere():
    findings = examine(MINE, answers(), EVERY, JUDGE)
    assert [f.verdict for f in findings] == ["equal"] * len(findings)


BENCH = Bench(MINE, EVERY)


@pytest.mark.parametrize("deviation", BANK, ids=str)
def test_a_mistake_is_detected_and_named_uniquely(deviation):
    """Of the topics of its groups; those that do not run through it are answered rightly without being asked."""
    asked = BENCH.answers((deviation,))
    findings = examine([TOPICS[name] for name in asked], asked, EVERY, BENCH.judge, depth=1)
    wrong = [f for f in findings if not f.passed]
    assert wrong
    assert {d.id for f in wrong for names in f.candidates for d in names} == {deviation.id}


@pytest.mark.parametrize("name", ["dit", pytest.param("dit_gradients", marks=pytest.mark.slow)])
def test_nearly_every_mistake_of_a_network_is_named_from_the_whole_network_alone(name):
    topic = TOPICS[name]
    near = [d for d in JUDGE.near(topic, EVERY) if d in BANK]
    assert len(near) > 70
    named = {}
    for d in near:
        finding = JUDGE.judge(topic, ask(topic.by(Reference([d])), topic), EVERY, depth=1)
        named[d.id] = "hidden" if finding.passed else [names[0].id for names in finding.candidates] == [d.id]
    hidden = {i for i, how in named.items() if how == "hidden"}
    nameless = {i for i, how in named.items() if how is False}
    adjoints = {"X56", "X57", "X58", "X59", "X62"}  # wrong on the way back only
    assert hidden == ({"M98"} | adjoints if name == "dit" else {"M98"}), "M98 needs large logits"
    assert nameless == ({"X30"} if name == "dit" else {"X30", "M99", "M98b"} & nameless), "refusals name nothing"


def moves(deviation, name):
    """Whether a mistake changes the answers of a topic."""
    right = [Answer(p, JUDGE.expected(TOPICS[name], p)) for p in TOPICS[name].probes()]
    return not JUDGE.explains(TOPICS[name], right, (deviation,), 1e-9)


def draw_two(draw, bank):
    """Two mistakes that can both be made: not in the same part, where one would replace the other."""
    while True:
        a, b = draw.sample(bank, 2)
        if not a.patches.keys() & b.patches.keys():
            return a, b


def test_pairs_are_always_detected_and_mostly_named():
    draw = random.Random(11)
    near = [d for d in BANK if moves(d, "block")]
    named, drawn = 0, 8
    topics = [TOPICS["block"]]
    for _ in range(drawn):
        two = draw_two(draw, near)
        (finding,) = examine(topics, answers(*two, topics=topics), EVERY, JUDGE)
        assert not finding.passed, two
        named += {d.id for names in finding.candidates[:1] for d in names} == {d.id for d in two}
    assert named >= 0.8 * drawn


@pytest.mark.slow
def test_pairs_in_the_whole_network_and_beside_it():
    draw = random.Random(5)
    near = [d for d in BANK if moves(d, "dit")]
    named, drawn = 0, 60
    for k in range(drawn):
        two = draw_two(draw, near if k % 2 else BANK)
        topics = [TOPICS["dit"]] if k % 2 else MINE
        findings = examine(topics, answers(*two, topics=topics), EVERY, JUDGE)
        assert not all(f.passed for f in findings), two
        named += {d.id for f in findings for names in f.candidates[:1] for d in names} == {d.id for d in two}
    assert named >= 0.8 * drawn


@pytest.mark.parametrize("depth", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("wrong", foreign_dit.WRONG)
def test_an_unknown_mistake_is_detected_not_named_and_placed_in_its_layer(wrong, depth):
    topic = TOPICS["dit"]
    (finding,) = examine([topic], {"dit": ask(foreign_dit.dit(wrong), topic)}, EVERY, JUDGE, depth=depth)
    assert finding.verdict == "unknown" and not finding.candidates
    assert finding.layer.startswith(foreign_dit.WRONG[wrong])


def test_a_right_network_that_shows_its_layers_passes():
    topic = TOPICS["dit"]
    (finding,) = examine([topic], {"dit": ask(foreign_dit.dit(), topic)}, EVERY, JUDGE)
    assert finding.verdict == "equal"


def test_a_network_that_only_refuses_is_given_no_name():
    def refuses(*args):
        raise NotImplementedError("not today")

    report = check({"dit": refuses})
    assert report.findings[0].verdict == "raises" and "not today" in str(report)


def test_an_unknown_mistake_in_a_layer_is_not_searched_again_in_what_contains_it():
    bent = Deviation("U", "BENT", "A.5", "", "", patches={gelu: lambda f: lambda R, x: 1.01 * f(R, x)})
    names = ["gelu", "mlp", "block", "dit", "dit_gradients"]
    R = Reference([bent])
    report = check({name: TOPICS[name].by(R) for name in names})
    assert [f.verdict for f in report.findings] == ["unknown"] * len(names)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_clean_dialect_is_right_in_itself(dialect):
    base = DIALECTS[dialect].deviations
    findings = examine(MINE, answers(*base), EVERY, Judge(base))
    assert all(f.verdict == "equal" for f in findings)


@pytest.mark.parametrize("mistake", ["M55", "M56", "M57"])
def test_a_mistake_is_named_behind_an_angle_of_time_in_float32(mistake):
    rounded = Deviation("U", "ANGLE_IN_FLOAT32", "N.8", "", "", patches={time_angles: lambda original: lambda R, *args: (
        original(R, *args).astype(np.float32).astype(np.float64))})  # fmt: skip
    (finding,) = check({"dit": TOPICS["dit"].by(Reference((rounded, DEVIATIONS[mistake])))}).findings
    assert [d.id for names in finding.candidates for d in names] == [mistake]
    assert finding.worst.error > 1e-4 and "--precision float32" in finding.note
