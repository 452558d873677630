"""The U-Net beside the DiT that replaced it, at equal multiply-accumulates and equal updates, on fashion latents.

    python -m benchmarks.unet --out benchmarks/results/unet.json            about an hour and a half on one core

Both networks learn the latents of the shipped autoencoder by the recipe of the preset "demo" (v-prediction, cosine ladder,
batches of 64). The learning rate of each is swept on seed 0, further where the best is at an end of the sweep, and chosen by the
held-out loss (EMA weights, the same times and noise for every network). Fréchet: 500 pictures from DDIM with 50 rungs, as a
multiple of the reconstructions' distance, by a judge that is trained here. What is in the file already is not computed again; the
judge and the trained weights stay in a folder beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import minidit as md
from minidit.autograd import no_grad
from minidit.models.backbone import TrainedBackbone
from minidit.models.dit import DIT
from minidit.models.kinds import NETWORKS
from minidit.models.unet import UNetConfig
from minidit.outgoing import write_atomically
from minidit.processes.train import fitted_source
from minidit.random import Philox
from minidit.runs.evaluate import Evaluation
from minidit.runs.loading import load
from minidit.runs.phases import Run, resume
from minidit.runs.pipeline import Pipeline
from minidit.runs.presets import PRESETS, DataConfig
from minidit.training.draws import Draws
from minidit.training.source import Source

NETS: dict[str, Any] = {"unet": UNetConfig(), "dit": DIT["demo"]}
RATES = (1e-3, 2e-3, 4e-3)  # at first
SCALES = (1.0, 2.0)  # of guidance
RECIPE = PRESETS["demo"].train


@dataclass
class Bench:
    """The data, the judge, and the rows so far."""

    out: Path
    steps: int
    n: int
    record: dict[str, Any]

    def prepare(self) -> None:
        """Latents of both parts, and the judge."""
        self.pipeline: Pipeline = load()
        folder = self.out.with_suffix("") / "judge"
        begun = (folder / "config.toml").exists()
        job = resume(folder) if begun else Run(folder, replace(PRESETS["fashion"], data=DataConfig(source="fashion")))
        train, held_out = job.data()
        assert held_out is not None
        job.fit_to(train)
        if not begun:
            job.create()
        self.evaluation = Evaluation(job.judge(train), train, held_out, n=self.n)
        self.evaluation.references(self.pipeline)
        self.record["references"] = [dict(row) for row in self.evaluation.rows]
        self.unit = self.evaluation.rows[1]["frechet"]
        self.train, self.held_out = (self.pipeline.tokenizer.held_out(part) for part in (train, held_out))
        self.process = PRESETS["demo"].process.diffusion()

    def loss(self, network: TrainedBackbone) -> float:
        """The training loss on held-out latents over 20 updates of 500."""
        source: Source = fitted_source(network, self.held_out)
        draws = Draws(77, self.process.stream, np.arange(500), per=self.process.per, batch_size=500)
        losses = []
        with no_grad():
            for update in range(20):
                now = draws.at(update)
                losses.append(self.process.loss(network, *source.draw(now.pictures(len(source)), now), now)[0].data.mean())
        return float(np.mean(losses))

    def learn(self, kind: str, lr: float, seed: int) -> dict[str, Any]:
        """The row of one training; from the file if it is there."""
        for row in self.record["rows"]:
            if (row["network"], row["lr"], row["seed"], row["steps"]) == (kind, lr, seed, self.steps):
                return row
        config = NETS[kind]
        network = NETWORKS[kind].network(config, Philox(seed))
        recipe = replace(RECIPE, steps=self.steps, lr=lr, seed=seed, shards=1)
        loop, began = md.loop_for(network, self.train, self.process, recipe, kind="serial"), time.perf_counter()
        losses = [record["loss"] for record in loop.run()]
        minutes = (time.perf_counter() - began) / 60
        network.flat[...] = loop.optimiser.average
        row = {
            "network": kind, "lr": lr, "seed": seed, "steps": self.steps, "batch_size": recipe.batch_size, "minutes": minutes,
            "macs": config.macs(), "parameters": config.parameters(), "train_loss": float(np.mean(losses[-100:])),
            "held_out_loss": self.loss(network), "pictures": [], "curve": losses[:: max(1, self.steps // 60)],
        }  # fmt: skip
        md.save(self.weights(kind, lr, seed), network)
        self.record["rows"].append(row)
        self.write()
        print(f"{kind} lr {lr:g} seed {seed}: held-out loss {row['held_out_loss']:.4f}, {minutes:.1f} min", flush=True)
        return row

    def weights(self, kind: str, lr: float, seed: int) -> Path:
        """Where the average of a training is kept."""
        return self.out.with_suffix("") / f"{kind}-{lr:g}-{seed}.safetensors"

    def write(self) -> None:
        """The record so far."""
        write_atomically(self.out, (json.dumps(self.record, indent=1) + "\n").encode())

    def measure(self, kind: str, lr: float, seed: int) -> None:
        """Draws and judges the pictures of a training."""
        row = self.learn(kind, lr, seed)
        if row["pictures"]:
            return
        pipeline = replace(self.pipeline, model=md.load(self.weights(kind, lr, seed)), process=self.process)
        for w in SCALES:
            self.evaluation.samples(f"w = {w}", pipeline, seed=0, steps=50, guidance=w, shards=1)
            drawn = self.evaluation.rows.pop()
            row["pictures"].append({**drawn, "guidance": w, "multiple": drawn["frechet"] / self.unit})
            print(f"{kind} lr {lr:g} seed {seed}: w = {w}: {row['pictures'][-1]['multiple']:.2f} x", flush=True)
        self.write()

    def swept(self, kind: str) -> float:
        """The rate with the lowest held-out loss on seed 0, not at an end of the rates that were tried."""
        rows = [self.learn(kind, lr, 0) for lr in RATES]
        for _ in range(2):
            rows.sort(key=lambda row: row["lr"])
            best = min(rows, key=lambda row: row["held_out_loss"])
            if best is rows[0]:
                rows.append(self.learn(kind, best["lr"] / 2, 0))
            elif best is rows[-1]:
                rows.append(self.learn(kind, best["lr"] * 2, 0))
        return float(min(rows, key=lambda row: row["held_out_loss"])["lr"])


def table(record: dict[str, Any]) -> str:
    """One line per network and learning rate, its seeds side by side."""
    lines = ["| network | parameters | MACs | learning rate | held-out loss | w = 1: multiple, recall, accuracy | w = 2 |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    keys = sorted({(row["network"], row["lr"]) for row in record["rows"]})
    for kind, lr in keys:
        rows = [row for row in record["rows"] if (row["network"], row["lr"]) == (kind, lr)]
        cells = [" / ".join(f"{row['held_out_loss']:.4f}" for row in rows)]
        for k in range(len(SCALES)):
            drawn = [row["pictures"][k] for row in rows if row["pictures"]]
            cells.append(" / ".join(f"{p['multiple']:.2f} ×, {p['recall']:.2f}, {p['accuracy']:.3f}" for p in drawn))
        sizes = f"{rows[0]['parameters']:,} | {rows[0]['macs'] / 1e6:.2f} M"
        lines.append(f"| {kind} | {sizes} | {lr:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


@threadpool_limits.wrap(limits=1)  # one core
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("-n", type=int, default=500, help="pictures per row")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "unet.json")
    parser.add_argument("--table", action="store_true", help="only the table of what is in the file")
    args = parser.parse_args()
    record: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    if args.table:
        print(table(record))
        return
    record |= {"command": f"python -m benchmarks.unet --steps {args.steps}", "recipe": asdict(RECIPE)}
    bench = Bench(args.out, args.steps, args.n, record)
    bench.prepare()
    best = {kind: bench.swept(kind) for kind in NETS}
    for seed in args.seeds:
        for kind, lr in best.items():
            bench.measure(kind, lr, seed)
    print(table(record))


if __name__ == "__main__":
    main()
