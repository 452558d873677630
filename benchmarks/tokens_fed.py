"""Five ways to use what was made before (examples/13_tokens.py), measured: what docs/feeding-back.md says."""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import minidit as md
from minidit.autoregressive.order import by_scale, raster
from minidit.runs.evaluate import Evaluation
from minidit.runs.loading import load_few_steps
from minidit.runs.writer import Writer

RUNG, ROUNDS = 500, (1, 4, 16, 32)
TOKENS = 16  # of the shipped networks, which see all of them in every call, twice where they are guided


def fed_back(e: Evaluation, gpt: Writer, var: Writer, n: int) -> list[dict[str, Any]]:
    """Rows: quality, variety within a class (1: real pictures), calls, tokens, pairs, CPU seconds of one picture and per 100."""
    example = runpy.run_path("examples/13_tokens.py")
    held_out, dit, few, rows = e.held_out.take(slice(n)), md.load(), load_few_steps(), list[dict[str, Any]]()
    x, y = held_out.x_0(), held_out.labels
    variety: Callable[..., float] = example["variety"]
    whole = variety(e.held_out.inner(x), y)

    def add(name: str, pictures: Any, labels: Any, **more: Any) -> None:
        row = e.row(name, pictures, labels)
        e.rows.pop()
        rows.append({"name": name, **more, **{key: row[key] for key in ("frechet", "accuracy", "precision", "recall")},
                     "variety": float(variety(pictures, labels) / whole)})  # fmt: skip
        print(rows[-1], flush=True)

    for k, x_0 in enumerate(example["feedback"](dit, x, y, RUNG, max(ROUNDS)), 1):
        if k in ROUNDS:
            add(f"the picture fed back, {k} rounds", dit.pictures(x_0), y, calls=k, tokens=k * TOKENS, pairs=k * TOKENS**2)
    labels = np.arange(n) % 10
    ways: dict[str, tuple[Any, dict[str, Any], dict[str, int]]] = {
        "diffusion, 8 steps": (dit, {"steps": 8, "solver": "ab2_arc"}, denoised(8)),
        "a flow map, 2 steps": (few, {"steps": 2}, denoised(2)),
        "codes (GPT)": (gpt, {"guidance": 1.5}, written(raster(64))),
        "scales (VAR)": (var, {"guidance": 2.0}, written(by_scale((1, 2, 4, 8)))),
    }
    for name, (pipeline, options, counts) in ways.items():
        began = time.process_time()
        pictures = pipeline.sample(list(labels), seed=0, shards=1, **options)
        per_100 = 100 * (time.process_time() - began) / n
        one = []
        for _ in range(5):
            began = time.process_time()
            pipeline.sample([3], seed=0, shards=1, **options)
            one.append(time.process_time() - began)
        add(name, pictures, labels, **counts, cpu_s_1=float(np.median(one)), cpu_s_100=per_100)
    return rows


def denoised(steps: int) -> dict[str, int]:
    return {"calls": steps, "tokens": steps * TOKENS, "pairs": steps * TOKENS**2}


def written(order: Any) -> dict[str, int]:
    return {"calls": order.passes, "tokens": order.tokens, "pairs": order.pairs(), "pairs_without": order.pairs(cached=False)}
