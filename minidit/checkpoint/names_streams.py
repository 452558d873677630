"""How other projects name and cut the arrays of MM-DiT (Stable Diffusion 3) and FLUX: one table per project, for both ways.

A Rule says that our arrays, one after the other, are theirs, one after the other. Ours of an MM-DiT are the official names of
Stable Diffusion 3. What else is different:

    diffusers        q, k, v are three arrays; the halves of the last modulations are (scale, shift) and not (shift, scale):
                     those of the final layer, and of the last context in an MM-DiT
    FLUX, official   a single block keeps (W_qkv; W₁) and (W_a | W_m) as one matrix each (T.27); diffusers so the second
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from minidit.checkpoint.files import CheckpointError, Lazy
from minidit.checkpoint.lazies import concatenated, cut, halves_swapped, shaped
from minidit.models.flux_config import FluxConfig
from minidit.models.mmdit_config import MMDiTConfig

Streams = MMDiTConfig | FluxConfig
BOTH = ("weight", "bias")


class Rule(NamedTuple):
    """cat(ours) = cat(theirs) along an axis. first: the length of the first of two arrays of ours; swap: halves change places."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    axis: int = 0
    first: int = 0
    swap: bool = False
    shape: tuple[int, ...] = ()  # ours, where theirs is flat


def layer(ours: str, theirs: str, *, swap: bool = False) -> Iterator[Rule]:
    """A linear layer of one array on both sides."""
    for end in BOTH:
        yield Rule((f"{ours}.{end}",), (f"{theirs}.{end}",), swap=swap)


def embedder(ours: str, theirs: str, first: str = "linear_1", second: str = "linear_2") -> Iterator[Rule]:
    """Two linear layers with SiLU between them."""
    yield from layer(f"{ours}.mlp.0", f"{theirs}.{first}")
    yield from layer(f"{ours}.mlp.2", f"{theirs}.{second}")


def three(ours: str, theirs: tuple[str, str, str]) -> Iterator[Rule]:
    """q, k and v: one array here."""
    for end in BOTH:
        yield Rule((f"{ours}.{end}",), tuple(f"{name}.{end}" for name in theirs))


def norms(ours: str, q: str, k: str) -> Iterator[Rule]:
    """The gains of QK-norm."""
    yield Rule((f"{ours}.ln_q.weight",), (q,))
    yield Rule((f"{ours}.ln_k.weight",), (k,))


# ------------------------------------------------------------------------------------------------ diffusers


def joint_block(ours: str, theirs: str, *, qk_norm: bool, dual: bool = False, last: bool = False) -> Iterator[Rule]:
    """A JointTransformerBlock or FluxTransformerBlock."""
    x, context, attn = f"{ours}.x_block", f"{ours}.context_block", f"{theirs}.attn"
    yield from layer(f"{x}.adaLN_modulation.1", f"{theirs}.norm1.linear")
    yield from layer(f"{context}.adaLN_modulation.1", f"{theirs}.norm1_context.linear", swap=last)
    yield from three(f"{x}.attn.qkv", (f"{attn}.to_q", f"{attn}.to_k", f"{attn}.to_v"))
    yield from three(f"{context}.attn.qkv", (f"{attn}.add_q_proj", f"{attn}.add_k_proj", f"{attn}.add_v_proj"))
    yield from layer(f"{x}.attn.proj", f"{attn}.to_out.0")
    if qk_norm:
        yield from norms(f"{x}.attn", f"{attn}.norm_q.weight", f"{attn}.norm_k.weight")
        yield from norms(f"{context}.attn", f"{attn}.norm_added_q.weight", f"{attn}.norm_added_k.weight")
    if dual:
        second = f"{theirs}.attn2"
        yield from three(f"{x}.attn2.qkv", (f"{second}.to_q", f"{second}.to_k", f"{second}.to_v"))
        yield from layer(f"{x}.attn2.proj", f"{second}.to_out.0")
        if qk_norm:
            yield from norms(f"{x}.attn2", f"{second}.norm_q.weight", f"{second}.norm_k.weight")
    for stream, mlp in ((x, "ff"), (context, "ff_context")):
        if stream == x or not last:
            yield from layer(f"{stream}.mlp.fc1", f"{theirs}.{mlp}.net.0.proj")
            yield from layer(f"{stream}.mlp.fc2", f"{theirs}.{mlp}.net.2")
    if not last:
        yield from layer(f"{context}.attn.proj", f"{attn}.to_add_out")


