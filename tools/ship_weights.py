"""Puts a finished run into the package: float16 weights, configuration, figures and a model card.

    python tools/ship_weights.py RUN [SECOND_RUN ...] --command "minidit train ..."

The first run's weights are shipped; the others, trained with other seeds, are reported beside it. Every figure of the card comes
from the files of the runs: eval.json (of the float32 weights), config.toml, metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path

import numpy as np

from minidit.checkpoint import load_model, save_model
from minidit.runs import former
from minidit.runs.config import tables_of
from minidit.runs.folder import config_of, metrics_of, seconds_of
from minidit.runs.presets import SHIPPED

LIMIT = 8_000_000


def minutes(run: Path) -> dict[str, float]:
    """Minutes of training per phase, from the records of the run."""
    return {phase: seconds_of(run, phase) / 60 for phase in dict.fromkeys(line["phase"] for line in metrics_of(run))}


def table(run: Path) -> str:
    rows = json.loads((run / "eval.json").read_text())["rows"]
    lines = ["| pictures | n | class accuracy | Fréchet | multiple | precision | recall |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        accuracy = f"{r['accuracy']:.3f}" if "accuracy" in r else ""
        lines.append(
            f"| {r['name']} | {r['n']} | {accuracy} | {r['frechet']:.2f} | {r['multiple']:.2f} × "
            f"| {r['precision']:.2f} | {r['recall']:.2f} |"
        )
    psnr = next((r["psnr"] for r in rows if "psnr" in r), None)
    if psnr is not None:
        lines += ["", f"Reconstructions of held-out pictures: {psnr:.2f} dB PSNR (28 × 28 crop, [0, 1], mean over images)."]
    return "\n".join(lines)


def card(runs: list[Path], command: str) -> str:
    c = config_of(runs[0])
    times = ", ".join(f"{phase} {m:.0f}" for phase, m in minutes(runs[0]).items())
    e = tomllib.loads((runs[0] / "config.toml").read_text())["environment"]
    parts = [
        "# Fashion-MNIST: autoencoder and DiT",
        f"Made by `{command}` with minidit {e['minidit']}, NumPy {e['numpy']} on {e['cores']} cores ({e['blas']}); "
        f"minutes: {times} (on a machine that did other work too). EMA weights, stored as float16.",
        "Data: Fashion-MNIST, 60,000 training pictures (MIT, Zalando SE), 28 × 28 padded to 32 × 32; "
        "figures against the training pictures on the features of a small classifier trained by the same code "
        "(`minidit eval`), held-out pictures from the test set. "
        "The multiple's unit is the row of the reconstructions, the ceiling of a latent model. "
        "w is the guidance scale, the interval the part of the ladder that is guided (the rest is plain conditional).",
        f"Autoencoder: {c.tokenizer_train.steps} steps of {c.tokenizer_train.batch_size}. "
        f"DiT: width {c.model.hidden_size}, depth {c.model.depth}, {c.model.num_heads} heads, patch {c.model.patch_size}; "
        f"{c.process.prediction}-prediction, {c.process.schedule} schedule, "
        f"{c.train.steps} steps of {c.train.batch_size}, seed {c.train.seed}.",
    ]
    for run in runs:
        parts += [f"## Seed {config_of(run).train.seed}{' (shipped)' if run == runs[0] else ''}", table(run)]
    parts.append(
        "Guidance makes pictures more typical than real ones: an accuracy above that of held-out pictures is no sign of quality, "
        "read it together with the Fréchet distance, the recall and the row w = 1. For study only, not for any other use."
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--command", required=True)
    parser.add_argument("--out", type=Path, default=SHIPPED / "fashion")
    args = parser.parse_args()
    run = args.runs[0]
    args.out.mkdir(parents=True, exist_ok=True)
    total = 0
    for name in ("tokenizer", "model"):
        model, meta = load_model(former.file_of(run, name))
        file = args.out / f"{name}.safetensors"
        header = {"run": tables_of(config_of(run)), **{key: meta[key] for key in ("data", "version")}}
        save_model(file, model, dtype=np.float16, **header)
        total += file.stat().st_size
    if total > LIMIT:
        raise SystemExit(f"{total} bytes are more than {LIMIT}")
    (args.out / "CARD.md").write_text(card(args.runs, args.command))
    print(f"{args.out}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
