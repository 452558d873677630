"""How few rungs a solver needs: the shipped weights, measured beside DDIM with 50 rungs.

    python -m benchmarks.solvers --seeds 0 1 --out benchmarks/results/solvers.json        minutes on two cores

Every row is a Fréchet distance as a multiple of that of reconstructions, by the judge that is trained here; class accuracy says
little where few rungs are walked. All rows of a seed start from the same noise.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from minidit.runs.evaluate import Evaluation
from minidit.runs.loading import load
from minidit.runs.phases import Run
from minidit.runs.presets import PRESETS, DataConfig

ROWS = [
    ("euler", 50), ("euler", 8), ("euler", 4), ("ab2", 16), ("ab2", 12), ("ab2", 8), ("ab2", 6), ("ab2", 4),
    ("ab2_arc", 12), ("ab2_arc", 8), ("ab2_arc", 6), ("ab2_arc", 4), ("dpm_2m", 8), ("heun", 4), ("ab2_arc karras", 8),
    ("ab2 karras", 8),
]  # fmt: skip
SCALES: dict[str, dict[str, Any]] = {"as shipped": {}, "w = 1": {"guidance": 1.0}}


def measured(seed: int, n: int, solvers: list[str], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one seed of the noise: those of these solvers, after those that were measured before."""
    pipeline = load()
    with tempfile.TemporaryDirectory() as place:
        job = Run(Path(place) / "run", replace(PRESETS["fashion"], data=DataConfig(source="fashion")))
        train, held_out = job.data()
        assert held_out is not None
        job.fit_to(train)
        job.create()
        evaluation = Evaluation(job.judge(train), train, held_out, n=n)
    evaluation.references(pipeline)
    if before and abs(evaluation.rows[0]["frechet"] - before[0]["frechet"]) > 1e-6:
        raise SystemExit("the judge that was trained here is not the one of the rows in the file: measure all solvers")
    evaluation.rows = before or evaluation.rows
    for scale, scaled in SCALES.items():
        for solver, steps in [row for row in ROWS if row[0] in solvers]:
            word, _, spacing = solver.partition(" ")
            options = scaled | {"seed": seed, "steps": steps, "solver": word, "spacing": spacing}
            evaluation.samples(f"{scale}: {solver} {steps}", pipeline, **options)
            print(evaluation.rows[-1]["name"], round(evaluation.rows[-1]["frechet"], 3), flush=True)
    return evaluation.table()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--solvers", nargs="+", help="only these, added to the rows in the file (default: all, anew)")
    parser.add_argument("-n", type=int, default=500, help="pictures per row")
    parser.add_argument("--out", type=Path, help="also as JSON")
    args = parser.parse_args()
    file = json.loads(args.out.read_text()) if args.out and args.out.exists() and args.solvers else {}
    every = list(dict.fromkeys(solver for solver, _ in ROWS))
    tables = {seed: measured(seed, args.n, args.solvers or every, file.get(str(seed), [])) for seed in args.seeds}
    names = [row["name"] for row in tables[args.seeds[0]]]
    print("| pictures | " + " | ".join(f"seed {seed}: multiple, recall" for seed in args.seeds) + " |")
    print("|---|" + "---|" * len(args.seeds))
    for k, name in enumerate(names):
        cells = [f"{tables[seed][k]['multiple']:.2f} ×, {tables[seed][k]['recall']:.2f}" for seed in args.seeds]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if args.out:
        args.out.write_text(json.dumps({str(seed): table for seed, table in tables.items()}, indent=1))


if __name__ == "__main__":
    main()
