"""Topic: the whole network on square grids, for implementations that know no others.

Their answers to `dit`, which asks with H ≠ W, are errors that hide everything else (M73, M99); here the rest shows.
"""

from __future__ import annotations

from minidit.backend import Array
from minidit.verify.core.reference import Group, Probe, Reference
from minidit.verify.topics.layers import Numbers, Weights
from minidit.verify.topics.network import TAKES, dit, network_probe

topic = Group("squares")


def _squares() -> list[Probe]:
    """The same questions on 4 × 4, 6 × 6 and 8 × 8; twice the channels come out, or as many as go in."""
    return [network_probe(k, (4, 4) if k < 4 else (6, 6) if k == 4 else (8, 8)) for k in range(6)]


@topic("T.6", TAKES + "; H = W", "(B,C_out,H,W), or (that, taps) with taps {layer name: its output}", _squares, tol=2.0,
       because="rounding of a few blocks; a float32 angle of time")  # fmt: skip
def dit_square(R: Reference, weights: Weights, x: Numbers, t: Array, y: Array, heads: int, patch_size: int) -> Numbers:
    """unpatchify(final(blocks(patches + pos, c), c)), c = MLP(emb(t)) + table[y]; here H = W."""
    return dit(R, weights, x, t, y, heads, patch_size)
