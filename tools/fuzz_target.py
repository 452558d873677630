"""What a reader is to the fuzzer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.fuzz_mutations import Mutation


@dataclass
class Target:
    """A reader. prepare(folder) puts beside the input what it needs, and says where the input goes.

    names: what an error must name, "" for the input itself; in_memory: read takes the bytes, a part of a reader without its file.
    """

    name: str
    seeds: list[bytes]
    read: Callable[[Any], object]  # takes the path of the input, or its bytes
    mutations: tuple[Mutation, ...]
    prepare: Callable[[Path], Path]
    names: str = ""
    seeds_may_fail: bool = False
    in_memory: bool = False


def file_named(name: str) -> Callable[[Path], Path]:
    return lambda folder: folder / name
