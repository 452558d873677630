"""The configurations of MM-DiT and FLUX from a config.json of diffusers and back, and from the shapes of the official arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping

from minidit.checkpoint.files import CheckpointError, Lazy
from minidit.checkpoint.grammar import config_from
from minidit.checkpoint.names_streams import Streams
from minidit.checkpoint.semantics import Difference, of_settings
from minidit.checkpoint.settings import VERSION, checked, unknown_in, whole
from minidit.models.flux_config import FluxConfig
from minidit.models.mmdit_config import MMDiTConfig

PACKING = 2  # the side of a patch of FLUX: diffusers' network takes packed patches and does not state it
ASSUMED = 128  # the side of the latents of a picture of 1024 × 1024, for files that do not state a side


def reasons_against(config: Streams) -> list[str]:
    """What neither diffusers nor the official code has."""
    reasons = {
        "captions or classes of its own": not config.text_width,
        f"mlp_ratio {config.mlp_ratio}": config.mlp_ratio != 4,
        "a learned variance": config.learn_sigma,
        f"a picture of {config.size[0]} × {config.size[1]}": config.size[0] != config.size[1],
    }
    if isinstance(config, MMDiTConfig):
        reasons |= {f"context_ratio {config.context_ratio}": config.context_ratio != 4}
    else:
        reasons |= {"guidance from one": config.guidance == "from_one"}
        reasons |= {f"patch_size {config.patch_size}": config.patch_size != PACKING}
    return [what for what, true in reasons.items() if true]


def differences_of(config: Streams, grammar: str) -> tuple[Difference, ...]:
    """What the other project computes differently, although every weight is the same."""
    flux = isinstance(config, FluxConfig)
    out = [Difference("text encoders", "reads words itself; here their outputs are the condition", False)]
    if grammar == "diffusers":
        about = "the final modulation is (scale, shift) there" + ("" if flux else ", and so is that of the last context")
        out.append(Difference("swapped halves", f"{about}: the halves change places", True))
        islands = "time embedding" + (", the tables of RoPE and the turn" if flux else " and the mean squares of QK-norm")
        out.append(Difference("float32", f"computes the {islands} in float32 for any weights", False))
    if flux:
        about = "takes times in 0..1 and multiplies them, and the guidance, by 1000; here t comes in 0..1000"
        out.append(Difference("time", about, False))
        out.append(Difference("packing", "takes patches that are packed already; they are packed here, in the same order", False))
    return tuple(out)


# ------------------------------------------------------------------------------------------------ diffusers


def settings_of(config: Streams) -> dict[str, object]:
    """The config.json of diffusers' network of this configuration."""
    shared = {
        "_diffusers_version": VERSION,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "joint_attention_dim": config.text_width,
        "num_attention_heads": config.num_heads,
        "num_layers": config.depth,
        "pooled_projection_dim": config.text_pooled,
    }
    if isinstance(config, FluxConfig):
        return shared | {
            "_class_name": "FluxTransformer2DModel",
            "axes_dims_rope": list(config.axes),
            "guidance_embeds": config.guidance == "flux",
            "in_channels": config.in_channels * config.patch_size**2,
            "num_single_layers": config.single_depth,
            "out_channels": None,
            "patch_size": 1,
        }
    return shared | {
        "_class_name": "SD3Transformer2DModel",
        "caption_projection_dim": config.hidden_size,
        "dual_attention_layers": list(config.dual_attention),
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "patch_size": config.patch_size,
        "pos_embed_max_size": config.side[0],
        "qk_norm": "rms_norm" if config.qk_norm else None,
        "sample_size": config.size[0],
    }


def mmdit_from_settings(settings: Mapping[str, object], where: str) -> tuple[MMDiTConfig, tuple[Difference, ...]]:
    """(configuration, settings that are not known here). Raises CheckpointError for other networks."""
    heads, width = whole(settings, "num_attention_heads", 18, where), whole(settings, "attention_head_dim", 64, where)
    channels, norm = whole(settings, "in_channels", 16, where), settings.get("qk_norm")
    if norm not in (None, "rms_norm"):
        raise CheckpointError(f"{where}: qk_norm = {norm!r}, None or 'rms_norm' is what is implemented here")
    checked(settings, {"caption_projection_dim": heads * width, "out_channels": channels}, where)
    values = {
        "input_size": whole(settings, "sample_size", 128, where), "patch_size": whole(settings, "patch_size", 2, where),
        "in_channels": channels, "hidden_size": heads * width, "depth": whole(settings, "num_layers", 18, where),
        "num_heads": heads, "context_ratio": 4.0, "qk_norm": norm is not None,
        "dual_attention": list_of(settings, "dual_attention_layers", [], where),
        "position_side": whole(settings, "pos_embed_max_size", 96, where), "class_dropout_prob": 0.0,
        "text_width": whole(settings, "joint_attention_dim", 4096, where),
        "text_pooled": whole(settings, "pooled_projection_dim", 2048, where),
    }  # fmt: skip
    config = config_from(MMDiTConfig, values, where)
    return config, of_settings(unknown_in(settings, set(settings_of(config))), settings)