def diffusers_ends() -> Iterator[Rule]:
    """What MM-DiT and FLUX have in common outside of their blocks."""
    yield from embedder("t_embedder", "time_text_embed.timestep_embedder")
    yield from embedder("y_embedder", "time_text_embed.text_embedder")
    yield from layer("context_embedder", "context_embedder")
    yield from layer("final_layer.adaLN_modulation.1", "norm_out.linear", swap=True)
    yield from layer("final_layer.linear", "proj_out")


def mmdit_diffusers(config: MMDiTConfig) -> Iterator[Rule]:
    """The table of SD3Transformer2DModel."""
    yield from layer("x_embedder.proj", "pos_embed.proj")
    yield Rule(("pos_embed",), ("pos_embed.pos_embed",))
    yield from diffusers_ends()
    for i in range(config.depth):
        dual, last = i in config.dual_attention, i == config.depth - 1
        yield from joint_block(f"joint_blocks.{i}", f"transformer_blocks.{i}", qk_norm=config.qk_norm, dual=dual, last=last)


def flux_diffusers(config: FluxConfig) -> Iterator[Rule]:
    """The table of FluxTransformer2DModel."""
    yield from packed(config, "x_embedder")
    yield from diffusers_ends()
    if config.guidance != "none":
        yield from embedder("guidance_embedder", "time_text_embed.guidance_embedder")
    for i in range(config.depth):
        yield from joint_block(f"double_blocks.{i}", f"transformer_blocks.{i}", qk_norm=True)
    for i in range(config.single_depth):
        ours, theirs = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        yield from layer(f"{ours}.adaLN_modulation.1", f"{theirs}.norm.linear")
        yield from three(f"{ours}.attn.qkv", (f"{theirs}.attn.to_q", f"{theirs}.attn.to_k", f"{theirs}.attn.to_v"))
        yield from norms(f"{ours}.attn", f"{theirs}.attn.norm_q.weight", f"{theirs}.attn.norm_k.weight")
        yield from layer(f"{ours}.mlp.fc1", f"{theirs}.proj_mlp")
        yield from second_matrix(config, ours, f"{theirs}.proj_out")


# ------------------------------------------------------------------------------------------------ the official names of FLUX


def packed(config: FluxConfig, theirs: str) -> Iterator[Rule]:
    """The embedding of patches: a linear layer on (C, p, p) numbers there, a convolution here."""
    p = config.patch_size
    shape = (config.hidden_size, config.in_channels, p, p)
    yield Rule(("x_embedder.proj.weight",), (f"{theirs}.weight",), shape=shape)
    yield Rule(("x_embedder.proj.bias",), (f"{theirs}.bias",))


def second_matrix(config: FluxConfig, ours: str, theirs: str) -> Iterator[Rule]:
    """(W_a | W_m) and b of a single block."""
    weights = (f"{ours}.proj.weight", f"{ours}.mlp.fc2.weight")
    yield Rule(weights, (f"{theirs}.weight",), axis=1, first=config.hidden_size)
    yield Rule((f"{ours}.mlp.fc2.bias",), (f"{theirs}.bias",))


