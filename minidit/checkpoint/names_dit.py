"""How other projects name the arrays of a DiT. Ours are the official names; this is the one map from them to diffusers.

diffusers gives every block a copy of the time and label embedder (block 0's also serves the last layer), keeps queries, keys
and values as three arrays, and recomputes the position table:

    t_embedder.mlp.0, .2                     transformer_blocks.{i}.norm1.emb.timestep_embedder.linear_1, linear_2    for every i
    y_embedder.embedding_table               transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table          for every i
    blocks.{i}.adaLN_modulation.1            transformer_blocks.{i}.norm1.linear
    blocks.{i}.attn.qkv, attn.proj           transformer_blocks.{i}.attn1.to_q | to_k | to_v, attn1.to_out.0
    blocks.{i}.mlp.fc1, mlp.fc2              transformer_blocks.{i}.ff.net.0.proj, ff.net.2
    x_embedder.proj                          pos_embed.proj
    final_layer.adaLN_modulation.1, linear   proj_out_1, proj_out_2
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from minidit.checkpoint.files import CheckpointError, Lazy
from minidit.checkpoint.lazies import agreeing, joined, piece

EMBEDDERS = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder.embedding_table": "class_embedder.embedding_table",
}
QKV = "attn.qkv"  # one array here, three in diffusers
BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
POSITIONS = ("pos_embed", "pos_embed.pos_embed")  # some converters save the position table: it is computed, never read
WHY = (
    "diffusers keeps a copy of the time and label embedder in every block, and training in diffusers moves the copies apart; "
    "a DiT has one embedder and cannot express that"
)


def block_of(name: str) -> int | None:
    """The number of the block that a name of diffusers belongs to; None for the arrays outside the blocks."""
    match = re.match(r"transformer_blocks\.(\d+)\.", name)
    return int(match[1]) if match else None


def official_names(depth: int) -> list[str]:
    """The official names of all arrays of a DiT but the position table."""
    stems = [*ENDS, *EMBEDDERS, *(f"blocks.{i}.{part}" for i in range(depth) for part in (QKV, *BLOCK))]
    return [f"{stem}.{end}" for stem in stems for end in ("weight", "bias") if end == "weight" or not stem.endswith("table")]


def diffusers_names(name: str, depth: int) -> list[str]:
    """What diffusers calls an official array: three names for the rows of q, k and v, one per block for an embedder, else one."""
    stem, _, end = name.rpartition(".")
    if stem in ENDS:
        return [f"{ENDS[stem]}.{end}"]
    if stem in EMBEDDERS:
        return [f"transformer_blocks.{i}.norm1.emb.{EMBEDDERS[stem]}.{end}" for i in range(depth)]
    _, i, part = stem.split(".", 2)
    parts = [f"attn1.to_{letter}" for letter in "qkv"] if part == QKV else [BLOCK[part]]
    return [f"transformer_blocks.{i}.{p}.{end}" for p in parts]


def from_diffusers(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Under official names. Raises CheckpointError for arrays that are missing; an unknown name is kept."""
    rest = {name: a for name, a in arrays.items() if name not in POSITIONS}
    depth = 1 + max((b for name in rest if (b := block_of(name)) is not None), default=-1)
    official: dict[str, Lazy] = {}
    for name in official_names(depth):
        theirs = diffusers_names(name, depth)
        for their_name in theirs:
            if their_name not in rest:
                raise CheckpointError(f"{their_name} is missing")
        parts = {their_name: rest.pop(their_name) for their_name in theirs}
        if QKV in name:
            official[name] = joined(list(parts.values()), theirs[0].partition(".to_q")[0])
        elif len(parts) == 1:
            (official[name],) = parts.values()
        else:
            official[name] = agreeing(parts, WHY)
    return official | rest


def to_diffusers(official: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Under the names of diffusers, from a whole official state; the position table is left out."""
    depth = 1 + max(int(n.split(".")[1]) for n in official if n.startswith("blocks."))
    theirs: dict[str, Lazy] = {}
    for name, a in official.items():
        if name not in POSITIONS:
            names = diffusers_names(name, depth)
            theirs |= {n: piece(a, k, len(names)) if QKV in name else a for k, n in enumerate(names)}
    return theirs


def from_official(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Our names are the official ones; the prefixes that parallel or compiled training adds are removed."""
    return {re.sub(r"^((module|_orig_mod)\.)+", "", name): a for name, a in arrays.items()}
