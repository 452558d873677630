"""Augmentation: every time a picture is used it is mirrored or not, and shifted a little, as its update draws.

    flip       x'(i, j) = x(i, W - 1 - j)                          with probability 1/2
    crop N     x'(i, j) = x(r_H(i + a), r_W(j + b))                a, b uniform in -N..N
               r_n(k) = n - 1 - |n - 1 - |k||                      padding by reflection: no black edge is learned

The draws come from a stream of their own, numbered by update and sample: they change no other draw, and they are the same for
every number of shards and after a resumption. Training sees augmented pictures, measurements never do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minidit.backend import Array, xp_of
from minidit.training.draws import Draws

STREAM = 0x61000000  # ⊕ the process's own stream: autoencoder and model draw independently
FLIP, DOWN, RIGHT = range(3)  # the numbers of the draws


@dataclass(frozen=True)
class Augment:
    """flip : mirror half of the pictures    crop : shift by up to this many pixels, as if cropped after padding"""

    flip: bool = False
    crop: int = 0

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"crop = {self.crop} must be 0 or more pixels")

    def __bool__(self) -> bool:
        return self.flip or self.crop > 0

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError for pictures that are too small."""
        if self.crop >= min(size):
            raise ValueError(f"--crop {self.crop}: pictures of {size[0]} x {size[1]} are shifted by less than their size")

    def __call__(self, x: Array, draws: Draws) -> Array:
        """x : (B, C, H, W), or clips (B, C, T, H, W), all frames alike  ->  the same as this update sees them."""
        xp, mine, shape = xp_of(x), own(draws), x.shape
        x = x.reshape(len(x), -1, *shape[-2:])
        if self.flip:
            x = xp.where(flips(draws)[:, None, None, None], x[..., ::-1], x)
        if not self.crop:
            return x.reshape(shape)
        rows, columns = (
            reflected(xp.arange(n) + mine.integers(-self.crop, self.crop + 1, number=k)[:, None], n)
            for n, k in zip(x.shape[2:], (DOWN, RIGHT), strict=True)
        )
        samples, channels = xp.arange(len(x))[:, None, None, None], xp.arange(x.shape[1])[None, :, None, None]
        return x[samples, channels, rows[:, None, :, None], columns[:, None, None, :]].reshape(shape)


NOTHING = Augment()


def own(draws: Draws) -> Draws:
    """The draws of augmentation for the same samples at the same update."""
    return replace(draws, stream=draws.stream ^ STREAM, per=3, taken=set())


def flips(draws: Draws) -> Array:
    """(B,) bools: which samples of this update are mirrored."""
    return own(draws).uniform(number=FLIP) < 0.5


def reflected(k: Array, n: int) -> Array:
    """Indices outside 0..n-1, by less than n, are reflected at the first and at the last."""
    return n - 1 - abs(n - 1 - abs(k))
