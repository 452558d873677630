"""The page of results, and the reasons of the survivors."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
from cosmic_ray.work_item import TestOutcome, WorkResult
from mutation.draw import Mutant, change

REASONS = Path(__file__).resolve().parents[2] / "docs" / "mutants.toml"


def reasons() -> dict[tuple[str, str, str], str]:
    """(file, was, is) -> why it is the same."""
    entries = tomllib.loads(REASONS.read_text())["equivalent"] if REASONS.exists() else []
    return {(e["file"], e["was"], e["is"]): e["why"] for e in entries}


def report(mutants: list[Mutant], number: Counter[str], results: dict[str, WorkResult], command: str) -> tuple[str, bool]:
    """The page, and whether enough were killed and every survivor has a reason."""
    done = [m for m in mutants if m.id in results]
    killed = {m.id for m in done if results[m.id].test_outcome == TestOutcome.KILLED}
    facts = {m.id: json.loads(results[m.id].output or "{}") for m in done}
    minutes, share = sum(f["seconds"] for f in facts.values()) / 60, len(killed) / max(1, len(done))
    late = sum(f["by"] == "timeout" for f in facts.values())
    known, open_ones = reasons(), 0
    lines = [
        "# Mutants", "",
        f"{len(killed)} of {len(done)} mutants killed: **{100 * share:.1f} %**, {late} of them by the time limit; "
        f"{len(done) - len(killed)} survived and are explained below.", "",
        f"    {command}", "",
        f"{time.strftime('%Y-%m-%d')}, {minutes:.0f} minutes on one core, cosmic-ray {version('cosmic-ray')}, Python "
        f"{sys.version.split()[0]}, NumPy {np.__version__}. What is drawn and how it is run: `tools/mutants.py`.", "",
        "| file | places | drawn | killed | survived |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for path in sorted(number):
        of_file = [m for m in done if m.path == path]
        lines.append(f"| `{path}` | {number[path]} | {len(of_file)} | {sum(m.id in killed for m in of_file)} "
                     f"| {sum(m.id not in killed for m in of_file) or ''} |")  # fmt: skip
    lines += [f"| together | {sum(number.values())} | {len(done)} | {len(killed)} | {len(done) - len(killed)} |", ""]
    kinds = Counter(m.operator.partition("/")[2].partition("_")[0] for m in done)
    lines += ["Kinds: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()) + ".", "", "## Survivors", ""]
    for m in sorted((m for m in done if m.id not in killed), key=lambda m: (m.path, m.start)):
        was, now = change(m.original, m.text)
        why = known.get((m.path, was, now))
        open_ones += why is None
        lines += [f"`{m.path}:{m.start[0]}`", "", f"    - {was}", f"    + {now}", "", why or "**Not explained.**", ""]
    if len(done) < len(mutants):
        lines += [f"{len(mutants) - len(done)} of the drawn mutants have not been run.", ""]
    return "\n".join(lines), share >= 0.95 and not open_ones and len(done) == len(mutants)
