"""Which questions are answered wrongly: those with s = -1, all but those with η = 0, those that give no numbers.

A mistake in one branch shows in its questions before it shows in any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidit.verify.core.arguments import letter

DATA = "; s = -1 means the data, where ᾱ = 1: alpha_bar[-1] is the last entry of the table"
LEAST = 2  # questions that one value must have in common
MANY = 5  # or right ones beside a single wrong one


def only_where(names: Sequence[str], wrong: Sequence[Sequence[Any]], right: Sequence[Sequence[Any]]) -> str:
    """By which scalar argument wrong and right questions are told apart, in one sentence; "" where none does.

    wrong, right: the arguments of these questions.
    """
    if not wrong or not right:
        return ""
    for k, name in sorted(enumerate(names), key=lambda kn: kn[1] not in ("s", "eta")):
        if not all(len(args) > k and _scalar(args[k]) for args in (*wrong, *right)):
            continue
        mine, others = ({args[k] for args in side} for side in (wrong, right))
        if mine & others:
            continue
        if mine == {-1} and name == "s":
            return f"only the questions with s = -1 are wrong{DATA * ('alpha_bar' in names)}"
        for values, side, verdict in ((mine, wrong, "wrong"), (others, right, "right")):
            if len(values) == 1 and (len(side) >= LEAST or (verdict == "wrong" and len(right) >= MANY)):
                return f"only the questions with {letter(name)} = {next(iter(values))} are {verdict}"
    return ""


def _scalar(a: Any) -> bool:
    return isinstance(a, (bool, int, float, str, np.integer, np.floating))


def not_finite(got: Any, want: Any) -> bool:
    """Whether an answer holds no finite number where the right one does: no structure can be read off it."""
    a, b = np.asarray(got), np.asarray(want)
    if a.dtype.kind != "f" or a.shape != b.shape or not a.size:
        return False
    finite = np.isfinite(b.astype(np.float64))
    return bool(finite.any() and not np.isfinite(a[finite]).any())
