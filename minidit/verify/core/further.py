"""Further questions: whatever is said of wrong answers has to be true of other numbers and other sizes, too.

The questions of a topic are few, and in few numbers much is true by accident: 2 is √4, and √w is w cut at 2 for w = 0, 1, 4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.expected import Expected
from minidit.verify.core.finding import Answer, Finding, answer_to
from minidit.verify.core.reference import AnyTopic, Probe

TABLES = ("T", "P", "...")  # letters of axes whose length is not a size of pictures or layers
POWER = 1.1  # keeps a table in [0, 1] falling, times between 0 and 1 in their order
NEAR = 1e-4  # how well a name must fit further questions: they were not chosen to be well conditioned, and float32 may round them


def further(topic: AnyTopic) -> Iterator[Probe]:
    """The first and the last question with other numbers, and these with one more of every axis that has a letter."""
    if topic.measure or topic.draws or topic.allowed:
        return
    probes = topic.probes()
    axes = letters_of(topic)
    for probe in (probes[0], probes[-1])[: len(probes)]:
        other = Probe(f"{probe.name}, other numbers", tuple(map(_other, probe.args)))
        yield other
        for letter in {n: None for names in axes.values() for n in names if n not in TABLES}:
            if (grown := _grown(topic, other, axes, letter)) is not None:
                yield grown


def letters_of(topic: AnyTopic) -> dict[str, tuple[str, ...]]:
    """argument -> the letters of its axes, from what the topic takes: "x_t, eps (B,C,H,W), t (B,)"; "..." for any others."""
    out: dict[str, tuple[str, ...]] = {}
    start = 0
    for group in re.finditer(r"\(((?:\.{3}|\w[\w+*]*)(?:, ?[\w+*]+)*),?\)", topic.takes):
        words = re.findall(r"\w+", topic.takes[start : group.start()])
        start = group.end()
        out |= {n: tuple(re.split(r", ?", group[1])) for n in topic.parameters if n in words and n not in out}
    return out


def _other(a: Any) -> Any:
    """Other numbers of the same kind: in the same order, between the same bounds."""
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        return _other_array(a)
    if isinstance(a, np.ndarray) and a.dtype.kind in "iu" and a.ndim == 1:
        return np.ascontiguousarray(a[::-1])
    if isinstance(a, float):
        return 0.8 * a if a in (0.0, 1.0) else a**POWER if 0 < a < 1 else 1.3 * a
    return a


def _other_array(a: Array) -> Array:
    if a.ndim > 1:  # the same entries in other places: those of a grid stay on it
        return np.ascontiguousarray(a[..., ::-1])
    inside = bool(a.size) and bool((a >= 0).all() and (a <= 1).all())
    return a**POWER if inside else 1.3 * a


def _grown(topic: AnyTopic, probe: Probe, axes: Mapping[str, tuple[str, ...]], letter: str) -> Probe | None:
    """One more of an axis, in every argument that has it; None where it is no free size."""
    args, sizes = list(probe.args), set()
    if letter in topic.parameters or any(letter in n and n != letter for names in axes.values() for n in names):
        return None
    for k, name in enumerate(topic.parameters[: len(args)]):
        names, a = axes.get(name, ()), args[k]
        if not isinstance(a, np.ndarray) or (a.ndim != len(names) and names[:1] != ("...",)):
            continue
        for axis in (j - len(names) for j, n in enumerate(names) if n == letter):
            sizes.add(a.shape[axis])
            a = np.concatenate((a, a.take([0], axis)), axis=axis)
        args[k] = a
    return Probe(f"{probe.name}, one more of {letter}", tuple(args)) if len(sizes) == 1 else None


def more_answers(function: Callable[..., Any], topic: AnyTopic, judge: Expected) -> list[Answer]:
    """The answers to further questions, as far as the law and the target have one."""
    out = []
    for probe in (*further(topic), *(drawn(topic) if _chooses(judge.expected(topic, topic.probes()[0])) else ())):
        want = judge.expected(topic, probe)
        if isinstance(want, Exception) or not _finite(want):
            continue
        answer = answer_to(function, topic, probe)
        if not answer.error:
            out.append(answer)
    return out


CHOICES = 6  # further questions of answers that are whole numbers


def drawn(topic: AnyTopic) -> Iterator[Probe]:
    """The last question with drawn numbers of the same kind: few whole numbers are right by accident."""
    probe = topic.probes()[-1]
    for k in range(1, CHOICES + 1):
        rng = Philox(700 + k)
        args = tuple(_drawn(rng, a) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in probe.args)
        yield Probe(f"{probe.name}, drawn {k}", args)


def _drawn(rng: Philox, a: Array) -> Array:
    """Probabilities for probabilities, numbers between 0 and 1 for such, and normal ones for any others."""
    if a.ndim > 1 and np.allclose(a.sum(axis=-1), 1):
        e = -np.log(rng.uniform(a.shape, dtype=np.float64))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))
    inside = bool(a.size) and bool((a >= 0).all() and (a <= 1).all())
    return rng.uniform(a.shape, dtype=np.float64) if inside else a.mean() + a.std() * rng.normal(a.shape, dtype=np.float64)


def _chooses(want: Any) -> bool:
    """Whether an answer, or an entry of it, is whole numbers."""
    return any(isinstance(a, np.ndarray) and a.dtype.kind in "iu" for a in (want if isinstance(want, tuple) else (want,)))


def _finite(want: Any) -> bool:
    if isinstance(want, Mapping):
        return all(map(_finite, want.values()))
    if isinstance(want, (tuple, list)):
        return all(map(_finite, want))
    return bool(np.all(np.isfinite(np.asarray(want, np.float64))))


def contradicted(finding: Finding, more: list[Answer], judge: Expected) -> None:
    """Drops the names that further answers contradict; where none remains, the finding has none."""
    limit = max(finding.tolerance, NEAR)
    finding.candidates = [names for names in finding.candidates if judge.explains(finding.topic, more, names, limit)]
    if not finding.candidates:
        finding.verdict, finding.note = "unknown", ""
