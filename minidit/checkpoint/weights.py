"""The weights at a path: a safetensors file, a zip of torch.save, several files with an index, or a folder with one of these.

The bytes decide what a file is, not its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minidit.checkpoint.files import CheckpointError, Lazy, open_safetensors
from minidit.checkpoint.pickles import ZIP, arrays_in, open_torch_zip

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json",
           "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin",
           "diffusion_pytorch_model.bin.index.json")  # fmt: skip
CONFIG = "config.json"


@dataclass(frozen=True)
class Weights:
    """Arrays that are still in their files, and what came with them.

    container: the kind of file; aside: names of what else the file holds; settings: the config.json of a folder.
    """

    path: Path
    container: str
    arrays: dict[str, Lazy]
    meta: dict[str, Any]
    aside: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None


def open_weights(path: str | Path) -> Weights:
    """The weights at a path, a file or a folder. Raises CheckpointError, naming the file, for anything else."""
    path = Path(path)
    if path.is_dir():
        file = next((path / name for name in WEIGHTS if (path / name).exists()), None)
        if file is None:
            raise CheckpointError(f"{path}: holds no {WEIGHTS[0]}")
        path = file
    weights, config = _opened(path), path.parent / CONFIG
    return replace(weights, settings=read_json(config)) if path.name in WEIGHTS and config.exists() else weights


def _opened(path: Path) -> Weights:
    if path.name.endswith(".index.json"):
        return _sharded(path)
    try:
        with open(path, "rb") as f:
            first = f.read(9)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if first[:4] == ZIP:
        arrays, aside = arrays_in(open_torch_zip(path), path)
        return Weights(path, "torch zip", arrays, {}, tuple(aside))
    if first[:1] == b"\x80" and b"\x02" <= first[1:2] <= b"\x05" and first[8:] != b"{":  # safetensors begins its header there
        raise CheckpointError(f"{path}: refused, a bare pickle; save it with torch 1.6 or newer, or as safetensors")
    arrays, meta = open_safetensors(path)
    return Weights(path, "safetensors", arrays, meta)


def _sharded(path: Path) -> Weights:
    """Several files: the index says which array is where."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{path}: has no weight_map: not the index of a sharded checkpoint")
    shards: dict[str, Weights] = {}
    arrays: dict[str, Lazy] = {}
    for name, file in places.items():
        if not isinstance(file, str) or Path(file).name != file or file.endswith(".json"):
            raise CheckpointError(f"{path}: {file!r} is not the name of a file beside the index")
        if file not in shards:
            shards[file] = _opened(path.parent / file)
        if name not in shards[file].arrays:
            raise CheckpointError(f"{path.parent / file}: has no array {name}, which the index puts there")
        arrays[name] = shards[file].arrays[name]
    kind = next(iter(shards.values())).container
    return Weights(path, f"{kind} in {len(shards)} shards", arrays, {})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError, naming the file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value
