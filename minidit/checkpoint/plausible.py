"""Whether a file can hold the network that its header claims, before memory is taken for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from minidit.checkpoint.files import Lazy
from minidit.models.dit import DiTConfig
from minidit.models.mmdit_config import MMDiTConfig
from minidit.nn import Module

MOST = 2**31  # of any number in a configuration
COMPUTED = 2**24  # numbers of a position table that the file does not hold: a DiT-XL/2 on latents of 240 × 240
BUFFERS = ("pos_embed", "scale")  # some files do not hold them: they are computed
SHARED = 2  # arrays may share their numbers: tied weights


def numbers_in(config: Any) -> Iterator[tuple[str, float]]:
    """Every number of a configuration with the name of its field."""
    for field in fields(config):
        value = getattr(config, field.name)
        for n in value if isinstance(value, (list, tuple)) else (value,):
            if type(n) in (int, float):
                yield field.name, n


def check_declared(network: type[Module], config: Any, arrays: Mapping[str, Lazy], size: int) -> None:
    """Raises ValueError where the arrays are not those that the configuration declares. Nothing of their size is allocated.

    network: built from a configuration and None; size: bytes of the files.
    """
    for name, n in numbers_in(config):
        most = len(arrays) if name in ("depth", "single_depth", "blocks") else MOST
        if not n <= most:
            raise ValueError(f"its configuration claims {name} = {n}, its {len(arrays)} arrays cannot hold that")
    if len(getattr(config, "widths", ())) > len(arrays):
        raise ValueError(f"its configuration claims {len(config.widths)} widths, it holds {len(arrays)} arrays")
    if isinstance(config, DiTConfig | MMDiTConfig):
        table, places = arrays.get("pos_embed"), config.tokens if isinstance(config, DiTConfig) else math.prod(config.side)
        held = COMPUTED if table is None else math.prod(table.shape)
        if places * config.hidden_size > held:
            raise ValueError(f"its configuration claims {places} places of width {config.hidden_size}, more than it holds")
    numbers = sum(math.prod(a.shape) for a in arrays.values())
    if numbers > SHARED * size + COMPUTED:
        raise ValueError(f"its arrays claim {numbers} numbers, the file has {size} bytes")
    skeleton = type(network.__name__, (network,), {"build": _declare})(config, None)
    skeleton.check_state({n: b for n, b in skeleton.named_buffers() if n in BUFFERS} | dict(arrays))


def _declare(network: Module, *_: Any, **__: Any) -> None:
    """In place of Module.build: every parameter has its shape and no memory."""
    for p in network.parameters():
        p.data = np.broadcast_to(np.float32(0), p.declared)
