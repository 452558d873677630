"""Clips made by a law of motion that is known, and how well the frames of a clip obey it.

    frame_k(p) = sprite(p - p_0 - k v mod S)             a picture that moves on a torus of S × S pixels, v constant      (E.21)
    shift_k    = argmax_s Σ_p frame_k(p) frame_{k+1}(p + s)                 the shift from one frame to the next          (E.22)
    steady     = all shifts of a clip are equal          error = mean |shift_k - median|, on the torus                    (E.23)
    lawful     = steady, and the shift is a velocity that the data have

A real clip is lawful and has the error 0; frames in another order, or of different clips, have not. A clip that stands still is
steady, and not lawful: the first thing that a network learns are blurs that do not move. An argument of the maximum is read from
the circular cross-correlation, by Fourier transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidit.backend import Array
from minidit.data.checks import DataError, check_part
from minidit.data.dataset import Dataset
from minidit.data.embedded import digits
from minidit.random import Philox

STREAM = 0x636C6970
PARTS = {"train": 12000, "test": 600}  # clips
Velocity = tuple[int, int]  # pixels per frame, down and to the right
FOUR: tuple[Velocity, ...] = ((0, 2), (0, -2), (2, 0), (-2, 0))


def within(speed: int) -> tuple[Velocity, ...]:
    """All velocities of at most `speed` pixels per frame in each direction, but for standing still."""
    return tuple((a, b) for a in range(-speed, speed + 1) for b in range(-speed, speed + 1) if a or b)


def moving(
    sprites: Dataset, n: int, *, frames: int = 6, size: int = 16, velocities: Sequence[Velocity] = FOUR, seed: int = 0
) -> Dataset:
    """n clips of pictures that move on a torus of size × size pixels: uint8 (n, C, frames, size, size).

    Pictures take turns; places and velocities are drawn. Raises DataError for pictures larger than the torus.
    """
    (h, w), rng = sprites.size, Philox(seed, STREAM)
    if max(h, w) > size or frames < 1 or n < 1 or not velocities:
        raise DataError(f"{n} clips of {frames} frames of {size} x {size} cannot show pictures of {h} x {w} that move")
    which = rng.permutation(n) % len(sprites)
    start, v = rng.integers(0, size, (n, 2)), np.asarray(velocities)[rng.integers(0, len(velocities), (n,))]
    clips = np.zeros((n, sprites.channels, frames, size, size), np.uint8)
    rows, columns, sprite = np.arange(h), np.arange(w), np.asarray(sprites.images)[which]
    clip = np.arange(n)[:, None, None]
    for k in range(frames):
        at = start + k * v  # (E.21)
        r, c = (at[:, :1] + rows) % size, (at[:, 1:] + columns) % size
        clips[clip, :, k, r[:, :, None], c[:, None, :]] = sprite.transpose(0, 2, 3, 1)
    labels = None if sprites.labels is None else sprites.labels[which]
    return replace(sprites, name=f"moving {sprites.name}", images=clips, labels=labels, crop=0)


def clips(part: str | None = None, *, size: int | None = None, frames: int | None = None) -> Dataset:
    """Moving digits: 12,000 clips of 6 frames of 16×16 pixels, or with part="test" 600 of the digits that are held out."""
    part = check_part(part)
    return moving(digits(part), PARTS[part], frames=frames or 6, size=size or 16, seed=list(PARTS).index(part))


# ------------------------------------------------------------------------------------------------ the law, read from clips


def shifts(x: Array) -> NDArray[np.int64]:
    """x : (N, C, T, H, W)  ->  (N, T-1, 2): the shift down and to the right from every frame to the next, -S/2 ≤ shift < S/2."""
    x = np.asarray(x, np.float64)
    *_, H, W = x.shape
    spectrum = np.fft.rfft2(x - x.mean(axis=(-2, -1), keepdims=True))
    products = (spectrum[:, :, :-1].conj() * spectrum[:, :, 1:]).sum(axis=1)
    correlation = np.fft.irfft2(products, s=(H, W)).reshape(*products.shape[:2], H * W)
    down, right = np.divmod(correlation.argmax(axis=-1), W)  # (E.22)
    return np.stack([_around(down, H), _around(right, W)], axis=-1)


def _around(a: Any, n: int) -> Any:
    """Differences on a circle of n places: into -n/2 ≤ a < n/2."""
    return (a + n // 2) % n - n // 2


def obedience(x: Array, velocities: Sequence[Velocity] = FOUR) -> dict[str, float]:
    """steady : the share of clips whose shifts are all equal; lawful : that of those which have one of these velocities;
    error : in pixels, the mean distance of shifts from their median.

    x : (N, C, T, H, W), T > 2
    """
    s, size = shifts(x), x.shape[-2:]
    steady = (s == s[:, :1]).all(axis=(1, 2))
    middle = np.median(s, axis=1, keepdims=True)
    gap = np.stack([_around(s[..., i] - middle[..., i], size[i]) for i in range(2)], axis=-1)
    lawful, error = steady & (s[:, :1] == np.asarray(velocities)).all(axis=-1).any(axis=1), np.sqrt((gap**2).sum(axis=-1))
    return {"steady": float(steady.mean()), "lawful": float(lawful.mean()), "error": float(error.mean())}  # (E.23)


def shuffled(x: Array, seed: int = 0) -> Array:
    """The same frames of every clip in an order of its own."""
    order = Philox(seed, STREAM + 1).uniform((len(x), x.shape[2])).argsort(axis=1)
    return np.take_along_axis(np.asarray(x), order[:, None, :, None, None], axis=2)


def mixed(x: Array) -> Array:
    """Clips whose frames come from different clips: frame k of clip i is that of clip i + k."""
    x = np.asarray(x)
    return np.stack([np.roll(x[:, :, k], k, axis=0) for k in range(x.shape[2])], axis=2)
