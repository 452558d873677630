"""Configurations from dictionaries, and which networks there are."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from minidit.checkpoint.files import CheckpointError
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT, DiTConfig

FORMAT = 1
MODELS: dict[str, tuple[Any, Any]] = {
    "dit": (DiT, DiTConfig),
    "autoencoder": (Autoencoder, AutoencoderConfig),
    "autoencoder_kl": (AutoencoderKL, AutoencoderKLConfig),
    "classifier": (Classifier, ClassifierConfig),
}
SPOKEN = {  # whose names and layout a file may have, and for which networks
    "minidit": tuple(MODELS),
    "official": ("dit",),  # facebookresearch/DiT: its names are ours
    "diffusers": ("dit", "autoencoder_kl"),  # a folder with config.json
    "diffusers-old": ("dit", "autoencoder_kl"),  # as it was before 2023
    "ldm": ("autoencoder_kl",),  # latent-diffusion, and whole Stable Diffusion checkpoints
}


def kind_of(model: Any) -> str:
    """The name of a network's kind. Raises ValueError for something else."""
    for name, (cls, _) in MODELS.items():
        if isinstance(model, cls):
            return name
    raise ValueError(f"a {type(model).__name__} is no network that can be saved")


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
