"""Topics: weights read from and written for another project: names, the order of q, k, v, and the copies of the embedders."""

from __future__ import annotations

from collections.abc import Mapping

from minidit.backend import Array
from minidit.checkpoint.files import Lazy, lazy
from minidit.checkpoint.names_dit import block_of, from_diffusers, to_diffusers
from minidit.random import Philox
from minidit.verify.core.reference import Group, Part, Probe, Reference, part
from minidit.verify.topics.layers import Weights
from minidit.verify.topics.network import network_weights

topic = Group("checkpoints")

State = Mapping[str, Array]
OFFICIAL = "{official name: array}, as facebookresearch/DiT names them, all but pos_embed"
DIFFUSERS = "{name: array} of diffusers' DiTTransformer2DModel, all but pos_embed.pos_embed"


def _read(found: Mapping[str, Lazy]) -> dict[str, Array]:
    return {name: a.read() for name, a in found.items()}


def _written(weights: Weights) -> dict[str, Array]:
    return _read(to_diffusers({name: lazy(a) for name, a in weights.items()}))


def _weights() -> dict[str, Array]:
    return network_weights(Philox(91), 4, 2, 2, 2, 4, 3, 8)


def _foreign() -> list[Probe]:
    state = _written(_weights())
    parted = state | {name: 1.01 * a for name, a in state.items() if block_of(name) == 1 and "class_embedder" in name}
    return [
        Probe("equal-copies", (state,), "two blocks; no two arrays are equal but the copies of the embedders"),
        Probe("copies-differ", (parted,), "a label table trained in diffusers: the blocks' copies have parted"),
    ]


@topic("T.9", DIFFUSERS, f"{OFFICIAL}; a refusal where the blocks' copies of an embedder differ", _foreign,
       because="numbers are moved, not computed")  # fmt: skip
def dit_from_diffusers(R: Reference, state: State) -> dict[str, Array]:
    """qkv = [to_q; to_k; to_v], proj_out_1 = final adaLN, …; the embedders' copies in the blocks must be equal."""
    return converted(R, _read(from_diffusers({name: lazy(a) for name, a in foreign(R, state).items()})))


foreign = part(lambda R, state: state)  # the state as it was found
converted: Part[[dict[str, Array]], dict[str, Array]] = part(lambda R, weights: weights)  # the weights by their official names


@topic("T.9", OFFICIAL, DIFFUSERS, lambda: [Probe("two-blocks", (_weights(),), "every block has its copy of the embedders")],
       because="numbers are moved, not computed")  # fmt: skip
def dit_to_diffusers(R: Reference, weights: Weights) -> dict[str, Array]:
    """[to_q; to_k; to_v] = qkv, proj_out_1 = final adaLN, …; every block has a copy of both embedders."""
    return exported(R, _written(weights))


exported: Part[[dict[str, Array]], dict[str, Array]] = part(lambda R, state: state)  # the state by diffusers' names
