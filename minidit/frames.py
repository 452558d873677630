"""A clip is T pictures, and a picture is a clip of one frame: whatever is defined for pictures acts on every frame.

(B, C, T, H, W) or (B, C, H, W)  ->  (B T, C, H, W), the frames of a clip one after another  ->  back
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Array = Any


def frames_of(x: Array) -> Array:
    """x : (B, C, T, H, W), or pictures (B, C, H, W)  ->  (B T, C, H, W); pictures are not copied."""
    B, C, *_, H, W = x.shape
    return x.reshape(B, C, -1, H, W).swapaxes(1, 2).reshape(-1, C, H, W)


def clips_of(frames: Array, shape: tuple[int, ...]) -> Array:
    """frames : (B T, c, h, w)  ->  (B, c, T, h, w), or (B, c, h, w), as the shape of a batch says: (B, …, T, …) or (B, …)."""
    B, _, *T, _, _ = shape
    _, c, h, w = frames.shape
    return frames.reshape(B, *(T or [1]), c, h, w).swapaxes(1, 2).reshape(B, c, *T, h, w)


def on_frames(f: Callable[[Array], Array], x: Array) -> Array:
    """A function of pictures, (n, C, H, W) -> (n, c, h, w), on every frame of clips, or on pictures."""
    return clips_of(f(frames_of(x)), x.shape)


def in_strips(x: Array) -> Array:
    """x : (B, C, T, H, W)  ->  (B, C, H, T W), a strip of every clip; pictures are not changed."""
    B, C, *_, H, W = x.shape
    return x.reshape(B, C, -1, H, W).swapaxes(2, 3).reshape(B, C, H, -1)
