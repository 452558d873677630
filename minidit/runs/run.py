"""A whole run in a folder: autoencoder, latents, denoiser, pictures; every step recorded, every file written whole.

    config.toml          the resolved configuration and the environment
    metrics.jsonl        one line a recorded step
    autoencoder.safetensors, dit.safetensors (EMA), state.safetensors (to resume)
    samples/step_*.png   grids drawn while training          pictures/, trace.npz, report.html   at the end
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import to_device, to_host
from minidit.checkpoint import CheckpointError, load_model, read_arrays, save_model, write_arrays, write_atomically
from minidit.data import Dataset, load
from minidit.kernels.blas import name_of_blas
from minidit.models.autoencoder import Autoencoder
from minidit.models.dit import DiT
from minidit.processes.autoencode import autoencode, latents_of
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.runs.config import read_config, tables_of, to_toml
from minidit.runs.pipeline import Pipeline, load_pipeline
from minidit.runs.presets import RunConfig
from minidit.training.loop import Loop, RunError, diverged
from minidit.training.memory import explained
from minidit.training.source import Source, source_of
from minidit.training.workers import cores
from minidit.version import __version__

Tell = Callable[[str, dict[str, Any], int], None]  # (phase, record, steps of the phase)
EVERY = 10  # steps between two lines of metrics.jsonl
AUTOENCODER_DRAW, DIT_DRAW = 1, 2  # streams of the initial weights


def silent(phase: str, record: dict[str, Any], steps: int) -> None:
    """Tells nobody."""


class Run:
    """A run folder and the configuration in it."""

    def __init__(self, folder: Path, config: RunConfig, *, device: str = "cpu", tell: Tell = silent) -> None:
        self.folder, self.config, self.device, self.tell = folder, config, device, tell
        self.began = time.monotonic()
        self.loop: Loop | None = None  # the denoiser's, while it trains
        self.meta: dict[str, Any] = {}

    # -------------------------------------------------------------------------------------- data and configuration

    def data(self) -> tuple[Dataset, Dataset]:
        """(training set, held-out set): an embedded set's own parts, or a tenth of the images given (at most 1,000)."""
        c = self.config.data
        if c.source in ("digits", "fashion"):
            return self._part("train"), self._part("test")
        try:  # a set that has a test part of its own
            return self._part("train"), self._part("test")
        except ValueError:
            whole = self._part(None)
        held_out = min(1000, len(whole) // 10)
        return whole.split(held_out) if held_out else (whole, whole)

    def _part(self, part: str | None) -> Dataset:
        c = self.config.data
        return load(c.source, size=c.size, channels=c.channels, part=part)

    def fit_to(self, data: Dataset) -> None:
        """Fills in what the data decide: channels, sizes, classes. Raises ValueError for sizes that do not fit."""
        c = self.config
        if c.data.autoencoder and not c.data.pixels:
            c = replace(c, autoencoder=self.given_autoencoder(data).config)
        H, W = data.size
        factor = 1 if c.data.pixels else 4
        patch = c.dit.patch_size
        if H % (factor * patch) or W % (factor * patch):
            what = f"{'' if c.data.pixels else 'an autoencoder of factor 4 and '}patches of {patch}"
            raise ValueError(f"pictures of {H} x {W} do not fit {what}: give --size, a multiple of {factor * patch}")
        channels = data.channels if c.data.pixels else c.autoencoder.latent_channels
        size = (H // factor, W // factor)
        dit = replace(
            c.dit, input_size=size[0] if size[0] == size[1] else size, in_channels=channels, num_classes=data.num_classes
        )
        autoencoder = replace(c.autoencoder, channels=data.channels, size=(H, W))
        self.config = replace(c, dit=dit, autoencoder=autoencoder)
        self.meta = {
            "data": {
                "name": data.name, "class_names": list(data.class_names), "crop": data.crop, "levels": data.levels,
                "channels": data.channels, "size": [H, W], "images": len(data), "pixels": c.data.pixels,
            },
            "train": {k: getattr(c.train, k) for k in ("prediction", "schedule", "T", "steps", "seed")},
            "sample": {k: getattr(c.sample, k) for k in ("guidance", "interval")},
            "version": __version__,
        }  # fmt: skip

    def create(self, *, overwrite: bool = False) -> None:
        """Makes the folder and writes config.toml. Raises RunError if a run is there already, or anything that is none."""
        run = (self.folder / "config.toml").exists()
        if run and not overwrite:
            raise RunError(f"{self.folder} holds a run already: choose another --out, --resume it, or --overwrite")
        if not run and self.folder.exists() and any(self.folder.iterdir()):
            raise RunError(f"{self.folder} holds something that is no run: choose another --out")
        for pattern in ("*.safetensors", "*.json", "*.jsonl", "trace.npz", "report.html", "samples/step_*.png", "pictures/*"):
            for old in self.folder.glob(pattern):
                old.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = {**tables_of(self.config), "environment": environment(self.device)}
        write_atomically(self.folder / "config.toml", to_toml(tables).encode())

    def record(self, phase: str, record: dict[str, Any], steps: int, began: float, first: int = 0) -> None:
        """Tells, and writes a line of metrics.jsonl every few steps. began, first: when, and after how many steps, it went on."""
        step = record["step"]
        if step % EVERY == 0 or step == steps or step == 1:
            batch = self.config.autoencode.batch_size if phase == "autoencoder" else self.config.train.batch_size
            numbers = {k: v if isinstance(v, int) else float(v) for k, v in record.items()}
            if not math.isfinite(numbers["loss"]):  # on a GPU nobody has looked at it yet
                raise RunError(diverged(numbers["loss"], step))
            wall = time.monotonic() - began
            speed = batch * (step - first) / max(wall, 1e-9)
            line = {"phase": phase, **numbers, "img_per_s": round(speed, 1), "wall_s": round(wall, 3)}
            with open(self.folder / "metrics.jsonl", "a") as f:
                f.write(json.dumps(line) + "\n")
        self.tell(phase, record, steps)

    def forget(self, phase: str, after: int) -> None:
        """Drops from metrics.jsonl what will be done again: steps of a phase after some step, and a line that a kill has cut."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
        lines = [line for line in whole if (entry := json.loads(line))["phase"] != phase or entry["step"] <= after]
        write_atomically(path, b"".join(line + b"\n" for line in lines))

    # -------------------------------------------------------------------------------------- phases

    def train_autoencoder(self, data: Dataset) -> Autoencoder:
        """Trains (or loads) the autoencoder, with EMA weights, and saves it."""
        c, target = self.config, self.folder / "autoencoder.safetensors"
        if target.exists():  # a resumed run
            return load_model(target, device=self.device)[0]  # type: ignore[no-any-return]
        if c.data.autoencoder:
            return self.given_autoencoder(data)
        self.forget("autoencoder", 0)
        model = Autoencoder(c.autoencoder, Philox(c.autoencode.seed, AUTOENCODER_DRAW), device=self.device)
        loop, began = autoencode(model, data, c.autoencode), time.monotonic()
        for record in loop.run():
            self.record("autoencoder", record, c.autoencode.steps, began)
        model.flat[...] = loop.optimiser.average
        return model

    def given_autoencoder(self, data: Dataset) -> Autoencoder:
        """The trained autoencoder that the configuration names. Raises CheckpointError if it is not for these pictures."""
        name = self.config.data.autoencoder
        model, _ = load_model(_model_file(name, "autoencoder"), device=self.device)
        if not isinstance(model, Autoencoder) or model.config.channels != data.channels:
            raise CheckpointError(f"{name}: not an autoencoder for pictures of {data.channels} channels")
        return model

    def source(self, data: Dataset) -> tuple[Source, Autoencoder | None]:
        """What the denoiser is trained on, and the autoencoder that made it."""
        if self.config.data.pixels:
            return source_of(data, self.device), None
        autoencoder = self.train_autoencoder(data)
        latents = latents_of(autoencoder, data)
        save_model(self.folder / "autoencoder.safetensors", autoencoder, **self.meta)
        return latents, autoencoder

    def train_denoiser(self, source: Source, autoencoder: Autoencoder | None) -> Pipeline:
        """Trains the denoiser from where state.safetensors left it; draws grids on the way; leaves the EMA weights."""
        with explained(self.config.dit, self.config.train, self.device):
            return self._train_denoiser(source, autoencoder)

    def _train_denoiser(self, source: Source, autoencoder: Autoencoder | None) -> Pipeline:
        c = self.config
        model = DiT(c.dit, Philox(c.train.seed, DIT_DRAW), device=self.device)
        resumed = (self.folder / "state.safetensors").exists()
        if c.data.init and not resumed:
            other, _ = load_model(_model_file(c.data.init, "dit"), device=self.device)
            start_from(model, other, c.data.init)
        self.loop = loop = loop_for(model, source, c.train)
        if resumed:
            self.load_state(loop)
        self.forget("dit", loop.done)
        began, first = time.monotonic(), loop.done
        for record in loop.run():
            self.record("dit", record, c.train.steps, began, first)
            if c.sample.every and loop.done % c.sample.every == 0 and loop.done < c.train.steps:
                self.draw(self.pipeline(loop, autoencoder), loop.done)
            if loop.done % c.sample.save_every == 0 or loop.done == c.train.steps:
                self.save_state(loop)
        pipeline = self.pipeline(loop, autoencoder)
        if loop.stop:
            return pipeline
        save_model(self.folder / "dit.safetensors", pipeline.model, **self.meta)
        return pipeline

    def pipeline(self, loop: Loop, autoencoder: Autoencoder | None) -> Pipeline:
        """A Pipeline with the EMA weights as they are now."""
        c = self.config
        model = DiT(c.dit, None, device=self.device)
        model.flat[...] = loop.optimiser.average
        data = self.meta["data"]
        names, crop = tuple(data["class_names"]), data["crop"]
        laws = c.train.make_schedule(), c.train.make_prediction()
        return Pipeline(model, autoencoder, *laws, names, crop, self.meta, c.sample.guidance, c.sample.interval)

    def draw(self, pipeline: Pipeline, step: int) -> None:
        """A small grid, the same noise every time, so that one sees it grow."""
        from minidit.pictures import grid, save_png

        s = self.config.sample
        labels = pipeline.labels(None, 2 * min(10, max(4, pipeline.model.config.num_classes)))
        x = pipeline.sample(labels, n=16, steps=min(25, s.steps), seed=s.seed)
        path = self.folder / "samples" / f"step_{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        save_png(path, grid(x, columns=-(-len(x) // 2)))

    # -------------------------------------------------------------------------------------- resuming

    def save_state(self, loop: Loop) -> None:
        """Raw weights, moments, average and the number of steps: all that a run needs to go on exactly."""
        arrays = {"theta": loop.model.flat, **loop.optimiser.state_dict()}
        write_arrays(self.folder / "state.safetensors", arrays, {"step": loop.done, "config": _comparable(self.config)})

    def load_state(self, loop: Loop) -> None:
        """Goes on where a state was saved. Raises CheckpointError when it belongs to another configuration."""
        path = self.folder / "state.safetensors"
        arrays, meta = read_arrays(path)
        was, now = meta.get("config"), json.loads(json.dumps(_comparable(self.config)))
        if not isinstance(was, dict) or was != now:
            told = [f"{k} is {v}, was {was.get(s, {}).get(k)}" for s in now for k, v in now[s].items()
                    if v != was.get(s, {}).get(k)] if isinstance(was, dict) else ["its header is damaged"]  # fmt: skip
            raise CheckpointError(f"{path}: was trained with another configuration: {', '.join(told)}")
        try:
            loop.optimiser.load_state_dict(arrays)
            loop.model.flat[...] = to_device(arrays["theta"], self.device)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        loop.done = int(meta["step"])


def start_from(model: DiT, other: DiT, name: str) -> None:
    """Copies weights for fine-tuning. The label table is copied where it has the same shape and starts anew elsewhere."""
    own, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    for key, p in own.items():
        q = theirs.get(key)
        if q is not None and q.data.shape == p.data.shape:
            p.data[...] = q.data
        elif not key.startswith("y_embedder"):
            found = "missing" if q is None else q.data.shape
            raise CheckpointError(f"{name}: cannot start from it, {key} is {found}, not {p.data.shape}")


def _model_file(path: str, kind: str) -> Path:
    p = Path(path)
    return p / f"{kind}.safetensors" if p.is_dir() else p


def _comparable(config: RunConfig) -> dict[str, Any]:
    """What may not change under a state. In how many pieces a batch is computed may: it is a matter of rounding."""
    train = {k: v for k, v in asdict(config.train).items() if k not in ("shards", "accumulate", "checkpoint_blocks", "graph")}
    return {"dit": asdict(config.dit), "train": train}


def environment(device: str) -> dict[str, Any]:
    """What the numbers of a run depend on besides its configuration."""
    return {
        "minidit": __version__, "numpy": np.__version__, "python": platform.python_version(), "device": device,
        "cores": cores(), "blas": name_of_blas(), "kernels": os.environ.get("MINIDIT_KERNELS", "on"),
        "system": platform.platform(terse=True),
    }  # fmt: skip


def resume(folder: Path, **options: Any) -> Run:
    """The Run in a folder, with the configuration it was begun with."""
    path = folder / "config.toml"
    if not path.exists():
        raise CheckpointError(f"{folder}: no run there (no config.toml)")
    return Run(folder, read_config(path), **options)


def finished(folder: Path, **options: Any) -> tuple[Run, Pipeline]:
    """A finished run and its Pipeline."""
    run = resume(folder, **options)
    return run, load_pipeline(folder, device=run.device)


def moments(pipeline: Pipeline, labels: Any, *, frames: int = 40, **options: Any) -> Iterator[tuple[int, Any, Any]]:
    """(rung, pictures of x_t, pictures of x̂_0) along a walk, at about `frames` of its steps; the last is rung 0 twice."""
    walk = list(pipeline.latents(labels, trace=True, **options))
    steps = walk[:-1]
    keep = {round(k * (len(steps) - 1) / max(1, frames - 1)) for k in range(frames)}
    for k, m in enumerate(steps):
        if k in keep:
            yield m.t, pipeline.pictures(to_host(m.x_t)), pipeline.pictures(to_host(m.x_0_hat))
    last = pipeline.pictures(to_host(walk[-1]))
    yield 0, last, last
