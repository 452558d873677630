"""Where an answer first differs: the first wrong layer of a network, the first wrong step of a sampler."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.autograd import value
from minidit.verify.core.compare import difference
from minidit.verify.core.denoiser import Linear, coefficients, first_wrong_step
from minidit.verify.core.finding import Answer, questions
from minidit.verify.core.levels import reached
from minidit.verify.core.reference import AnyTopic, Reference
from minidit.verify.core.relations import Pair, relation


def first_layer(topic: AnyTopic, R: Reference, answer: Answer, tolerance: float) -> tuple[str, str]:
    """For a target that hands out intermediate values: the first that differs, in the order of computation; (name, in words)."""
    if not answer.taps:
        return "", ""
    R.taps.clear()
    topic(R, *questions(answer.probe.args))
    for name, want in R.taps.items():
        if name in answer.taps:
            gap = difference(answer.taps[name], want)
            if gap.error > tolerance:
                return name, f"{name}{gap.where}: {gap.what}{_in_words(name, answer.taps[name], want, tolerance)}"
    agree = [name for name in R.taps if name in answer.taps]
    return "", f"what follows {agree[-1]}: all layers that were handed out are right" if agree else ""


def leaves_alone(topic: AnyTopic, R: Reference, answer: Answer, layer: str, tolerance: float) -> bool:
    """Whether a reference with a mistake in it has the layers that an answer shows to be right: all before the first wrong one.

    layer: its name, or "". A mistake that spoils an earlier layer is not in that answer, alone or beside another.
    """
    R.taps.clear()
    try:
        with np.errstate(all="ignore"):
            topic(R, *questions(answer.probe.args))
    except Exception:  # nor one that cannot be asked
        return False
    for name, value_with_it in R.taps.items():
        if name == layer:
            break
        if name in answer.taps and difference(answer.taps[name], value_with_it).error > tolerance:
            return False
    return True


def _in_words(name: str, got: Any, want: Any, tolerance: float) -> str:
    """What a layer's output is to the right one, where that is simple."""
    arrays = [np.asarray(value(a), np.float64) for a in (got, want)]
    words = relation([Pair(arrays[0], arrays[1], {})], max(tolerance, 1e-9))
    return f"; {name} is {words}" if words else ""


def first_step(topic: AnyTopic, R: Reference, answer: Answer, tolerance: float) -> str:
    """For a sampler run with a denoiser that takes notes: the first step that differs, and which of its coefficients."""
    place = next((k for k, a in enumerate(answer.probe.args) if isinstance(a, Linear)), None)
    if place is None or answer.error or topic.allowed or answer.probe.args[place].labels is not None:
        return ""  # a network that hears labels may be called once or twice per step
    args = questions(answer.probe.args)
    z = args[-1] if getattr(args[-1], "ndim", 0) == getattr(args[1], "ndim", 0) + 1 else None
    try:
        right = topic(R, *args)
        mine = coefficients(answer.notes[0], answer.value, z)
        names = topic.parameters
        table = args[names.index("alpha_bar")] if "alpha_bar" in names else None

        def lands(t: float, factor: float) -> str:
            return "" if table is None or t != int(t) else reached(table, int(t), factor)

        return first_wrong_step(mine, coefficients(args[place].seen, right, z), tolerance, lands)
    except (ValueError, IndexError, TypeError, np.linalg.LinAlgError) as error:
        return f"its steps cannot be read off ({error})"
