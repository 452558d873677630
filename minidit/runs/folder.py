"""A run's folder: files are written atomically, every recorded update is one line.

    config.toml                                                    the resolved configuration and the environment
    metrics.jsonl                                                  one line per recorded update, with all that is measured then
    tokenizer.safetensors, model.safetensors, judge.safetensors    the averaged weights (EMA) of each phase
    states/model-00001500.safetensors, …                           from which a phase resumes: the last ones, and the best
    skipped.jsonl                                                  files that were left out, with --skip-bad
    samples/step_*.png                                             grids drawn while training
    pictures/, trace.npz, eval.json, report.html                   at the end
    .lock                                                          while a process works here
    .replaced/                                                     an overwritten run, until this one has its first checkpoint

config.toml is the first file of a run that is written, and the last that is moved or deleted. So wherever a process is killed,
the next one sees what is whole: without config.toml nothing of a run is in its place that belongs there.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint import CheckpointError
from minidit.checkpoint.files import open_safetensors
from minidit.checkpoint.grammar import is_a
from minidit.incoming import read_text, read_toml, reading, regular_file
from minidit.nn.device import name_of_blas
from minidit.outgoing import WriteError, write_atomically, writing
from minidit.runs import former
from minidit.runs.config import Tables, read_config, tables_of, to_toml
from minidit.runs.lock import LOCK, alive, locked
from minidit.runs.presets import RunConfig
from minidit.runs.state import STATES
from minidit.training.loop import RunError
from minidit.training.workers import cores
from minidit.version import __version__

WEIGHTS = [f"{name}.safetensors" for name in former.FILES] + [*former.OLD_FILES]
PICTURES = [f"pictures/{n}" for n in ("loss.png", "reconstructions.png", "ddim.png", "ddpm.png", "samples.png",
                                      "neighbours.png", "learning.png", "denoising.gif", "x0_strip.png", "ddim.gif", "ddpm.gif",
                                      "samples.gif")]  # fmt: skip
PATTERNS = ["samples/step_????????.png", "eval-????????.json", *(f"{STATES}/{name}-*[0-9].safetensors" for name in former.FILES)]
PLACES = ("samples", "pictures", STATES)  # the folders inside
TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.tmp")  # a file that is being written: its name, and the number of the process
FILES = ["config.toml", "metrics.jsonl", "skipped.jsonl", "eval.json", "trace.npz", "report.html", *WEIGHTS, *PICTURES]
REPLACED = ".replaced"  # the folder of an overwritten run, until the new one has its first checkpoint
Skipped = Iterable[tuple[str, str]]  # (file, why it was left out)
LONGEST_WRITE = 3600.0  # seconds after which a temporary is no longer written, whoever has its process's number now


def refuse_taken(folder: Path, *, overwrite: bool = False) -> None:
    """Raises RunError for a folder that holds a run, unless that is to be replaced, or any other files."""
    if is_run(folder):
        if not overwrite:
            raise RunError(f"{folder} holds a run already: choose another --out, --resume it, or --overwrite")
    elif folder.is_dir() and any(p.name not in (LOCK, REPLACED) for p in folder.iterdir()):
        raise RunError(f"{folder} holds files that are not a run: choose another --out")


def create(folder: Path, config: RunConfig, device: str, *, overwrite: bool = False, skipped: Skipped | None = None) -> None:
    """Makes the folder and writes config.toml, and the list of `skipped` files if there is one.

    Raises RunError if a run is there already, or any other files, or if something cannot be written.
    An overwritten run's own files are moved aside; `delete_replaced` deletes them, `undo` brings them back.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder), failing(folder, "nothing has been trained"):
            recover(folder)
            sweep(folder)
            refuse_taken(folder, overwrite=overwrite)
            run = is_run(folder)
            try:
                if run:
                    set_aside(folder)
                write_config(folder, config, {"environment": environment(device)})
                if skipped is not None:
                    keep_skipped(folder, skipped)
            except BaseException:
                bring_back(folder)
                raise
    finally:
        with contextlib.suppress(OSError):  # it holds something: a run, or what was there before
            folder.rmdir()


@contextmanager
def failing(folder: Path, way_on: str) -> Iterator[None]:
    """Turns an OSError inside the block into a RunError: the file, the cause, and then what is safe and how to go on."""
    try:
        yield
    except OSError as error:
        cause = error if isinstance(error, WriteError) else WriteError(error.filename2 or error.filename or folder, error)
        raise RunError(f"{cause}; {way_on}") from error


def write_config(folder: Path, config: RunConfig, beside: Tables) -> None:
    """Writes config.toml: the sections of the configuration, and those that are not read back."""
    write_atomically(folder / "config.toml", to_toml({**tables_of(config), **beside}).encode())


def sweep(folder: Path) -> None:
    """Deletes what a killed process left: files that it had not finished writing."""
    for place in (folder, *(folder / name for name in PLACES)):
        for path in place.glob(".*.tmp"):
            name = TEMPORARY.fullmatch(path.name)
            if name and _ours(folder, place / name[1]) and _abandoned(path, int(name[2])):
                path.unlink(missing_ok=True)


def _abandoned(path: Path, pid: int) -> bool:
    """Whether nobody writes a temporary any more. This process writes none now; it may have a killed one's number."""
    try:
        return pid == os.getpid() or not alive(pid) or time.time() - path.stat().st_mtime > LONGEST_WRITE
    except OSError:  # it has been moved to its place meanwhile
        return False


