"""The weights at a path: a safetensors file, a zip of torch.save, several files with an index, or a folder with one of these.

The bytes decide what a file is, not its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minidit import incoming
from minidit.checkpoint.files import CheckpointError, Lazy, open_safetensors
from minidit.checkpoint.pickles import ZIP, open_torch_zip
from minidit.checkpoint.states import arrays_in
from minidit.incoming import reading, regular_file

STEM = "diffusion_pytorch_model"
WEIGHTS = (f"{STEM}.safetensors", f"{STEM}.safetensors.index.json", f"{STEM}.fp16.safetensors", f"{STEM}.bf16.safetensors",
           f"{STEM}.bin", f"{STEM}.bin.index.json")  # fmt: skip
STAND_INS = {b"version ht": "a pointer of Git LFS in place of the file: run `git lfs pull`",
             b"<!DOCTYPE ": "a web page in place of the file: download it again", b"<!doctype ": "a web page"}  # fmt: skip
CONFIG = "config.json"


PICTURES = {"PNG": b"\x89PNG", "GIF": b"GIF8", "JPEG": b"\xff\xd8\xff"}  # format -> its first bytes


@dataclass(frozen=True)
class Weights:
    """Arrays that are still in their files, and what came with them.

    container: the kind of file; aside: names of what else the file holds; settings: the config.json of a folder; size: bytes
    of all its files.
    """

    path: Path
    container: str
    arrays: dict[str, Lazy]
    meta: dict[str, Any]
    size: int
    aside: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None


def open_weights(path: str | Path) -> Weights:
    """The weights at a path, a file or a folder. Raises CheckpointError, naming the file, for anything else."""
    path = Path(path)
    if path.is_dir():
        file = next((path / name for name in WEIGHTS if (path / name).exists()), None)
        if file is None:
            files = ", ".join(sorted(p.name for p in path.glob("*.safetensors"))[:9])
            hint = f": name one of {files}" if files else ", and no other weights"
            raise CheckpointError(f"{path}: a folder that holds no {WEIGHTS[0]}{hint}")
        path = file
    weights, config = _opened(path), path.parent / CONFIG
    return replace(weights, settings=read_json(config)) if path.name in WEIGHTS and config.exists() else weights


def _opened(path: Path) -> Weights:
    if path.name.endswith(".index.json"):
        return _sharded(path)
    size = regular_file(path, CheckpointError)
    with reading(path, CheckpointError), open(path, "rb") as f:
        start = f.read(10)
    first = start[:9]
    if start in STAND_INS:
        raise CheckpointError(f"{path}: {STAND_INS[start]}")
    if picture := next((name for name, start in PICTURES.items() if first.startswith(start)), ""):
        how = f": minidit info {path} says how it was drawn" if picture == "PNG" else ""
        raise CheckpointError(f"{path}: this is a {picture}, not weights{how}")
    if first[:4] == ZIP:
        arrays, aside = arrays_in(open_torch_zip(path), path)
        return Weights(path, "torch zip", arrays, {}, size, tuple(aside))
    if first[:1] == b"\x80" and b"\x02" <= first[1:2] <= b"\x05" and first[8:] != b"{":  # safetensors begins its header there
        raise CheckpointError(f"{path}: refused, a bare pickle; save it with torch 1.6 or newer, or as safetensors")
    arrays, meta = open_safetensors(path)
    return Weights(path, "safetensors", arrays, meta, size)


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
    return Weights(path, f"{kind} in {len(shards)} shards", arrays, {}, sum(w.size for w in shards.values()))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError, naming the file."""
    value = incoming.read_json(path, CheckpointError, "not a readable JSON file: ")
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value
