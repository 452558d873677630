"""Which model a file holds: the network's kind and configuration travel in the file's metadata."""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint.files import CheckpointError, read_arrays, write_arrays
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT, DiTConfig

FORMAT = 1
MODELS: dict[str, tuple[Any, Any]] = {
    "dit": (DiT, DiTConfig),
    "autoencoder": (Autoencoder, AutoencoderConfig),
    "classifier": (Classifier, ClassifierConfig),
}


def config_from(cls: Any, values: dict[str, Any], where: str) -> Any:
    """A config dataclass from a dictionary; an unknown key is an error with a suggestion."""
    known = {f.name: f for f in fields(cls)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise CheckpointError(f"{where}: unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    try:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from error


def save_model(path: str | Path, model: DiT | Autoencoder | Classifier, *, dtype: Any = None, **meta: Any) -> None:
    """Writes a DiT, Autoencoder or Classifier with its configuration; meta: more JSON values for the file's header."""
    kind = next(name for name, (cls, _) in MODELS.items() if isinstance(model, cls))
    header = {"format": FORMAT, "kind": kind, "config": asdict(model.config), **meta}
    write_arrays(path, model.state_dict(), header, dtype=dtype)


def save(path: str | Path, model: DiT | Autoencoder | Classifier, *, grammar: str = "minidit") -> None:
    """Writes a model to a file. grammar: whose names and layout; "minidit" is ours, which for a DiT is the official one's."""
    if grammar != "minidit":
        raise ValueError(f"grammar {grammar!r} is not known: use 'minidit'")
    save_model(path, model)


def load_model(path: str | Path, *, device: str = "cpu", dtype: Any = np.float32) -> tuple[Any, dict[str, Any]]:
    """(model, metadata) from a file of `save_model`. Raises CheckpointError if it holds something else."""
    arrays, meta = read_arrays(path)
    if str(meta.get("kind")) not in MODELS:
        raise CheckpointError(f"{path}: not a minidit model (its header names no kind)")
    if meta.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {meta.get('format')}, this version reads {FORMAT}")
    cls, config_cls = MODELS[meta["kind"]]
    if not isinstance(meta.get("config"), dict):
        raise CheckpointError(f"{path}: its header holds no configuration")
    config = config_from(config_cls, meta["config"], str(path))
    try:
        model = cls(config, None, device=device, dtype=dtype)
        model.load_state_dict(arrays)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model, meta
