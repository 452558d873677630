"""How other projects name the arrays of the KL autoencoder. Our names are those of diffusers today.

    to_q, to_k, to_v, to_out.0     query, key, value, proj_attn        diffusers' old files
                                   q, k, v, proj_out                   LDM, as 1 × 1 convolutions, (C, C, 1, 1)
    down_blocks.{i}.resnets.{j}    down.{i}.block.{j}                  LDM
    up_blocks.{i}                  up.{L-1-i}                          LDM counts from the largest size
    conv_shortcut                  nin_shortcut
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from minidit.checkpoint.files import Lazy
from minidit.checkpoint.lazies import shaped

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
LDM = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
FIRST_STAGE = "first_stage_model."  # the prefix in a whole Stable Diffusion checkpoint
ATTENTION = "mid_block.attentions.0."
PARTS = ("encoder", "decoder", "quant_conv", "post_quant_conv")


def linear(a: Lazy) -> Lazy:
    """A 1 × 1 convolution (m, n, 1, 1) as a matrix (m, n); other arrays as they are."""
    return shaped(a, a.shape[:2]) if len(a.shape) == 4 and a.shape[2:] == (1, 1) else a


def renamed(arrays: Mapping[str, Lazy], table: Mapping[str, str]) -> dict[str, Lazy]:
    """The arrays of attention under other names."""

    def new(name: str) -> str:
        before, _, part = name.partition(ATTENTION)
        stem, _, end = part.rpartition(".")
        return f"{before}{ATTENTION}{table.get(stem, stem)}.{end}" if part else name

    return {new(name): a for name, a in arrays.items()}


def from_diffusers(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Our names, from diffusers' new or old ones."""
    ours = renamed(arrays, {old: new for new, old in OLD.items()})
    return {name: linear(a) if ATTENTION in name else a for name, a in ours.items()}


def to_old(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """The names of diffusers before its attention was rewritten, from ours."""
    return renamed(arrays, OLD)


def ldm_stems(sizes: int, blocks: int) -> dict[str, str]:
    """Our names -> those of LDM, without ".weight" and ".bias", for that many sizes and blocks per size."""
    pairs: dict[str, str] = {}
    for side in ("encoder", "decoder"):
        pairs |= {f"{side}.{n}": f"{side}.{n}" for n in ("conv_in", "conv_out")}
        pairs[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        pairs |= {f"{side}.{ATTENTION}{ours}": f"{side}.mid.attn_1.{theirs}" for ours, theirs in LDM.items()}
    blocks_of = {f"{side}.mid_block.resnets.{j}": f"{side}.mid.block_{j + 1}" for side in ("encoder", "decoder") for j in (0, 1)}
    for i in range(sizes):
        up = sizes - 1 - i
        pairs[f"encoder.down_blocks.{i}.downsamplers.0.conv"] = f"encoder.down.{i}.downsample.conv"
        pairs[f"decoder.up_blocks.{i}.upsamplers.0.conv"] = f"decoder.up.{up}.upsample.conv"
        for j in range(blocks):
            blocks_of[f"encoder.down_blocks.{i}.resnets.{j}"] = f"encoder.down.{i}.block.{j}"
            blocks_of[f"decoder.up_blocks.{i}.resnets.{j}"] = f"decoder.up.{up}.block.{j}"
    for ours, theirs in blocks_of.items():
        pairs |= {f"{ours}.{part}": f"{theirs}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")}
        pairs[f"{ours}.conv_shortcut"] = f"{theirs}.nin_shortcut"
    return pairs


def count(arrays: Mapping[str, Lazy], pattern: str) -> int:
    """How many indices the names have where the pattern's group stands: one more than the largest."""
    return 1 + max((int(match[1]) for name in arrays if (match := re.match(pattern, name))), default=-1)


def through(stems: Mapping[str, str], arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Every array under the name that the map gives its stem; other names stay."""
    result = {}
    for name, a in arrays.items():
        stem, _, end = name.rpartition(".")
        result[f"{stems.get(stem, stem)}.{end}"] = a
    return result


def to_ldm(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """The names of LDM, from ours, with attention as 1 × 1 convolutions."""
    sizes, blocks = count(arrays, r"decoder\.up_blocks\.(\d+)"), count(arrays, r"decoder\.up_blocks\.0\.resnets\.(\d+)")
    convolved = {n: shaped(a, (*a.shape, 1, 1)) if ATTENTION in n and len(a.shape) == 2 else a for n, a in arrays.items()}
    return through(ldm_stems(sizes, blocks), convolved)


def from_ldm(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Our names, from an autoencoder of LDM, alone or inside a whole checkpoint, of which the rest is left out."""
    inside = {n.removeprefix(FIRST_STAGE): a for n, a in arrays.items() if n.startswith(FIRST_STAGE)} or arrays
    inside = {n: a for n, a in inside.items() if n.partition(".")[0] in PARTS}
    sizes, blocks = count(inside, r"decoder\.up\.(\d+)"), count(inside, r"decoder\.up\.\d+\.block\.(\d+)")
    stems = {theirs: ours for ours, theirs in ldm_stems(sizes, blocks).items()}
    return {name: linear(a) if ATTENTION in name else a for name, a in through(stems, inside).items()}


def beside(arrays: Mapping[str, Lazy]) -> list[str]:
    """The names in a file of LDM that do not belong to the autoencoder: a discriminator, or the rest of Stable Diffusion."""
    return [n for n in arrays if n.removeprefix(FIRST_STAGE).partition(".")[0] not in PARTS]
