"""Tokenizers, GPT and VAR on the whole of Fashion-MNIST: trainings in minutes, each on one core, and every figure about them.

    python -m benchmarks.tokens train NAME --seed 0     NAME: vq, fsq, scales, scales6; gpt, var, var6 (after their tokenizers)
    python -m benchmarks.tokens alive                   what keeps codes alive: four codebooks, 300 updates each
    python -m benchmarks.tokens measure                 pictures of all that is trained: docs/tokens.md
    python -m benchmarks.tokens cost                    calls, seconds and pairs, with and without a cache, beside the shipped DiT

Weights and records stay in --out (default runs/tokens). Seconds are those of the CPU, of this process alone.
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
from minidit import metrics
from minidit.models.gpt import GPTConfig
from minidit.models.kinds import NETWORKS
from minidit.models.var import VARConfig
from minidit.models.vq import FSQConfig, MultiScaleVQConfig, VQConfig
from minidit.processes import codes
from minidit.processes.autoencode import AutoencodeConfig
from minidit.processes.tokens import Raster, Scales
from minidit.processes.train import fitted_source
from minidit.random import Philox
from minidit.training.held_out import held_out_loss
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import Pictures

DATA = "/usr/share/datasets/fashion-mnist"  # the Debian package dataset-fashion-mnist
SIX = (1, 2, 3, 4, 6, 8)
TOKENIZERS: dict[str, Any] = {
    "vq": VQConfig(), "fsq": FSQConfig(), "scales": MultiScaleVQConfig(), "scales6": MultiScaleVQConfig(sizes=SIX),
}  # fmt: skip
MODELS: dict[str, tuple[str, Any]] = {
    "gpt": ("vq", GPTConfig(theta=100.0)), "var": ("scales", VARConfig()), "var6": ("scales6", VARConfig(sizes=SIX)),
}  # fmt: skip
STEPS = {"vq": 2400, "fsq": 2000, "scales": 2000, "scales6": 1800, "gpt": 2200, "var": 1500, "var6": 1200}
RECIPE = LoopConfig(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.05, warmup=100, final_lr=0.03, clip=1.0, ema=0.99, batch_size=32)


def trained(loop: Loop, after: Any = lambda loop: None, every: int = 100) -> dict[str, Any]:
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


def train_tokenizer(name: str, seed: int, steps: int, out: Path) -> dict[str, Any]:
    data = md.data.load(DATA, part="train")
    network = NETWORKS[kind_of(name)].network(TOKENIZERS[name], Philox(seed, 1))
    config = AutoencodeConfig(lr=4e-3, steps=steps, seed=seed, shards=1)
    record = trained(codes.tokenize(network, data, config, kind="serial"), codes.codes_laid)
    md.save(out / f"{name}-{seed}.safetensors", network)
    x = md.data.load(DATA, part="test").x_0(slice(2000))
    index = codes.numbers_of(network, x)
    used, perplexity = codes.codes_in_use(index, network.config.vocabulary)
    r = np.clip(codes.pictures_of(network, index, 8, 8), -1, 1)
    return record | {"psnr": metrics.psnr(r, x, crop=2), "used": used, "perplexity": perplexity}


def kind_of(name: str) -> str:
    return {"scales": "multiscale_vq", "scales6": "multiscale_vq", "var6": "var"}.get(name, name)


def train_model(name: str, seed: int, steps: int, out: Path) -> dict[str, Any]:
    """A GPT or VAR on the codes of tokenizer seed 0."""
    tokenizer, config = MODELS[name]
    network = md.load(out / f"{tokenizer}-0.safetensors")
    parts = [md.data.load(DATA, part=part) for part in ("train", "test")]
    train, test = (Pictures(codes.numbers_of(network, d.x_0()), d.labels) for d in parts)
    model = NETWORKS[kind_of(name)].network(config, Philox(seed, 2))
    process = Raster(64) if name == "gpt" else Scales(codes.quantiser_of(network))
    loop = Loop(model, process, fitted_source(model, train), replace(RECIPE, steps=steps, seed=seed, shards=1), kind="serial")
    record = trained(loop)
    md.save(out / f"{name}-{seed}.safetensors", model)
    return record | {"held_out_nll": held_out_loss(loop, Pictures(test.x_0, test.labels))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train",))
    parser.add_argument("name", nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/tokens"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1):
        train = train_tokenizer if args.name in TOKENIZERS else train_model
        record = train(args.name, args.seed, args.steps or STEPS[args.name], args.out)
    (args.out / f"{args.name}-{args.seed}.json").write_text(json.dumps(record, indent=1) + "\n")
    print({k: v for k, v in record.items() if k != "curve"})


if __name__ == "__main__":
    main()