def flux_from_settings(settings: Mapping[str, object], where: str) -> tuple[FluxConfig, tuple[Difference, ...]]:
    """(configuration, what the file leaves open or this package does not know). Raises CheckpointError for other networks."""
    heads, width = whole(settings, "num_attention_heads", 24, where), whole(settings, "attention_head_dim", 128, where)
    channels, guided = whole(settings, "in_channels", 64, where), settings.get("guidance_embeds", False)
    checked(settings, {"patch_size": 1}, where)
    if channels % PACKING**2 or settings.get("out_channels") not in (None, channels) or not isinstance(guided, bool):
        raise CheckpointError(f"{where}: in_channels = {channels}, out_channels or guidance_embeds is not that of a FLUX.1")
    values = {
        "input_size": ASSUMED, "patch_size": PACKING, "in_channels": channels // PACKING**2, "hidden_size": heads * width,
        "depth": settings.get("num_layers", 19), "single_depth": settings.get("num_single_layers", 38), "num_heads": heads,
        "rope_widths": list_of(settings, "axes_dims_rope", [16, 56, 56], where), "guidance": "flux" if guided else "none",
        "class_dropout_prob": 0.0, "text_width": whole(settings, "joint_attention_dim", 4096, where),
        "text_pooled": whole(settings, "pooled_projection_dim", 768, where),
    }  # fmt: skip
    config = config_from(FluxConfig, values, where)
    sized = Difference("input size", f"no file states the size of the picture: {ASSUMED} is assumed", False)
    return config, (sized, *of_settings(unknown_in(settings, set(settings_of(config))), settings))


def list_of(settings: Mapping[str, object], key: str, default: list[int], where: str) -> list[int]:
    """A list of whole numbers. Raises CheckpointError for anything else."""
    value = settings.get(key, default)
    if not isinstance(value, list) or any(type(n) is not int or n < 0 for n in value):
        raise CheckpointError(f"{where}: {key} = {value!r} must be a list of whole numbers")
    return value


# ------------------------------------------------------------------------------------------------ official


def count_of(arrays: Mapping[str, Lazy], stem: str) -> int:
    """The blocks under a name."""
    return 1 + max((int(n.split(".")[1]) for n in arrays if n.startswith(f"{stem}.")), default=-1)


def mmdit_from_shapes(arrays: Mapping[str, Lazy], heads: int | None, where: str) -> tuple[MMDiTConfig, tuple[Difference, ...]]:
    """The configuration of an official Stable Diffusion 3. Its heads are 64 wide where no array shows it."""
    try:
        D, C, p, _ = arrays["x_embedder.proj.weight"].shape
        depth, norm = count_of(arrays, "joint_blocks"), "joint_blocks.0.x_block.attn.ln_q.weight" in arrays
        K = arrays["joint_blocks.0.x_block.attn.ln_q.weight"].shape[0] if norm else 64
        side, text = math.isqrt(arrays["pos_embed"].shape[1]), arrays["context_embedder.weight"].shape[1]
        pooled, inner = arrays["y_embedder.mlp.0.weight"].shape[1], arrays["joint_blocks.0.x_block.mlp.fc1.bias"].shape[0]
        dual = tuple(i for i in range(depth) if f"joint_blocks.{i}.x_block.attn2.qkv.weight" in arrays)
        grid = min(ASSUMED // p, side)
        config = MMDiTConfig(
            grid * p, p, C, D, depth, heads or D // K, mlp_ratio=inner / D, context_ratio=4.0, qk_norm=norm, dual_attention=dual,
            position_side=side, class_dropout_prob=0.0, text_width=text, text_pooled=pooled,
        )  # fmt: skip
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{where}: not the arrays of a whole MM-DiT ({error})") from error
    return config, (Difference("input size", f"the file does not state it: {config.size[0]} is assumed", False),)


def flux_from_shapes(arrays: Mapping[str, Lazy], heads: int | None, where: str) -> tuple[FluxConfig, tuple[Difference, ...]]:
    """The configuration of an official FLUX.1."""
    try:
        D, numbers = arrays["img_in.weight"].shape
        (K,) = arrays["double_blocks.0.img_attn.norm.query_norm.scale"].shape
        guided = "guidance_in.in_layer.weight" in arrays
        inner = arrays["double_blocks.0.img_mlp.0.bias"].shape[0]
        config = FluxConfig(
            ASSUMED, PACKING, numbers // PACKING**2, D, count_of(arrays, "double_blocks"), count_of(arrays, "single_blocks"),
            heads or D // K, mlp_ratio=inner / D, guidance="flux" if guided else "none", class_dropout_prob=0.0,
            text_width=arrays["txt_in.weight"].shape[1], text_pooled=arrays["vector_in.in_layer.weight"].shape[1],
        )  # fmt: skip
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{where}: not the arrays of a whole FLUX.1 ({error})") from error
    axes = Difference("rotary places", f"no array shows the axes of RoPE: {config.axes} are assumed", True)
    return config, (Difference("input size", f"the file does not state it: {ASSUMED} is assumed", False), axes)
