"""Lists of timesteps, pairs and tables in words: how many, twice, backwards, one too many at the end, cut off, not rounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidit.backend import Array
from minidit.verify.core.finding import Reason
from minidit.verify.core.reference import Kind

NEAR = 1e-9  # relative, of entries that are the same
POWERS = ((1.0, "it"), (0.5, "its root"), (2.0, "its square"), (1 / 3, "its cube root"))


Pairs = Sequence[tuple[Array, Array]]  # wrong and right, of every question that is wrong


def in_words(pairs: Pairs) -> list[Reason]:
    """What is odd about a list where the right one is known; [] where nothing simple is.

    What interprets (moved, cut off, backwards) must hold for every question; what counts is said of the first.
    """
    got, want = pairs[0]
    if want.ndim == 2 and want.shape[1] == 2 and want.dtype.kind in "iu":
        return _reasons(_pairs(got, want))
    if want.ndim != 1 or got.ndim != 1 or want.size < 2:
        return []
    if want.dtype.kind in "iu":
        return _whole(pairs) if np.unique(want).size == want.size else []
    sentences = [_table(g, w) for g, w in pairs]
    return _reasons(sentences[0]) if all(map(bool, sentences)) else []


def _reasons(sentences: Sequence[str], kind: Kind = Kind.RELATION) -> list[Reason]:
    return [Reason(text, kind) for text in sentences]


def _entries(n: int) -> str:
    return "1 entry" if n == 1 else f"{n} entries"


def _of_all(pairs: Pairs) -> str:
    """What is true of the lists of all questions."""
    if any(g.shape != w.shape for g, w in pairs):
        return ""
    if all(np.array_equal(g, w[::-1]) for g, w in pairs):
        return "the right ones backwards"
    if all(np.array_equal(np.sort(g), np.sort(w)) for g, w in pairs):
        return "the right ones in another order"
    by = [g.astype(np.float64) - w for g, w in pairs]
    if all(np.all(d == by[0][0]) for d in by):
        return f"every entry is {'larger' if by[0][0] > 0 else 'smaller'} by {abs(by[0][0]):g}"
    several = any(np.count_nonzero(d) > 2 for d in by) and all(d[0] == 0 for d in by)  # both ends of a rounded list are whole
    if several and all(set(np.unique(d)) <= {-1.0, 0.0} for d in by):
        return "cut off where it should be rounded"
    if several and all(set(np.unique(d)) <= {0.0, 1.0} for d in by):
        return "rounded up where it should be rounded"
    return ""


def _whole(pairs: Pairs) -> list[Reason]:
    """Of whole numbers, every one of which should be there once; which of them are not says nothing of how that came about."""
    if words := _of_all(pairs):
        return _reasons([words])
    got, want = pairs[0]
    out = [] if got.size == want.size else [f"{_entries(got.size)}, {want.size} asked for"]
    values, counts = np.unique(got, return_counts=True)
    if (twice := values[counts > 1]).size:
        out.append(f"{_named(twice)} more than once")
    entries: list[str] = []
    lacking, odd = np.setdiff1d(want, got), np.setdiff1d(got, want)
    if lacking.size and lacking.size <= 3:
        entries.append(f"{_named(lacking)} {'is' if lacking.size == 1 else 'are'} missing")
    if odd.size and odd.size <= 3:
        entries.append(f"{_named(odd)} {'does' if odd.size == 1 else 'do'} not belong there")
    strides = np.unique(np.diff(got))
    if not out and not entries and strides.size == 1:
        out.append(f"a fixed stride of {abs(int(strides[0]))}, from {got[0]:g} to {got[-1]:g}; right: {want[0]} to {want[-1]}")
    return _reasons(out) + _reasons(entries, Kind.MEASURED)


def _named(values: Array, most: int = 3) -> str:
    return ", ".join(f"{v:g}" for v in values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")


def _pairs(got: Array, want: Array) -> list[str]:
    if got.ndim != 2 or got.shape[1:] != (2,):
        return [f"shape {got.shape}, pairs (t, s) asked for"]
    out = [] if len(got) == len(want) else [f"{len(got)} pairs, {len(want)} asked for"]
    itself = got[got[:, 0] == got[:, 1]]
    out += [f"({itself[0][0]:g}, {itself[0][1]:g}) is a step to itself"] if len(itself) else []
    if len(got) == len(want) and np.array_equal(got[:, ::-1], want):
        return ["t and s are exchanged"]
    if len(got) == len(want) - 1 and np.array_equal(got, want[:-1]):
        out.append(f"the last step, ({want[-1][0]}, {want[-1][1]}) to the data, is missing")
    falls = np.unique(got[:, 0] - got[:, 1])
    if len(got) == len(want) and falls.size == 1 and np.unique(want[:, 0] - want[:, 1]).size > 1:
        out.append(f"every step goes down by {falls[0]:g}, whatever the next timestep is")
    wrong = [(g, w) for g, w in zip(got, want, strict=False) if not np.array_equal(g, w)]
    if len(wrong) == 1 and not out:
        (g, w) = wrong[0]
        out.append(f"({g[0]:g}, {g[1]:g}) should be ({w[0]}, {w[1]})")
    return out


def _close(a: Array, b: Array) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=NEAR, atol=0, equal_nan=True)


def _table(got: Array, want: Array) -> list[str]:
    """A table with entries too many or too few, moved, or with wrong ends."""
    if got.size != want.size:
        out = [f"{_entries(got.size)}, {want.size} asked for"]
        more = got.size - want.size
        if more > 0 and _close(got[more:], want):
            out.append(f"{_named(got[:more])} in front is too much, the others are right")
        elif more > 0 and _close(got[:-more], want):
            out.append(f"{_named(got[-more:])} at the end is too much, the others are right")
        elif more < 0 and _close(got, want[-more:]):
            out.append("the first is missing, the others are right" if more == -1 else "the first ones are missing")
        elif more < 0 and _close(got, want[:more]):
            out.append("the last is missing, the others are right" if more == -1 else "the last ones are missing")
        return out
    if np.unique(want).size < 3:  # two numbers are moved and turned by accident
        return []
    if _close(got[1:], want[:-1]):
        return [f"moved by one entry: entry 0 is {got[0]:.6g}, entry 1 what entry 0 should be"]
    if _close(got[:-1], want[1:]):
        return ["moved by one entry: entry 0 is what entry 1 should be"]
    wrong = np.flatnonzero(~np.isclose(got, want, rtol=NEAR, atol=0, equal_nan=True))
    if 0 < wrong.size <= 3 and want.size > 7:
        what = ", ".join(f"entry {k} is {got[k]:.6g}, expected {want[k]:.6g}" for k in wrong)
        return [f"only {what}"]
    if want.size > 8:
        return _straight(got, want)
    return []


def _straight(got: Array, want: Array) -> list[str]:
    """Which power of a table runs in a straight line, where another power should."""
    for power, name in POWERS:
        with np.errstate(all="ignore"):
            g, w = got**power, want**power
        if _linear(g) and _linear(w):
            return [f"{name} is linear from {g[0]:.6g} to {g[-1]:.6g}, expected {w[0]:.6g} to {w[-1]:.6g}"]
        if _linear(g):
            right = next((n for p, n in POWERS if _linear(want**p)), "")
            return [f"{name} is linear" + (f" where {right} should be" if right else ", which it should not be")]
    return []


def _linear(a: Array) -> bool:
    return bool(np.isfinite(a).all()) and np.ptp(a) > 0 and bool(np.max(abs(np.diff(a, 2))) <= NEAR * np.ptp(a))
