"""Which networks can be saved, in whose grammars, and their configurations from dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from minidit.checkpoint.files import CheckpointError
from minidit.incoming import reading
from minidit.keywords import meant
from minidit.models.kinds import NETWORKS

C = TypeVar("C")  # a dataclass
FORMAT = 1  # of our own files; written into their headers
SPOKEN = {  # a grammar (whose names and layout a file has) -> the networks it exists for
    "minidit": tuple(NETWORKS),
    "official": ("dit", "mmdit", "flux"),  # facebookresearch/DiT and Stability-AI/sd3-ref, whose names are ours; FLUX.1
    "diffusers": ("dit", "unet", "autoencoder_kl", "mmdit", "flux"),  # a folder with config.json
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
    known = [f.name for f in fields(cast(Any, cls))]
    for key in values:
        if key not in known:
            raise CheckpointError(f"{where}: unknown key {key!r}{meant(key, known)}")
    for key, expected in get_type_hints(cls).items():
        if key in values and not is_a(values[key], expected):
            raise CheckpointError(f"{where}: {key} = {values[key]!r} must be {in_words(expected)}")
    with reading(where, CheckpointError, ""):
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def is_a(v: object, expected: Any) -> bool:
    """Whether a value of JSON or TOML has the type of a field: a whole number is a float too, true is no number."""
    parts = get_args(expected)
    if get_origin(expected) is tuple:
        parts = parts[:1] * len(v) if isinstance(v, list | tuple) and ... in parts else parts
        return isinstance(v, list | tuple) and len(v) == len(parts) and all(map(is_a, v, parts))
    if isinstance(expected, UnionType):
        return any(is_a(v, part) for part in parts)
    if not isinstance(expected, type):  # a type that no file can hold wrongly
        return True
    return isinstance(v, (int, float) if expected is float else expected) and (expected is bool or not isinstance(v, bool))


def in_words(expected: Any) -> str:
    """A type as a person calls it."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if get_origin(expected) is tuple:
        parts = get_args(expected)
        return "a list of numbers" if ... in parts else f"a list of {len(parts)} numbers"
    return names.get(expected) or " or ".join(in_words(part) for part in get_args(expected) if part is not type(None))
