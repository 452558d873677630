"""Tokenizers, GPT and VAR on the whole of Fashion-MNIST: trainings in minutes, each on one core, and every figure about them.

    python -m benchmarks.tokens train NAME --seed 0     NAME: vq, fsq, scales, scales6; gpt, var, var6 (after their tokenizers)
    python -m benchmarks.tokens alive                   what keeps codes alive: 300 updates of a narrow network for each row
    python -m benchmarks.tokens measure                 pictures of all that is trained, judged; the gap inside the last scale
    python -m benchmarks.tokens cost                    seconds and pairs, with and without a cache, beside the shipped DiT
    python -m benchmarks.tokens page                    writes the tables of docs/tokens.md and docs/feeding-back.md

Trainings are runs like those of `minidit train --preset raster|scales --threads 1`, in folders of --out (default runs/tokens).
Every part adds its figures to one record, benchmarks/results/tokens.json. Seconds are those of the CPU, of this process alone,
which has one thread: other programs do not count, but disturb its caches.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import minidit as md
from benchmarks import tokens_measured as measured
from benchmarks import tokens_page
from minidit import metrics
from minidit.models.var import VARConfig
from minidit.models.vq import FSQConfig, MultiScaleVQConfig, VQConfig
from minidit.outgoing import write_atomically
from minidit.processes import codes
from minidit.random import Philox
from minidit.runs.phases import Run
from minidit.runs.presets import PRESETS, DataConfig, RunConfig

DATA = "/usr/share/datasets/fashion-mnist"  # the Debian package dataset-fashion-mnist
SIX = measured.SIX
TOKENIZERS: dict[str, Any] = {
    "vq": VQConfig(), "fsq": FSQConfig(), "scales": MultiScaleVQConfig(), "scales6": MultiScaleVQConfig(sizes=SIX),
}  # fmt: skip
MODELS: dict[str, tuple[str, Any]] = {  # name -> tokenizer, sizes
    "gpt": ("vq", PRESETS["raster"].model), "var": ("scales", PRESETS["scales"].model), "var6": ("scales6", VARConfig(sizes=SIX)),
}  # fmt: skip


def recipe(name: str, seed: int, steps: int | None, out: Path) -> RunConfig:
    """What `minidit train --preset raster|scales --threads 1` trains; a model on the codes of tokenizer seed 0."""
    tokenizer, model = MODELS.get(name, (name, None))
    preset = PRESETS["scales" if tokenizer.startswith("scales") else "raster"]
    data = DataConfig(source=DATA, tokenizer=str(measured.file_of(out, tokenizer)) if model else "")
    train, tokenizer_train = (
        replace(part, seed=seed, shards=1, steps=steps or part.steps) for part in (preset.train, preset.tokenizer_train)
    )
    return replace(
        preset, data=data, tokenizer=TOKENIZERS[tokenizer], model=model or preset.model, train=train,
        tokenizer_train=tokenizer_train, sample=replace(preset.sample, every=0),
    )  # fmt: skip


class Curve:
    """The mean loss of every hundred updates, and the CPU seconds since the first update."""

    def __init__(self, every: int = 100) -> None:
        self.every, self.losses, self.points, self.began = every, list[float](), list[list[float]](), 0.0

    def add(self, record: dict[str, Any]) -> None:
        self.began = self.began or time.process_time()
        self.losses.append(float(record["loss"]))
        if len(self.losses) % self.every == 0:
            self.points.append([len(self.losses), round(float(np.mean(self.losses[-self.every :])), 4)])
            print(self.points[-1], f"{time.process_time() - self.began:.0f} s", flush=True)

    def numbers(self) -> dict[str, Any]:
        return {"cpu_s": round(time.process_time() - self.began, 1), "steps": len(self.losses), "curve": self.points}


def train(name: str, seed: int, steps: int | None, out: Path) -> dict[str, Any]:
    """A run of its own in `out`  ->  its length, and of a tokenizer its quality."""
    curve = Curve()
    job = Run(out / f"{name}-{seed}", recipe(name, seed, steps, out), tell=lambda phase, record, steps: curve.add(record))
    data, held_out = job.data()
    assert held_out is not None
    job.fit_to(data)
    job.create(overwrite=True)
    if name in MODELS:
        job.train(data)
        return curve.numbers() | {"parameters": job.config.model.parameters()}
    network = job.tokenizer(data)
    return curve.numbers() | quality(network, held_out.x_0(slice(2000)))


def quality(network: Any, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """PSNR of reconstructions of held-out pictures, and the codes in use."""
    index = codes.numbers_of(network, x)
    used, perplexity = codes.codes_in_use(index, network.config.vocabulary)
    x_hat = np.clip(codes.pictures_of(network, index, 8, 8), -1, 1)
    return {"psnr": metrics.psnr(x_hat, x, crop=2), "used": used, "perplexity": perplexity}


ALIVE: dict[str, tuple[Any, dict[str, Any]]] = {  # what keeps codes alive: name -> sizes, settings
    "codes from random numbers": (VQConfig(), {"warm": 0, "revive": 0}),
    "k-means at update 0": (VQConfig(), {"warm": 0, "revive": 0}),
    "k-means after 60 updates": (VQConfig(), {"warm": 60, "revive": 0}),
    "the same, unused codes revived every 40": (VQConfig(), {"warm": 60, "revive": 40}),
    "no codebook (FSQ)": (FSQConfig(), {}),
}


def alive() -> list[dict[str, Any]]:
    """One row per codebook: PSNR, codes in use, perplexity, and the codes in use on the way."""
    (data, test), rows = (md.data.load(DATA, part=part) for part in ("train", "test")), list[dict[str, Any]]()
    x = test.x_0(slice(2000))
    for name, (sizes, settings) in ALIVE.items():
        sizes = replace(sizes, widths=(8, 16, 32))
        network = (codes.FSQ if isinstance(sizes, FSQConfig) else codes.VQ)(sizes, Philox(0, 1))
        if name == "k-means at update 0":
            codes.lay_codes(network, data.x_0(slice(256)))
        config = replace(PRESETS["raster"].tokenizer_train, steps=300, shards=1, **settings)
        loop, curve, on_the_way = codes.tokenize(network, data, config, kind="serial"), Curve(), dict[int, int]()
        for record in loop.run():
            curve.add(record)
            codes.codes_laid(loop)
            if loop.done in (37, 75, 150):
                on_the_way[loop.done] = codes.codes_in_use(codes.numbers_of(network, x), 512)[0]
        network.flat[...] = loop.optimiser.average
        rows.append({"name": name, **quality(network, x), "on_the_way": on_the_way, "cpu_s": curve.numbers()["cpu_s"]})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "alive", "measure", "cost", "page"))
    parser.add_argument("name", nargs="?", choices=sorted(TOKENIZERS | MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("runs/tokens"))
    parser.add_argument("--record", type=Path, default=Path("benchmarks/results/tokens.json"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1):
        if args.what == "train":
            part = {"trainings": {f"{args.name}-{args.seed}": train(args.name, args.seed, args.steps, args.out)}}
        elif args.what == "alive":
            part = {"alive": alive()}
        elif args.what == "measure":
            part = measured.measures(args.out, DATA, args.n)
        elif args.what == "cost":
            part = measured.costs()
        else:
            tokens_page.page(json.loads(args.record.read_text()))
            return
    record = json.loads(args.record.read_text()) if args.record.exists() else {"trainings": {}}
    for key, value in part.items():
        record[key] = {**record[key], **value} if key == "trainings" else value
    write_atomically(args.record, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
