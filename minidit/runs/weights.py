"""The network of a phase: as training left it, or as it was when a state was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minidit.backend import to_device
from minidit.checkpoint import CheckpointError, load_model
from minidit.checkpoint.files import open_safetensors
from minidit.incoming import reading
from minidit.models.kinds import Network
from minidit.runs import former
from minidit.runs.config import run_config_from
from minidit.runs.kinds import network_of
from minidit.runs.state import NUMBER, State, best_of, latest, paths_of, recorded_in


def weights_of(
    place: str | Path, phase: str, device: str = "cpu", *, state: str = "", dtype: Any = None
) -> tuple[Network, dict[str, Any]]:
    """(network, header) of a phase, from a file of weights or from a run's folder.

    state : "" the trained network or, if the phase has not ended, the average of its latest state; "latest", "best" (the lowest
    held-out loss), or the number of updates of a state.
    Raises CheckpointError, with what there is, if the folder does not hold it.
    """
    place = Path(place)
    file = former.file_of(place, phase)
    if not place.is_dir() or (not state and file.exists()):
        return load_model(file, device=device, **({} if dtype is None else {"dtype": dtype}))
    chosen = chosen_state(place, phase, state or "latest")
    if chosen is None:
        raise CheckpointError(f"{place}: holds no {file.name} and no state of the {phase}: not the folder of a trained run")
    return averaged(chosen, phase, device), chosen.meta


def chosen_state(folder: Path, phase: str, name: str) -> State | None:
    """A state by its name: "latest", "best", or a number of updates; None if there are no states."""
    if name == "latest" or not paths_of(folder, phase):
        return latest(folder, phase)[0]
    numbers = {str(int(m[2])): p for p in paths_of(folder, phase) if (m := NUMBER.fullmatch(p.name))}
    path = best_of(folder, phase) if name == "best" else numbers.get(name)
    if path is None:
        there = ", ".join(["latest", *(["best"] if best_of(folder, phase) else []), *numbers])
        raise CheckpointError(f"{folder}: the {phase} has no state {name!r}; there are {there}")
    return State(path, *open_safetensors(path))


def averaged(state: State, phase: str, device: str) -> Network:
    """The network of a state, with its averaged weights."""
    with reading(state.path, CheckpointError, ""):
        config = run_config_from(recorded_in(state), str(state.path))
        network: Network = network_of({"model": config.model, "tokenizer": config.tokenizer}[phase], device=device)
        average = state.arrays["ema"].read()
        if average.shape != network.flat.shape:
            raise ValueError(f"its average has {average.shape[0]} numbers, the network {network.layout.size}")
        network.flat[...] = to_device(average, device)
    return network
