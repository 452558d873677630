"""Which networks can be saved, in whose grammars, and their configurations from dictionaries."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

from minidit.checkpoint.files import CheckpointError
from minidit.models.kinds import NETWORKS


class Fields(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


C = TypeVar("C", bound=Fields)
FORMAT = 1  # of our own files; written into their headers
SPOKEN = {  # a grammar (whose names and layout a file has) -> the networks it exists for
    "minidit": tuple(NETWORKS),
    "official": ("dit",),  # facebookresearch/DiT: its names are ours
    "diffusers": ("dit", "autoencoder_kl"),  # a folder with config.json
    "diffusers-old": ("dit", "autoencoder_kl"),  # diffusers before 2023
    "ldm": ("autoencoder_kl",),  # latent-diffusion, whole Stable Diffusion checkpoints included
}


def kind_of(model: object) -> str:
    """The name of a network's kind. Raises ValueError for an object that is no network of this package."""
    for name, kind in NETWORKS.items():
        if type(model) is kind.network:
            return name
    raise ValueError(f"a {type(model).__name__} has no row in models/kinds.py: np.savez(path, **model.state_dict()) saves it")


def config_from(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """A config dataclass from a dictionary; an unknown key is an error with a suggestion."""
    known = [f.name for f in fields(cls)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise CheckpointError(f"{where}: unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    try:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from error
