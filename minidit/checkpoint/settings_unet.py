"""A U-Net's configuration from a config.json of diffusers' UNet2DModel and back, and the names of its arrays.

Our names are those of diffusers today; files from before 2023 call the maps of an attention query, key, value and proj_attn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from minidit.checkpoint.files import CheckpointError, Lazy
from minidit.checkpoint.grammar import config_from
from minidit.checkpoint.names_kl import OLD, linear
from minidit.checkpoint.semantics import Difference, of_settings
from minidit.checkpoint.settings import VERSION, checked, unknown_in, whole
from minidit.models.unet_config import UNetConfig

MUST: dict[str, object] = {  # what our network does; another value describes a network that is not implemented here
    "act_fn": "silu",
    "center_input_sample": False,
    "class_embed_type": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2D",
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
}
IDLE = {"dropout", "num_train_timesteps"}  # these do not change the output of a trained network
DOWN = ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]  # where a file does not say
# what a U-Net here has no choice of: the way up mirrors the way down, all sizes change in one way, every norm has its groups
DECIDE = ("down_block_types", "up_block_types", "attn_norm_num_groups", "downsample_padding", "out_channels", "upsample_type")
ATTENTIONS = re.compile(r"(.*attentions\.\d+\.)(query|key|value|proj_attn)\.(weight|bias)")


def from_diffusers(arrays: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Our names, from diffusers' new or old ones."""
    renamed = {theirs: ours for ours, theirs in OLD.items()}

    def new(name: str) -> str:
        match = ATTENTIONS.fullmatch(name)
        return f"{match[1]}{renamed[match[2]]}.{match[3]}" if match else name

    ours = {new(name): a for name, a in arrays.items()}
    return {name: linear(a) if ".attentions." in name else a for name, a in ours.items()}


def block_types(config: UNetConfig) -> tuple[list[str], list[str]]:
    """The names of the classes of diffusers for the sizes on the way down, and on the way up."""
    plain = ("DownBlock2D", "UpBlock2D") if config.resample == "conv" else ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    kinds = [("AttnDownBlock2D", "AttnUpBlock2D") if i in config.attention else plain for i in range(len(config.widths))]
    return [down for down, _ in kinds], [up for _, up in reversed(kinds)]


def unet_settings(config: UNetConfig) -> dict[str, object]:
    """The config.json of a U-Net."""
    down, up = block_types(config)
    H, W = config.size
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        "add_attention": config.middle_attention,
        "attention_head_dim": config.head_width or None,
        "attn_norm_num_groups": config.groups if config.scale_shift else None,
        "block_out_channels": list(config.widths),
        "down_block_types": down,
        "downsample_padding": int(config.even_padding),
        "downsample_type": config.resample,
        "dropout": 0.0,
        "flip_sin_to_cos": config.cosine_first,
        "freq_shift": config.freq_shift,
        "in_channels": config.in_channels,
        "layers_per_block": config.blocks,
        "norm_eps": config.norm_eps,
        "norm_num_groups": config.groups,
        "num_class_embeds": config.condition.rows or None,
        "num_train_timesteps": None,
        "out_channels": config.out_channels,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "sample_size": H if H == W else [H, W],
        "up_block_types": up,
        "upsample_type": config.resample,
        **MUST,
    }


def unet_from_settings(settings: Mapping[str, object], where: str) -> tuple[UNetConfig, tuple[Difference, ...]]:
    """(configuration, what that file leaves open or this package does not know). Raises CheckpointError for other networks."""
    theirs = {"down_block_types": DOWN, "block_out_channels": [224, 448, 672, 896], **settings}
    theirs["act_fn"] = "silu" if theirs.get("act_fn") == "swish" else theirs.get("act_fn", "silu")  # its former name
    checked(theirs, MUST, where)
    down, channels = theirs["down_block_types"], whole(theirs, "in_channels", 3, where)
    if not isinstance(down, list):
        raise CheckpointError(f"{where}: down_block_types = {down!r} must be a list")
    resnet = "ResnetDownsampleBlock2D" in down or theirs.get("downsample_type", "conv") == "resnet"
    values = {
        "input_size": theirs.get("sample_size") or 32,
        "in_channels": channels,
        "widths": theirs["block_out_channels"],
        "blocks": theirs.get("layers_per_block", 2),
        "attention": [i for i, kind in enumerate(down) if kind == "AttnDownBlock2D"],
        "middle_attention": theirs.get("add_attention", True),
        "head_width": theirs.get("attention_head_dim", 8) or 0,
        "groups": theirs.get("norm_num_groups", 32),
        "scale_shift": theirs.get("resnet_time_scale_shift", "default") == "scale_shift",
        "resample": "resnet" if resnet else "conv",
        "class_dropout_prob": 0.0,
        "num_classes": theirs.get("num_class_embeds") or 0,
        "learn_sigma": theirs.get("out_channels", channels) == 2 * channels,
        "freq_shift": theirs.get("freq_shift", 0),
        "cosine_first": theirs.get("flip_sin_to_cos", True),
        "even_padding": bool(theirs.get("downsample_padding", 1)),
        "norm_eps": theirs.get("norm_eps", 1e-5),
    }
    config = config_from(UNetConfig, values, where)
    expected = unet_settings(config)
    if "downsample_type" not in theirs and "AttnDownBlock2D" not in down:
        expected |= {"downsample_type": "conv", "upsample_type": "conv"}  # only blocks with attention read it
    checked(theirs, {key: expected[key] for key in DECIDE if key in theirs}, where)
    sized = () if theirs.get("sample_size") else (Difference("input size", "the file states no size: 32 is assumed", False),)
    return config, sized + of_settings(unknown_in(theirs, set(expected) | IDLE), theirs)
