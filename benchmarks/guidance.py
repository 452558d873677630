"""Guidance distillation: a student with one call per step beside its teacher with two.

    minidit train --preset digits-flow --steps 1500 --out TEACHER
    minidit train --preset digits-flow --process guidance --coordinates straight --model guided --hidden-size 96 --depth 4 \\
        --num-heads 4 --teacher TEACHER --steps 1200 --lr 3e-3 --out STUDENT
    python -m benchmarks.guidance TEACHER STUDENT --scales 1 2 4 6

The relative error of the student's answer is |F(w) - F_w| / |F_w| over held-out pictures at uniform times; beside it that of
the plain conditional answer, and that of what the scale adds, F(w) - F(1) for (w - 1) (F_c - F_∅). Accuracy: of the run's own
judge on samples of --steps steps.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minidit.autograd import no_grad
from minidit.diffusion.level import mix
from minidit.runs.evaluate import Evaluation
from minidit.runs.loading import load
from minidit.runs.phases import Run, resume
from minidit.runs.pipeline import Pipeline


def answers(teacher: Pipeline, student: Pipeline, x_0: Any, y: Any, w: float, seed: int) -> dict[str, float]:
    """Relative errors of the student's answer, of the plain conditional one, and of what the student adds for w."""
    r, path = np.random.default_rng(seed), teacher.process.path
    t = r.uniform(size=len(x_0))
    x_in, time = path.inputs(mix(x_0, r.standard_normal(x_0.shape).astype(x_0.dtype), path.level(t)), t)
    with no_grad():
        c, u = (teacher.model(x_in, time, label).data for label in (y, teacher.model.null(y)))
        known: Any = student.model
        F, F_1 = (known(x_in, time, y, w=scale).data for scale in (w, 1.0))
    guided, more = u + w * (c - u), (w - 1) * (c - u)
    rows = {"student": (F, guided), "conditional": (c, guided)} | ({"correction": (F - F_1, more)} if w != 1 else {})
    return {name: float(np.linalg.norm(a - b) / np.linalg.norm(b)) for name, (a, b) in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("student", type=Path)
    parser.add_argument("--scales", type=float, nargs="+", default=[1, 2, 4, 6])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the rows as JSON")
    args = parser.parse_args()
    teacher, student, job = load(args.teacher), load(args.student), resume(args.teacher)
    training, held_out = Run.data(job)
    assert held_out is not None
    job.fit_to(training)
    evaluation = Evaluation(job.judge(training), training, held_out, n=args.n)
    x_0, y = np.asarray(teacher.encode(held_out.x_0()), np.float32), np.asarray(held_out.labels)
    rows = []
    for w in args.scales:
        row: dict[str, Any] = {"w": w, "steps": args.steps, **answers(teacher, student, x_0, y, w, args.seed)}
        for name, pipeline in (("teacher", teacher), ("student", student)):
            one = replace(pipeline, guidance=w, interval=(0.0, 1.0))
            evaluation.samples(f"{name} {w:g}", one, seed=args.seed, steps=args.steps)
        rows.append(row)
    table = {r["name"]: r for r in evaluation.rows}
    for row in rows:
        row |= {f"accuracy of the {name}": table[f"{name} {row['w']:g}"]["accuracy"] for name in ("teacher", "student")}
        print(json.dumps(row))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
