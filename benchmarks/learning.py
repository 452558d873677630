"""The paper's claims in miniature: the four kinds of conditioning at equal steps, and loss against the MACs of a model.

    python -m benchmarks.learning                  # everything: 8 + 10 trainings of digits in pixels, about an hour on two cores
    python -m benchmarks.learning --steps 50 --only variants

Every model is trained on the embedded digits by the recipe of the preset "digits" (v-prediction, cosine ladder) from two
seeds, on one core each. Held-out loss: the training loss on held-out digits with EMA weights, and the same times and noise
for every model. Fréchet: 500 guided DDIM-50 samples against the training digits, as a multiple of held-out digits.
Results: benchmarks/results/learning.json and docs/learning-*.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import minidit as md
from minidit.autograd import no_grad
from minidit.curves import curves
from minidit.data import Dataset
from minidit.models.dit import DIT, DiTConfig
from minidit.pictures import grid, save_png, stack
from minidit.processes.tokenizer import Pixels
from minidit.processes.train import fitted_source
from minidit.runs.evaluate import Evaluation
from minidit.runs.phases import Run
from minidit.runs.pipeline import Pipeline
from minidit.runs.presets import PRESETS
from minidit.training.draws import Draws

RESULT = Path(__file__).parent / "results" / "learning.json"
DOCS = Path(__file__).parent.parent / "docs"
VARIANTS = ("in_context", "cross_attention", "adaln", "adaln_zero")
SIZES = {"32/2": (32, 2, 2), "64/2": (64, 2, 4), "64/4": (64, 4, 4), "96/4": (96, 4, 4), "144/6": (144, 6, 6)}  # width/depth


def jobs(only: str | None) -> list[tuple[str, str, DiTConfig, int]]:
    """(group, name, model, seed) for every training."""
    base = DIT["digits"]
    trainings = [("variants", v, replace(base, conditioning=v), seed) for v in VARIANTS for seed in (0, 1)]
    for name, (width, depth, heads) in SIZES.items():
        model = replace(base, hidden_size=width, depth=depth, num_heads=heads)
        trainings += [("sizes", name, model, seed) for seed in (0, 1)]
    return [job for job in trainings if only in (None, job[0])]


def held_out_loss(model: md.DiT, process: md.Diffusion, held_out: Dataset) -> float:
    """The training loss on held-out pictures, over 20 updates of the same times and noise for every model."""
    source = fitted_source(model, held_out)
    draws = Draws(77, process.stream, np.arange(297), per=process.per, batch_size=297)
    losses = []
    with no_grad():
        for update in range(20):
            now = draws.at(update)
            losses.append(process.loss(model, *source.draw(now.pictures(len(source)), now), now)[0].data.mean())
    return float(np.mean(losses))


@threadpool_limits.wrap(limits=1)  # one core per training
def learn(job: tuple[str, str, DiTConfig, int], steps: int) -> dict[str, Any]:
    """Trains one model and measures it."""
    group, name, config, seed = job
    preset = PRESETS["digits"]
    train, held_out = md.data.digits(), md.data.digits("test")
    process, recipe = preset.process.diffusion(), replace(preset.train, steps=steps, seed=seed, shards=1)
    model = md.DiT(config, md.Philox(seed))
    loop, began, curve = md.loop_for(model, train, process, recipe, kind="serial"), time.perf_counter(), []
    for record in loop.run():
        if record["step"] % max(1, steps // 60) == 0:
            curve.append((record["step"], record["loss"]))
    minutes = (time.perf_counter() - began) / 60
    model.flat[...] = loop.optimiser.average
    loss, n = held_out_loss(model, process, held_out), len(held_out)
    with tempfile.TemporaryDirectory() as folder:
        judge = Run(Path(folder), preset).judge(train)
    evaluation = Evaluation(judge, train, held_out, n=500)
    real = evaluation.row("held-out", held_out.x_0(), held_out.labels)["frechet"]
    pipeline = Pipeline(model, Pixels(), process, train.class_names)
    pipeline.sample([0], n=1, steps=2)
    pictures = pipeline.sample([k % 10 for k in range(n)], n=n, steps=50, guidance=1.5, seed=0, shards=1)
    row = evaluation.row(name, pictures, [k % 10 for k in range(n)])
    return {
        "group": group, "name": name, "seed": seed, "steps": steps, "parameters": config.parameters(), "macs": config.macs(),
        "loss": loss, "frechet": row["frechet"], "real": real, "multiple": row["frechet"] / real, "accuracy": row["accuracy"],
        "minutes": minutes, "curve": curve, "n": n,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """One line per model, both seeds side by side."""
    out = ["| model | parameters | MACs | held-out loss, two seeds | Fréchet as a multiple of real | class accuracy |",
           "|---|---|---|---|---|---|"]  # fmt: skip
    for name in dict.fromkeys(r["name"] for r in rows):
        runs = [r for r in rows if r["name"] == name]
        losses, multiples, hits = ([r[k] for r in runs] for k in ("loss", "multiple", "accuracy"))
        out.append(
            f"| {name.replace('_', '-')} | {runs[0]['parameters']:,} | {runs[0]['macs'] / 1e6:.2f} M "
            f"| {' / '.join(f'{v:.4f}' for v in losses)} | {' / '.join(f'{v:.2f}' for v in multiples)} "
            f"| {' / '.join(f'{v:.3f}' for v in hits)} |"
        )
    return "\n".join(out)


def draw(rows: list[dict[str, Any]]) -> None:
    """docs/learning-variants.png and docs/learning-sizes.png."""
    variants = [r for r in rows if r["group"] == "variants"]
    if variants:
        lines = {f"{r['name']}": np.array(r["curve"]).T for r in variants if r["seed"] == 0}
        losses = curves({k: (v[0], v[1]) for k, v in lines.items()}, "training loss (seed 0)", log=True)
        bars = {n: sorted(r["multiple"] for r in variants if r["name"] == n) for n in VARIANTS}
        save_png(DOCS / "learning-variants.png", stack([losses, _bars(bars, "Fréchet, multiple of real (both seeds)")]))
    sizes = [r for r in rows if r["group"] == "sizes"]
    if sizes:
        by_seed = {}
        for seed in (0, 1):
            runs = sorted((r for r in sizes if r["seed"] == seed), key=lambda r: r["macs"])
            by_seed[f"seed {seed}"] = (np.array([r["macs"] / 1e6 for r in runs]), np.array([r["loss"] for r in runs]))
        title, label = "held-out loss against the work of a model", "million MACs per sample"
        save_png(DOCS / "learning-sizes.png", curves(by_seed, title, smooth=False, x_label=label))


def _bars(values: dict[str, list[float]], title: str) -> Any:
    """Horizontal bars as a grid of rows, two per name."""
    most, width = max(max(v) for v in values.values()), 320
    rows, names = [], []
    for name, pair in values.items():
        for v in pair:
            row = np.full((1, 12, width), 1.0)
            row[:, 2:10, : max(1, int(v / most * width))] = -0.2
            rows.append(row)
            names.append(f"{name} {v:.2f}")
    return grid(np.stack(rows), 1, scale=1, row_labels=names, title=title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--only", choices=("variants", "sizes"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--draw", action="store_true", help="only the pictures again, from the last results")
    args = parser.parse_args()
    if args.draw:
        draw(json.loads(RESULT.read_text())["rows"])
        return
    trainings, command = jobs(args.only), f"python -m benchmarks.learning --steps {args.steps}"
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        rows = []
        for row in pool.map(learn, trainings, [args.steps] * len(trainings)):
            rows.append(row)
            RESULT.write_text(json.dumps({"command": command, "rows": rows}, indent=1))
            print(f"{row['group']} {row['name']} seed {row['seed']}: loss {row['loss']:.4f}, "
                  f"Fréchet {row['multiple']:.2f} x real, accuracy {row['accuracy']:.3f}", flush=True)  # fmt: skip
    draw(rows)
    for group in ("variants", "sizes"):
        if members := [r for r in rows if r["group"] == group]:
            print(f"\n{group}\n{table(members)}")


if __name__ == "__main__":
    main()


