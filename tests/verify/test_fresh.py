"""Mistakes that are in no catalogue, by hand in code that is not the package's: every one is seen, right code never accused."""

import numpy as np
import pytest
from verify import fresh_laws, fresh_layers, fresh_losses
from verify.fresh_gradients import GRADIENTS

import minidit as md
from minidit.verify.core.finding import ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.core.search import examine

JUDGE = Judge()

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


def down(value):
    """A question, or an answer, in float32."""
    if isinstance(value, dict):
        return {k: down(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and any(isinstance(v, (np.ndarray, list, tuple)) for v in value):
        return type(value)(map(down, value))
    a = np.asarray(value) if isinstance(value, (np.ndarray, list, tuple, float, np.floating)) else None
    return a.astype(np.float32) if a is not None and a.dtype == np.float64 else value


def as_lists(value):
    """An answer without arrays."""
    if isinstance(value, dict):
        return {k: as_lists(v) for k, v in value.items()}
    return [as_lists(v) for v in value] if isinstance(value, (list, tuple)) else np.asarray(value).tolist()


def spoiling(f):
    """The same in place: whatever arrays came in are overwritten once the answer is there."""

    def run(*args):
        out = f(*args)
        for a in args:
            if isinstance(a, np.ndarray) and not np.shares_memory(a, np.asarray(out) if isinstance(out, np.ndarray) else a[:0]):
                a[...] = 0
        return out

    return run


OBJECTS = ("ddim_scheduler", "ddpm_scheduler")
FORMS = {
    "float32": lambda f: lambda *args: down(f(*map(down, args))),
    "lists": lambda f: lambda *args: as_lists(f(*args)),
    "float32 answers": lambda f: lambda *args: down(f(*args)),
    "in place": spoiling,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("topic", [t for t in RIGHT if t not in OBJECTS])
def test_nor_is_it_in_another_form(topic, form):
    with np.errstate(all="ignore"):
        (finding,) = md.verify.check({topic: FORMS[form](RIGHT[topic])}).findings
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


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_fresh_mistake_of_gradients_is_seen_where_the_forward_pass_is_right(name):
    R = Reference((Deviation("U", name.upper(), "A.1", "", "", patches=GRADIENTS[name]),))
    topics = [md.verify.TOPICS[t] for t in ("dit_square", "dit_gradients")]
    asked = {t.name: ask(t.by(R), t) for t in topics}
    forward, back = examine(topics, asked, list(md.verify.DEVIATIONS.values()), JUDGE, depth=1)
    assert forward.passed and not back.passed and not back.candidates
    assert back.worst.where.startswith("['") and back.probe is not None
