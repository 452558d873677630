"""Questions that have no answer: an implementation must refuse them (any exception), not make something up.

They stand in the test vectors as invalid cases, beside the valid ones of their topic. The kit itself does not ask them: it
judges equations, and what an implementation says of nonsense is its own affair until it claims to follow the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidit.backend import Array
from minidit.verify.core.reference import Probe


def _some(*shape: int) -> Array:
    return np.arange(1.0, 1 + np.prod(shape)).reshape(shape) / 8


LADDER = np.linspace(0.9, 0.1, 10)
PICTURE = _some(2, 1, 2, 2)


def refusals() -> Iterator[tuple[str, Probe]]:
    """(topic, question); `reveals` says why there is no answer."""
    weights = {"qkv.weight": _some(24, 8), "qkv.bias": _some(24), "proj.weight": _some(8, 8), "proj.bias": _some(8)}
    wide = _some(2, 1, 2, 3)
    for topic, name, why, *args in (
        ("q_sample", "t-is-T", "t lies in 0..T-1", PICTURE, PICTURE, np.array([3, 10]), LADDER),
        ("q_sample", "shapes", "x_0 and eps have one shape", PICTURE, wide, np.array([3, 1]), LADDER),
        ("ddim_step", "t-is-T", "t lies in 0..T-1", PICTURE, PICTURE, 10, 5, LADDER, 0.0, PICTURE),
        ("guide", "shapes", "both guesses have one shape", PICTURE, wide, 2.0),
        ("patch_embed", "height", "the height is a multiple of the patch size", _some(1, 2, 5, 4), _some(8, 2, 2, 2), _some(8)),
        ("unpatchify", "tokens", "there are (H/p)(W/p) tokens", _some(1, 7, 8), 2, (4, 6)),
        ("self_attention", "heads", "the heads divide the width", weights, _some(1, 3, 8), 3),
        ("linear", "width", "x has as many columns as the weight", _some(2, 3), _some(4, 5), _some(4)),
        ("label_embedding", "label", "labels lie in 0..K", _some(5, 4), np.array([5]), np.array([False])),
        ("trailing_timesteps", "too-many", "there are no more steps than timesteps", 10, 11),
        ("linspace_timesteps", "none", "there is at least one step", 10, 0),
        ("linear_grid", "none", "there is at least one step", 0),
        ("edm_grid", "ends", "the lowest level lies below the highest", 5, 80.0, 0.002, 7.0),
        ("mode_times", "below", "a scale below -1 would turn times back", _some(4) / 8, -1.5),
        ("space_timesteps", "too-many", "a section has no more steps than timesteps", 10, "20"),
    ):  # fmt: skip
        yield topic, Probe(f"refused-{name}", tuple(args), why)
