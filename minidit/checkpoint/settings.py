"""Configurations from a config.json of diffusers and back; without a config.json, from the shapes of the arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from minidit.checkpoint.files import CheckpointError, Lazy
from minidit.checkpoint.semantics import Difference
from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.models.dit import DIT, DiTConfig

VERSION = "0.42.1"  # of diffusers, whose settings these are

# what our networks do; a config.json with another value describes a network that is not implemented here
DIT_MUST: dict[str, object] = {
    "norm_type": "ada_norm_zero",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
}
KL_MUST: dict[str, object] = {
    "act_fn": "silu",
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
}
# schedulers of diffusers that were trained on a ladder of betas, whatever way they walk it
LADDERS = {
    "DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler", "PNDMScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler", "DEISMultistepScheduler",
    "UniPCMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler",
}  # fmt: skip
SWITCHES = {"clip_sample", "thresholding", "rescale_betas_zero_snr", "use_karras_sigmas", "set_alpha_to_one"}
READ = {"num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas", "prediction_type"}
# settings that change nothing while the switch is off, or that the walk replaces (D.26)
BEHIND = {
    "clip_sample_range": "clip_sample", "sample_max_value": "thresholding", "dynamic_thresholding_ratio": "thresholding",
}  # fmt: skip
WALK = {"timestep_spacing", "steps_offset", "skip_prk_steps", "set_alpha_to_one", "num_inference_steps"}
# settings that do not change the network's output
DIT_IDLE = {"dropout", "norm_num_groups", "upcast_attention", "attention_type"}
KL_IDLE = {"force_upcast", "down_block_types", "up_block_types", "sample_size"}


def checked(settings: Mapping[str, object], must: Mapping[str, object], where: str) -> None:
    """Raises CheckpointError for a setting that our network does not have."""
    for key, expected in must.items():
        if settings.get(key, expected) != expected:
            raise CheckpointError(f"{where}: {key} = {settings[key]!r}, a network with {expected!r} is what is implemented here")


def whole(settings: Mapping[str, object], key: str, default: int, where: str) -> int:
    """A positive whole number. Raises CheckpointError for anything else."""
    value = settings.get(key, default)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{where}: {key} = {value!r} must be a positive whole number")
    return value


def unknown_in(settings: Mapping[str, object], known: set[str]) -> list[str]:
    """The names of settings that have an effect and are not known here."""
    without_effect: tuple[object, ...] = (None, False, 0, [], {})
    return [k for k, v in settings.items() if k not in known and not k.startswith("_") and v not in without_effect]


# ------------------------------------------------------------------------------------------------ DiT


def dit_from_settings(settings: Mapping[str, object], where: str) -> tuple[DiTConfig, list[str]]:
    """(configuration as diffusers runs it, settings that are not known here)."""
    checked(settings, DIT_MUST, where)
    channels = whole(settings, "in_channels", 4, where)
    out = settings.get("out_channels") or channels
    if out not in (channels, 2 * channels):
        raise CheckpointError(f"{where}: out_channels = {out!r}, expected {channels} or {2 * channels}")
    heads = whole(settings, "num_attention_heads", 16, where)
    eps = settings.get("norm_eps", 1e-5)
    if type(eps) is not float or not eps > 0:
        raise CheckpointError(f"{where}: norm_eps = {eps!r} must be a number above 0")
    config = DiTConfig(
        input_size=whole(settings, "sample_size", 32, where),
        patch_size=whole(settings, "patch_size", 2, where),
        in_channels=channels,
        hidden_size=heads * whole(settings, "attention_head_dim", 72, where),
        depth=whole(settings, "num_layers", 28, where),
        num_heads=heads,
        num_classes=whole(settings, "num_embeds_ada_norm", 1000, where),
        learn_sigma=out == 2 * channels,
        freq_shift=1,
        mlp_norm_eps=eps,
    )
    known = set(DIT_MUST) | DIT_IDLE | {
        "in_channels", "out_channels", "num_attention_heads", "attention_head_dim", "norm_eps", "sample_size", "patch_size",
        "num_layers", "num_embeds_ada_norm",
    }  # fmt: skip
    return config, unknown_in(settings, known)


def dit_settings(config: DiTConfig, *, legacy: bool = False) -> dict[str, object]:
    """The config.json of a DiT. legacy: for the class Transformer2DModel that diffusers had before, which knew no norm_eps."""
    settings = {
        "_class_name": "Transformer2DModel" if legacy else "DiTTransformer2DModel",
        "_diffusers_version": "0.12.0" if legacy else VERSION,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "dropout": 0.0,
        "in_channels": config.in_channels,
        "norm_num_groups": 32,
        "num_attention_heads": config.num_heads,
        "num_embeds_ada_norm": config.num_classes,
        "num_layers": config.depth,
        "out_channels": config.out_channels,
        "patch_size": config.patch_size,
        "sample_size": config.size[0],
        "upcast_attention": False,
        **DIT_MUST,
    }
    return settings if legacy else settings | {"norm_eps": config.mlp_norm_eps}


def dit_from_shapes(arrays: Mapping[str, Lazy], heads: int | None, where: str) -> DiTConfig:
    """The configuration of an official DiT. No shape shows the number of heads: None takes it from the preset of this size.

    Raises CheckpointError if no preset has this size.
    """
    try:
        D, C, p, _ = arrays["x_embedder.proj.weight"].shape
        depth = 1 + max(int(n.split(".")[1]) for n in arrays if n.startswith("blocks."))
        out = arrays["final_layer.linear.bias"].shape[0] // (p * p)
        rows = arrays["y_embedder.embedding_table.weight"].shape[0]
        inner = arrays["blocks.0.mlp.fc1.bias"].shape[0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{where}: not the arrays of a whole DiT ({error})") from error
    side = math.isqrt(arrays["pos_embed"].shape[1]) * p if "pos_embed" in arrays and len(arrays["pos_embed"].shape) == 3 else 32
    presets = {(c.hidden_size, c.depth): c.num_heads for name, c in DIT.items() if name.startswith("DiT-")}
    heads = heads or presets.get((D, depth))
    if heads is None:
        sizes = f"width {D} and depth {depth}"
        raise CheckpointError(f"{where}: {sizes} are no preset's, and no array shows the number of heads: give num_heads")
    return DiTConfig(
        input_size=side, patch_size=p, in_channels=C, hidden_size=D, depth=depth, num_heads=heads, mlp_ratio=inner / D,
        num_classes=rows - 1, learn_sigma=out == 2 * C,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the scheduler


def of_scheduler(settings: Mapping[str, object], where: str) -> tuple[Difference, ...]:
    """The settings of a scheduler_config.json that its ladder and prediction do not express.

    Raises CheckpointError for a scheduler without a ladder of betas (flow matching, EDM), and for a switch that is no boolean.
    """
    kind = settings.get("_class_name", "DDPMScheduler")
    if not isinstance(kind, str) or kind not in LADDERS:
        raise CheckpointError(f"{where}: a {kind} has no ladder of betas, which is what is read here")
    for key in SWITCHES & settings.keys():
        if not isinstance(settings[key], bool):
            raise CheckpointError(f"{where}: {key} = {settings[key]!r} must be true or false")
    idle = {key for key, switch in BEHIND.items() if not settings.get(switch)}
    if settings.get("variance_type") == "fixed_small":
        idle.add("variance_type")
    names = unknown_in(settings, READ | WALK | idle)
    return tuple(Difference(f"scheduler {n}", f"{settings[n]!r} is not done here", False) for n in names)


# ------------------------------------------------------------------------------------------------ the KL autoencoder


def kl_from_settings(settings: Mapping[str, Any], where: str) -> tuple[AutoencoderKLConfig, list[str]]:
    """(configuration, settings that are not known here)."""
    checked(settings, KL_MUST, where)
    widths = settings.get("block_out_channels", [64])
    if not isinstance(widths, list) or not widths or any(type(w) is not int or w < 1 for w in widths):
        raise CheckpointError(f"{where}: block_out_channels = {widths!r} must be a list of positive whole numbers")
    channels = whole(settings, "in_channels", 3, where)
    must = {
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }
    checked(settings, must, where)
    scale = settings.get("scaling_factor", 0.18215)
    if type(scale) not in (int, float) or not scale > 0:
        raise CheckpointError(f"{where}: scaling_factor = {scale!r} must be a number above 0")
    size = settings.get("sample_size", 256)
    config = AutoencoderKLConfig(
        channels=channels,
        latent_channels=whole(settings, "latent_channels", 4, where),
        widths=tuple(widths),
        blocks=whole(settings, "layers_per_block", 1, where),
        groups=whole(settings, "norm_num_groups", 32, where),
        scale=float(scale),
        size=tuple(size) if isinstance(size, list) else size,
    )
    known = {"block_out_channels", "latent_channels", "layers_per_block", "norm_num_groups", "scaling_factor", "in_channels"}
    return config, unknown_in(settings, known | set(must) | set(KL_MUST) | KL_IDLE)


def kl_settings(config: AutoencoderKLConfig, scale: float) -> dict[str, object]:
    """The config.json of a KL autoencoder; scale: what its latents are multiplied by now."""
    n = len(config.widths)
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": VERSION,
        "block_out_channels": list(config.widths),
        "down_block_types": ["DownEncoderBlock2D"] * n,
        "force_upcast": True,
        "in_channels": config.channels,
        "latent_channels": config.latent_channels,
        "layers_per_block": config.blocks,
        "norm_num_groups": config.groups,
        "out_channels": config.channels,
        "sample_size": list(config.size) if isinstance(config.size, tuple) else config.size,
        "scaling_factor": scale,
        "up_block_types": ["UpDecoderBlock2D"] * n,
        **KL_MUST,
    }


def kl_from_shapes(arrays: Mapping[str, Lazy], meta: Mapping[str, object], where: str) -> AutoencoderKLConfig:
    """The configuration of a KL autoencoder. No array shows groups and scale: where the header does not state them, those of
    the published one are taken."""
    scale = meta.get("scaling_factor", AutoencoderKLConfig.scale)
    if not isinstance(scale, (int, float)):
        raise CheckpointError(f"{where}: scaling_factor = {scale!r} must be a number above 0")
    try:
        sizes = 1 + max(int(n.split(".")[2]) for n in arrays if n.startswith("encoder.down_blocks."))
        blocks = 1 + max(int(n.split(".")[4]) for n in arrays if n.startswith("encoder.down_blocks.0.resnets."))
        return AutoencoderKLConfig(
            channels=arrays["encoder.conv_in.weight"].shape[1],
            latent_channels=arrays["decoder.conv_in.weight"].shape[1],
            widths=tuple(arrays[f"encoder.down_blocks.{i}.resnets.0.conv1.bias"].shape[0] for i in range(sizes)),
            blocks=blocks,
            groups=whole(meta, "norm_num_groups", AutoencoderKLConfig.groups, where),
            scale=float(scale),
        )
    except CheckpointError:
        raise
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{where}: not the arrays of a whole KL autoencoder ({error})") from error
