"""Puts a network for one, two and four steps beside the shipped weights: float16, configuration, figures and a model card.

    python tools/ship_few_steps.py FOLDER [SECOND ...] --table benchmarks/results/few_steps.json --command "python -m ..."

The folders are those of `python -m benchmarks.few_steps train`, the table that of `measure`. The first folder's weights are
shipped; the others, trained with other seeds, are reported beside it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint import load_model, save_model
from minidit.runs.config import run_config_from, tables_of
from minidit.runs.former import header
from minidit.runs.loading import FEW_STEPS, load
from minidit.runs.presets import SHIPPED
from minidit.runs.teacher_kinds import TrajectoriesConfig
from minidit.version import __version__

LIMIT = 8_000_000


def facts_of(folder: Path) -> dict[str, Any]:
    """The last line of a training."""
    facts: dict[str, Any] = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return facts


def card(folders: list[Path], rows: list[dict[str, Any]], command: str) -> str:
    lines = ["| pictures | n | class accuracy | Fréchet | multiple | precision | recall |", "|---|---|---|---|---|---|---|"]
    for r in (row for row in rows if not row["name"].startswith("consistency")):
        lines.append(
            f"| {r['name']} | {r['n']} | {r.get('accuracy', 0):.3f} | {r['frechet']:.2f} | {r['multiple']:.2f} × "
            f"| {r['precision']:.2f} | {r['recall']:.2f} |"
        )
    made = []
    for folder in folders:
        f = facts_of(folder)
        made.append(
            f"- seed {f['seed']}{' (shipped)' if folder == folders[0] else ''}: {f['pool']:,} trajectories of the teacher "
            f"({f['walking_cpu_s']} CPU s), then {f['update']:,} updates of {f['batch']}; {f['cpu_s']} CPU s of one core together"
        )
    parts = [
        "# Fashion-MNIST in one, two and four steps",
        f"A flow map (SPEC.md, S.8 to S.10) with the sizes of the shipped DiT, distilled from it by `{command}` with minidit "
        f"{__version__}, on a machine that did other work too. Its tokenizer is the shipped autoencoder. EMA weights, stored as "
        "float16. `minidit sample --steps 1`, 2 or 4 uses it.",
        "The teacher is walked in eight steps of Adams–Bashforth on the arc with its guidance, 4 in (0.2, 0.7], which is "
        "thus in the weights of the student. No picture of the data is used: a trajectory starts from noise.\n\n"
        + "\n".join(made),
        "The figures are those of the float32 weights, against the 60,000 training pictures, on the features of the same judge "
        "as in [CARD.md](CARD.md). The multiple's unit is the row of the reconstructions.",
        "\n".join(lines),
        "Class accuracy says nothing about few steps: one step of the teacher is a blurred mean of the class, with accuracy "
        "1.000. For study only, not for any other use.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--command", required=True)
    args = parser.parse_args()
    teacher = load()
    config = run_config_from(header(teacher.meta), "the shipped weights")
    network, _ = load_model(args.folders[0] / "model.safetensors")
    facts = facts_of(args.folders[0])
    config = replace(
        config,
        model=network.config,
        process=TrajectoriesConfig("minidit/weights/fashion", config.process.prediction, config.process.schedule,
                                   config.process.T, pool=facts["pool"], single=facts["share"]),
        sample=replace(config.sample, steps=4, guidance=1.0, interval=(0.0, 1.0), every=0),
        train=replace(config.train, steps=facts["update"], batch_size=facts["batch"], seed=facts["seed"]),
    )  # fmt: skip
    file = SHIPPED / "fashion" / FEW_STEPS
    save_model(file, network, dtype=np.float16, run=tables_of(config), data=teacher.meta["data"], version=__version__)
    if file.stat().st_size > LIMIT:
        raise SystemExit(f"{file}: {file.stat().st_size} bytes are more than {LIMIT}")
    (file.parent / "FEW_STEPS.md").write_text(card(args.folders, json.loads(args.table.read_text()), args.command))
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
