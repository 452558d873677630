"""Flows and consistency models in the plane, where every answer is known: eight small Gaussians on a ring.

    python -m benchmarks.plane                  both seeds, about ten minutes on one core; results/plane.json and the tables
    python -m benchmarks.plane --quick          only: does it run?
    python -m benchmarks.plane --page           the tables of the latest results, as in docs/results.md

A multilayer perceptron of width 128 is trained with uniform times. Distances are sliced Wasserstein distances of 4,000 samples
from as many points of the data. S is the straightness of the network's own trajectories, in 100 steps (F.3).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import minidit as md
from minidit import ops
from minidit.diffusion import consistency, exact, flow
from minidit.diffusion.fresh import EVERYTHING
from minidit.diffusion.path import Path as Levels
from minidit.metrics import sliced_wasserstein as distance
from minidit.models.condition import Nothing
from minidit.models.embedders import TimestepEmbedder
from minidit.nn import Linear, Module
from minidit.processes.consistency import Consistency, fixed
from minidit.processes.denoise import Denoiser
from minidit.processes.reflow import Reflow, StoredPairs
from minidit.training.loop import Loop
from minidit.training.source import source_of

RESULTS = Path(__file__).parent / "results" / "plane.json"
SHAPE, END, WIDTH, BATCH, UPDATES, SAMPLES, PAIRS = (2, 1, 1), 0.002, 128, 512, 6000, 4000, 50_000
COUNTS = (1, 2, 4, 16, 100)


def ring(path: Levels) -> exact.Mixture:
    """The perfect network of the data on a path."""
    return exact.Mixture.ring(path, SHAPE)


def points(n: int, seed: int) -> Any:
    rng = md.Philox(seed=seed)
    return ring(md.Straight()).means[rng.integers(0, 8, (n,))] + 0.05 * rng.normal((n, *SHAPE), dtype=np.float64)


class Perceptron(Module):
    """Four hidden layers that know the time; a backbone."""

    shape, condition, second_half, config = SHAPE, Nothing(), False, None

    def __init__(self, rng: md.Philox, width: int = WIDTH) -> None:
        self.time = TimestepEmbedder(width)
        self.first, self.last = Linear(2, width), Linear(width, 2)
        self.second, self.third, self.fourth = (Linear(width, width) for _ in range(3))
        self.build(rng)

    def forward(self, x: Any, t: Any, y: Any = None) -> Any:
        c = self.time(t)
        h = ops.silu(self.first(x.reshape(len(x), 2)) + c)
        for layer in (self.second, self.third, self.fourth):
            h = h + ops.silu(layer(h) + c)
        return self.last(h).reshape(len(x), *SHAPE)

    def null(self, y: Any) -> Any:
        return y


class Perfect:
    """A perfect network as a backbone."""

    shape, condition, second_half, device, dtype = SHAPE, Nothing(), False, "cpu", np.float32

    def __init__(self, path: Levels, answer: md.Prediction) -> None:
        self.oracle = exact.Mixture.ring(path, SHAPE, prediction=answer)

    def __call__(self, x: Any, t: Any, y: Any = None) -> Any:
        return self.oracle(x, t).astype(np.float32)

    def null(self, y: Any) -> Any:
        return y


def trained(process: Any, data: Any, seed: int, updates: int, **changes: Any) -> tuple[Perceptron, float]:
    """(a network with its averaged weights, seconds)"""
    net, begun = Perceptron(md.Philox(seed=seed)), time.perf_counter()
    settings = {"lr": 2e-3, "warmup": 100, "final_lr": 0.01, "ema": 0.995, "clip": 1.0, "shards": 1, "batch_size": BATCH}
    loop = Loop(net, process, data, md.LoopConfig(steps=updates, seed=seed, **(settings | changes)))
    for _ in loop.run():
        pass
    net.flat[...] = loop.optimiser.average
    return net, time.perf_counter() - begun


def bent(network: Any, process: Any, z: Any, steps: int = 100) -> float:
    """S of the walks of a network from z."""
    path, states = process.path, []
    for moment in md.sample(network, process, n=len(z), steps=steps, x_T=path.start(z), trace=True):
        states.append(np.asarray(getattr(moment, "x_t", moment), np.float64))
    ts = [t for t, _ in path.grid(steps)] + [path.grid(steps)[-1][1]]
    return flow.straightness(np.asarray(ts, np.float64), np.stack(states))


def row(name: str, seed: int, network: Any, process: Any, data: Any, counts: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """One line of a table: the distance after each number of steps."""
    n = len(data)
    z = md.Philox(seed=100 + seed).normal((n, *SHAPE))
    how = {"seed": 7} | ({"fresh": more.pop("fresh")} if "fresh" in more else {})
    ends = {}
    for k in counts:
        ends[str(k)] = distance(md.sample(network, process, n=n, steps=k, x_T=process.path.start(z), **how), data)
    result = {"name": name, "seed": seed, "distance": ends, **more}
    print(json.dumps(result), flush=True)
    return result


def flows(seed: int, updates: int, n: int, n_pairs: int) -> Iterator[dict[str, Any]]:
    """The first flow, its reflow, and the exact field."""
    process, data = md.Diffusion(md.Straight(), md.U, uniform), points(n, seed=50 + seed)
    z = md.Philox(seed=100 + seed).normal((n, *SHAPE))
    perfect = Perfect(process.path, md.U)
    yield row("exact field", seed, perfect, process, data, COUNTS, S=bent(perfect, process, z))
    first, spent = trained(process, source_of(points(100_000, seed).astype(np.float32)), seed, updates)
    yield row("1-RF", seed, first, process, data, COUNTS, S=bent(first, process, z), seconds=spent)
    noise = md.Philox(seed=200 + seed).normal((n_pairs, *SHAPE))
    made = md.sample(first, process, n=n_pairs, steps=100, x_T=noise)
    second, spent = trained(Reflow(process, at_noise=0.0), StoredPairs(made, noise), seed, updates)
    yield row("2-RF", seed, second, process, data, COUNTS, S=bent(second, process, z), seconds=spent)


def uniform(draws: Any) -> Any:
    return draws.uniform(dtype=np.float64)


def one_step(seed: int, updates: int, n: int) -> Iterator[dict[str, Any]]:
    """Consistency distillation and training, beside EDM's Euler walk of the exact denoiser."""
    data, source = points(n, seed=50 + seed), source_of(points(100_000, seed).astype(np.float32))
    for top in (80.0, 20.0):
        path = md.Exploding(0.5, low=END, high=top)
        perfect = Perfect(path, md.EPS)
        edm = md.Diffusion(path, md.EPS, uniform)
        yield row(f"exact denoiser, Euler, top {top:.0f}", seed, perfect, edm, data, (1, 2, 5, 18))
        grid = fixed(consistency.rising_grid(19, END, top))
        variants: list[tuple[str, Callable[[], Consistency]]] = [
            ("CD", lambda: Consistency.on_exploding(END, top, grid=grid, teacher=Denoiser(perfect, path))),  # noqa: B023
            ("iCT", lambda: Consistency.improved(updates, s_1=160, high=top)),  # noqa: B023
        ]
        if top == 80:
            variants.append(("iCT, mean +1.1", lambda: Consistency.improved(updates, s_1=160, high=top, mean=1.1)))  # noqa: B023
        for name, process in variants:
            made = process()
            net, spent = trained(made, source, seed, updates)
            yield row(f"{name}, top {top:.0f}", seed, net, made, data, (1, 2, 4), fresh=EVERYTHING, seconds=spent)


