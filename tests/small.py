"""The smallest networks and data on which a recipe can be seen at work."""

import json
from dataclasses import replace

import numpy as np
from PIL import Image

from minidit.models.autoencoder import AutoencoderConfig
from minidit.models.dit import DiT, DiTConfig
from minidit.processes.autoencode import AutoencodeConfig
from minidit.processes.classify import ClassifyConfig
from minidit.random import Philox
from minidit.runs.kinds import PixelsConfig
from minidit.runs.phases import Run, Stopped, resume
from minidit.runs.presets import DataConfig, RunConfig, SampleConfig
from minidit.runs.process_kinds import DDPMConfig, EDMConfig, RectifiedFlowConfig
from minidit.runs.state import paths_of
from minidit.training.loop import LoopConfig

DIT = DiTConfig(input_size=4, patch_size=2, in_channels=1, hidden_size=32, depth=1, num_heads=2, num_classes=3, learn_sigma=False)
UNCONDITIONAL = replace(DIT, num_classes=0)


def awake(config=DIT, *, dtype=np.float32, device="cpu", seed=1):
    """A DiT all of whose weights matter (a fresh one answers 0 whatever it is shown)."""
    model = DiT(config, Philox(seed), dtype=np.float64)
    for k, p in enumerate(model.parameters()):
        p.data[...] += 0.1 * Philox(seed, 7, state=k).normal(p.shape, dtype=np.float64)
    there = DiT(config, None, device=device, dtype=dtype)
    there.load_state_dict(model.state_dict())
    return there


def pictures(n=11, config=DIT, dtype=np.float32):
    """(x_0, labels): n pictures of unit size and their classes in turn."""
    x_0 = Philox(2).normal((n, config.in_channels, *config.size), dtype=dtype)
    return x_0, np.arange(n) % max(1, config.num_classes)


def losses_of(loop, update, samples=None, network=None):
    """What a loop computes at one update for some samples of the batch: (losses (B,), other numbers), no gradient taken.

    network : what stands in place of the loop's own, such as one that keeps what it was shown.
    """
    draws = loop.draws.at(update, loop.samples if samples is None else samples)
    x_0, y = loop.source.draw(draws.pictures(len(loop.source)), draws)
    return loop.process.loss(network or loop.model, x_0, y, draws)


PROCESSES = {  # one of every kind, as small as the rest
    "ddpm": DDPMConfig(prediction="v", schedule="cosine", T=20),
    "rectified_flow": RectifiedFlowConfig(times="logit_normal", shift=2.0, loss_weight="min_snr"),
    "edm": EDMConfig(sigma_max=20.0),
}


def run_config(source="digits", *, pixels=True, steps=6, process="ddpm", **data):
    """A whole run in a second."""
    width = {"hidden_size": 32, "depth": 1, "num_heads": 2}
    fast = {"lr": 1e-2, "steps": steps, "batch_size": 8, "shards": 2}
    return RunConfig(
        data=DataConfig(source=source, **data),
        tokenizer=PixelsConfig() if pixels else AutoencoderConfig(widths=(8, 8, 16)),
        model=DiTConfig(**width, learn_sigma=False),
        process=PROCESSES[process],
        train=LoopConfig(**fast, ema=0.9),
        sample=SampleConfig(steps=3),
        tokenizer_train=AutoencodeConfig(**fast),
        judge_train=ClassifyConfig(**fast),
    )


def begun(folder, config=None, **options):
    """A Run with its folder, and its data."""
    job = Run(folder, config or run_config(), **options)
    train, _ = job.data()
    job.fit_to(train)
    job.create()
    return job, train


def whole(folder, config=None):
    """A run from beginning to end, and its pipeline."""
    job, _ = begun(folder, config)
    return job, job.train(*job.data())


def interrupted(folder, config, step, phase="model"):
    """The same, stopped after an update of a phase as the command stops it."""
    job, _ = begun(folder, config)

    def tell(name, record, steps):
        job.loop.stop = name == phase and record["step"] == step

    job.tell = tell
    try:
        job.train(*job.data())
        job.judge(*job.data())
    except Stopped as stop:
        assert (stop.phase, stop.done) == (phase, step)
        return job
    raise AssertionError(f"the {phase} did not stop")


def resumed(folder):
    """The run in a folder, gone on to its end."""
    job = resume(folder)
    train, _ = job.data()
    job.fit_to(train)
    job.train(*job.data())
    return job


def states(folder, phase="model"):
    """The updates of the saved states of a phase, the latest first."""
    return [int(path.stem.split("-")[1]) for path in paths_of(folder, phase)]


def lines(folder):
    """metrics.jsonl without what a clock says."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("wall_s", "img_per_s")} for line in read]


def folder_of_pictures(folder, each=(12, 13), size=8):
    """Two classes of random pictures."""
    rng = np.random.default_rng(0)
    for name, n in zip("ab", each, strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / name / f"{i}.png")
    return str(folder)
