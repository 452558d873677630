"""What a finished run shows: reconstructions, grids, the denoising, loss curves, the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from minidit.checkpoint import write_atomically
from minidit.data import Dataset
from minidit.pictures import curves, grid, save_png, stack
from minidit.processes.autoencode import reconstruct
from minidit.runs.evaluate import Evaluation
from minidit.runs.pipeline import Pipeline
from minidit.runs.run import Run
from minidit.runs.show import class_grid, reconstructions, save_walk

Note = Callable[[str], None]


def show_run(run: Run, pipeline: Pipeline, held_out: Dataset, note: Note, *, each: int = 8) -> None:
    """pictures/*.png, the GIF, trace.npz and report.html of a run whose denoiser is trained."""
    folder, s = run.folder / "pictures", run.config.sample
    folder.mkdir(parents=True, exist_ok=True)
    save_png(folder / "loss.png", loss_curves(run))
    if pipeline.autoencoder is not None:
        x = held_out.x_0(slice(10))
        save_png(folder / "reconstructions.png", reconstructions(*map(held_out.inner, (x, reconstruct(pipeline.autoencoder, x)))))
    K = pipeline.model.config.num_classes
    labels = [k for k in range(K) for _ in range(each)] if K else None
    shown = {"n": 64, "guidance": s.guidance, "interval": s.interval, "seed": s.seed}
    for name, steps in (("ddim", s.steps), ("ddpm", 2 * s.steps)):
        x = pipeline.sample(labels, steps=steps, sampler=name, **shown)
        title = f"{name.upper()}, {steps} rungs" + (f", guidance {told(s.guidance, s.interval)}" if K else "")
        save_png(folder / f"{name}.png", class_grid(x, labels, pipeline.class_names, title))
    few = [k % K for k in range(10)] if K else None
    save_walk(run.folder, pipeline, few, **{**shown, "n": 10}, steps=s.steps)
    note(f"pictures in {folder}")


def told(guidance: float, interval: tuple[float, float]) -> str:
    """A guidance scale, and the part of the ladder where it holds."""
    return f"{guidance:g}" + ("" if interval == (0.0, 1.0) else f" in ({interval[0]:g}, {interval[1]:g}]")


def loss_curves(run: Run) -> Any:
    """The loss of every phase over its steps."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    phases = list(dict.fromkeys(line["phase"] for line in lines))
    parts = []
    for phase in phases:
        rows = [line for line in lines if line["phase"] == phase]
        rows = [line for line in rows if line["step"] > 1] or rows  # the first loss would set the scale
        steps, values = np.array([r["step"] for r in rows]), np.array([r["loss"] for r in rows])
        parts.append(curves({"loss": (steps, values)}, phase, log=True))
    return stack(parts)


def neighbour_picture(x: Any, train: Dataset, index: list[int]) -> Any:
    """Samples above, the nearest training pictures below."""
    return stack(
        [grid(x, columns=len(x)), grid(train.inner(train.x_0(np.array(index))), columns=len(x))],
        ["samples", "nearest training pictures"],
    )


def measure(
    run: Run,
    pipeline: Pipeline,
    evaluation: Evaluation,
    note: Note,
    *,
    ddpm_steps: int = 250,
    ddpm_n: int | None = None,
    precision: str = "float32",
) -> dict[str, Any]:
    """eval.json and neighbours.png: the reference rows, DDIM and DDPM as the run draws them, DDIM at other guidance."""
    conditional = bool(pipeline.model.config.num_classes)
    s = run.config.sample
    seed, steps, own = s.seed, s.steps, f", w = {told(s.guidance, s.interval)}" if conditional else ""
    as_run: dict[str, Any] = {"guidance": s.guidance, "interval": s.interval, "seed": seed}
    evaluation.references(pipeline)
    as_run["precision"] = precision
    x = evaluation.samples(f"DDIM {steps}{own}", pipeline, steps=steps, **as_run)
    others = (1.0, 2.0, 3.0) if s.interval == (0.0, 1.0) else (1.0, 2.0)
    for w in others if conditional else ():
        if (w, (0.0, 1.0)) != (s.guidance, s.interval):
            evaluation.samples(f"DDIM {steps}, w = {w:g}", pipeline, steps=steps, guidance=w, seed=seed, precision=precision)
    n = ddpm_n or evaluation.n
    few = f"of {n}: a few more points of bias than the rows above" if n < evaluation.n else ""
    evaluation.samples(f"DDPM {ddpm_steps}{own}", pipeline, n=n, note=few, steps=ddpm_steps, sampler="ddpm", **as_run)
    rows, near = evaluation.table(), evaluation.neighbours(x[:100])
    found: dict[str, Any] = {"rows": rows, "neighbours": near}
    for r in rows:
        accuracy = f"accuracy {r['accuracy']:.3f}  " if "accuracy" in r else ""
        note(f"  {r['name']:30s} n {r['n']:4d}  {accuracy}Fréchet {r['frechet']:7.2f} = {r['multiple']:5.2f} x  "
             f"precision {r['precision']:.2f} recall {r['recall']:.2f}")  # fmt: skip
    picture = neighbour_picture(x[:10], evaluation.train, near["index"][:10])
    save_png(run.folder / "pictures" / "neighbours.png", picture)
    write_atomically(run.folder / "eval.json", json.dumps(found, indent=1).encode())
    return found
