"""A run's folder: files are written atomically, every recorded update is one line.

    config.toml                                                    the resolved configuration and the environment
    metrics.jsonl                                                  one line per recorded update
    tokenizer.safetensors, model.safetensors, judge.safetensors    the averaged weights (EMA) of each phase
    tokenizer.state.safetensors, …                                 the state from which an interrupted phase resumes
    samples/step_*.png                                             grids drawn while training
    pictures/, trace.npz, eval.json, report.html                   at the end
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint import CheckpointError, load_model, write_atomically
from minidit.kernels.blas import name_of_blas
from minidit.runs import former
from minidit.runs.config import read_config, tables_of, to_toml
from minidit.runs.presets import RunConfig
from minidit.training.loop import RunError
from minidit.training.workers import cores
from minidit.version import __version__

OWN = ("*.safetensors", "*.json", "*.jsonl", "trace.npz", "report.html", "samples/step_*.png", "pictures/*")


def create(folder: Path, config: RunConfig, device: str, *, overwrite: bool = False) -> None:
    """Makes the folder and writes config.toml. Raises RunError if a run is there already, or any other files."""
    run = (folder / "config.toml").exists()
    if run and not overwrite:
        raise RunError(f"{folder} holds a run already: choose another --out, --resume it, or --overwrite")
    if not run and folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} holds files that are not a run: choose another --out")
    for pattern in OWN:
        for old in folder.glob(pattern):
            old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    tables = {**tables_of(config), "environment": environment(device)}
    write_atomically(folder / "config.toml", to_toml(tables).encode())


def environment(device: str) -> dict[str, str | int]:
    """The environment that a run's numbers depend on, besides its configuration."""
    return {
        "minidit": __version__, "numpy": np.__version__, "python": platform.python_version(), "device": device,
        "cores": cores(), "blas": name_of_blas(), "kernels": os.environ.get("MINIDIT_KERNELS", "on"),
        "system": platform.platform(terse=True),
    }  # fmt: skip


def config_of(folder: Path) -> RunConfig:
    """The configuration that the run was started with."""
    path = folder / "config.toml"
    if not path.exists():
        raise CheckpointError(f"{folder}: no run there (no config.toml)")
    return read_config(path)


def weights_of(place: str | Path, phase: str, device: str = "cpu") -> Any:
    """The network of a phase, from a file or from a run's folder."""
    return load_model(former.file_of(Path(place), phase), device=device)[0]


def append(folder: Path, line: dict[str, Any]) -> None:
    """Writes one line of metrics.jsonl."""
    with open(folder / "metrics.jsonl", "a") as f:
        f.write(json.dumps(line) + "\n")


def forget(folder: Path, phase: str, after: int) -> None:
    """Drops lines of metrics.jsonl that will be written again: updates of the phase > `after`, and a line cut short by a kill."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
    lines = [line for line in whole if former.phase((entry := json.loads(line))["phase"]) != phase or entry["step"] <= after]
    write_atomically(path, b"".join(line + b"\n" for line in lines))