def closed_forms() -> list[dict[str, Any]]:
    """S of the exact flow of N(m, s²) on three paths, and of the ring: which is straighter depends on the data."""
    ladder = md.Schedule.linear(1000)
    at_part = {
        "straight": md.Straight().level,
        "cosine": lambda u: md.Level(float(np.cos(np.pi * u / 2)), float(np.sin(np.pi * u / 2))),
        "linear β ladder": lambda u: ladder.level(round(1000 * u)),
    }
    rows = []
    for mean, std in ((0.0, 1.0), (0.0, 0.5), (0.0, 0.1), (1.0, 0.5), (2.0, 1.0)):
        found = {name: flow.gaussian_straightness(level, mean, std, 1000) for name, level in at_part.items()}
        rows.append({"data": f"N({mean:g}, {std:g}²)", **found})
    rows.append({"data": "the ring", **{name: ring_straightness(level) for name, level in at_part.items()}})
    return rows


def ring_straightness(level: Callable[[float], md.Level], n: int = 500, steps: int = 1000) -> float:
    """S of the exact flow of the ring along a path, t from 1 to 0 in equal steps; by Euler's steps in the coordinate σ/α."""
    oracle, x = ring(md.Straight()), md.Philox(seed=3).normal((n, *SHAPE), dtype=np.float64)
    ts, states = np.linspace(1.0, 0.0, steps + 1), [x]
    for t, s in pairwise(ts):
        at, below = level(float(t)), level(float(s))
        x_0 = oracle.denoise(states[-1], at)
        states.append(below.alpha * x_0 + below.sigma * (states[-1] - at.alpha * x_0) / at.sigma)
    return flow.straightness(ts, np.stack(states))


