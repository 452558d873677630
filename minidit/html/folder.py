"""Reads and checks the files of a run folder. Every error names the file, and the line if there are lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from minidit.backend import Array
from minidit.checkpoint.files import open_safetensors
from minidit.data.npz import read_arrays
from minidit.incoming import PACKINGS, Refusal, read_json, read_toml, reading, regular_file
from minidit.runs import former

T = TypeVar("T")
WITHOUT = "delete the line: only the curves need it"
MAX_METRICS = 2**26  # bytes of metrics.jsonl
MAX_LINE = 2**16  # bytes of one of its lines
Record = dict[str, Any]  # a JSON object or a TOML table


class ReportError(Refusal):
    """A run folder that cannot be shown; the message is one line and names the file."""


@dataclass(frozen=True)
class Trace:
    """One sampling run: rungs (S,), and the pictures on each, x_t and x_0_hat (S, n, C, H, W) uint8."""

    rungs: Array
    x_t: Array
    x_0_hat: Array


@dataclass(frozen=True)
class Run:
    """A run folder in memory. Missing files are empty values or None."""

    name: str
    config: Record
    metrics: list[Record]
    evaluation: Record
    samples: list[Path]
    pictures: dict[str, Path]
    trace: Trace | None
    facts: Record = field(default_factory=dict)  # about the data, from the header of the model's weights


def read_run(folder: Path) -> Run:
    """Everything in the folder that a report can show. Raises ValueError if it is no folder or a file in it is malformed."""
    if not folder.is_dir():
        raise ReportError(f"{folder} is not a run folder")
    return Run(
        name=folder.resolve().name,
        config=_optional(folder / "config.toml", _toml) or {},
        metrics=_optional(folder / "metrics.jsonl", _metrics) or [],
        evaluation=_optional(folder / "eval.json", _evaluation) or {},
        samples=sorted((folder / "samples").glob("step_*.png")),
        pictures={p.name: p for p in sorted((folder / "pictures").glob("*")) if p.suffix in (".png", ".gif")},
        trace=_optional(folder / "trace.npz", _trace),
        facts=facts_in(folder),
    )


def facts_in(folder: Path) -> Record:
    """What the header of a run's weights says about its data; {} before there are any, or if it is damaged."""
    try:
        facts = open_safetensors(former.file_of(folder, "model"), verify=False)[1].get("data")
    except (Refusal, OSError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _optional(path: Path, read: Callable[[Path], T]) -> T | None:
    if not path.exists():
        return None
    with reading(path, ReportError):
        return read(path)


def _toml(path: Path) -> Record:
    return former.sections(read_toml(path, ReportError))


def _metrics(path: Path) -> list[Record]:
    lines: list[Record] = []
    size = regular_file(path, ReportError)
    if size > MAX_METRICS:
        raise ReportError(f"{path}: {size} bytes, metrics of at most {MAX_METRICS} are shown")
    with open(path, "rb") as file:
        for i, raw in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            line = raw.decode("utf-8", errors="replace")
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                if not raw.endswith(b"\n") and len(raw) < MAX_LINE and not file.read(1):
                    break  # the last line was cut when the run was killed
                raise ReportError(f"{path}, line {i}: not a JSON object: {line[:60]!r}; {WITHOUT}") from error
            if not isinstance(entry, dict):
                raise ReportError(f"{path}, line {i}: not a JSON object: {line[:60]!r}; {WITHOUT}")
            if not isinstance(entry.get("phase"), str) or not is_number(entry.get("step")):
                raise ReportError(f'{path}, line {i}: "phase" (text) and "step" (number) are needed: {line[:60]!r}; {WITHOUT}')
            lines.append({**entry, "phase": former.phase(entry["phase"])})
    return former.joined(lines)


def _evaluation(path: Path) -> Record:
    content = read_json(path, ReportError)
    rows = content.get("rows", []) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "name" in r for r in rows):
        raise ReportError(f'{path}: "rows" must be a list of objects that have a "name"')
    if not isinstance(content.get("neighbours") or {}, dict):
        raise ReportError(f'{path}: "neighbours" must be an object')
    return dict(content)


def _trace(path: Path) -> Trace:
    with reading(path, ReportError, "not a trace with rungs, x_t and x_0_hat: "):
        arrays = read_arrays(path, PACKINGS)
        rungs, x_t, x_0_hat = (arrays[k] for k in ("rungs", "x_t", "x_0_hat"))
    fits = x_t.ndim == 5 and x_t.shape == x_0_hat.shape and rungs.shape == x_t.shape[:1] and 0 not in x_t.shape
    if not fits or x_t.shape[2] not in (1, 3):
        raise ReportError(f"{path}: rungs (S,), x_t and x_0_hat (S, n, 1 or 3, H, W) are needed, "
                         f"got {rungs.shape}, {x_t.shape} and {x_0_hat.shape}")
    if x_t.dtype != np.uint8 or x_0_hat.dtype != np.uint8:
        raise ReportError(f"{path}: pictures must be uint8, got {x_t.dtype} and {x_0_hat.dtype}")
    return Trace(rungs, x_t, x_0_hat)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value from JSON is a number that a float can hold; true and false are not."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 1000)


def seconds_of(metrics: list[Record]) -> float:
    """The duration of a run; the clock of its records may restart in each phase."""
    total, before = 0.0, 0.0
    for entry in metrics:
        now = entry.get("wall_s")
        if is_number(now):
            total += now - before if now >= before else now
            before = now
    return total


def series_of(metrics: list[Record]) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """(phase, key) -> (steps, values) for every number that was logged, except the clock."""
    series: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for entry in metrics:
        for key, value in entry.items():
            if key not in ("phase", "step", "wall_s") and is_number(value):
                steps, values = series.setdefault((entry["phase"], key), ([], []))
                steps.append(entry["step"])
                values.append(value)
    return series
