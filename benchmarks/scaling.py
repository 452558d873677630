"""How minidit's training step grows: time and memory against batch, tokens, width and depth.

A grid along one axis is fitted by time ~ axis^p (least squares on the logarithms), and the same fit of the MACs formula (T.8)
says what p the matrix products alone would give. Every point is a fresh process.
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
from benchmarks.engine import KINDS, Engine
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


def measure(size: Size, rounds: int, span: float) -> dict[str, Any]:
    """ms of a training step (the best of `rounds` medians: what the machine can do) and MB above the base."""
    with tempfile.TemporaryDirectory() as name, Engine(KINDS["minidit"], sys.executable) as engine:
        fixtures.write(Path(name), size)
        engine.ask("hello")
        base = engine.memory()
        engine.ask("prepare", size=size.as_dict(), task="train", folder=name)
        first = statistics.median(engine.ask("steps", k=2))
        k = max(2, round(span / first))
        ms = 1e3 * min(statistics.median(engine.ask("steps", k=k)) for _ in range(rounds))
        after = engine.memory()
    own = after["own"] - base["own"] if base and after else None
    return {"ms": ms, "mb": own, "gflop": fixtures.gflop(size, "train"), "parameters": fixtures.parameters(size)}


def run(args: argparse.Namespace) -> dict[str, Any]:
    record: dict[str, Any] = {"machine": machine(), "axes": {}}
    rounds, span = (1, 0.1) if args.quick else (5, 0.5)
    for axis, sizes in AXES.items():
        xs = [getattr(s, axis) for s in sizes]
        points = [{axis: x, **measure(s, rounds, span)} for x, s in zip(xs, sizes, strict=True)]
        fits = {n: exponent(xs, [p[n] for p in points]) for n in ("ms", "gflop", "mb") if points[0][n] is not None}
        record["axes"][axis] = {"points": points, "exponents": fits}
        print(f"\n{axis:>8}{'ms':>10}{'GFLOP':>10}{'GFLOP/s':>10}{'MB':>9}{'parameters':>12}")
        for p in points:
            mb = "?" if p["mb"] is None else f"{p['mb']:.0f}"
            rate = 1e3 * p["gflop"] / p["ms"]
            print(f"{p[axis]:>8}{p['ms']:>10.1f}{p['gflop']:>10.2f}{rate:>10.0f}{mb:>9}{p['parameters']:>12}")
        told = {"ms": "time", "mb": "memory", "gflop": "the formula's work"}
        print("; ".join(f"{told[n]} ~ {axis}^{p:.2f}" for n, p in fits.items()), flush=True)
    return record
