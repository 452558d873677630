"""Moving digits by a network of spacetime patches: how many samples obey the law, beside real, shuffled and mixed clips.

    python -m benchmarks.clips train --seed 0 --out clips/0                        one core, the preset `clips`
    python -m benchmarks.clips train --time-attention none --frame-patch 1 --out clips/one     the control: every frame by itself
    python -m benchmarks.clips ask clips/0 --steps 16 50 --guidance 1 2           the trained network, drawn in other ways
    python -m benchmarks.clips picture clips/0 --out docs/clips.gif                clips that play, and pictures

Steps × batch are the honest unit; cpu_s are seconds of this process. Each line of metrics.jsonl has the statistics of (E.23).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import minidit as md
from minidit import pictures
from minidit.checkpoint import load_model, save_model
from minidit.data.clips import FOUR, PARTS, mixed, moving, obedience, shuffled, within
from minidit.data.dataset import Dataset
from minidit.frames import in_strips
from minidit.models.spacetime import SpacetimeDiT
from minidit.processes.joint import Joint
from minidit.processes.train import fitted_source
from minidit.random import Philox
from minidit.runs.presets import PRESETS
from minidit.runs.process_kinds import RectifiedFlowConfig
from minidit.training.loop import Loop

STREAM = 0x636C70
PRESET = PRESETS["clips"]
ONE = ((0, 1), (0, -1), (1, 0), (-1, 0))  # four directions, one pixel per frame
VELOCITIES = {"one": ONE, "four": FOUR, "within": within(2)}
ARCHITECTURE = ("frame_patch", "patch_size", "hidden_size", "depth", "num_heads", "time_attention", "positions")
LAW = ("prediction", "times", "times_mean", "times_uniform", "shift", "loss_weight")
RECIPE = ("seed", "steps", "batch_size", "lr", "warmup", "final_lr", "weight_decay", "ema")


def task(args: argparse.Namespace, part: str) -> Dataset:
    """The clips of a task."""
    digits = md.data.digits(part)
    assert digits.labels is not None
    if args.digits:
        digits = digits.take(np.isin(digits.labels, [int(k) for k in args.digits]))
    n, velocities = {"train": args.clips, "test": 300}[part], VELOCITIES[args.velocities]
    return moving(digits, n, frames=args.frames, size=args.size, velocities=velocities, seed=int(part == "test"))


def chosen(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a configuration that the flags name."""
    return {name: getattr(args, name) for name in names}


def samples(network: SpacetimeDiT, process: md.Diffusion, labels: Any, n: int, seed: int, steps: int = 16, w: float = 1) -> Any:
    """n clips, or pictures, of a network."""
    y = labels[np.arange(n) % len(labels)]
    return md.sample(network, process, y, steps=steps, guidance=w, solver=md.AB2, clip=True, seed=seed, shards=1)


def train(args: argparse.Namespace) -> None:
    """Trains, and measures on the way."""
    args.out.mkdir(parents=True, exist_ok=True)
    data, real = task(args, "train"), task(args, "test").x_0()
    config = replace(PRESET.model, frames=0, **chosen(args, ARCHITECTURE)).fitted(data.shape, data.num_classes)
    network = SpacetimeDiT(config, Philox(args.seed, STREAM))
    if args.init is not None:
        network.load_state_dict(load_model(args.init / "model.safetensors")[0].state_dict())
    process = replace(PRESET.process, **chosen(args, LAW)).diffusion()
    recipe = replace(PRESET.train, **chosen(args, RECIPE), shards=1)
    loop = Loop(network, Joint(process, args.pictures) if args.pictures else process, fitted_source(network, data), recipe)
    labels, velocities = np.unique(data.labels), VELOCITIES[args.velocities]
    rows = {"real": real, "shuffled": shuffled(real), "mixed": mixed(real)}
    settings = {name: v for name, v in vars(args).items() if name not in ("run", "out", "init")}
    write(args.out, settings | {"macs": config.macs()} | {name: obedience(x, velocities) for name, x in rows.items()})
    began, loss = time.process_time(), []
    for record in loop.run():
        loss.append(float(record["loss"]))
        last = record["step"] == min(args.until or args.steps, args.steps)
        if record["step"] % args.every == 0 or last:
            average = SpacetimeDiT(config, None)
            average.flat[...] = loop.optimiser.average
            spent = time.process_time() - began
            x = samples(average, process, labels, 300 if last else 100, args.seed)
            line = {"update": record["step"], "cpu_s": round(spent), "loss": round(float(np.mean(loss[-args.every :])), 5)}
            write(args.out, line | obedience(x, velocities))
            save_model(args.out / "model.safetensors", average)
            pictures.save_png(args.out / "sheet.png", pictures.grid(x[:12], columns=1, scale=3))
            began += time.process_time() - began - spent  # measuring is not training
        if last:
            break


