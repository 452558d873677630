"""Tokenizers, GPT and VAR on the whole of Fashion-MNIST: trainings in minutes, each on one core, and every figure about them.

    python -m benchmarks.tokens train NAME --seed 0     NAME: vq, fsq, scales, scales6; gpt, var, var6 (after their tokenizers)
    python -m benchmarks.tokens alive                   what keeps codes alive: 300 updates of a narrow network for each row
    python -m benchmarks.tokens measure                 pictures of all that is trained, judged; the gap inside the last scale
    python -m benchmarks.tokens cost                    seconds and pairs, with and without a cache, beside the shipped DiT
    python -m benchmarks.tokens page                    writes the tables of docs/tokens.md and docs/feeding-back.md

Weights stay in --out (default runs/tokens); every part adds its figures to one record, benchmarks/results/tokens.json. Seconds
are those of the CPU, of this process alone, which has one thread: other programs do not count, but disturb its caches.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import minidit as md
from benchmarks import tokens_measured as measured
from benchmarks import tokens_page
from minidit import metrics
from minidit.data import Dataset
from minidit.models.kinds import NETWORKS
from minidit.models.var import VARConfig
from minidit.models.vq import FSQConfig, MultiScaleVQConfig, VQConfig
from minidit.outgoing import write_atomically
from minidit.processes import codes
from minidit.processes.autoencode import AutoencodeConfig
from minidit.processes.tokens import Raster, Scales
from minidit.processes.train import fitted_source
from minidit.random import Philox
from minidit.runs.presets import PRESETS
from minidit.training.loop import Loop
from minidit.training.source import Pictures

DATA = "/usr/share/datasets/fashion-mnist"  # the Debian package dataset-fashion-mnist
SIX = measured.SIX
TOKENIZERS: dict[str, tuple[str, Any]] = {  # name -> kind, sizes
    "vq": ("vq", VQConfig()), "fsq": ("fsq", FSQConfig()), "scales": ("multiscale_vq", MultiScaleVQConfig()),
    "scales6": ("multiscale_vq", MultiScaleVQConfig(sizes=SIX)),
}  # fmt: skip
MODELS: dict[str, tuple[str, str, Any]] = {  # name -> tokenizer, kind, sizes
    "gpt": ("vq", "gpt", PRESETS["raster"].model), "var": ("scales", "var", VARConfig()),
    "var6": ("scales6", "var", VARConfig(sizes=SIX)),
}  # fmt: skip
STEPS = {"vq": 2200, "fsq": 2200, "scales": 2200, "scales6": 2200, "gpt": 2500, "var": 1100, "var6": 1200}
TOKENIZE = PRESETS["raster"].tokenizer_train


def trained(loop: Loop, after: Callable[[Loop], None] = lambda loop: None, every: int = 100) -> dict[str, Any]:
    """Runs a loop to its end, the average into its network  ->  CPU seconds and the curve."""
    began, curve, losses = time.process_time(), [], []
    for record in loop.run():
        after(loop)
        losses.append(record["loss"])
        if record["step"] % every == 0:
            curve.append([record["step"], round(float(np.mean(losses[-every:])), 4)])
            print(curve[-1], f"{time.process_time() - began:.0f} s", flush=True)
    loop.model.flat[...] = loop.optimiser.average
    return {"cpu_s": round(time.process_time() - began, 1), "steps": loop.config.steps, "curve": curve}


def parts() -> list[Dataset]:
    return [md.data.load(DATA, part=part) for part in ("train", "test")]


def train_tokenizer(name: str, seed: int, steps: int, out: Path) -> dict[str, Any]:
    kind, config = TOKENIZERS[name]
    data, test = parts()
    network = NETWORKS[kind].network(config, Philox(seed, 1))
    record = trained(tokenized(network, data, replace(TOKENIZE, steps=steps, seed=seed)), codes.codes_laid)
    md.save(out / f"{name}-{seed}.safetensors", network)
    return record | quality(network, test.x_0(slice(2000)))


def tokenized(network: Any, data: Dataset, config: AutoencodeConfig) -> Loop:
    return codes.tokenize(network, data, replace(config, shards=1), kind="serial")


def quality(network: Any, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """PSNR of reconstructions of held-out pictures, and the codes in use."""
    index = codes.numbers_of(network, x)
    used, perplexity = codes.codes_in_use(index, network.config.vocabulary)
    x_hat = np.clip(codes.pictures_of(network, index, 8, 8), -1, 1)
    return {"psnr": metrics.psnr(x_hat, x, crop=2), "used": used, "perplexity": perplexity}


def train_model(name: str, seed: int, steps: int, out: Path) -> dict[str, Any]:
    """A GPT or VAR on the codes of tokenizer seed 0."""
    tokenizer, kind, config = MODELS[name]
    network, (train, _) = md.load(out / f"{tokenizer}-0.safetensors"), parts()
    source = Pictures(codes.numbers_of(network, train.x_0()), train.labels)
    model = NETWORKS[kind].network(config, Philox(seed, 2))
    process = Raster(64) if kind == "gpt" else Scales(codes.quantiser_of(network))
    recipe = replace(PRESETS["raster"].train, steps=steps, seed=seed, shards=1)
    record = trained(Loop(model, process, fitted_source(model, source), recipe, kind="serial"))
    md.save(out / f"{name}-{seed}.safetensors", model)
    return record | {"parameters": config.parameters()}


ALIVE: dict[str, tuple[Any, dict[str, Any]]] = {  # what keeps codes alive: name -> sizes, settings
    "codes from random numbers": (VQConfig(), {"warm": 0, "revive": 0}),
    "k-means at update 0": (VQConfig(), {"warm": 0, "revive": 0}),
    "k-means after 60 updates": (VQConfig(), {"warm": 60, "revive": 0}),
    "the same, unused codes revived every 40": (VQConfig(), {"warm": 60, "revive": 40}),
    "no codebook (FSQ)": (FSQConfig(), {}),
}


def alive(out: Path) -> list[dict[str, Any]]:
    """One row per codebook: PSNR, codes in use, perplexity, and the codes in use on the way."""
    (data, test), rows = parts(), []
    x = test.x_0(slice(2000))
    for name, (sizes, settings) in ALIVE.items():
        sizes = replace(sizes, widths=(8, 16, 32))
        network = (codes.FSQ if isinstance(sizes, FSQConfig) else codes.VQ)(sizes, Philox(0, 1))
        if name == "k-means at update 0":
            codes.lay_codes(network, data.x_0(slice(256)))
        on_the_way: dict[int, int] = {}

        def after(loop: Loop, network: Any = network, on_the_way: dict[int, int] = on_the_way) -> None:
            codes.codes_laid(loop)
            if loop.done in (37, 75, 150):
                on_the_way[loop.done] = codes.codes_in_use(codes.numbers_of(network, x), 512)[0]

        row = trained(tokenized(network, data, replace(TOKENIZE, steps=300, **settings)), after)
        rows.append({"name": name, **quality(network, x), "on_the_way": on_the_way, "cpu_s": row["cpu_s"]})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "alive", "measure", "cost", "page"))
    parser.add_argument("name", nargs="?", choices=sorted(STEPS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("runs/tokens"))
    parser.add_argument("--record", type=Path, default=Path("benchmarks/results/tokens.json"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1):
        if args.what == "train":
            steps, train = args.steps or STEPS[args.name], train_tokenizer if args.name in TOKENIZERS else train_model
            part = {"trainings": {f"{args.name}-{args.seed}": train(args.name, args.seed, steps, args.out)}}
        elif args.what == "alive":
            part = {"alive": alive(args.out)}
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
