"""What can be known before the first second of work: whether a run's files can be written, and whether there is room."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from minidit.runs.kinds import PixelsConfig, network_of
from minidit.runs.presets import RunConfig
from minidit.runs.state import start_from
from minidit.runs.weights import weights_of
from minidit.training.loop import RunError
from minidit.training.memory import gb

BESIDE = 20e6  # bytes of pictures, metrics and reports


def check_start(folder: Path, config: RunConfig) -> None:
    """Raises NotADirectoryError or RunError unless a run of this configuration can begin in a folder (or where none is yet)."""
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{folder}: {place} is a file, not a folder: choose another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: no permission to write in {place}: choose another --out")
    need, free = bytes_of(config), shutil.disk_usage(place).free
    if need > free:
        raise RunError(f"{folder}: the run needs about {gb(need)}, {gb(free)} are free there: make room, or choose another --out")
    if config.process.teacher():
        weights_of(config.process.teacher(), "model")
    if config.data.init:
        start_from(network_of(config.model), weights_of(config.data.init, "model")[0], config.data.init)


def bytes_of(config: RunConfig) -> float:
    """The most that a run has on its disk: of every phase its states, one more while it is written, and its weights."""
    networks = [config.model] if isinstance(config.tokenizer, PixelsConfig) else [config.model, config.tokenizer]
    numbers = sum(int(network_of(c).layout.size) for c in networks)
    return numbers * (16.0 * (config.sample.keep + 2) + 8) + BESIDE