def mean_and_both(rows: list[dict[str, Any]], name: str, value: Callable[[dict[str, Any]], float]) -> str:
    numbers = [value(r) for r in rows if r["name"] == name]
    return " / ".join(f"{n:.4f}" if n < 0.01 else f"{n:.3f}" for n in numbers)


def page(record: dict[str, Any]) -> str:
    """The tables in Markdown: both seeds, separated by a stroke."""
    lines = ["| straightness S of the exact flow | straight path | cosine path | linear-β ladder |", "|---|---|---|---|"]
    lines += [f"| {r['data']} | {r['straight']:.4f} | {r['cosine']:.4f} | {r['linear β ladder']:.4f} |" for r in record["closed"]]
    lines += ["", "| steps | 1 | 2 | 4 | 16 | 100 | S |", "|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(r["name"] for r in record["flows"]):
        cells = [mean_and_both(record["flows"], name, lambda r, k=k: r["distance"][str(k)]) for k in COUNTS]
        lines.append(f"| {name} | {' | '.join(cells)} | {mean_and_both(record['flows'], name, lambda r: r['S'])} |")
    lines += ["", "| steps | 1 | 2 | 4 | 5 | 18 |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(r["name"] for r in record["one step"]):
        cells = [mean_and_both([r for r in record["one step"] if k in r["distance"]], name, lambda r, k=k: r["distance"][k])
                 for k in ("1", "2", "4", "5", "18")]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    floor = distance(points(SAMPLES, 50), points(SAMPLES, 60))
    return "\n".join([*lines, "", f"Two samples of the data are {floor:.3f} apart."])


def main() -> None:
    parser = argparse.ArgumentParser(description="flows and consistency models in the plane", prog="python -m benchmarks.plane")
    parser.add_argument("--quick", action="store_true", help="few updates: does it run?")
    parser.add_argument("--page", action="store_true", help="print the tables of the latest results")
    parser.add_argument("--seeds", type=int, default=2, help="training seeds (2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    args = parser.parse_args()
    if args.page:
        print(page(json.loads(args.out.read_text())))
        return
    updates, n, n_pairs = (30, 200, 300) if args.quick else (UPDATES, SAMPLES, PAIRS)
    record: dict[str, Any] = {"updates": updates, "batch": BATCH, "samples": n, "pairs": n_pairs, "closed": closed_forms()}
    record |= {"flows": [], "one step": []}
    for seed in range(args.seeds):
        record["flows"] += flows(seed, updates, n, n_pairs)
        record["one step"] += one_step(seed, updates, n)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(page(record))


if __name__ == "__main__":
    main()
