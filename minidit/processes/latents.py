"""The latents of a data set: what an autoencoder makes of every picture.

    mean, std = encode(x)                                    of every picture, and of its mirror image where both are used
    scale = 1 / std of posterior samples, over all latents                                                  (L.3)

Clips are encoded frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidit import ops
from minidit.autograd import value
from minidit.backend import Array, device_of, to_device, to_host
from minidit.data.cache import Cache
from minidit.frames import clips_of, frames_of
from minidit.models.autoencoder import Autoencoder
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.processes.sets import blocks, encoded
from minidit.random import Philox
from minidit.training.forward import forward
from minidit.training.source import Latents, Pictures, Stored, source_of

Network = Autoencoder | AutoencoderKL
SCALE_STREAM = 0x7363


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
        """One more block of numbers, of any shape, on the host or a device."""
        z = z.astype(np.float64)
        mean = float(z.mean())
        total, gap = self.count + z.size, mean - self.mean
        self.square += float(((z - mean) ** 2).sum()) + gap**2 * self.count * z.size / total
        self.mean += gap * z.size / total
        self.count = total

    def scale(self) -> float:
        """1 / standard deviation of all numbers so far, in float64."""
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


# ------------------------------------------------------------------------------------------------ a whole set


def latents_of(
    model: Network, data: Any, seed: int = 0, scale: float | None = None, *, flip: bool = False, cache: Cache | None = None
) -> Latents:
    """The latents of a data set, ready to train on; unless a scale is given, it is measured on them and set in the model.

    flip : also those of the mirrored pictures; every sample then uses one of the two    cache : for pictures on disk
    """
    source = source_of(data, "cpu", model.dtype)
    assert isinstance(source, (Pictures, Stored))
    (C, *size), spread = source.part(slice(1)).shape[1:], Spread()

    def encode(block: slice, alone: bool) -> list[Array]:
        def pictures(part: slice) -> Array:
            return source.part(slice(block.start + part.start, block.start + part.stop))

        def mirrored(part: slice) -> Array:
            return np.ascontiguousarray(to_host(pictures(part))[..., ::-1])

        n = block.stop - block.start
        mean, std = _posterior(model, n, tuple(size), pictures, alone=alone)
        spread.add(posterior_sample(mean, std, block.start, seed))
        return [mean, std, *(_posterior(model, n, tuple(size), mirrored, alone=alone) if flip else ())]

    one = latent_shape(model, *size), model.dtype
    rows = dict.fromkeys(["mean", "std", "mirrored_mean", "mirrored_std"][: 4 if flip else 2], one)
    arrays, facts = encoded(data, len(source), rows, encode, what="latents", made_of=([C, *size], seed, flip), network=model,
                            cache=cache, facts=lambda: {"scale": spread.scale()})  # fmt: skip
    if scale is None:
        model.scale[...] = scale = float(facts["scale"])
    labels = None if source.labels is None else to_device(source.labels, model.device)
    mean, std, *more = arrays
    return Latents(mean, std, scale, labels, mirrored=(more[0], more[1]) if more else None)
