"""How others name the arrays of a DiT. Ours are the official names.

diffusers gives every block a copy of the time and label embedder (block 0's also serves the last layer), keeps queries, keys
and values apart, and recomputes the position table:

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
TABLES = ("pos_embed", "pos_embed.pos_embed")  # strays of converters: the table is computed, never read
WHY = (
    "diffusers keeps a copy of the time and label embedder in every block, and trained in diffusers they part; a DiT has one "
    "embedder and cannot say the same"
)


def block_of(name: str) -> int | None:
    """The number of the block that a name of diffusers speaks about."""
    found = re.match(r"transformer_blocks\.(\d+)\.", name)
    return int(found[1]) if found else None


def from_diffusers(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Our names. Raises CheckpointError for parts that are missing; a name nobody knows keeps its own."""
    left = {name: a for name, a in arrays.items() if name not in TABLES}
    depth = 1 + max((b for name in left if (b := block_of(name)) is not None), default=-1)
    own: dict[str, Lazy] = {}

    def taken(name: str) -> Lazy:
        if name not in left:
            raise CheckpointError(f"{name} is missing")
        return left.pop(name)

    for ours, theirs in ENDS.items():
        for end in ("weight", "bias"):
            own[f"{ours}.{end}"] = taken(f"{theirs}.{end}")
    for ours, theirs in EMBEDDERS.items():
        for end in ("weight", "bias"):
            names = [f"transformer_blocks.{i}.norm1.emb.{theirs}.{end}" for i in range(depth)]
            if not ours.endswith("table") or end == "weight":
                own[f"{ours}.{end}"] = agreeing({n: taken(n) for n in names}, WHY)
    for i in range(depth):
        there = f"transformer_blocks.{i}"
        for end in ("weight", "bias"):
            parts = [taken(f"{there}.attn1.to_{letter}.{end}") for letter in "qkv"]
            own[f"blocks.{i}.attn.qkv.{end}"] = joined(parts, f"{there}.attn1")
            for ours, theirs in BLOCK.items():
                own[f"blocks.{i}.{ours}.{end}"] = taken(f"{there}.{theirs}.{end}")
    return own | left


def to_diffusers(own: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Names of diffusers, from a whole state of ours; the position table stays behind."""
    depth = 1 + max(int(n.split(".")[1]) for n in own if n.startswith("blocks."))
    theirs: dict[str, Lazy] = {}
    for name, a in own.items():
        stem, _, end = name.rpartition(".")
        if name == "pos_embed":
            continue
        if stem in ENDS:
            theirs[f"{ENDS[stem]}.{end}"] = a
        elif stem in EMBEDDERS:
            theirs |= {f"transformer_blocks.{i}.norm1.emb.{EMBEDDERS[stem]}.{end}": a for i in range(depth)}
        else:
            _, i, part = stem.split(".", 2)
            there = f"transformer_blocks.{i}"
            if part == "attn.qkv":
                theirs |= {f"{there}.attn1.to_{letter}.{end}": piece(a, k, 3) for k, letter in enumerate("qkv")}
            else:
                theirs[f"{there}.{BLOCK[part]}.{end}"] = a
    return theirs


def from_official(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Our names are the official ones; what parallel or compiled training put before them is cut off."""
    return {re.sub(r"^((module|_orig_mod)\.)+", "", name): a for name, a in arrays.items()}
