"""Rectified flow beside diffusion at equal updates, EDM in three coordinates, and reflow: trained and measured.

    python -m benchmarks.flow --runs RUNS --out benchmarks/results/flow.json       two hours on one core; --only digits: minutes

Clothes are latents of the shipped autoencoder and a DiT of the demo's size, digits are pixels. All networks of one data set are
trained alike, for as many updates, except those that begin as copies of another: 2-RF and mean velocity. One classifier that is
trained here judges them all. Every row is a Fréchet distance as a multiple of that of reconstructions (digits: of held-out
pictures), with the recall. All rows start from the same noise. A run that is finished in RUNS is not trained again, and one that
is measured in OUT is not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from minidit.runs.evaluate import Evaluation, straightness
from minidit.runs.loading import load, load_pipeline
from minidit.runs.phases import Run
from minidit.runs.pipeline import Pipeline
from minidit.runs.presets import PRESETS, DataConfig
from minidit.runs.walks import Options

AUTOENCODER = Path(__file__).parent.parent / "minidit" / "weights" / "fashion" / "autoencoder.safetensors"
CLOTHES = ["--preset", "demo", "--autoencoder", str(AUTOENCODER)]
FEW = "--process mean_velocity --model flow_map --hidden-size 128 --depth 4 --num-heads 4 --steps 600 --lr 1e-3 --warmup 20 --ema 0.99"  # noqa: E501
REFLOW = "--process rectified_flow --steps 800 --lr 1e-3 --warmup 20 --ema 0.99 --pairs-n 3000"
PLAIN: Options = {"guidance": 1.0}


def trainings(data: str, seed: int, place: Path) -> dict[str, list[str]]:
    """Run -> the arguments of its training."""
    if data == "digits":
        kinds = {"v": "digits", "flow": "digits-flow", "edm": "digits-edm"}
        return {f"d-{name}-{seed}": ["--preset", preset] for name, preset in kinds.items()}
    flow = str(place / f"f-flow-{seed}")
    return {
        f"f-v-{seed}": CLOTHES,
        f"f-flow-{seed}": [*CLOTHES, "--process", "rectified_flow"],
        f"f-edm-{seed}": [*CLOTHES, "--process", "edm", "--sigma-max", "20"],
        f"f-2rf-{seed}": [*CLOTHES, *REFLOW.split(), "--pairs", flow, "--init", flow],
        f"f-mean-{seed}": [*CLOTHES, *FEW.split(), "--teacher", flow],
    }


def walks(run: str) -> list[tuple[str, Options]]:
    """The rows of a run: what it is called, and how samples are drawn. The interval of guidance is at the same noise."""
    steps = lambda solver, *counts, **more: [(f"{solver} {n}", {"solver": solver, "steps": n, **more}) for n in counts]
    kind = run.split("-")[1]
    if kind == "2rf":
        return steps("euler", 1, 2, 4, 8, 16, **PLAIN)
    if kind == "mean":
        return steps("euler", 1, 2, 4, 8, **PLAIN)
    rows = steps("euler", 50, 8, 4, 1, **PLAIN) + steps("ab2", 8, **PLAIN)
    if kind == "edm":
        rows += steps("heun_edm", 18, **PLAIN)
        paths = [(path, {"path": path, **PLAIN}) for path in ("ve", "straight", "vp")]
        rows += [(f"{name}, {path}", walk) for path, more in paths for name, walk in steps("euler", 50, **more)]
        rows += [(f"{name}, {path}", walk) for path, more in paths for name, walk in steps("ab2", 16, **more)]
    if run.startswith("f-"):
        guided = {"guidance": 4.0, "interval": (0.2, 0.7) if kind == "v" else (0.25, 0.66)}
        rows += [(f"{name}, w = 4", walk) for name, walk in steps("ab2", 16, **guided)]
    if run.startswith("f-flow"):  # as the pairs were drawn
        rows += [(f"{name}, as the pairs", walk) for name, walk in steps("euler", 1, 4, 16)]
    return rows


def trained(run: str, arguments: list[str], seed: int, place: Path) -> Pipeline:
    """The pipeline of a run, trained first if it is not finished."""
    if not (place / run / "model.safetensors").exists():
        more = ["--seed", str(seed), "--out", str(place / run), "--resume", "auto", "--sample-every", "0", "--threads", "1"]
        subprocess.run([sys.executable, "-m", "minidit", "train", *arguments, *more], check=True)
    return load_pipeline(place / run)


def judged(data: str, n: int) -> Evaluation:
    """The evaluation that judges all runs on a data set, with its rows of reference."""
    preset = PRESETS[data]
    with tempfile.TemporaryDirectory() as folder:
        job = Run(Path(folder) / "run", replace(preset, data=DataConfig(source=data)))
        train, held_out = job.data()
        assert held_out is not None
        job.fit_to(train)
        job.create()
        evaluation = Evaluation(job.judge(train), train, held_out, n=n)
    if data == "fashion":
        evaluation.references(load())
    else:
        evaluation.row("held-out real images", held_out.take(slice(n)).x_0(), held_out.take(slice(n)).labels)
    return evaluation


def measured(evaluation: Evaluation, run: str, pipeline: Pipeline) -> dict[str, float]:
    """Adds the rows of a run  ->  its straightness, plain and as it draws its samples."""
    for name, walk in walks(run):
        evaluation.samples(f"{run}: {name}", pipeline, **walk)
        row = evaluation.table()[-1]
        print(f"{row['name']:40s} {row['multiple']:6.2f} x  recall {row['recall']:.2f}", flush=True)
    return {"plain": straightness(pipeline, **PLAIN), "as it draws": straightness(pipeline)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--only", choices=("digits", "fashion"), help="one data set (default: both)")
    parser.add_argument("--kinds", nargs="+", default=["v", "flow", "edm", "2rf", "mean"], help="of runs (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="training seeds")
    parser.add_argument("-n", type=int, default=500, help="pictures per row, as far as so many are held out")
    parser.add_argument("--out", type=Path, help="also as JSON")
    args = parser.parse_args()
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    for data in [args.only] if args.only else ["fashion", "digits"]:
        evaluation, before = judged(data, args.n), result.get(data, {"rows": [], "straightness": {}})
        evaluation.rows, bends = before["rows"] or evaluation.rows, before["straightness"]
        for seed in args.seeds:
            for run, arguments in trainings(data, seed, args.runs).items():
                if run in bends or run.split("-")[1] not in args.kinds:
                    continue
                evaluation.rows = [
                    row for row in evaluation.rows if not row["name"].startswith(run)
                ]  # of a measurement cut short
                bends[run] = measured(evaluation, run, trained(run, arguments, seed, args.runs))
                print(f"{run}: straightness {bends[run]}", flush=True)
                result[data] = {"rows": evaluation.table(), "straightness": bends}
                if args.out:
                    args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
