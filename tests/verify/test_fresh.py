"""Mistakes that are in no catalogue, by hand in code that is not the package's: every one is seen, right code never accused."""

import pytest
from verify import fresh_laws, fresh_layers, fresh_losses

import minidit as md

RIGHT = fresh_laws.LADDERS | fresh_laws.STEPS | fresh_losses.GUIDANCE | fresh_losses.LOSSES | fresh_layers.LAYERS
RIGHT |= fresh_layers.TRAINING | fresh_layers.DROPOUT | fresh_layers.LATENTS
FRESH = {
    "schedules": fresh_laws.WRONG_LADDERS, "steps": fresh_laws.WRONG_STEPS, "guidance": fresh_losses.WRONG_GUIDANCE,
    "losses": fresh_losses.WRONG_LOSSES, "layers": fresh_layers.WRONG_LAYERS, "training": fresh_layers.WRONG_TRAINING,
    "label dropout": fresh_layers.WRONG_DROPOUT, "latents": fresh_layers.WRONG_LATENTS,
}  # fmt: skip


@pytest.mark.parametrize("topic", RIGHT)
def test_right_code_written_by_somebody_else_is_not_accused(topic):
    (finding,) = md.verify.check({topic: RIGHT[topic]}).findings
    assert finding.verdict == "equal", md.verify.report.line(finding)


@pytest.mark.parametrize("area", FRESH)
def test_there_are_a_good_dozen_of_each_area(area):
    assert len(FRESH[area]) >= 13


@pytest.mark.parametrize("topic, wrong", [pytest.param(t, f, id=f"{a}: {t}: {name}") for a in FRESH for name, t, f in FRESH[a]])
def test_a_fresh_mistake_is_seen_with_its_equation_its_size_and_the_smallest_question(topic, wrong):
    report = md.verify.check({topic: wrong})
    (finding,) = report.findings
    assert not finding.passed, "not detected"
    assert not finding.candidates, f"accused of {report.mistakes}"
    shown = [p.name for p in finding.topic.probes()]
    assert finding.probe.name in shown and finding.worst.error > finding.tolerance
    for p in finding.topic.probes()[: shown.index(finding.probe.name)]:  # no smaller question shows it
        alone = md.verify.cases([topic])[0]
        assert p.name != finding.probe.name and alone.probes is finding.topic.probes()
    text = str(report)
    assert finding.topic.spec in text and ("error" in text or "wrong form" in text) and finding.probe.name in text
