"""What a tokenizer makes of a whole data set: once, block by block, in memory or, for a set on disk, in the cache.

Pictures are encoded in the same blocks in both cases, so the numbers are the same to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from minidit.backend import Array, flat_buffer, to_device, to_host
from minidit.data.cache import Cache, Facts, Writer, key_of
from minidit.nn.device import name_of_blas
from minidit.training.forward import CHUNK
from minidit.version import __version__

BLOCK = 16 * CHUNK  # pictures that are encoded, measured and written together
Encode = Callable[[slice, bool], Sequence[Array]]  # (some pictures, whether this rank alone encodes them) -> their rows


def blocks(n: int) -> Iterator[slice]:
    """range(n) in pieces of BLOCK."""
    return (slice(k, min(k + BLOCK, n)) for k in range(0, n, BLOCK))


def encoded(
    data: Any, n: int, rows: Mapping[str, tuple[tuple[int, ...], Any]], encode: Encode, *, what: str, made_of: Sequence[object],
    network: Any, cache: Cache | None = None, facts: Callable[[], Facts] = dict,
) -> tuple[list[Array], Facts]:  # fmt: skip
    """(the arrays of n encoded pictures, facts about them): on the network's device, or memory maps of the cache's entry.

    rows : name -> (shape of one row, dtype) of every array that `encode` answers with   what : "latents", "codes"
    made_of : what the numbers depend on, besides the data, the network and the environment   facts : asked for at the end
    """
    key = getattr(data, "key", "")
    if cache is None or not key or data.images.nbytes <= cache.least:
        arrays = [flat_buffer(n * math.prod(one), kind, network.device).reshape(n, *one) for one, kind in rows.values()]
        for block in blocks(n):
            for whole, a in zip(arrays, encode(block, False), strict=True):
                whole[block] = to_device(a, network.device)
            if cache is not None:
                cache.progress(what, block.stop, n)
        return arrays, facts()

    def fill(writer: Writer) -> Facts:
        for block in blocks(n):
            for name, a in zip(rows, encode(block, True), strict=True):  # the other ranks wait for the entry, or have it
                writer.append(name, to_host(a))
            cache.progress(what, block.stop, n)
        return facts()

    size = sum(n * math.prod(one) * np.dtype(kind).itemsize for one, kind in rows.values())
    entry = cache.entry(key_of(what, key, *made_of, digest_of(network), environment(network.device)), f"{what} of {n} pictures",
                        size, fill)  # fmt: skip
    return [entry.arrays[name] for name in rows], entry.facts


def digest_of(model: Any) -> str:
    """SHA-256 of a network's configuration and weights, without the scale, which is measured on its latents."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, array in sorted(model.state_dict().items()):
        if name != "scale":
            weights = np.ascontiguousarray(to_host(array))
            digest.update(f"{name} {weights.dtype.str} {weights.shape}".encode() + weights.tobytes())
    return digest.hexdigest()


def environment(device: str) -> list[str]:
    """What the last bits of a computation may depend on."""
    return [__version__, np.__version__, device, name_of_blas(), os.environ.get("MINIDIT_KERNELS", "on")]
