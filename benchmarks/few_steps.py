"""Pictures in one, two and four steps: a flow map distilled from the shipped weights, measured beside its teacher.

    python -m benchmarks.few_steps train --seed 0 --out few/0           one core; --pool 6000 --updates 2900: five quiet minutes
    python -m benchmarks.few_steps measure few/0 few/1 --data FOLDER --out benchmarks/results/few_steps.json
    python -m benchmarks.few_steps picture                              writes docs/few-steps.png from the shipped weights

The teacher is walked in eight steps of Adams–Bashforth on the arc with its own guidance; its trajectories are kept at five
points. The student begins as a copy. A row's multiple is its Fréchet distance over that of reconstructions, by the judge of
`measure`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minidit import pictures
from minidit.checkpoint import load_model, save_model
from minidit.cli.progress import Progress
from minidit.diffusion.solver import AB2_ARC
from minidit.models.dit import DiT
from minidit.models.flow_map import FlowMapDiT
from minidit.processes.distil import Distillation, in_steps, trajectories
from minidit.processes.sample import Sampling
from minidit.random import Philox
from minidit.runs import former
from minidit.runs.evaluate import Evaluation
from minidit.runs.loading import load, load_few_steps
from minidit.runs.phases import Run
from minidit.runs.pipeline import Pipeline
from minidit.runs.presets import PRESETS, DataConfig
from minidit.runs.process_config import Learner
from minidit.runs.teacher_kinds import ConsistencyConfig
from minidit.training.loop import Loop, LoopConfig

STEPS = (1, 2, 4)
TEACHER = [("euler", 50), ("ab2", 8), ("ab2", 4), ("ab2_arc", 8), ("ab2_arc", 4), ("euler", 4), ("euler", 2), ("euler", 1)]
RECIPE = LoopConfig(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=100, final_lr=0.05, clip=1.0, ema=0.999, batch_size=32, shards=1)  # fmt: skip  # noqa: E501
STREAM = 0x666577


def train(args: argparse.Namespace) -> None:
    """A student of the shipped weights, and what it took."""
    args.out.mkdir(parents=True, exist_ok=True)
    teacher, began = load(), time.process_time()
    assert teacher.meta is not None
    settings = Sampling(8, solver=AB2_ARC, guidance=teacher.guidance, interval=teacher.interval, seed=args.seed)
    labels, progress = np.arange(args.pool) % teacher.model.condition.count, Progress(False)
    source = trajectories(
        teacher.model, teacher.process, labels, settings, n=args.pool, keep=4, progress=progress.steps("trajectories")
    )
    progress.close()
    walked = time.process_time() - began
    student = FlowMapDiT.like(teacher.model, Philox(args.seed, STREAM))
    shares = {1: args.share, 2: (1 - args.share) / 2, 4: (1 - args.share) / 2}
    process = Distillation(teacher.process.path, teacher.process.answer, keep=4, shares=shares)
    loop = Loop(student, process, source, replace(RECIPE, steps=args.updates, seed=args.seed))
    facts = {"seed": args.seed, "pool": args.pool, "updates": args.updates, "batch": RECIPE.batch_size, "share": args.share}
    records: list[dict[str, float]] = []
    for record in loop.run():
        records.append({name: float(record[name]) for name in ("loss", "in_1", "in_2", "in_4")})
        if record["step"] % 500 == 0 or record["step"] == args.updates:
            spent = time.process_time() - began
            mean = {name: round(float(np.mean([r[name] for r in records[-500:]])), 4) for name in records[0]}
            line = {**facts, "update": record["step"], "cpu_s": round(spent), "walking_cpu_s": round(walked), **mean}
            with (args.out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if record["step"] % 4000 == 0 or record["step"] == args.updates:
            network = FlowMapDiT(student.config, None)
            network.flat[...] = loop.optimiser.average
            save_model(
                args.out / "model.safetensors", network, run=former.header(teacher.meta), data=teacher.meta["data"], few=line
            )


def distil_consistency(args: argparse.Namespace) -> None:
    """A consistency model of the shipped weights, on their own ladder."""
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = load()
    assert teacher.meta is not None
    place = DataConfig(source=args.data)
    job = Run(args.out / "unused", replace(PRESETS["fashion"], data=place))
    training, _ = job.data()
    config = ConsistencyConfig(learn_from="the shipped weights", coordinates="vp")
    student = DiT(teacher.model.config, None)
    source = config.source(teacher.tokenizer.source(training), Learner(student))
    began = time.process_time()
    process = config.process(student, source, teacher)
    loop = Loop(student, process, source, replace(RECIPE, steps=args.updates, seed=args.seed, ema=0.99))
    losses = [float(record["loss"]) for record in loop.run()]
    student.flat[...] = loop.optimiser.average
    facts = {"seed": args.seed, "updates": args.updates, "batch": RECIPE.batch_size, "cpu_s": round(time.process_time() - began)}
    save_model(args.out / "consistency.safetensors", student, run=former.header(teacher.meta), few=facts)
    with (args.out / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({**facts, "consistency loss": round(float(np.mean(losses[-100:])), 4)}) + "\n")


def student_in(teacher: Pipeline, network: FlowMapDiT, steps: int) -> Pipeline:
    """The pipeline of a student in so many steps: the guidance is in its weights."""
    return replace(teacher, model=in_steps(network, steps), guidance=1.0)


def measured(folders: list[Path], data: str, n: int, noise: tuple[int, ...], more: bool) -> list[dict[str, Any]]:
    """Rows of the teacher (unless there are `more` rows than these) and of the students, for several seeds of the noise."""
    teacher, place = load(), folders[0].parent / "judge"
    job = Run(place, replace(PRESETS["fashion"], data=DataConfig(source=data)))
    training, held_out = job.data()
    assert held_out is not None
    job.fit_to(training)
    if not place.exists():
        job.create()
    evaluation = Evaluation(job.judge(training), training, held_out, n=n)
    evaluation.references(teacher)
    for seed in noise:
        for folder in [f for f in folders if (f / "consistency.safetensors").exists()]:
            network, _ = load_model(folder / "consistency.safetensors")
            for steps in STEPS:
                name = f"consistency {folder.name}: {steps}, noise {seed}"
                student = replace(teacher, model=network, guidance=1.0)
                evaluation.samples(name, student, seed=seed, steps=steps, sampler="consistency")
        for solver, steps in [] if more else TEACHER:
            evaluation.samples(f"teacher: {solver} {steps}, noise {seed}", teacher, seed=seed, steps=steps, solver=solver)
        for folder in [f for f in folders if (f / "model.safetensors").exists()]:
            network, _ = load_model(folder / "model.safetensors")
            for steps in STEPS:
                name = f"student {folder.name}: {steps}, noise {seed}"
                evaluation.samples(name, student_in(teacher, network, steps), seed=seed, steps=steps)
    return evaluation.table()


def picture(args: argparse.Namespace) -> None:
    """The same noise by the teacher and by the shipped student."""
    teacher, few, y = load(), load_few_steps(), list(range(10))
    rows = {"DiT: 50 steps": teacher.sample(y, steps=50), "few: 1 step": few.sample(y, steps=1)}
    rows |= {f"few: {k} steps": few.sample(y, steps=k) for k in (2, 4)}
    rows["DiT: 1 step"] = teacher.sample(y, steps=1)
    sheet = pictures.grid(np.concatenate(list(rows.values())), 10, scale=2, row_labels=list(rows))
    print(pictures.save_png(args.out, sheet))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="work", required=True)
    one = sub.add_parser("train")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--pool", type=int, default=24000, help="trajectories of the teacher")
    one.add_argument("--updates", type=int, default=16000)
    one.add_argument("--share", type=float, default=0.7, help="of a batch that learns the single step")
    one.add_argument("--out", type=Path, required=True)
    sheet = sub.add_parser("picture")
    sheet.add_argument("--out", type=Path, default=Path("docs/few-steps.png"))
    cd = sub.add_parser("consistency")
    cd.add_argument("--seed", type=int, default=0)
    cd.add_argument("--updates", type=int, default=800)
    cd.add_argument("--data", default="fashion")
    cd.add_argument("--out", type=Path, required=True)
    two = sub.add_parser("measure")
    two.add_argument("folders", type=Path, nargs="+")
    two.add_argument("--data", default="fashion", help="a folder with the whole Fashion-MNIST, or the embedded part")
    two.add_argument("-n", type=int, default=500)
    two.add_argument("--noise", type=int, nargs="+", default=[0, 1])
    two.add_argument("--out", type=Path, help="also as JSON; rows of students are added to those of an existing file")
    args = parser.parse_args()
    if args.work != "measure":
        {"train": train, "consistency": distil_consistency, "picture": picture}[args.work](args)
        return
    before = json.loads(args.out.read_text()) if args.out and args.out.exists() else []
    rows = measured(args.folders, args.data, args.n, tuple(args.noise), bool(before))
    table = before + [row for row in rows if row["name"] not in {r["name"] for r in before}]
    print("| pictures | class accuracy | Fréchet | multiple | precision | recall |\n|---|---|---|---|---|---|")
    for r in table:
        print(f"| {r['name']} | {r.get('accuracy', 0):.3f} | {r['frechet']:.2f} | {r['multiple']:.2f} × "
              f"| {r['precision']:.2f} | {r['recall']:.2f} |")  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
