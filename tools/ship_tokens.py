"""Puts pictures as codes into the package: tokenizers, a GPT and a VAR, as float16, with configuration, figures and cards.

    python tools/ship_tokens.py FOLDER --record benchmarks/results/tokens.json

FOLDER is that of `python -m benchmarks.tokens train`; the networks of seed 0 are shipped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tokens import DATA
from benchmarks.tokens_measured import file_of
from minidit.checkpoint import save_model
from minidit.runs.config import tables_of
from minidit.runs.fitting import facts_of, fitted, parts_of
from minidit.runs.loading import load
from minidit.runs.presets import PRESETS, SHIPPED, DataConfig
from minidit.version import __version__

SHIP = {"raster": ("vq", "gpt"), "scales": ("scales", "var")}  # preset -> tokenizer, model
LIMIT = 3_000_000


def card(kind: str, tokenizer: str, model: str, record: dict[str, Any], parameters: int) -> str:
    t, m = (record["trainings"][f"{name}-0"] for name in (tokenizer, model))
    own = "own reconstructions"
    lines = [f"| pictures | n | class accuracy | Fréchet | of the shipped autoencoder's | of {own} | precision | recall |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in record["rows"]:
        if r["name"].startswith((f"{model} ", f"{tokenizer}:", "held-out")):
            ratio = f"{r['own']:.2f} ×" if "own" in r else "–"
            lines.append(f"| {r['name']} | {r['n']} | {r['accuracy']:.3f} | {r['frechet']:.2f} | {r['multiple']:.2f} × | {ratio} "
                         f"| {r['precision']:.2f} | {r['recall']:.2f} |")  # fmt: skip
    names = {"raster": "code after code (GPT, SPEC.md T.41)", "scales": "scale after scale (VAR, SPEC.md T.45)"}
    return "\n\n".join([
        f"# Fashion-MNIST, written {names[kind]}",
        f"Made by `python -m benchmarks.tokens train {tokenizer}` ({t['cpu_s']:.0f} CPU s, {t['steps']:,} updates of 32) and "
        f"`… train {model}` ({m['cpu_s']:.0f} CPU s, {m['steps']:,} updates of 32) with minidit {__version__}, seed 0, on one "
        f"core of a machine that did other work too. `minidit train --preset {kind} --data {DATA}` does the same. "
        f"EMA weights, stored as float16. `minidit sample --weights {kind}` uses them.",
        f"The tokenizer reconstructs 2,000 held-out pictures with {t['psnr']:.2f} dB (28 × 28 crop) and uses {t['used']} of its "
        f"512 codes for them, perplexity {t['perplexity']:.0f}. The network has {parameters:,} numbers and needs "
        f"{record['nats'][f'{model}-0']:.3f} nats per code of held-out pictures.",
        "\n".join(lines),
        "Data: Fashion-MNIST (MIT, Zalando SE). The figures are those of the float32 weights, by a judge as in "
        "[the card of the DiT](../fashion/CARD.md). For study only, not for any other use.",
    ]) + "\n"  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", type=Path, default=Path("benchmarks/results/tokens.json"))
    args = parser.parse_args()
    record, total = json.loads(args.record.read_text()), 0
    for kind, (tokenizer, model) in SHIP.items():
        parts = parts_of(DataConfig(source=DATA))
        files = {"tokenizer": tokenizer, "model": model}
        networks = {name: load(file_of(args.folder, file)) for name, file in files.items()}
        preset, trained = PRESETS[kind], record["trainings"]
        config = replace(
            preset, data=DataConfig(source=DATA), tokenizer=networks["tokenizer"].config, model=networks["model"].config,
            train=replace(preset.train, steps=trained[f"{model}-0"]["steps"]), sample=replace(preset.sample, every=0),
            tokenizer_train=replace(preset.tokenizer_train, steps=trained[f"{tokenizer}-0"]["steps"]),
        )  # fmt: skip
        header = {"run": tables_of(fitted(config, parts.train)), "data": facts_of(parts.train, parts), "version": __version__}
        place = SHIPPED / kind
        place.mkdir(exist_ok=True)
        for name, network in networks.items():
            save_model(place / f"{name}.safetensors", network, dtype=np.float16, **header)
            total += (place / f"{name}.safetensors").stat().st_size
        (place / "CARD.md").write_text(card(kind, tokenizer, model, record, networks["model"].config.parameters()), "utf-8")
    print(f"{total:,} bytes")
    assert total < LIMIT


if __name__ == "__main__":
    main()
