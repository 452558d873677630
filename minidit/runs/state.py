"""The saved states of a phase: with the number of updates, all that it needs to resume bit for bit.

    states/model-00001500.safetensors    theta, m, v, ema: raw weights, moments and average

Kept are the last `keep` states and the one with the lowest held-out loss. No other file says which they are: the latest is the
one with the highest number that is whole, and the best is the one whose header has the lowest loss. So a kill at any moment,
also between two files, leaves both as they were.
"""

from __future__ import annotations

import errno
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidit.checkpoint import CheckpointError, write_arrays
from minidit.checkpoint.files import Lazy, open_safetensors
from minidit.nn.module import Module
from minidit.runs import former
from minidit.runs.config import Tables, tables_of, with_later_settings
from minidit.runs.presets import RunConfig, SampleConfig
from minidit.training.loop import Loop
from minidit.training.saved import finite_arrays, restore

STATES = "states"  # the folder of states in a run's folder
NUMBER = re.compile(r"(\w+)-(\d{8,})\.safetensors")
DEPENDS = {  # phase -> the sections that may not change while it has a state
    "tokenizer": ("tokenizer", "tokenizer_train"),
    "model": ("model", "process", "train"),
    "judge": ("judge_train",),
}
LENGTHS = {"tokenizer": "tokenizer_train", "model": "train", "judge": "judge_train"}  # phase -> the section with its `steps`
FREE = (  # how an update is computed, which affects rounding only, how many there are, and where pictures are cached
    "shards", "accumulate", "checkpoint_blocks", "graph", "detect_anomaly", "steps", "cache",
)  # fmt: skip


@dataclass(frozen=True)
class State:
    """A saved state; its arrays are not read yet."""

    path: Path
    arrays: dict[str, Lazy]
    meta: dict[str, Any]

    @property
    def done(self) -> int:
        """The number of updates. Raises CheckpointError if the header does not say."""
        done = self.meta.get("step")
        if not isinstance(done, int) or isinstance(done, bool) or done < 0:
            raise CheckpointError(f"{self.path}: its header is damaged: it holds no number of updates")
        return done


def save_state(
    folder: Path, phase: str, loop: Loop, header: dict[str, Any], sample: SampleConfig, held_out: float | None = None
) -> None:
    """Writes a state and deletes those that are not kept any more.   held_out : the loss by which states are compared

    On a full disk older states make room. Raises Diverged if numbers are not finite, OSError if the file cannot be written; the
    last state stays in both cases.
    """
    arrays = finite_arrays(loop, phase)
    meta = {"phase": phase, "step": loop.done, "held_out": held_out, **header}
    path = folder / STATES / f"{phase}-{loop.done:08d}.safetensors"
    try:
        write_arrays(path, arrays, meta)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        make_room(folder, phase, loop.done)
        write_arrays(path, arrays, meta)
    prune(folder, phase, sample, loop.done)


def paths_of(folder: Path, phase: str) -> list[Path]:
    """The files of all states of a phase, the latest first."""
    found = [(NUMBER.fullmatch(p.name), p) for p in (folder / STATES).glob(f"{phase}-*.safetensors")]
    numbered = sorted(((int(m[2]), p) for m, p in found if m and m[1] == phase), reverse=True)
    return [p for _, p in numbered] + former.states_of(folder, phase)


def prune(folder: Path, phase: str, sample: SampleConfig, done: int) -> None:
    """Deletes all states but the last `keep` and the best.

    A state that a stop left between two regular ones goes when the next is there; one of a later update than `done` is damaged.
    done : the number of updates of the latest state, which is whole
    """
    for path in paths_of(folder, phase):
        if updates_of(path) > done:
            delete(path)
    best, kept = best_of(folder, phase), 0
    for path in paths_of(folder, phase):
        regular = updates_of(path) in (0, done) or updates_of(path) % sample.save_every == 0
        if path != best and (not regular or kept >= sample.keep):
            delete(path)
        kept += regular


def updates_of(path: Path) -> int:
    """The number of updates in a state's name; 0 for the names of earlier versions."""
    number = NUMBER.fullmatch(path.name)
    return int(number[2]) if number else 0


def make_room(folder: Path, phase: str, done: int) -> None:
    """Deletes all states but the best and the latest whole one of fewer than `done` updates."""
    older = (path for path in paths_of(folder, phase) if updates_of(path) < done)
    keep = {best_of(folder, phase), next(filter(is_whole, older), None)}
    for path in paths_of(folder, phase):
        if path not in keep:
            delete(path)


