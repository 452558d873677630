"""What the tests share: equation markers, agreement with a recorded residual, and drawn arrays."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

COMMON = settings(  # a fixture such as xp is a constant: it may serve every example of a test
    deadline=None, max_examples=40, print_blob=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("minidit", COMMON, derandomize=True)  # what a user runs: the same examples every time
settings.register_profile("fresh", COMMON, derandomize=False)  # --hypothesis-profile=fresh --hypothesis-seed=N: tools/sweep.py
settings.load_profile("minidit")

RESIDUALS: dict[str, dict[str, float]] = {}  # equation -> its worst measured residual, and the bound that it was held to


def spec(*ids):
    """Marks the SPEC.md equations that a test proves: @spec("D.6", "D.7")."""
    return pytest.mark.spec(*ids)


def host(x):
    """A NumPy array from an array of any home, or from a Tensor."""
    x = getattr(x, "data", x) if type(x).__name__ in ("Tensor", "Parameter") else x
    return x.get() if hasattr(x, "get") else np.asarray(x)


def residual_of(actual, expected):
    """max |actual - expected| / max(1, max |expected|): absolute for small values, relative for large ones."""
    a, e = np.asarray(host(actual), np.float64), np.asarray(host(expected), np.float64)
    assert a.shape == e.shape, f"shapes differ: {a.shape} and {e.shape}"
    if a.size == 0:
        return 0.0
    return float(np.max(np.abs(a - e)) / max(1.0, float(np.max(np.abs(e)))))


def agree(actual, expected, *, bound, of=()):
    """Asserts that two arrays agree within the bound, and records the residual for the equations `of` ("D.7" or a tuple)."""
    r = residual_of(actual, expected)
    for i in (of,) if isinstance(of, str) else of:
        entry = RESIDUALS.setdefault(i, {"residual": 0.0, "bound": 0.0})
        if r >= entry["residual"]:
            entry.update(residual=r, bound=float(bound))  # plain numbers go from one process to another
    assert r <= bound, f"residual {r:.3g} above {bound:.3g}"


def worst_of(mine, theirs):
    """The worse entry of every equation, of two processes that ran tests."""
    worse = lambda a, b: a if a["residual"] >= b["residual"] else b
    return mine | {i: worse(entry, mine.get(i, entry)) for i, entry in theirs.items()}


def keep_residuals(path, measured):
    """Writes the measured residuals into a JSON file in one stroke; equations that were not measured keep their entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {}
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(kept | measured, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)
