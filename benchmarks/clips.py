"""Moving digits by a network of spacetime patches: how many samples obey the law, beside real, shuffled and mixed clips.

    python -m benchmarks.clips train --seed 0 --out clips/0                        one core; --updates N, --batch N
    python -m benchmarks.clips train --time-attention none --out clips/frames      the control: every frame by itself
    python -m benchmarks.clips picture clips/0 --out docs/clips.gif                clips that play, and pictures

Steps × batch are the honest unit; cpu_s are seconds of this process. Each line of metrics.jsonl has the statistics of (E.23).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import minidit as md
from minidit import pictures
from minidit.checkpoint import load_model, save_model
from minidit.data.clips import FOUR, mixed, moving, obedience, shuffled, within
from minidit.data.dataset import Dataset
from minidit.diffusion import times
from minidit.frames import in_strips
from minidit.models.spacetime import SpacetimeConfig, SpacetimeDiT
from minidit.processes.joint import Joint
from minidit.processes.train import fitted_source
from minidit.random import Philox
from minidit.training.loop import Loop, LoopConfig

STREAM = 0x636C70
RECIPE = LoopConfig(lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=100, final_lr=0.05, clip=1.0, ema=0.995, shards=1)
PROCESS = md.Diffusion(md.Straight(), md.X_0, md.drawn(times.uniform))
ONE = ((0, 1), (0, -1), (1, 0), (-1, 0))  # four directions, one pixel per frame
VELOCITIES = {"one": ONE, "four": FOUR, "within": within(2)}


def task(args: argparse.Namespace, part: str) -> Dataset:
    """The clips of a task."""
    digits = md.data.digits(part)
    assert digits.labels is not None
    if args.digits:
        digits = digits.take(np.isin(digits.labels, [int(k) for k in args.digits]))
    n, velocities = {"train": args.clips, "test": 300}[part], VELOCITIES[args.velocities]
    return moving(digits, n, frames=args.frames, size=args.size, velocities=velocities, seed=int(part == "test"))


def samples(network: SpacetimeDiT, n: int, seed: int, labels: Any, steps: int = 16) -> Any:
    """n clips, or pictures, of a network."""
    y = labels[np.arange(n) % len(labels)]
    return md.sample(network, PROCESS, y, steps=steps, solver=md.AB2, clip=True, seed=seed, shards=1)


def train(args: argparse.Namespace) -> None:
    """Trains, and measures on the way."""
    args.out.mkdir(parents=True, exist_ok=True)
    data, real = task(args, "train"), task(args, "test").x_0()
    sizes = SpacetimeConfig(
        frame_patch=args.frame_patch, patch_size=args.patch, hidden_size=args.width, depth=args.depth, num_heads=args.heads,
        time_attention=args.time_attention,
    )  # fmt: skip
    config = sizes.fitted(data.shape, data.num_classes)
    network = SpacetimeDiT(config, Philox(args.seed, STREAM))
    process = Joint(PROCESS, args.pictures) if args.pictures else PROCESS
    recipe = replace(RECIPE, steps=args.updates, batch_size=args.batch, seed=args.seed, lr=args.lr)
    loop = Loop(network, process, fitted_source(network, data), recipe)
    labels = np.unique(data.labels)
    rows = {"real": real, "shuffled": shuffled(real), "mixed": mixed(real)}
    facts = {name: v for name, v in vars(args).items() if name not in ("run", "out")} | {"macs": config.macs()}
    write(args.out, facts | {name: obedience(x) for name, x in rows.items()})
    began, loss = time.process_time(), []
    for record in loop.run():
        loss.append(float(record["loss"]))
        last = record["step"] == args.updates
        if record["step"] % args.every == 0 or last:
            average = SpacetimeDiT(config, None)
            average.flat[...] = loop.optimiser.average
            spent = time.process_time() - began
            x = samples(average, 300 if last else 60, args.seed, labels)
            line = {"update": record["step"], "cpu_s": round(spent), "loss": round(float(np.mean(loss[-args.every :])), 5)}
            write(args.out, line | obedience(x))
            save_model(args.out / "model.safetensors", average)
            pictures.save_png(args.out / "sheet.png", pictures.grid(x[:12], columns=1, scale=3))
            began += time.process_time() - began - spent  # measuring is not training


def write(folder: Path, line: dict[str, Any]) -> None:
    """One line of metrics.jsonl, and on the screen."""
    print(json.dumps(line), flush=True)
    with (folder / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


def picture(args: argparse.Namespace) -> None:
    """A GIF of clips, two per class, and beside it a sheet with pictures of the same network."""
    network, _ = load_model(args.folder / "model.safetensors")
    assert isinstance(network, SpacetimeDiT)
    labels = np.repeat(np.arange(10) if not args.digits else np.array([int(k) for k in args.digits]), args.each)
    x = np.clip(samples(network, len(labels), args.seed, labels, steps=25), -1, 1)
    still = SpacetimeDiT(replace(network.config, frames=0), None)
    still.load_state_dict(network.state_dict())
    y = np.clip(samples(still, len(labels), args.seed, labels, steps=25), -1, 1)
    print(json.dumps(obedience(x)))
    frames = [pictures.grid(x[:, :, k], columns=args.each * 5, scale=4) for k in range(x.shape[2])]
    pictures.save_gif(args.out, frames, ms=250, hold=250)
    sheet = [pictures.grid(in_strips(x)[::2], columns=2, scale=3), pictures.grid(y, columns=args.each * 5, scale=3)]
    pictures.save_png(args.out.with_suffix(".png"), pictures.stack(sheet, ["clips, their frames from left to right", "pictures"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("train")
    p.set_defaults(run=train)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--digits", default="", help="classes, such as 017 (default: all)")
    p.add_argument("--velocities", choices=sorted(VELOCITIES), default="four")
    for name, usual in (
        ("clips", 6000), ("size", 16), ("frames", 6), ("frame-patch", 1), ("patch", 4), ("width", 96), ("depth", 4), ("heads", 4),
        ("updates", 3000), ("batch", 32), ("every", 250),
    ):  # fmt: skip
        p.add_argument(f"--{name}", type=int, default=usual)
    p.add_argument("--time-attention", choices=("full", "factorised", "none"), default="full")
    p.add_argument("--pictures", type=float, default=0.0, help="the share of pictures in the loss")
    p.add_argument("--lr", type=float, default=2e-3)
    p = commands.add_parser("picture")
    p.set_defaults(run=picture)
    p.add_argument("folder", type=Path)
    p.add_argument("--digits", default="")
    p.add_argument("--each", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("docs/clips.gif"))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
