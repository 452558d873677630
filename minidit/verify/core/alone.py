"""One sample alone is answered as in its batch: whoever mixes samples is seen by asking once more."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from minidit.verify.core.compare import difference
from minidit.verify.core.finding import SETTLED, Finding, answer_to
from minidit.verify.core.reference import AnyTopic, Probe
from minidit.verify.core.relations import same

Law = Callable[..., Any]
UNLIKE = re.compile("broadcast|must match the size|ncompatible shapes")  # what libraries say of shapes that do not fit


def one_per_sample(topic: AnyTopic, probe: Probe | None) -> str:
    """Which argument holds one number per sample, and how what is read with it must be shaped; "" where none does."""
    if probe is None:
        return ""
    batch = batch_of(probe)
    ndim = next((a.ndim for a in probe.args if isinstance(a, np.ndarray) and a.ndim > 2), 0)
    for name, a in zip(topic.parameters, probe.args, strict=False):
        if isinstance(a, np.ndarray) and a.ndim == 1 and len(a) == batch > 1:
            read = f"alpha_bar[{name}]" if a.dtype.kind == "i" and "alpha_bar" in topic.parameters else name
            ones = ", 1" * (ndim - 1)
            return f"{name} is one number per sample and must be shaped (B{ones}) beside pictures: {read}.reshape(-1{ones})"
    return ""


def along_last_axis(function: Callable[..., Any], topic: AnyTopic, probe: Probe) -> bool:
    """Whether the numbers of the samples went along the last axis: column w of the answer is that of the w-th of them."""
    batch = batch_of(probe)
    whole = np.asarray(answer_to(function, topic, probe).value)
    if whole.ndim < 2 or whole.shape[0] != batch or whole.shape[-1] != batch:
        return False
    for w in range(batch):
        args = tuple(np.full_like(a, a[w]) if np.ndim(a) == 1 and len(a) == batch else a for a in probe.args)
        alike = np.asarray(answer_to(function, topic, Probe(f"{probe.name}-all-{w}", args)).value)
        if alike.shape != whole.shape or not same(whole[..., w], alike[..., w], 1e-9):
            return False
    return True


def mixes_samples(function: Callable[..., Any], finding: Finding, law: Law) -> str:
    """Whether a wrong answer depends on its neighbours in the batch, in one sentence; "" where it need not be asked.

    law: the right answer to any arguments.
    """
    topic, probe = finding.topic, finding.probe
    if probe is None or topic.measure or finding.passed or finding.verdict in SETTLED:
        return ""
    batch = batch_of(probe)
    if batch < 2:
        return ""
    try:
        return _mixed(function, finding, probe, batch, law)
    except Exception:  # the law has no answer about one sample: a batch of two halves, say
        return ""


def _mixed(function: Callable[..., Any], finding: Finding, probe: Probe, batch: int, law: Law) -> str:
    topic = finding.topic
    whole = answer_to(function, topic, probe).value
    alone = [answer_to(function, topic, _sample(probe, b, batch)).value for b in range(batch)]
    with np.errstate(all="ignore"):
        right = [law(*_sample(probe, b, batch).args) for b in range(batch)]
        want = law(*probe.args)
    if not all(_row(want, b, right[b], finding.tolerance) for b in range(batch)):
        return ""  # the law itself speaks of the batch
    differ = [b for b in range(batch) if not _row(whole, b, alone[b], finding.tolerance)]
    if not differ:
        return ""
    fine = all(difference(alone[b], right[b]).error <= finding.tolerance for b in range(batch))
    words = "it depends on its neighbours in the batch" + (": one sample alone is answered rightly" if fine else "")
    if (reshape := one_per_sample(topic, probe)) and along_last_axis(function, topic, probe):
        finding.whole = fine
        return f"{words}; {reshape}"
    return words


def does_not_broadcast(finding: Finding) -> str:
    """What to do about an error of shapes that do not fit, where the topic gives one number per sample; "" elsewhere."""
    return one_per_sample(finding.topic, finding.probe) if finding.verdict == "raises" and UNLIKE.search(finding.note) else ""


def batch_of(probe: Probe) -> int:
    """How many samples the pictures of a question have; 0 where it has none."""
    return next((len(a) for a in probe.args if isinstance(a, np.ndarray) and a.ndim > 2), 0)


def _sample(probe: Probe, b: int, batch: int) -> Probe:
    """The same question about one of the samples; a table that is as long as the batch would be cut, too, so there is none."""
    args = tuple(
        a[b : b + 1] if isinstance(a, np.ndarray) and len(a) == batch and (a.ndim > 1 or a.dtype.kind in "iub") else a
        for a in probe.args
    )
    return Probe(f"{probe.name}-sample-{b}", args)


def _row(whole: Any, b: int, alone: Any, tolerance: float) -> bool:
    """Whether the b-th sample of an answer is the answer about this sample alone."""
    a, c = np.asarray(whole), np.asarray(alone)
    if a.ndim == 0 or c.ndim == 0 or len(a) <= b or len(c) != 1:
        return False
    return same(a[b].astype(np.float64), c[0].astype(np.float64), max(tolerance, 1e-9))
