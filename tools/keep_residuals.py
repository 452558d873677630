"""Puts the residuals of the last test session into the package, so that a book shows them before any test was run.

pytest && python tools/keep_residuals.py
"""

from __future__ import annotations

import json
from pathlib import Path

from minidit.html.spec import read

ROOT = Path(__file__).parents[1]
MEASURED, SHIPPED = ROOT / "build/residuals.json", ROOT / "minidit/html/residuals.json"


def shortened(measured: dict[str, dict[str, float]], known: set[str]) -> dict[str, dict[str, float]]:
    """Three digits of each number, of the equations that SPEC.md has."""
    return {i: {k: float(f"{v:.3g}") for k, v in r.items()} for i, r in sorted(measured.items()) if i in known}


if __name__ == "__main__":
    rows = shortened(json.loads(MEASURED.read_text("utf-8")), set(read(ROOT).entries))
    inside = ",\n".join(f"{json.dumps(i)}: {json.dumps(r)}" for i, r in rows.items())
    SHIPPED.write_text(f"{{\n{inside}\n}}\n", "utf-8")
    print(f"{SHIPPED}: {len(rows)} equations")
