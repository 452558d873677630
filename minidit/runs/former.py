"""Names of earlier versions translated to current ones: sections of config.toml, headers of weights, states, files and phases.

    [dit]  [autoencoder]  [autoencode]  [classify]            ->  [model]  [tokenizer]  [tokenizer_train]  [judge_train]
    train.prediction, .schedule, .T, .loss_weight, .vb_weight ->  [process]
    data.pixels, data.autoencoder                             ->  tokenizer.kind, data.tokenizer
    sample.sampler, sample.eta                                ->  nothing: no run ever used them
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SECTIONS = {"dit": "model", "autoencoder": "tokenizer", "autoencode": "tokenizer_train", "classify": "judge_train"}
PROCESS = ("prediction", "schedule", "T", "loss_weight", "vb_weight")  # formerly keys of [train]
UNUSED = ("sampler", "eta")  # formerly keys of [sample]
FILES = {"model": "dit", "tokenizer": "autoencoder", "judge": "classifier"}  # phase -> its file, and its name in metrics.jsonl
OLD_FILES = (
    "dit.safetensors", "autoencoder.safetensors", "classifier.safetensors", "state.safetensors",
    "model.state.safetensors", "tokenizer.state.safetensors", "judge.state.safetensors",
)  # fmt: skip


def sections(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a config.toml of any version under their current names; current and unknown ones are unchanged."""
    current = {name: dict(table) if isinstance(table, dict) else table for name, table in tables.items() if name not in SECTIONS}
    for old, new in SECTIONS.items():
        if isinstance(tables.get(old), dict):
            current[new] = {**tables[old], **current.get(new, {})}
    data, train = ({} if not isinstance(current.get(name), dict) else current[name] for name in ("data", "train"))
    if isinstance(pixels := data.get("pixels"), bool):
        del data["pixels"]
        current["tokenizer"] = {"kind": "pixels"} if pixels else {"kind": "autoencoder", **current.get("tokenizer", {})}
    if "autoencoder" in data:
        data["tokenizer"] = data.pop("autoencoder")
    if isinstance(current.get("sample"), dict):
        current["sample"] = {key: v for key, v in current["sample"].items() if key not in UNUSED}
    process = {key: train.pop(key) for key in PROCESS if key in train}
    return current | ({"process": {**process, **current.get("process", {})}} if process else {})


def header(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The sections in the header of a model's file."""
    if isinstance(meta.get("run"), dict):
        return dict(meta["run"])
    tables = {name: meta[name] for name in ("train", "sample") if isinstance(meta.get(name), dict)}
    about = meta.get("data")
    pixels = isinstance(about, dict) and about.get("pixels", False)
    return sections({**tables, "data": {"pixels": pixels}})


def state_sections(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration recorded with a state. In earlier versions all networks were of one kind."""
    current = sections(recorded)
    if "dit" in recorded and isinstance(current.get("model"), dict):
        current["model"] = {"kind": "dit", **current["model"]}
        current["process"] = {"kind": "ddpm", **current.get("process", {})}
    return current


def phase(name: str) -> str:
    """The current name of a phase, from its name in metrics.jsonl."""
    return next((now for now, then in FILES.items() if then == name), name)


def joined(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, one per update. In earlier versions what was measured after an update had a line of its own."""
    updates: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        updates.setdefault((line["phase"], repr(line.get("step"))), {}).update(line)
    return list(updates.values())


def file_of(place: Path, phase: str) -> Path:
    """The path of a phase's weights, existing or not: in a run folder, under the current or the former name; a file is itself."""
    if not place.is_dir():
        return place
    current, former = place / f"{phase}.safetensors", place / f"{FILES[phase]}.safetensors"
    return former if former.exists() and not current.exists() else current


def states_of(folder: Path, phase: str) -> list[Path]:
    """The states of a phase, the latest first, under the names of earlier versions: one per phase, or the model's only."""
    names = [f"{phase}.state.safetensors", *(["state.safetensors"] if phase == "model" else [])]
    return [folder / name for name in names if (folder / name).exists()]
