"""How a training step scales: time and memory against batch, tokens, width and depth, minidit beside PyTorch.

The times along one axis are fitted by time ~ axis^p (least squares on the logarithms); the same fit of the MACs formula (T.8)
gives the p of the matrix products alone. Every point is measured in a new process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fixtures
from benchmarks.engine import KINDS, Engine, EngineError, Kind
from benchmarks.machine import machine
from benchmarks.sizes import Size

CENTRE = Size("scaling", input_size=16, width=128, depth=4, heads=4, batch=32)
AXES: dict[str, list[Size]] = {
    "batch": [replace(CENTRE, batch=b) for b in (8, 16, 32, 64, 128)],
    "tokens": [replace(CENTRE, input_size=s, batch=16) for s in (8, 16, 24, 32)],
    "width": [replace(CENTRE, width=d, heads=d // 32, batch=16) for d in (64, 128, 256, 384)],
    "depth": [replace(CENTRE, depth=n) for n in (2, 4, 8, 16)],
}


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """p of y ~ x^p."""
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def measure(kind: Kind, python: str, size: Size, rounds: int, span: float) -> dict[str, Any]:
    """ms per training step (the best of `rounds` medians, the least disturbed) and MB above the base."""
    with tempfile.TemporaryDirectory() as name, Engine(kind, python) as engine:
        fixtures.write(Path(name), size)
        engine.ask("hello")
        base = engine.memory()
        engine.ask("prepare", size=size.as_dict(), task="train", folder=name)
        first = statistics.median(engine.ask("steps", k=2))
        k = max(2, round(span / first))
        ms = 1e3 * min(statistics.median(engine.ask("steps", k=k)) for _ in range(rounds))
        after = engine.memory()
    return {"ms": ms, "mb": after["own"] - base["own"] if base and after else None}


def run(args: argparse.Namespace) -> dict[str, Any]:
    record: dict[str, Any] = {"machine": machine(), "axes": {}, "skipped": {}}
    rounds, span = (1, 0.1) if args.quick else (5, 0.5)
    kinds = [KINDS[name] for name in args.engines]
    for axis, sizes in AXES.items():
        xs, points = [getattr(s, axis) for s in sizes], []
        for x, size in zip(xs, sizes, strict=True):
            points.append({axis: x, "gflop": fixtures.gflop(size, "train"), "parameters": fixtures.parameters(size)})
            for kind in list(kinds):  # in turns, point by point
                try:
                    python = args.torch_python if kind.torch else sys.executable
                    points[-1] |= {f"{kind.name} {n}": v for n, v in measure(kind, python, size, rounds, span).items()}
                except EngineError as error:
                    print(f"skipped: {error}", file=sys.stderr)
                    record["skipped"][kind.name] = str(error)
                    kinds.remove(kind)
        names = [n for n, v in points[-1].items() if n not in (axis, "parameters") and v is not None]
        fits = {n: exponent(xs, [p[n] for p in points]) for n in names}
        record["axes"][axis] = {"points": points, "exponents": fits}
        show(axis, points, fits)
    return record


def show(axis: str, points: list[dict[str, Any]], fits: dict[str, float]) -> None:
    names = list(points[-1])
    widths = [max(12, len(n) + 3) for n in names]
    print("\n" + "".join(f"{n:>{w}}" for n, w in zip(names, widths, strict=True)))
    for p in points:
        print("".join(f"{p[n]:>{w}}" if isinstance(p[n], int) else f"{p[n]:>{w}.2f}" for n, w in zip(names, widths, strict=True)))
    print("".join(f"{f'^{fits[n]:.2f}' if n in fits else '':>{w}}" for n, w in zip(names, widths, strict=True)), flush=True)