def flux_official(config: FluxConfig) -> Iterator[Rule]:
    """The table of the published FLUX.1."""
    ends = ("in_layer", "out_layer")
    yield from packed(config, "img_in")
    yield from embedder("t_embedder", "time_in", *ends)
    yield from embedder("y_embedder", "vector_in", *ends)
    if config.guidance != "none":
        yield from embedder("guidance_embedder", "guidance_in", *ends)
    yield from layer("context_embedder", "txt_in")
    yield from layer("final_layer.adaLN_modulation.1", "final_layer.adaLN_modulation.1")
    yield from layer("final_layer.linear", "final_layer.linear")
    for i in range(config.depth):
        for stream, their in (("x_block", "img"), ("context_block", "txt")):
            ours, theirs = f"double_blocks.{i}.{stream}", f"double_blocks.{i}.{their}"
            yield from layer(f"{ours}.adaLN_modulation.1", f"{theirs}_mod.lin")
            yield from layer(f"{ours}.attn.qkv", f"{theirs}_attn.qkv")
            yield from norms(f"{ours}.attn", f"{theirs}_attn.norm.query_norm.scale", f"{theirs}_attn.norm.key_norm.scale")
            yield from layer(f"{ours}.attn.proj", f"{theirs}_attn.proj")
            yield from layer(f"{ours}.mlp.fc1", f"{theirs}_mlp.0")
            yield from layer(f"{ours}.mlp.fc2", f"{theirs}_mlp.2")
    for i in range(config.single_depth):
        name = f"single_blocks.{i}"
        yield from layer(f"{name}.adaLN_modulation.1", f"{name}.modulation.lin")
        for end in BOTH:
            pair = (f"{name}.attn.qkv.{end}", f"{name}.mlp.fc1.{end}")
            yield Rule(pair, (f"{name}.linear1.{end}",), first=3 * config.hidden_size)
        yield from norms(f"{name}.attn", f"{name}.norm.query_norm.scale", f"{name}.norm.key_norm.scale")
        yield from second_matrix(config, name, f"{name}.linear2")


# ------------------------------------------------------------------------------------------------ both ways


def rules_of(config: Streams, grammar: str) -> list[Rule]:
    """The table of a project."""
    if isinstance(config, FluxConfig):
        return list(flux_official(config) if grammar == "official" else flux_diffusers(config))
    return [] if grammar == "official" else list(mmdit_diffusers(config))


def ours_from(arrays: Mapping[str, Lazy], config: Streams, grammar: str) -> dict[str, Lazy]:
    """Under our names. Raises CheckpointError for arrays that are missing; an unknown name is kept."""
    rest, ours = dict(arrays), dict[str, Lazy]()
    for rule in rules_of(config, grammar):
        missing = [name for name in rule.theirs if name not in rest]
        if missing:
            raise CheckpointError(f"{missing[0]} is missing")
        whole = concatenated([rest.pop(name) for name in rule.theirs], rule.axis, rule.theirs[0])
        if rule.shape:
            whole = shaped(whole, rule.shape)
        whole = halves_swapped(whole) if rule.swap else whole
        along = whole.shape[rule.axis] if len(whole.shape) > rule.axis else 0
        lengths = [rule.first, along - rule.first] if rule.first else [along]
        ours |= zip(rule.ours, cut(whole, rule.axis, lengths, rule.theirs[0]), strict=True)
    return ours | rest


def theirs_from(arrays: Mapping[str, Lazy], config: Streams, grammar: str) -> dict[str, Lazy]:
    """A whole state of ours under their names."""
    rules = rules_of(config, grammar)
    theirs = {} if rules else dict(arrays)
    for rule in rules:
        whole = concatenated([arrays[name] for name in rule.ours], rule.axis, rule.ours[0])
        if rule.shape:
            whole = shaped(whole, (rule.shape[0], whole.shape[1] * whole.shape[2] * whole.shape[3]))
        whole = halves_swapped(whole) if rule.swap else whole
        n = len(rule.theirs)
        theirs |= zip(rule.theirs, cut(whole, rule.axis, [whole.shape[rule.axis] // n] * n, rule.ours[0]), strict=True)
    return theirs