def write(folder: Path, line: dict[str, Any]) -> None:
    """One line of metrics.jsonl, and on the screen."""
    print(json.dumps(line), flush=True)
    with (folder / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


def settings_of(folder: Path) -> dict[str, Any]:
    """What a folder's network was trained with."""
    settings: dict[str, Any] = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    return settings


def trained(folder: Path) -> tuple[SpacetimeDiT, md.Diffusion, Any, Any]:
    """The network of a folder, its process, and the classes and velocities that it learned."""
    network, _ = load_model(folder / "model.safetensors")
    assert isinstance(network, SpacetimeDiT)
    settings = settings_of(folder)
    process = RectifiedFlowConfig(**{name: settings[name] for name in LAW}).diffusion()
    labels = np.array([int(k) for k in settings["digits"]] or range(10))
    return network, process, labels, VELOCITIES[settings["velocities"]]


def light(x: Any) -> Any:
    """The mean light of every clip, 0 black and 1 white."""
    return (np.clip(x, -1, 1).mean(axis=(1, 2, 3, 4)) + 1) / 2


def ask(args: argparse.Namespace) -> None:
    """The statistics of a trained network for other numbers of steps and scales of guidance.

    faint : the share of clips with less than half of the light of real ones: the law does not see whether a digit is bright
    """
    network, process, labels, velocities = trained(args.folder)
    real = task(argparse.Namespace(**settings_of(args.folder)), "test").x_0()
    for steps in args.steps:
        for w in args.guidance:
            x = samples(network, process, labels, args.n, args.seed, steps, w)
            faint = float((light(x) < light(real).mean() / 2).mean())
            line = {"steps": steps, "guidance": w, "n": args.n, "seed": args.seed}
            write(args.folder, line | obedience(x, velocities) | {"faint": faint})


def picture(args: argparse.Namespace) -> None:
    """A GIF of clips, some per class, and beside it a sheet with pictures of the same network."""
    network, process, labels, velocities = trained(args.folder)
    wanted = np.repeat(labels, args.each)
    x, y = (np.clip(samples(net, process, wanted, len(wanted), args.seed, 25, args.guidance), -1, 1)
            for net in (network, network.of_frames(1)))  # fmt: skip
    print(json.dumps(obedience(x, velocities)))
    frames = [pictures.grid(x[:, :, k], columns=args.each * 5, scale=4) for k in range(x.shape[2])]
    pictures.save_gif(args.out, frames, ms=250, hold=250)
    sheet = [pictures.grid(in_strips(x)[::2], columns=2, scale=3), pictures.grid(y, columns=args.each * 5, scale=3)]
    pictures.save_png(args.out.with_suffix(".png"), pictures.stack(sheet, ["clips, their frames from left to right", "pictures"]))


def flags(p: argparse.ArgumentParser, section: Any, names: tuple[str, ...]) -> None:
    """Flags of some fields of a section of the preset, whose values are the defaults."""
    for f in fields(section):
        if f.name in names:
            usual = getattr(section, f.name)
            p.add_argument(f"--{f.name.replace('_', '-')}", type=type(usual), default=usual)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("train")
    p.set_defaults(run=train)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--init", type=Path, help="a folder whose network is trained on")
    p.add_argument("--digits", default="", help="classes, such as 017 (default: all)")
    p.add_argument("--velocities", choices=sorted(VELOCITIES), default="four")
    for name, usual in (("clips", PARTS["train"]), ("size", 16), ("frames", PRESET.data.frames), ("every", 250)):
        p.add_argument(f"--{name}", type=int, default=usual)
    p.add_argument("--until", type=int, help="stop after this update; the rate still falls over all of --steps")
    p.add_argument("--pictures", type=float, default=PRESET.data.pictures, help="the share of pictures in the loss")
    for section, names in ((PRESET.model, ARCHITECTURE), (PRESET.process, LAW), (PRESET.train, RECIPE)):
        flags(p, section, names)
    p = commands.add_parser("ask")
    p.set_defaults(run=ask)
    p.add_argument("folder", type=Path)
    p.add_argument("--steps", type=int, nargs="+", default=[16])
    p.add_argument("--guidance", type=float, nargs="+", default=[1.0])
    p.add_argument("-n", type=int, default=300)
    p.add_argument("--seed", type=int, default=0)
    p = commands.add_parser("picture")
    p.set_defaults(run=picture)
    p.add_argument("folder", type=Path)
    p.add_argument("--each", type=int, default=2)
    p.add_argument("--guidance", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("docs/clips.gif"))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
