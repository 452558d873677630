"""A run's folder: files are written atomically, every recorded update is one line.

    config.toml                                                    the resolved configuration and the environment
    metrics.jsonl                                                  one line per recorded update
    tokenizer.safetensors, model.safetensors, judge.safetensors    the averaged weights (EMA) of each phase
    tokenizer.state.safetensors, …                                 the state from which an interrupted phase resumes
    skipped.jsonl                                                  files that were left out, with --skip-bad
    samples/step_*.png                                             grids drawn while training
    pictures/, trace.npz, eval.json, report.html                   at the end
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint import CheckpointError, load_model, write_atomically
from minidit.incoming import read_text, reading
from minidit.nn.device import name_of_blas
from minidit.runs import former
from minidit.runs.config import read_config, tables_of, to_toml
from minidit.runs.presets import RunConfig
from minidit.training.loop import RunError
from minidit.training.workers import cores
from minidit.version import __version__

fcntl = importlib.import_module("fcntl") if os.name == "posix" else None  # elsewhere nothing is locked

WEIGHTS = [f"{name}{end}" for name in former.FILES for end in (".safetensors", ".state.safetensors")] + [*former.OLD_FILES]
PICTURES = [f"pictures/{n}" for n in ("loss.png", "reconstructions.png", "ddim.png", "ddpm.png", "neighbours.png",
                                      "denoising.gif", "x0_strip.png")]  # fmt: skip
FILES = ["config.toml", "metrics.jsonl", "skipped.jsonl", "eval.json", "trace.npz", "report.html", *WEIGHTS, *PICTURES]
REPLACED = ".replaced"  # the folder of an overwritten run, until the new one has its first checkpoint


def create(folder: Path, config: RunConfig, device: str, *, overwrite: bool = False) -> None:
    """Makes the folder and writes config.toml. Raises RunError if a run is there already, or any other files.

    An overwritten run's own files are moved aside; `settle` deletes them.
    """
    run = is_run(folder)
    if run and not overwrite:
        raise RunError(f"{folder} holds a run already: choose another --out, --resume it, or --overwrite")
    if not run and folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} holds files that are not a run: choose another --out")
    if run:
        with locked(folder):
            set_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {**tables_of(config), "environment": environment(device)}
    write_atomically(folder / "config.toml", to_toml(tables).encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one process at a time work in a run's folder. Raises RunError while another does; the lock ends with its process."""
    if fcntl is None:
        yield
        return
    with open(folder / "config.toml", "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder} is in use by another process: wait for it, or choose another --out") from None
        except OSError:  # a file system without locks
            pass
        yield


def is_run(folder: Path) -> bool:
    """Whether minidit wrote the folder's config.toml, and so recorded its version there."""
    try:
        tables = tomllib.loads((folder / "config.toml").read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    environment = tables.get("environment")
    return isinstance(environment, dict) and "minidit" in environment


def files_of(folder: Path) -> list[Path]:
    """The files of a run that exist."""
    return [p for p in [*(folder / name for name in FILES), *folder.glob("samples/step_????????.png")] if p.is_file()]


def set_aside(folder: Path) -> None:
    """Moves a run's files into REPLACED; if another run is already there, a run without a checkpoint is deleted instead."""
    aside = folder / REPLACED
    if any((folder / name).exists() for name in WEIGHTS):
        settle(folder)
    occupied = aside.exists()
    for path in files_of(folder):
        if occupied:
            path.unlink()
            continue
        target = aside / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def settle(folder: Path) -> None:
    """Deletes the overwritten run: its files, and the folders that are then empty."""
    aside = folder / REPLACED
    for path in files_of(aside):
        path.unlink()
    for place in (aside / "samples", aside / "pictures", aside):
        with contextlib.suppress(OSError):  # it holds another file, or does not exist
            place.rmdir()


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


def keep_skipped(folder: Path, skipped: Iterable[tuple[str, str]]) -> None:
    """Writes the list of files that were left out, one line per file."""
    lines = (json.dumps({"file": file, "why": why}) + "\n" for file, why in skipped)
    write_atomically(folder / "skipped.jsonl", "".join(lines).encode())


def skipped_of(folder: Path) -> frozenset[str] | None:
    """The files that the run left out when it began; None if it kept no list."""
    path = folder / "skipped.jsonl"
    if not path.exists():
        return None
    with reading(path, CheckpointError, "a damaged list of skipped files: "):
        return frozenset(str(json.loads(line)["file"]) for line in read_text(path, CheckpointError).splitlines())


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
