"""The pictures and numbers of a finished run: reconstructions, grids, the denoising, loss curves, the report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from minidit.backend import Array
from minidit.checkpoint import write_atomically
from minidit.curves import curves
from minidit.data import Dataset
from minidit.diffusion import flow
from minidit.outgoing import silent
from minidit.pictures import grid, save_gif, save_png, stack
from minidit.runs.evaluate import Evaluation, trajectories
from minidit.runs.folder import metrics_of
from minidit.runs.phase import Note
from minidit.runs.phases import Run
from minidit.runs.pipeline import Pipeline
from minidit.runs.presets import RunConfig, SampleConfig
from minidit.runs.show import WALKED, Steps, is_clips, playing, reconstructions, save_grid, save_learning, save_walk, sheet
from minidit.runs.walks import Options
from minidit.runs.wanted import Labels
from minidit.runs.writer import Writer

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

UNLABELLED = 64  # pictures of a model without classes
CLIPS = 2  # of each class in a picture, where a clip takes a row
FEWEST = 8  # steps of a walk for the pictures of a short run
METHODS = {  # the words of solvers, for titles
    "euler": "Euler", "heun": "Heun", "heun_edm": "Heun", "ab2": "Adams–Bashforth", "ab2_arc": "Adams–Bashforth on the arc",
    "dpm_2m": "DPM-Solver++(2M)",
}  # fmt: skip


def show_run(
    run: Run, pipeline: Pipeline, held_out: Dataset | None, steps: Steps = lambda what: silent, *, each: int = 8
) -> None:
    """pictures/*.png, the GIF and trace.npz of a run whose model is trained. steps : is told of all that takes long"""
    folder, s, first = run.folder / "pictures", run.config.sample, run.ranks.first  # all ranks compute, the first one writes
    if first:
        save_png(folder / "loss.png", loss_curves(run))
    if pipeline.tokenizer.limit is None and held_out is not None:  # x_0 are latents, and decoding them loses something
        x = held_out.pictures().x_0(slice(10))
        decoded = pipeline.tokenizer.decode(pipeline.encode(x))
        if first:
            save_png(folder / "reconstructions.png", reconstructions(*map(held_out.inner, (x, decoded))))
    labels, K, walked = shown_labels(pipeline, each), pipeline.model.condition.count, shown_steps(run.config, pipeline)
    if walked < s.steps:
        run.note(f"pictures are drawn in {walked} steps instead of {s.steps}, because the model has made few updates")
    n = UNLABELLED if labels is None else len(labels)
    options: Options = {"n": n, "guidance": s.guidance, "interval": s.interval, "seed": s.seed}
    for name, title, more in drawings(pipeline, walked):
        x = pipeline.sample(labels, **options | more | {"progress": steps(f"pictures by {name}")})
        title += f", guidance {guidance_of(s)}" if K else ""
        if first:
            save_png(folder / f"{name}.png", sheet(x, labels, pipeline, title))
            if is_clips(x):
                save_gif(folder / f"{name}.gif", playing(x, labels, pipeline), ms=200, hold=200)
    few = pipeline.labels(None, WALKED)
    walk: Options = {"n": WALKED, "steps": walked}
    save_walk(run.folder, pipeline, few, work=steps, **options | walk)
    if s.every:
        save_grid(run.folder, pipeline, s, run.config.train.steps)
        if first:
            save_learning(run.folder, 2 if pipeline.vocabulary is None and len(pipeline.model.shape) == 3 else 1)


def shown_labels(pipeline: Pipeline, each: int) -> Labels | None:
    """Every class `each` times, of clips at most CLIPS times, or the captions that are kept with a model."""
    each = min(each, CLIPS) if len(pipeline.model.shape) == 4 else each
    if pipeline.vocabulary is not None or not pipeline.model.condition.count:
        return pipeline.labels(None)
    return [k for k in range(pipeline.model.condition.count) for _ in range(each)]


def shown_steps(config: RunConfig, pipeline: Pipeline) -> int:
    """The steps of the pictures of a run: one for ten updates, at least FEWEST, and at most as many as the run asks for.

    So the pictures of a trial of a few seconds take seconds, too.
    """
    return pipeline.in_short(config.sample.steps, max(FEWEST, config.train.steps // 10))


def drawings(pipeline: Pipeline, steps: int) -> list[tuple[str, str, Options]]:
    """(file, title, options) of the grids of a finished run: on a ladder by DDIM and DDPM, else as is usual for the process."""
    if pipeline.ladder is None or pipeline.usual.few:
        return [("samples", f"{method_of(pipeline)}, {steps} steps", {"steps": steps})]
    walks = ("ddim", steps), ("ddpm", min(2 * steps, pipeline.ladder.T))
    return [(name, f"{name.upper()}, {n} rungs", {"steps": n, "sampler": name}) for name, n in walks]


def method_of(pipeline: Pipeline) -> str:
    """The usual way to draw samples, for titles."""
    usual = pipeline.usual
    if pipeline.ladder is not None and not usual.few:
        return "DDIM"
    return METHODS[usual.solver] if usual.sampler == "ddim" else usual.sampler


def guidance_of(s: SampleConfig) -> str:
    """A guidance scale, and the part of the path where it applies."""
    return f"{s.guidance:g}" + ("" if s.interval == (0.0, 1.0) else f" in ({s.interval[0]:g}, {s.interval[1]:g}]")


def _has_loss(line: dict[str, Any]) -> bool:
    """Whether a line of metrics is one that can be drawn; a damaged one leaves a gap in the curve."""
    numbers = (line.get("step"), line.get("loss"))
    return all(isinstance(n, int | float) for n in numbers) and isinstance(line["phase"], str)


def loss_curves(run: Run) -> Picture:
    """The loss of every phase over its updates."""
    lines, parts = [line for line in metrics_of(run.folder) if _has_loss(line)], []
    for phase in dict.fromkeys(line["phase"] for line in lines):
        rows = [line for line in lines if line["phase"] == phase]
        rows = [line for line in rows if line["step"] > 1] or rows  # the first loss would set the scale
        steps, values = np.array([r["step"] for r in rows]), np.array([r["loss"] for r in rows])
        parts.append(curves({"loss": (steps, values)}, phase, log=True))
    return stack(parts)


def neighbour_picture(x: Array, train: Dataset, index: list[int]) -> Picture:
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
    ddpm_steps: int | None = 250,
    ddpm_n: int | None = None,
    precision: str = "float32",
    steps: Steps = lambda what: silent,
) -> dict[str, Any]:
    """eval.json and neighbours.png: the reference rows, samples as the run draws them, by DDPM, and at other guidance.

    ddpm_steps : None for a path without rungs, which has no row of DDPM    steps : is told of all that takes long
    """
    s, conditional = run.config.sample, pipeline.model.condition.count > 0
    scale = f", w = {guidance_of(s)}" if conditional else ""
    common: Options = {"seed": s.seed, "precision": precision}
    evaluation.steps = steps
    as_run: Options = {"guidance": s.guidance, "interval": s.interval, **common}
    evaluation.references(pipeline)
    method = method_of(pipeline)
    x = evaluation.samples(f"{method} {s.steps}{scale}", pipeline, **as_run | {"steps": s.steps})
    if pipeline.usual.few:
        for few in sorted({1, 2, 4} - {s.steps}):
            evaluation.samples(f"{method} {few}", pipeline, **common | {"steps": few})
        ddpm_steps = None
    scales = (1.0, 2.0, 3.0) if s.interval == (0.0, 1.0) else (1.0, 2.0)
    for w in scales if conditional and run.config.process.guided else ():
        if (w, (0.0, 1.0)) != (s.guidance, s.interval):
            evaluation.samples(f"{method} {s.steps}, w = {w:g}", pipeline, **common | {"steps": s.steps, "guidance": w})
    if ddpm_steps is not None:
        n = ddpm_n or evaluation.n
        remark = f"of {n}: a few more points of bias than the rows above" if n < evaluation.n else ""
        more: Options = {"n": n, "steps": ddpm_steps, "sampler": "ddpm"}
        evaluation.samples(f"DDPM {ddpm_steps}{scale}", pipeline, remark, **as_run | more)
    rows, near = evaluation.table(), evaluation.neighbours(x[:100])
    for r in rows:
        accuracy = f"accuracy {r['accuracy']:.3f}  " if "accuracy" in r else ""
        note(f"  {r['name']:30s} n {r['n']:4d}  {accuracy}Fréchet {r['frechet']:7.2f} = {r['multiple']:5.2f} x  "
             f"precision {r['precision']:.2f} recall {r['recall']:.2f}")  # fmt: skip
    picture = neighbour_picture(x[:10], evaluation.train, near["index"][:10])
    measures: dict[str, Any] = {"rows": rows, "neighbours": near, "held_out": run.parts.about if run.parts else ""}
    if pipeline.usual.sampler == "ddim" and not pipeline.usual.few:  # the samples are ends of trajectories
        t, states = trajectories(pipeline, **as_run | {"progress": steps("trajectories")})
        measures["straightness"] = flow.straightness(t, states)
        measures["bends"] = {"t": ((t[1:] + t[:-1]) / 2).tolist(), "squares": flow.bends(t, states).tolist()}
        note(f"  straightness of trajectories, S = {measures['straightness']:.4f} (0: lines; F.3)")
    if isinstance(pipeline, Writer):
        measures["nats_per_token"] = pipeline.nats(pipeline.tokenizer.held_out(evaluation.held_out))
        note(f"  {measures['nats_per_token']:.3f} nats per code of held-out pictures")
    if run.ranks.first:
        save_png(run.folder / "pictures" / "neighbours.png", picture)
        write_atomically(run.folder / "eval.json", json.dumps(measures, indent=1).encode())
    return measures
