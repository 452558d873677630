"""The inner parts of readers, which take bytes or values: no file is written, so millions of inputs reach the deepest code."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from minidit.checkpoint import CheckpointError
from minidit.checkpoint.pickles import Reader, Storage
from minidit.checkpoint.settings import dit_from_settings, dit_settings, kl_from_settings, kl_settings, of_scheduler
from minidit.data.labels import parse_labels
from minidit.data.npz import _read_member
from minidit.incoming import reading
from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.models.dit import DiTConfig
from minidit.verify.core.values import unpacked
from tools.fuzz_mutations import bytes_damaged, json_damaged, npy_damaged
from tools.fuzz_target import Target, file_named

NAMES = ("T-shirt/top", "bag", "0", "shirt, long")
JSON = (json_damaged, json_damaged)


def parts(_: Path) -> Iterator[Target]:
    """Each with the bytes that its reader hands to it."""

    def target(name: str, seeds: list[bytes], read: Any, *damage: Any) -> Target:
        return Target(f"part-{name}", seeds, read, damage, file_named(name), names=" ", seeds_may_fail=True, in_memory=True)

    yield target("labels", [b"0-9", b"shirt,bag", b"3", b"bag,0-2"],
                 lambda data: parse_labels(data.decode(errors="surrogateescape"), NAMES), bytes_damaged)  # fmt: skip
    array = {"dtype": "float64", "shape": [2], "data": [0.5, "NaN"]}
    value = json.dumps([array, {"a": {**array, "file": "f", "name": "n"}}, "Infinity", 3, None]).encode()
    yield target("values", [value], lambda data: unpacked(json.loads(data), lambda file, name: np.zeros(2)), *JSON)
    dit = json.dumps(dit_settings(DiTConfig())).encode()
    yield target("dit-settings", [dit], lambda data: dit_from_settings(table(data), "the settings"), *JSON)
    kl = json.dumps(kl_settings(AutoencoderKLConfig(), 0.18)).encode()
    yield target("kl-settings", [kl], lambda data: kl_from_settings(table(data), "the settings"), *JSON)
    scheduler = {"_class_name": "DDIMScheduler", "clip_sample": False, "variance_type": "fixed_small", "thresholding": True}
    yield target("scheduler", [json.dumps(scheduler).encode()], lambda data: of_scheduler(table(data), "the settings"), *JSON)
    programs = [pickle.dumps({"a": [1, (2.5, "x"), None], "b": {"c": True}}, protocol) for protocol in (2, 4)]
    yield target("pickle", programs, guarded(lambda data: Reader(storage).read(data)), bytes_damaged)
    member = io.BytesIO()
    npy.write_array(member, np.zeros((2, 4, 4), np.uint8), allow_pickle=False)
    read = guarded(lambda data: _read_member(io.BytesIO(data), len(data), "the member"))
    yield target("npy", [member.getvalue()], read, npy_damaged, bytes_damaged)


def guarded(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Inside the guard under which the whole reader calls its part."""

    def inside(data: bytes) -> Any:
        with reading("the part", CheckpointError):
            return read(data)

    return inside


def table(data: bytes) -> Any:
    """A JSON object, as `read_json` returns it."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def storage(key: str, code: str, count: int) -> Storage:
    return Storage(Path("w.pt"), 0, count, code)
