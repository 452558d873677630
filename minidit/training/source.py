"""Where a training batch comes from: pixels as they are, or samples of an autoencoder's posterior.

    z_0 = scale · (μ + σ ε)        a fresh sample each time an image is used, as DiT trains        (L.5)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minidit.backend import Array, device_of, to_device
from minidit.random import Philox


class Source(Protocol):
    """n images with labels (or None), on one device; draw gives x_0 : (B, C, H, W), one of `levels` grey levels or any number."""

    labels: Array | None
    levels: int | None

    def __len__(self) -> int: ...

    def draw(self, index: Array, rng: Philox, samples: Array) -> Array: ...


@dataclass
class Pixels:
    """x_0 : (N, C, H, W) float in [-1, 1], on the grid of so many grey levels (None: any numbers of unit size)."""

    x_0: Array
    labels: Array | None = None
    levels: int | None = None

    def __len__(self) -> int:
        return len(self.x_0)

    def draw(self, index: Array, rng: Philox, samples: Array) -> Array:
        return self.x_0[index]


@dataclass
class Latents:
    """mean, std : (N, c, h, w), unscaled; scale : the autoencoder's measured factor."""

    mean: Array
    std: Array
    scale: float
    labels: Array | None = None
    levels: int | None = None  # latents have none

    def __len__(self) -> int:
        return len(self.mean)

    def draw(self, index: Array, rng: Philox, samples: Array) -> Array:
        mean, std = self.mean[index], self.std[index]
        return self.scale * (mean + std * rng.normal(mean.shape, samples, device_of(mean), mean.dtype))  # (L.5)


def source_of(data: Any, device: str = "cpu", dtype: Any = np.float32) -> Source:
    """A Source from a Source, a Dataset, an array x_0, or a pair (x_0, labels). Raises ValueError for anything else.

    x_0 : floats (N, C, H, W), cast to dtype;  labels : ints (N,)
    """
    if hasattr(data, "draw"):
        return data  # type: ignore[no-any-return]
    levels = None
    if hasattr(data, "x_0"):
        x_0, labels, levels = data.x_0(dtype=dtype), data.labels, data.levels
    elif isinstance(data, tuple) and len(data) == 2:
        x_0, labels = data
    elif hasattr(data, "shape"):
        x_0, labels = data, None
    else:
        raise ValueError(f"cannot train on {type(data).__name__}: give a Dataset, an array (N, C, H, W) or (images, labels)")
    if getattr(x_0, "ndim", 0) != 4 or x_0.dtype.kind != "f":
        found = f"{getattr(x_0, 'dtype', type(x_0).__name__)} {getattr(x_0, 'shape', '')}"
        raise ValueError(f"x_0 must be floats (N, C, H, W) of unit size, such as pictures in [-1, 1]; got {found}")
    if labels is not None and (getattr(labels, "shape", ()) != x_0.shape[:1] or labels.dtype.kind not in "iu"):
        found = f"{getattr(labels, 'dtype', type(labels).__name__)} {getattr(labels, 'shape', '')}"
        raise ValueError(f"labels must be ints, one a picture: ({len(x_0)},); got {found}")
    x_0 = to_device(x_0, device).astype(dtype, copy=False)
    return Pixels(x_0, None if labels is None else to_device(labels, device), levels)
