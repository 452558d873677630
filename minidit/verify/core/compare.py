"""Are two answers equal? With a tolerance that has a reason, and the place of the largest difference.

    err(a, b) = max |a - b| / max |b|      over each array, b the reference                  (E.10)
    equal       where err ≤ c u            u allowed to the precision of a, c the factor of the topic
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidit.autograd import value
from minidit.backend import Array, to_host
from minidit.verify.core.forms import Odd, describe, few, is_list, precision_of

if TYPE_CHECKING:
    from minidit.verify.core.reference import AnyTopic

# error allowed by default in units of the largest entry: some thousand roundings, far below the smallest known mistake
TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "bfloat16": 3e-2, "float16": 5e-3}


__all__ = ["TOLERANCE", "Difference", "allowed", "difference", "precision_of", "rounded_like", "together"]


def allowed(topic: AnyTopic, precision: str) -> float:
    """The error that a topic allows in a precision: relative (E.10), or standard errors where the topic is statistical."""
    return topic.allowed or TOLERANCE[precision] * (topic.exact if topic.exact and precision == "float64" else topic.tol)


@dataclass(frozen=True)
class Difference:
    """How far apart two answers are: error relative to the largest entry, where, and in words what is wrong."""

    error: float
    where: str = ""
    what: str = ""
    finite: bool = True  # whether there is a number at the place

    def __bool__(self) -> bool:
        return self.error > 0


def together(answer: Any, expected: Any, where: str = "") -> Iterator[tuple[str, Array, Array]]:
    """(place, answer, expected) for every array of the expected answer, whose nesting decides: a list of numbers is an array too.

    Raises ValueError where the answer is not of that form: one sentence that says what came and what was expected.
    """
    odd = ValueError(f"got {describe(answer)}, expected {describe(expected)}" + (f" at {where}" if where else ""))
    if isinstance(expected, Mapping):
        if not isinstance(answer, Mapping):
            raise odd
        for names, says in ((expected.keys() - answer.keys(), "lacks"), (answer.keys() - expected.keys(), "has too much:")):
            if names:
                raise ValueError(f"the answer{where} {says} {few(names)}")
        for key, entry in expected.items():
            yield from together(answer[key], entry, f"{where}[{key!r}]")
    elif is_list(expected):
        if isinstance(answer, (str, Mapping)) or not hasattr(answer, "__len__") or len(answer) != len(expected):
            raise odd
        for i, entry in enumerate(expected):
            yield from together(answer[i], entry, f"{where}[{i}]")
    elif isinstance(answer, (Odd, Mapping)) or answer is None:
        raise odd
    else:
        want = _array(expected)
        try:
            got = _array(answer)
        except ValueError:  # arrays of unlike shapes side by side
            raise odd from None
        if is_list(answer) and got.shape != want.shape:
            raise odd
        yield where, got, want


def _array(answer: Any) -> Array:
    if isinstance(answer, Odd):
        raise ValueError(answer.kind)
    return np.asarray([_array(e) for e in answer]) if is_list(answer) else np.asarray(to_host(value(answer)))


def rounded_like(expected: Any, answer: Any) -> Any:
    """The expected numbers rounded to the types of an answer of the same nesting."""
    if isinstance(expected, Mapping) and isinstance(answer, Mapping):
        return {k: rounded_like(v, answer.get(k)) for k, v in expected.items()}
    if is_list(expected) and is_list(answer):
        return [rounded_like(e, a) for e, a in zip(expected, answer, strict=False)]
    kind = getattr(answer, "dtype", None)
    with np.errstate(all="ignore"):
        return _array(expected).astype(kind) if kind is not None and kind.kind in "fV" else expected


def difference(answer: Any, expected: Any, *, relative: bool = True, floor: float = 1e-30) -> Difference:
    """The largest difference of two answers; infinite where their shapes or their finite entries differ. relative: (E.10)."""
    if answer is expected:
        return Difference(0.0)
    try:
        pairs = list(together(answer, expected))
    except ValueError as odd:
        return Difference(np.inf, what=str(odd))
    worst = Difference(0.0)
    for where, a, b in pairs:
        if a.dtype.kind not in "fiubV" or b.dtype.kind not in "fiubV":
            numbers = "fiubV"
            if (a.dtype.kind in numbers) != (b.dtype.kind in numbers) or a.shape != b.shape:
                return Difference(np.inf, where, f"got {describe(answer)}, expected {describe(expected)}")
            if a.tolist() != b.tolist():
                return Difference(np.inf, where, f"got {a.tolist()!r}, expected {b.tolist()!r}")
            continue
        if a.shape != b.shape:
            return Difference(np.inf, where, f"shape {a.shape}, expected {b.shape}")
        a, b = a.astype(np.float64), b.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        bad = ~same & ~(np.isfinite(a) & np.isfinite(b))
        if bad.any():
            place = np.unravel_index(int(np.argmax(bad)), b.shape)
            what, finite = f"got {a[place]}, expected {b[place]}", bool(np.isfinite(a[place]))
            return Difference(np.inf, f"{where}{_index(place)}", what, finite)
        if b.size == 0 or same.all():
            continue
        finite = np.abs(b[np.isfinite(b)])
        with np.errstate(invalid="ignore", over="ignore"):  # infinities that agree are no difference
            gap = np.where(same, 0.0, np.abs(a - np.where(same, a, b)))
        place = np.unravel_index(int(np.argmax(gap)), b.shape)
        unit = max(finite.max() if finite.size else 0.0, floor) if relative else 1.0
        error = float(gap[place] / unit)  # (E.10)
        if error > worst.error:
            worst = Difference(error, f"{where}{_index(place)}", f"got {a[place]:.9g}, expected {b[place]:.9g}")
    return worst


def _index(place: tuple[Any, ...]) -> str:
    return "[" + ", ".join(str(int(i)) for i in place) + "]" if place else ""
