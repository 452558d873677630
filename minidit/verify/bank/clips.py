"""Mistakes of clips: their patches, their places of time, and the groups of tokens that attend to each other."""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import instead
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import clips

GROUPS = "frames (B·T, S, D), sites (B·S, T, D): no token leaves its clip"
REPEATED = "every condition n times in a row: clips one after another"
FRAMES = "p(f) - p(0), p(f) = [sin f ω | cos f ω]"
CLIP = "tokens by frame, row, column; within one (C, frame, row, column)"
BLOCKS = "frames, then sites, in turn; p(f) - p(0) is added in the attention over time alone"


def _sites_unmoved(R: Reference, x: Array, T: int) -> Array:
    return x.reshape(-1, T, x.shape[-1])


def _sites_across(R: Reference, x: Array, T: int) -> Array:
    """The clips of a site side by side: (T, S) before the batch."""
    B, N, D = x.shape
    return np.asarray(x.reshape(B, T, N // T, D).transpose(2, 0, 1, 3).reshape(-1, T, D))


_NOT_IN_ATTENTION = {clips.placed_in_attention: instead(lambda R, sites, places: sites)}

BANK = [
    Deviation("M164", "SITES_BY_RESHAPE", "T.34", "(B·S, T, D) by a reshape: a site's times are neighbours in space", GROUPS,
        {clips.sites_of: instead(_sites_unmoved)}, "class (rearrange order, Latte)"),
    Deviation("M164b", "SITES_BEFORE_CLIPS", "T.34", "(S·B, T, D): clips change places with sites", GROUPS,
        {clips.sites_of: instead(_sites_across)}, "class"),
    Deviation("M165", "CONDITIONS_TILED", "T.34", "all conditions, n times over: groups get those of other clips", REPEATED,
        {clips.repeated: instead(lambda R, c, n: np.tile(c, (n, 1)))}, "class (repeat 'n c' for 'c n', Latte)"),
    Deviation("C19", "PLACES_OF_TIME_AS_THEY_ARE", "T.32", "p(f), so that one frame is no picture: a convention", FRAMES,
        {clips.origin_of_time: instead(lambda R, p: p)}, "Latte b27c24a"),
    Deviation("X321", "TIMES_OF_HALF_THE_WIDTH", "T.32", "frames in steps of one half", FRAMES,
        {clips.frame_numbers: instead(lambda R, F: np.arange(F) / 2)}),
    Deviation("X322", "TIME_COSINE_FIRST", "T.32", "[cos f ω | sin f ω]", FRAMES,
        {clips.time_halves: instead(lambda R, angle: np.concatenate((np.cos(angle), np.sin(angle)), axis=1))}),
    Deviation("X320", "CLIP_TOKENS_BY_SITE", "T.31", "row, column, then frame", CLIP,
        {clips.clip_order: instead(lambda R, grid: grid.transpose(0, 4, 6, 2, 1, 3, 5, 7))}),
    Deviation("M166", "CLIP_PATCH_FRAMES_FIRST", "T.31", "(frame, C, row, column) within a patch", CLIP,
        {clips.clip_order: instead(lambda R, grid: grid.transpose(0, 2, 4, 6, 3, 1, 5, 7))}, "class"),
    Deviation("C20", "PLACES_OF_TIME_ADDED_ONCE", "T.34", "to tokens, before the first block over time: a convention", BLOCKS,
        {clips.placed_in_clip: instead(lambda R, x, k, places: x + places if k == 1 else x), **_NOT_IN_ATTENTION},
        "Latte b27c24a"),
    Deviation("M173", "PLACES_OF_TIME_ADDED_EACH_TIME", "T.34", "to the tokens before every block over time: they add up", BLOCKS,
        {clips.placed_in_clip: instead(lambda R, x, k, places: x + places if k % 2 else x), **_NOT_IN_ATTENTION}, "class"),
    Deviation("M174", "NO_PLACES_OF_TIME", "T.34", "frames may change places, and nobody sees it", BLOCKS, _NOT_IN_ATTENTION,
        "diffusers#4568 (TransformerTemporalModel)"),
    Deviation("X326", "TIME_BEFORE_SPACE", "T.34", "blocks 0, 2, … attend over time", BLOCKS,
        {clips.over_time: instead(lambda R, k: k % 2 == 0)}),
]  # fmt: skip
