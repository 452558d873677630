"""Randomness is asked twice: the same question again, and with another seed.

    draws anew     noise and timesteps of training: the same numbers twice are no draw
    by a seed      label dropout, first weights: one seed gives one draw, another seed another one
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.verify.core.finding import Answer, Answers
from minidit.verify.core.reference import AnyTopic


def unsteady(topic: AnyTopic, answers: Answers) -> str:
    """What is wrong with the draws of answers whose statistics are right, in one sentence; "" where nothing is."""
    again = next((a for a in answers if a.again), None)
    if again is None or not topic.draws:
        return ""
    first = next(a for a in answers if a.probe is again.probe)
    if topic.draws == "anew":
        same = "the same noise twice" if "noise" in topic.name else "the same draw twice"
        return f"{same}: two calls gave the same numbers" if _alike(first, again) else ""
    if not _alike(first, again):
        return "two answers to one question differ: its seed does not decide the draw"
    place = topic.parameters.index("seed")
    others = [a for a in answers if not a.again and a is not first and _but(a, place) == _but(first, place)]
    if others and all(_alike(first, a) for a in others):
        return f"another seed, the same draw: seeds {', '.join(str(a.probe.args[place]) for a in (first, *others))} all give it"
    return ""


def _but(answer: Answer, place: int) -> list[Any]:
    """The arguments of a question without its seed, in a form that can be compared."""
    args = answer.probe.args
    return [a.tobytes() if isinstance(a, np.ndarray) else a for a in (*args[:place], *args[place + 1 :])]


def _alike(a: Answer, b: Answer) -> bool:
    """Whether two draws are the same numbers."""
    return _equal(a.draw, b.draw)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    return np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b)))