def delete(path: Path) -> None:
    """Deletes a state; a folder that somebody put in its place stays."""
    if not path.is_dir():
        path.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a state can be read."""
    try:
        open_safetensors(path)
    except CheckpointError:
        return False
    return True


def best_of(folder: Path, phase: str) -> Path | None:
    """The file of the state with the lowest held-out loss, the latest of equals; None if it was never measured."""
    losses: dict[Path, float] = {}
    for path in paths_of(folder, phase):
        try:
            loss = open_safetensors(path, verify=False)[1].get("held_out")
        except CheckpointError:
            continue
        if isinstance(loss, float) and math.isfinite(loss):
            losses[path] = loss
    return min(losses, key=lambda path: losses[path]) if losses else None


def latest(folder: Path, phase: str) -> tuple[State | None, list[str]]:
    """(the latest state that is whole, or None if there are no states; what is wrong with later ones).

    Raises CheckpointError if there are states and none is whole.
    """
    faults: list[str] = []
    for path in paths_of(folder, phase):
        try:
            return State(path, *open_safetensors(path)), faults
        except CheckpointError as error:
            faults.append(str(error))
    if faults:
        raise CheckpointError(f"{faults[0]}; no other state is whole: delete {STATES}/{phase}-* to begin this phase anew")
    return None, faults


def way_on(folder: Path, phase: str) -> str:
    """What is safe after a failure, and the command that goes on."""
    states = paths_of(folder, phase) or [path for other in reversed(LENGTHS) for path in paths_of(folder, other)]
    state = next((path for path in states if path.is_file()), None)
    if state is None:
        return f"no state of the {phase} was saved before"
    command = "eval" if phase == "judge" else "train --resume"
    return f"{state} is safe, and minidit {command} {folder} goes on from it"


def restart(folder: Path, phase: str) -> str:
    """The command that begins again from the weights of the last state: with the same settings it would diverge again."""
    state = next((path for path in paths_of(folder, phase) if path.is_file()), None)
    if state is None:
        return ""
    begin = f"; minidit train --init {folder} --out NEW, with another rate, starts from them" if phase == "model" else ""
    return f"; the weights of {state} are safe{begin}"


def state_of(folder: Path, phase: str, config: RunConfig) -> tuple[State | None, list[str]]:
    """The same, compared with a configuration. Raises CheckpointError if the state belongs to another one."""
    state, faults = latest(folder, phase)
    if state is not None:
        refuse_another(state.path, recorded_in(state), tables_of(config), phase)
    return state, faults


def recorded_in(state: State) -> dict[str, Any]:
    """The sections that were recorded with a state. Raises CheckpointError for a damaged header."""
    recorded = state.meta.get("run", state.meta.get("config"))  # earlier versions kept the sections of the phase only
    if not isinstance(recorded, dict):
        raise CheckpointError(f"{state.path}: its header is damaged: it holds no configuration")
    return former.state_sections(recorded)


def load_state(state: State, loop: Loop) -> None:
    """Restores a loop to a saved state. Raises CheckpointError if it belongs to another network."""
    try:
        restore(loop, {name: a.read() for name, a in state.arrays.items()}, state.done)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{state.path}: {str(error).removeprefix(f'{state.path}: ')}") from error


def refuse_another(path: Path, old: dict[str, Any], tables: Tables, phase: str) -> None:
    """Raises CheckpointError, with what differs, unless a phase is the same under the recorded sections and under `tables`."""
    new = {name: tables[name] for name in DEPENDS[phase]}
    if not all(isinstance(old.get(name, {}), dict) for name in new):
        raise CheckpointError(f"{path}: its header is damaged: its configuration has no sections")
    if changes := differences({name: with_later_settings(name, old.get(name, {})) for name in new}, new):
        raise CheckpointError(f"{path}: was trained with another configuration: {', '.join(changes)}")


def refuse_other_run(folder: Path, old: RunConfig, new: RunConfig) -> None:
    """Raises ValueError, with what differs, unless two configurations describe the same run, of any length."""
    if changes := differences(tables_of(old), {name: t for name, t in tables_of(new).items() if name != "sample"}):
        raise ValueError(f"{folder} holds a run of another configuration: {', '.join(changes)}; choose another --out")


def differences(old: dict[str, Any], new: Tables) -> list[str]:
    """What stands otherwise in the sections `new`, except for what is FREE."""
    return [
        f"{key} is {value}, was {old.get(name, {}).get(key)}"
        for name, section in json.loads(json.dumps(new)).items()
        for key, value in section.items()
        if key not in FREE and value != json.loads(json.dumps(old.get(name, {}).get(key)))
    ]


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
