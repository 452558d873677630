"""The latents of a data set: what an autoencoder makes of every picture, in memory or, for a set on disk, in the cache.

    mean, std = encode(x)                                    of every picture, and of its mirror image where both are used
    scale = 1 / std of posterior samples, over all latents                                                  (L.3)

Pictures are encoded in the same blocks in both cases, so the numbers are the same to the last bit; clips, frame by frame.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from minidit import ops
from minidit.autograd import value
from minidit.backend import Array, device_of, flat_buffer, to_device, to_host
from minidit.data.cache import Cache, Facts, Writer, key_of
from minidit.frames import clips_of, frames_of
from minidit.models.autoencoder import Autoencoder
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.nn.device import name_of_blas
from minidit.outgoing import silent
from minidit.random import Philox
from minidit.training.forward import CHUNK, forward
from minidit.training.source import Latents, Pictures, Stored, source_of
from minidit.version import __version__

Network = Autoencoder | AutoencoderKL
SCALE_STREAM = 0x7363
BLOCK = 16 * CHUNK  # pictures whose latents are computed, measured and written together


def latent_shape(model: Network, *size: int) -> tuple[int, ...]:
    """The shape of the latents of a picture, size = (H, W), or of a clip, (T, H, W)."""
    *T, H, W = size
    c, h, w = model.latent_shape(H, W)
    return (c, *T, h, w)


def posterior_of(model: Network, x: Array) -> tuple[Array, Array]:
    """x : (N, C, H, W), or (N, C, T, H, W), host or device  ->  (mean, std), like x each, on the model's device."""
    return _posterior(model, len(x), x.shape[2:], lambda part: x[part])


def _posterior(
    model: Network, n: int, size: tuple[int, ...], pictures: Callable[[slice], Array], *, alone: bool = False
) -> tuple[Array, Array]:
    def run(part: slice) -> tuple[Array, Array]:
        x = to_device(pictures(part), model.device)
        mean, logvar = model.encode(frames_of(x))
        return clips_of(value(mean), x.shape), clips_of(ops.exp(value(logvar) * 0.5), x.shape)

    mean, std = forward(model, n, 2 * [latent_shape(model, *size)], run, alone=alone)
    return mean, std


class Spread:
    """The standard deviation of numbers that come block by block, and the scale that makes it 1."""

    def __init__(self) -> None:
        self.count, self.mean, self.square = 0, 0.0, 0.0

    def add(self, z: Array) -> None:
        z = z.astype(np.float64)
        mean = float(z.mean())
        total, gap = self.count + z.size, mean - self.mean
        self.square += float(((z - mean) ** 2).sum()) + gap**2 * self.count * z.size / total
        self.mean += gap * z.size / total
        self.count = total

    def scale(self) -> float:
        return 1.0 / math.sqrt(self.square / self.count)  # (L.3)


def posterior_sample(mean: Array, std: Array, first: int, seed: int) -> Array:
    """One sample of every posterior; first: the number of the first picture in its set."""
    samples = np.arange(first, first + len(mean))
    return mean + std * Philox(seed, SCALE_STREAM).normal(mean.shape, samples, device_of(mean), mean.dtype)


def measure_scale(mean: Array, std: Array, seed: int = 0) -> float:
    """1 / std of posterior samples, over all latents: one number, so that no channel is treated differently."""
    spread = Spread()
    for part in blocks(len(mean)):
        spread.add(posterior_sample(mean[part], std[part], part.start, seed))
    return spread.scale()


def blocks(n: int) -> Iterator[slice]:
    """range(n) in pieces of BLOCK."""
    return (slice(k, min(k + BLOCK, n)) for k in range(0, n, BLOCK))


# ------------------------------------------------------------------------------------------------ a whole set


def latents_of(
    model: Network, data: Any, seed: int = 0, scale: float | None = None, *, flip: bool = False, cache: Cache | None = None
) -> Latents:
    """The latents of a data set, ready to train on; unless a scale is given, it is measured on them and set in the model.

    flip : also those of the mirrored pictures; every sample then uses one of the two    cache : for pictures on disk
    """
    source = source_of(data, "cpu", model.dtype)
    assert isinstance(source, (Pictures, Stored))
    key = getattr(data, "key", "")
    if cache is not None and key and data.images.nbytes > cache.least:
        arrays, measured = _on_disk(model, source, seed, flip, cache, key)
    else:
        arrays, measured = _in_memory(model, source, seed, flip, silent if cache is None else cache.progress)
    if scale is None:
        model.scale[...] = scale = measured
    labels = None if source.labels is None else to_device(source.labels, model.device)
    mean, std, *mirrored = arrays
    return Latents(mean, std, scale, labels, mirrored=(mirrored[0], mirrored[1]) if mirrored else None)


def _encoded(model: Network, source: Pictures | Stored, flip: bool, *, alone: bool = False) -> Iterator[tuple[int, list[Array]]]:
    """(number of the first picture, [mean, std] and perhaps those of the mirrored pictures) for every block."""
    size = source.part(slice(1)).shape[2:]
    for block in blocks(len(source)):

        def pictures(part: slice, start: int = block.start) -> Array:
            return source.part(slice(start + part.start, start + part.stop))

        n = block.stop - block.start
        arrays = [*_posterior(model, n, size, pictures, alone=alone)]
        if flip:
            arrays += _posterior(
                model, n, size, lambda part: np.ascontiguousarray(to_host(pictures(part))[..., ::-1]), alone=alone
            )
        yield block.start, arrays


def _in_memory(
    model: Network, source: Pictures | Stored, seed: int, flip: bool, progress: Callable[[str, int, int], None]
) -> tuple[list[Array], float]:
    n, spread, results = len(source), Spread(), list[Array]()
    for first, arrays in _encoded(model, source, flip):
        if not results:
            sizes = [(n, *a.shape[1:]) for a in arrays]
            results = [flat_buffer(math.prod(size), model.dtype, model.device).reshape(size) for size in sizes]
        for result, a in zip(results, arrays, strict=True):
            result[first : first + len(a)] = a
        spread.add(posterior_sample(arrays[0], arrays[1], first, seed))
        progress("latents", first + len(arrays[0]), n)
    return results, spread.scale()


def _on_disk(
    model: Network, source: Pictures | Stored, seed: int, flip: bool, cache: Cache, data_key: str
) -> tuple[list[Array], float]:
    names = ["mean", "std", "mirrored_mean", "mirrored_std"][: 4 if flip else 2]
    n, (C, *shape) = len(source), source.part(slice(1)).shape[1:]
    size = len(names) * n * math.prod(latent_shape(model, *shape)) * model.dtype.itemsize

    def fill(writer: Writer) -> Facts:
        spread = Spread()
        for first, arrays in _encoded(model, source, flip, alone=True):  # the other ranks wait for the entry, or have it
            for name, a in zip(names, arrays, strict=True):
                writer.append(name, to_host(a))
            spread.add(posterior_sample(arrays[0], arrays[1], first, seed))
            cache.progress("latents", first + len(arrays[0]), n)
        return {"scale": spread.scale()}

    key = key_of("latents", data_key, [C, *shape], seed, flip, digest_of(model), environment(model.device))
    entry = cache.entry(key, f"latents of {n} pictures", size, fill)
    return [entry.arrays[name] for name in names], float(entry.facts["scale"])


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
