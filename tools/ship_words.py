"""Puts a finished run of the preset words into the package: float16 weights, configuration, vocabulary, figures, a model card.

    python tools/ship_words.py RUN [SECOND_RUN …] --table benchmarks/results/words.json --command "minidit train …"

The table is that of `python -m benchmarks.words measure RUN [SECOND_RUN …]`. The first run's weights are shipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint import save_model
from minidit.runs.config import tables_of
from minidit.runs.folder import config_of
from minidit.runs.loading import WORDS
from minidit.runs.presets import SHIPPED
from minidit.runs.weights import weights_of
from minidit.version import __version__

LIMIT = 10_000_000
NOTICE = (
    "The training pictures are Noto Emoji (Google LLC, Apache License 2.0), Twemoji (Twitter, Inc and other contributors, "
    "CC BY 4.0) and Fluent Emoji (Microsoft Corporation, MIT), with names from emojibase (MIT); see "
    "`minidit/data/sets/emoji.LICENSE`. "
    "Whoever publishes a picture that these weights drew names the three."
)


def table(rows: dict[str, Any]) -> str:
    """One group of pictures."""
    lines = ["| pictures | right first | among five | median rank | exact tone | style |", "|---|---|---|---|---|---|"]
    for name, r in rows.items():
        tone = f"{r['exact_tone']:.3f}" if "exact_tone" in r else ""
        lines.append(f"| {name} | {r['top_1']:.3f} | {r['top_5']:.3f} | {r['median']:.0f} | {tone} | {r['style']:.3f} |")
    return "\n".join(lines)


def card(runs: list[Path], results: dict[str, Any], command: str) -> str:
    c, made = config_of(runs[0]), []
    for run in runs:
        t, took = config_of(run).train, results["runs"][str(run)]
        made.append(
            f"- {run}{' (shipped)' if run == runs[0] else ''}: {took['updates']:,} of {t.steps:,} updates of {t.batch_size}, "
            f"seed {t.seed}, {took['wall_minutes']:.0f} minutes on one core, beside other work"
        )
    groups = [f"## {name.capitalize()} ({g['real']['n']} pictures)\n\n{table(g)}" for name, g in results["measures"].items()]
    parts = [
        "# Emoji from words",
        f"Made by `{command}` with minidit {__version__}. EMA weights, stored as float16; the figures are those of float32. "
        '`minidit sample --prompt "frog, fluent"` uses them.',
        f"The network: {type(c.model).__name__.removesuffix('Config')}, width {c.model.hidden_size}, depth {c.model.depth}, "
        f"patch {c.model.patch_size} on 32 × 32 pixels, {c.model.parameters():,} numbers; it answers x_0 on the straight path."
        "\n\n"
        + "\n".join(made),
        NOTICE,
        "## How it is measured",
        f"A picture is drawn in {results['steps']} Euler steps with guidance {results['guidance']:g} and compared with all 3,139 "
        "real ones of its style, in means of 4 × 4 pixels (SPEC.md, E.11). *New tone*: the emoji in that skin tone was held out "
        "in all three styles. *New style*: the emoji was held out in that style. *Another style*: the real picture of the same "
        "emoji in another style, handed over as if it had been drawn. *Nearest caption*: the training picture of that style "
        "whose caption has most words in common.",
        *groups,
        "It knows the 1,442 words of its captions and what they were said of, not the world: a purple pizza is no pizza. For "
        "study only, not for any other use.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--state", default="", help="a saved state instead of the trained weights")
    parser.add_argument("--out", type=Path, default=SHIPPED / WORDS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model, meta = weights_of(args.runs[0], "model", "cpu", state=args.state)
    header = {"run": tables_of(config_of(args.runs[0])), **{key: meta[key] for key in ("data", "version")}}
    file = args.out / "model.safetensors"
    save_model(file, model, dtype=np.float16, **header)
    if file.stat().st_size > LIMIT:
        raise SystemExit(f"{file.stat().st_size} bytes are more than {LIMIT}")
    (args.out / "CARD.md").write_text(card(args.runs, json.loads(args.table.read_text()), args.command))
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
