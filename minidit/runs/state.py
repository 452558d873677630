"""The start of a phase: another network's weights, or its own saved state.

    theta, m, v, ema        raw weights, moments and average: with the number of updates, all that a phase needs to resume
                            bit for bit; the file is written atomically
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import to_device, to_host
from minidit.checkpoint import CheckpointError, write_arrays
from minidit.checkpoint.files import Lazy, open_safetensors
from minidit.nn.module import Module
from minidit.runs import former
from minidit.runs.config import Tables, tables_of
from minidit.runs.presets import RunConfig
from minidit.training.loop import Loop, RunError

DEPENDS = {  # phase -> the sections that may not change while it has a state
    "tokenizer": ("tokenizer", "tokenizer_train"),
    "model": ("model", "process", "train"),
    "judge": ("judge_train",),
}
PIECES = ("shards", "accumulate", "checkpoint_blocks", "graph")  # how an update is computed: affects rounding only


def comparable(config: RunConfig, phase: str) -> Tables:
    """The settings that may not change while a phase has a state."""
    tables = tables_of(config)
    return {name: {k: v for k, v in tables[name].items() if k not in PIECES} for name in DEPENDS[phase]}


def save_state(folder: Path, phase: str, loop: Loop, config: RunConfig) -> None:
    """Writes the state of a phase into the run's folder. Raises RunError if weights are not finite; the last state stays."""
    path = folder / f"{phase}.state.safetensors"
    for name, flat in (("weights", loop.model.flat), ("averaged weights", loop.optimiser.average)):
        if not np.isfinite(to_host(flat).sum(dtype=np.float64)):
            rest = f"{path} holds an earlier update" if path.exists() else "no state was saved before"
            advice = "try a smaller --lr, or --clip 1"
            raise RunError(f"the {name} of the {phase} are not finite after update {loop.done}: {advice}; {rest}")
    arrays = {"theta": loop.model.flat, **loop.optimiser.state_dict()}
    meta = {"phase": phase, "step": loop.done, "config": comparable(config, phase)}
    write_arrays(path, arrays, meta)


@dataclass(frozen=True)
class State:
    """The contents of a file; the arrays are not read yet."""

    path: Path
    arrays: dict[str, Lazy]
    meta: dict[str, Any]


def state_of(folder: Path, phase: str, config: RunConfig) -> State | None:
    """The state of a phase, if there is one. Raises CheckpointError if it belongs to another configuration."""
    path = former.state_of(folder, phase)
    if not path.exists():
        return None
    state = State(path, *open_safetensors(path))
    refuse_another(path, state.meta.get("config"), comparable(config, phase))
    return state


def load_state(state: State, loop: Loop) -> None:
    """Restores a loop to a saved state. Raises CheckpointError if it belongs to another network."""
    try:
        arrays = {name: a.read() for name, a in state.arrays.items()}
        loop.optimiser.load_state_dict(arrays)
        loop.model.flat[...] = to_device(arrays["theta"], loop.device)
        loop.done = int(state.meta["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{state.path}: {error}") from error


def refuse_another(path: Path, recorded: object, tables: Tables) -> None:
    """Raises CheckpointError, with what differs, unless the recorded configuration is the one in `tables`."""
    if not isinstance(recorded, dict):
        raise CheckpointError(f"{path}: its header is damaged: it holds no configuration")
    old, new = former.state_sections(recorded), json.loads(json.dumps(tables))
    if not all(isinstance(old.get(name, {}), dict) for name in new):
        raise CheckpointError(f"{path}: its header is damaged: its configuration has no sections")
    changes = [
        f"{key} is {value}, was {old.get(name, {}).get(key)}"
        for name in new
        for key, value in new[name].items()
        if value != old.get(name, {}).get(key)
    ]
    if changes:
        raise CheckpointError(f"{path}: was trained with another configuration: {', '.join(changes)}")


def start_from(model: Module, other: Module, name: str) -> None:
    """Copies weights for fine-tuning. The label table is copied if its shape is the same, else it keeps its initial values."""
    theirs = dict(other.named_parameters())
    for key, p in model.named_parameters():
        q = theirs.get(key)
        if q is not None and q.data.shape == p.data.shape:
            p.data[...] = q.data
        elif not key.startswith("y_embedder"):
            shape = "missing" if q is None else q.data.shape
            raise CheckpointError(f"{name}: cannot start from it, {key} is {shape}, not {p.data.shape}")