def _ours(folder: Path, path: Path) -> bool:
    """Whether a path is that of a run's file."""
    name = path.relative_to(folder)
    return str(name) in FILES or any(name.match(pattern) for pattern in PATTERNS)


def is_run(folder: Path) -> bool:
    """Whether minidit wrote the folder's config.toml, and so recorded its version there."""
    try:
        tables = read_toml(folder / "config.toml", CheckpointError)
    except CheckpointError:
        return False
    environment = tables.get("environment")
    return isinstance(environment, dict) and "minidit" in environment


def is_still(folder: Path, config: bytes) -> bool:
    """Whether config.toml has these bytes."""
    try:
        return (folder / "config.toml").read_bytes() == config
    except FileNotFoundError:
        return False


def files_of(folder: Path) -> list[Path]:
    """The files of a run that exist, config.toml last."""
    listed = [folder / name for name in FILES] + [p for pattern in PATTERNS for p in folder.glob(pattern)]
    return sorted((p for p in listed if p.is_file()), key=lambda p: p.name == "config.toml")


def has_checkpoint(folder: Path) -> bool:
    """Whether updates of a run would be lost with it: states, or weights other than a tokenizer's, which may be a copy."""
    trained = set(WEIGHTS) - {"tokenizer.safetensors", f"{former.FILES['tokenizer']}.safetensors"}
    return any((folder / name).exists() for name in trained) or any((folder / STATES).glob("*.safetensors"))


def set_aside(folder: Path) -> None:
    """Moves a run's files into REPLACED; if another run is already there, a run without a checkpoint is deleted instead."""
    aside = folder / REPLACED
    if has_checkpoint(folder):
        delete_replaced(folder)
    if (aside / "config.toml").exists():
        for path in files_of(folder):
            path.unlink()
    else:
        move(folder, aside)


def move(here: Path, there: Path) -> None:
    """Moves a run's files, config.toml last."""
    for path in files_of(here):
        target = there / path.relative_to(here)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def delete_replaced(folder: Path) -> None:
    """Deletes the overwritten run: its files, and the folders that are then empty."""
    aside = folder / REPLACED
    for path in files_of(aside):
        path.unlink()
    remove_empty(aside)


def undo(folder: Path) -> None:
    """Deletes a run that came to nothing; one that it was to replace comes back."""
    for path in files_of(folder):
        path.unlink()
    bring_back(folder)


def bring_back(folder: Path) -> None:
    """Moves an overwritten run, or the part of it that was moved, to its place again."""
    move(folder / REPLACED, folder)
    remove_empty(folder / REPLACED)


def recover(folder: Path) -> None:
    """Brings an overwritten run back if a process was killed while it moved it, so that no other run has begun in its place."""
    if (folder / REPLACED).is_dir() and not all((p / "config.toml").exists() for p in (folder, folder / REPLACED)):
        bring_back(folder)


def remove_empty(folder: Path) -> None:
    """Removes a run's folders that hold nothing."""
    for place in (*(folder / name for name in PLACES), folder):
        with contextlib.suppress(OSError):  # it holds other files, or does not exist
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


def keep_skipped(folder: Path, skipped: Skipped) -> None:
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


def record_change(folder: Path, config: RunConfig, changes: dict[str, str]) -> None:
    """Writes config.toml anew with other numbers of updates, and what they were: the rates of the updates made depend on it."""
    tables = read_toml(folder / "config.toml", CheckpointError)
    before = tables.get("history", {})
    history = before | {phase: [*before.get(phase, []), text] for phase, text in changes.items()}
    write_config(folder, config, {"environment": tables.get("environment", {}), "history": history})


def set_evaluation_aside(folder: Path) -> None:
    """An eval.json gets the number of updates of the weights that it measured into its name: eval-00001500.json."""
    if (folder / "eval.json").exists() and (folder / "model.safetensors").exists():
        run = open_safetensors(folder / "model.safetensors", verify=False)[1].get("run", {})
        (folder / "eval.json").replace(folder / f"eval-{run.get('train', {}).get('steps', 0):08d}.json")


def append(folder: Path, line: dict[str, Any]) -> None:
    """Writes one line of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    with writing(path), open(path, "a") as f:
        f.write(json.dumps(line) + "\n")


def forget(folder: Path, phase: str, after: int) -> None:
    """Drops lines of metrics.jsonl that will be written again: updates of the phase > `after`, and lines cut short by a kill."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    regular_file(path, CheckpointError)
    lines = [line for line in path.read_bytes().split(b"\n") if _remains(line, phase, after)]
    write_atomically(path, b"".join(line + b"\n" for line in lines))


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, one per update, phases by their current names; what a kill cut short is passed over."""
    path, lines = folder / "metrics.jsonl", []
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            entry = json.loads(line)
            lines.append({**entry, "phase": former.phase(entry["phase"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return former.joined(lines)


def seconds_of(folder: Path, phase: str) -> float:
    """The seconds that a phase has been trained, at its last recorded update."""
    times = [line["wall_s"] for line in metrics_of(folder) if line["phase"] == phase and is_a(line.get("wall_s"), float)]
    return max(times, default=0.0)


def _remains(line: bytes, phase: str, after: int) -> bool:
    try:
        entry = json.loads(line)
        return former.phase(entry["phase"]) != phase or entry["step"] <= after
    except (ValueError, KeyError, TypeError, RecursionError):  # cut short, or not a line of ours
        return False
