"""Topics: clips: their patches, their places of time, and the groups of tokens that attend to each other."""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Probe, Reference, part
from minidit.verify.topics.layers import normal, softmax
from minidit.verify.topics.streams import topic

frames_of = part(lambda R, x, T: x.reshape(x.shape[0] * T, -1, x.shape[-1]))  # (B·T, S, D)


@part
def sites_of(R: Reference, x: Array, T: int) -> Array:
    """(B·S, T, D)."""
    B, N, D = x.shape
    return x.reshape(B, T, N // T, D).transpose(0, 2, 1, 3).reshape(-1, T, D)


@topic("T.34", "x (B,N,D): tokens frame by frame; T frames", "(frames (B·T,S,D), sites (B·S,T,D)): the groups of attention",
       lambda: [Probe("2-clips", (np.arange(48.0).reshape(2, 12, 2), 3), "no token leaves its clip")])  # fmt: skip
def factorised_groups(R: Reference, x: Array, T: int) -> tuple[Array, Array]:
    """All sites of one frame; all frames of one site."""
    return frames_of(R, x, T), sites_of(R, x, T)


repeated = part(lambda R, c, n: np.repeat(c, n, axis=0))  # every row n times in a row


@topic("T.34", "c (B,D): one condition per clip; n groups of a clip", "(B·n, D): one per group, clips one after another",
       lambda: [Probe("2-clips", (np.arange(6.0).reshape(2, 3), 4), "a clip's groups have its own condition")])  # fmt: skip
def group_conditions(R: Reference, c: Array, n: int) -> Array:
    """Every row n times, one after another."""
    return repeated(R, c, n)


origin_of_time = part(lambda R, p: p - p[:1])  # the first frame has the place zero
frame_numbers = part(lambda R, F: np.arange(F))
time_halves = part(lambda R, angle: np.concatenate((np.sin(angle), np.cos(angle)), axis=1))


@topic(
    "T.32", "F frames, D", "(F, D)", lambda: [Probe("3-frames", (3, 8), "a clip of one frame is a picture: its place is zero")]
)
def frame_places(R: Reference, F: int, D: int) -> Array:
    """p(f) - p(0), p(f) = [sin f ω | cos f ω], ω_i = 10000^(-i/(D/2))."""
    angle = frame_numbers(R, F)[:, None] * 10000.0 ** (-np.arange(D // 2) / (D // 2))
    return origin_of_time(R, time_halves(R, angle))


@topic("T.31", "x (B,C,T,H,W), t, p", "(B, (T/t)(H/p)(W/p), C·t·p·p)",
       lambda: [Probe("2-2-of-4x4x6", (np.arange(192.0).reshape(1, 2, 4, 4, 6), 2, 2), "frames are the slowest")])  # fmt: skip
def clip_patches(R: Reference, x: Array, t: int, p: int) -> Array:
    """Tokens frame by frame and row by row, each flattened in the order (C, frame, row, column)."""
    B, C, T, H, W = x.shape
    grid = clip_order(R, x.reshape(B, C, T // t, t, H // p, p, W // p, p))
    return grid.reshape(B, -1, C * t * p * p)


clip_order = part(lambda R, grid: grid.transpose(0, 2, 4, 6, 1, 3, 5, 7))  # of (B, C, f, t, h, p, w, p)


# ------------------------------------------------------------------------------------------------ blocks in turn

over_time = part(lambda R, k: k % 2 == 1)  # whether block k attends over time
placed_in_clip = part(lambda R, x, k, places: x)  # tokens (B,T,S,D) that enter block k, places (T,1,D)
placed_in_attention = part(lambda R, sites, places: sites + places)  # what attention over time sees, places (T,D)


@part
def attended_group(R: Reference, x: Array) -> Array:
    """softmax(x xᵀ/√D) x, x : (groups, n, D), which stands for the attention of a block."""
    return np.asarray(softmax(R, x @ x.swapaxes(1, 2) * x.shape[-1] ** -0.5) @ x)


def _clips() -> list[Probe]:
    return [Probe(f"{depth}-blocks", (normal(Philox(349), 2, 6, 4), 3, depth), "where times are added, and what comes first")
            for depth in (2, 4)]  # fmt: skip


@topic("T.34", "x (B,N,D): tokens frame by frame; T frames; depth blocks, each x + softmax(a aᵀ/√D) a within its groups",
       "(B,N,D) after the last one", _clips, tol=20.0, because="a softmax between two products, block after block")  # fmt: skip
def factorised_blocks(R: Reference, x: Array, T: int, depth: int) -> Array:
    """Blocks 0, 2, …: a = the tokens of a frame. Blocks 1, 3, …: a = those of a site + p(f) - p(0), in the attention alone."""
    (B, N, D), places = x.shape, frame_places(R, T, x.shape[-1])
    for k in range(depth):
        x = placed_in_clip(R, x.reshape(B, T, -1, D), k, places[:, None]).reshape(B, N, D)
        if over_time(R, k):
            y = attended_group(R, placed_in_attention(R, sites_of(R, x, T), places)).reshape(B, -1, T, D).swapaxes(1, 2)
        else:
            y = attended_group(R, frames_of(R, x, T))
        x = x + y.reshape(B, N, D)
    return x
