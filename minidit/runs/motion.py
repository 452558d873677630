"""Clips measured by the law that made the data: whether all shifts of a clip are equal, and how far they are from their median.

Nothing else is claimed of them: the judge of pictures, Fréchet distances and nearest neighbours know single frames only.
"""

from __future__ import annotations

import json
from typing import Any

from minidit.backend import Array
from minidit.checkpoint import write_atomically
from minidit.data import Dataset
from minidit.data.clips import mixed, obedience, shuffled
from minidit.processes.walk import Progress
from minidit.runs.phase import Note
from minidit.runs.phases import Run
from minidit.runs.pipeline import Pipeline
from minidit.runs.walks import Options

FEWEST = 3  # frames of a clip: two shifts can be equal or not


def check_motion(data: Dataset) -> None:
    """Raises ValueError for clips that are too short."""
    if data.shape[1] < FEWEST:
        raise ValueError(f"{data.name}: clips of {data.shape[1]} frames have no motion to measure: there must be {FEWEST}")


def row(name: str, x: Array, note: str) -> dict[str, Any]:
    """One line of the table."""
    return {"name": name, "n": len(x), **obedience(x), "note": note}


def measure_motion(
    run: Run,
    pipeline: Pipeline,
    held_out: Dataset,
    note: Note,
    n: int,
    *,
    precision: str = "float32",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """eval.json: real clips, the same with frames in another order or of other clips, and samples as the run draws them.

    n : clips per row, at most   note : is told each row in words   ->  what was written, {"rows", "held_out"}
    """
    s, x = run.config.sample, held_out.x_0(slice(n))
    rows = [
        row("held-out real clips", x, "the law itself"),
        row("their frames shuffled", shuffled(x), "no order"),
        row("frames of other clips", mixed(x), "no coherence"),
    ]
    options: Options = {
        "n": len(x), "steps": s.steps, "guidance": s.guidance, "interval": s.interval, "seed": s.seed, "precision": precision,
        "progress": progress,
    }  # fmt: skip
    rows.append(row(f"samples, {s.steps} steps", pipeline.sample(pipeline.labels(None, len(x)), **options), "as the run draws"))
    for r in rows:
        shares = f"steady {r['steady']:.3f}  lawful {r['lawful']:.3f}"
        note(f"  {r['name']:30s} n {r['n']:4d}  {shares}  error of shifts {r['error']:.2f} pixels")
    measures = {"rows": rows, "held_out": run.parts.about if run.parts else ""}
    if run.ranks.first:
        write_atomically(run.folder / "eval.json", json.dumps(measures, indent=1).encode())
    return measures
