"""The blocks of diffusers' UNet2DModel, as it makes them where nothing is asked for, as answers to the kit's topics."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from minidit.backend import Array
from minidit.verify.borders.schedulers import Answers
from minidit.verify.borders.torch import to_numpy, torch
from minidit.verify.topics.layers import Weights


def blocks(model: Any, **options: Any) -> Answers:
    """Blocks of UNet2DModel with these options, its defaults for the rest."""
    usual = {name: p.default for name, p in inspect.signature(model.__init__).parameters.items()} | options
    parts = importlib.import_module("diffusers.models.resnet")
    layers = importlib.import_module("diffusers.models.attention_processor")
    embeddings, t_ = importlib.import_module("diffusers.models.embeddings"), torch()
    eps = usual["norm_eps"]

    def time(t: Array, width: int) -> Array:
        made = embeddings.Timesteps(width, usual["flip_sin_to_cos"], usual["freq_shift"])
        return to_numpy(made(t_.tensor(t)))

    def block(weights: Weights, x: Array, c: Array, groups: int) -> Array:
        O, D = weights["time_emb_proj.weight"].shape
        made = parts.ResnetBlock2D(in_channels=x.shape[1], out_channels=O, temb_channels=D, groups=groups, eps=eps)
        return to_numpy(_loaded(made, weights)(t_.tensor(x), t_.tensor(c)))

    def attention(weights: Weights, x: Array, groups: int) -> Array:
        C = x.shape[1]
        made = layers.Attention(
            C, heads=1, dim_head=C, eps=eps, norm_num_groups=groups, residual_connection=True, bias=True,
            _from_deprecated_attn_block=True,
        )  # fmt: skip
        return to_numpy(_loaded(made, weights)(t_.tensor(x)))

    def double(x: Array, weight: Array, bias: Array) -> Array:
        made = parts.Upsample2D(x.shape[1], use_conv=True, out_channels=len(weight))
        return to_numpy(_loaded(made, {"conv.weight": weight, "conv.bias": bias})(t_.tensor(x)))

    def halve(x: Array, weight: Array, bias: Array) -> Array:
        padding = usual["downsample_padding"]
        made = parts.Downsample2D(x.shape[1], use_conv=True, out_channels=len(weight), padding=padding, name="op")
        return to_numpy(_loaded(made, {"conv.weight": weight, "conv.bias": bias})(t_.tensor(x)))

    return {
        "unet_time_embedding": time, "unet_block": block, "unet_attention": attention, "unet_double": double, "halve": halve,
    }  # fmt: skip


def _loaded(module: Any, weights: Weights) -> Any:
    t_ = torch()
    module.to(t_.float64).eval().load_state_dict({name: t_.tensor(a) for name, a in weights.items()})
    return t_.no_grad()(module)
