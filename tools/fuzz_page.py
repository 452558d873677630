"""The counts of recorded fuzzing in build/fuzz/counts.json, and docs/fuzzing.md made from them."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

from tools.fuzz_judge import MEMORY, SECONDS, Tally

ROOT = Path(__file__).parents[1]
COUNTS = ROOT / "build" / "fuzz" / "counts.json"
MENDED = Path(__file__).with_name("fuzz_mended.toml")  # what was found, and how it was mended
PAGE = ROOT / "docs" / "fuzzing.md"


def read_counts() -> dict[str, Any]:
    """The counts so far."""
    counts: dict[str, Any] = json.loads(COUNTS.read_text()) if COUNTS.exists() else {"readers": {}, "seconds": 0.0}
    return counts


def add_counts(name: str, tally: Tally, seed: int, seconds: float, coverage: bool) -> None:
    """Adds one batch of a reader."""
    counts = read_counts()
    entry = counts["readers"].setdefault(name, {"batches": 0, "guided": 0, "seeds": [], "tally": Tally().as_dict()})
    both = Tally(**entry["tally"])
    both.add(tally)
    entry["tally"], entry["batches"] = both.as_dict(), entry["batches"] + 1
    entry["guided"] += tally.tried if coverage else 0
    entry["seeds"] = sorted({*entry["seeds"], seed})
    counts["seconds"] += seconds
    COUNTS.parent.mkdir(parents=True, exist_ok=True)
    temporary = COUNTS.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(counts, indent=1))
    os.replace(temporary, COUNTS)


def write_page() -> Path:
    """docs/fuzzing.md."""
    counts = read_counts()
    readers = {name: (entry, Tally(**entry["tally"])) for name, entry in counts["readers"].items()}
    tried, seconds = sum(t.tried for _, t in readers.values()), sum(t.seconds for _, t in readers.values())
    seeds = sorted({s for entry, _ in readers.values() for s in entry["seeds"]})
    lines = [
        "# Damaged inputs", "",
        "`python tools/fuzz.py --record` damages small inputs of every reader and feeds them to it; `--page` makes this page.",
        "Each input is read, or refused by one printable line of the project's own that names the file, "
        f"within {SECONDS:g} s of CPU time and {MEMORY >> 20} MB of memory.", "",
        f"{tried:,} inputs in {counts['seconds'] / 3600:.2f} hours, of which {seconds / 3600:.2f} hours of CPU time on one core; "
        f"{sum(entry['guided'] for entry, _ in readers.values()):,} of them chosen by coverage (atheris). "
        f"Seeds: {', '.join(map(str, seeds))}.", "",
        "| reader | inputs | by coverage | read | per second of CPU | slowest, ms | memory, MB | bad places |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, (entry, t) in readers.items():
        rate = t.tried / max(t.seconds, 1e-9)
        lines.append(f"| {name} | {t.tried:,} | {entry['guided']:,} | {t.read:,} | {rate:,.0f} | {1000 * t.slowest:.0f} "
                     f"| {t.peak / 2**20:.0f} | {len(t.bad)} |")  # fmt: skip
    mended = tomllib.loads(MENDED.read_text("utf-8"))["mended"]
    lines += [
        "", "A name that begins with part- is an inner part of a reader, fed in memory; all others are fed files.",
        "\"Slowest\" is CPU time. \"Memory\" is what the process of a batch grew by, thousands of inputs together.",
        "A \"bad place\" is a line of code at which an input ended otherwise than above. All that were found are mended:", "",
        "| reader | found | now |", "|---|---|---|",
        *(f"| {m['reader']} | {m['found']} | {m['now']} |" for m in mended),
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")
    return PAGE
