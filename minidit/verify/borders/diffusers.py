"""diffusers at the border: its schedulers, in any of their options, its DiT and parts of other networks, as answers to topics.

    print(md.verify.check(md.verify.diffusers.scheduler(DDIMScheduler(clip_sample=False))))

A scheduler answers the topics that its options speak of: the ladder of its beta_schedule, the timesteps of its spacing, the walk
through a list, noising, and a step with its variance, clipping and prediction type (schedulers.py).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.checkpoint.files import lazy
from minidit.checkpoint.names_dit import to_diffusers
from minidit.verify.borders import streams, unet
from minidit.verify.borders.continuous import Continuous, time_laws
from minidit.verify.borders.schedulers import Answers, Schedulers
from minidit.verify.borders.torch import config_of, to_numpy, torch

CHOICES = {  # what the package itself would take without a word, or compute as something else
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
}


def diffusers() -> Any:
    """The package, silenced; ValueError that says how to get it."""
    torch()
    try:
        package = importlib.import_module("diffusers")
        package.utils.logging.set_verbosity_error()
        return package
    except ImportError as error:
        raise ValueError("diffusers is not installed (pip install 'minidit[peers]')") from error


def version() -> str:
    """diffusers with its version, as reports name it."""
    return f"diffusers {diffusers().__version__}"


def scheduler(original: Any, *, use_clipped_model_output: bool = False) -> Answers:
    """The topics that a scheduler answers with these options: DDPM, DDIM and its inverse, flow matching, EDM, consistency."""
    made, other = Schedulers(original, use_clipped_model_output), Continuous(original)
    kinds = {
        "DDPMScheduler": made.ddpm, "DDIMScheduler": made.ddim, "DDIMInverseScheduler": made.inverse,
        "FlowMatchEulerDiscreteScheduler": other.flow_euler, "FlowMatchHeunDiscreteScheduler": other.flow_heun,
        "EDMEulerScheduler": other.edm, "CMStochasticIterativeScheduler": other.consistency,
    }  # fmt: skip
    name = type(original).__name__
    if name not in kinds:
        raise ValueError(f"{name} is not one of {', '.join(kinds)}")
    return kinds[name]()


def named(words: list[str]) -> Answers:
    """A scheduler from words: DDIMScheduler timestep_spacing=trailing clip_sample=false. Raises ValueError for what it lacks."""
    name, *pairs = words
    kind = getattr(diffusers(), name, None)
    if not (inspect.isclass(kind) and hasattr(kind, "set_timesteps")):
        raise ValueError(f"diffusers has no scheduler {name!r}")
    known = {k for k in inspect.signature(kind.__init__).parameters if k not in ("self", "kwargs")}
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ValueError(f"{name} has no option {pair!r}" + (f", did you mean {near[0]}=…?" if near else ""))
        options[key] = _read(text)
        usual = inspect.signature(kind.__init__).parameters[key].default
        if isinstance(usual, bool) and not isinstance(options[key], bool):
            raise ValueError(f"{key}={text}: true or false")
        if key in CHOICES and options[key] not in CHOICES[key]:
            raise ValueError(f"{key}={text}: one of {', '.join(CHOICES[key])}")
    return scheduler(kind(**options))


def _read(text: str) -> Any:
    """The value of an option: JSON, true and false also as Python writes them, or else a word."""
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def target() -> Answers:
    """Everything that the installed version can be asked: schedulers with the options that the topics speak of, and networks."""
    d = diffusers()
    out: Answers = {}
    for kind in (d.DDPMScheduler, d.DDIMScheduler):
        out |= scheduler(kind(clip_sample=True))  # the defaults, and what clips
        for options in (
            {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012}, {"beta_schedule": "squaredcos_cap_v2"},
            {"timestep_spacing": "linspace"}, {"timestep_spacing": "trailing"}, {"rescale_betas_zero_snr": True},
            {"thresholding": True}, {"prediction_type": "v_prediction"}, {},
        ):  # fmt: skip
            out = scheduler(kind(**{"clip_sample": False, **options})) | out
    for variance in ("fixed_large", "fixed_small_log", "learned_range"):
        out = scheduler(d.DDPMScheduler(variance_type=variance, clip_sample=False)) | out
    for kind in (
        d.DDIMInverseScheduler, d.EDMEulerScheduler, d.CMStochasticIterativeScheduler, d.FlowMatchHeunDiscreteScheduler,
        d.FlowMatchEulerDiscreteScheduler,
    ):  # fmt: skip
        out |= scheduler(kind(clip_sample=False) if kind is d.DDIMInverseScheduler else kind())
    return out | time_laws() | transformer() | unet.blocks(d.UNet2DModel) | streams.codes() | streams.streams()


# ------------------------------------------------------------------------------------------------ DiT


def transformer() -> Answers:
    """DiTTransformer2DModel: official weights by its names, its tables of time and place in float64.

    It takes the side of the grid for the root of the number of tokens (M99), so it is asked on square grids only.
    """
    t_ = torch()

    def dit(weights: Mapping[str, Array], x: Array, t: Array, y: Array, heads: int, patch_size: int) -> Array:
        config = config_of(weights, x.shape[2:], heads, patch_size)
        size = config["input_size"]
        model = diffusers().DiTTransformer2DModel(
            num_attention_heads=heads, attention_head_dim=config["hidden_size"] // heads, in_channels=config["in_channels"],
            out_channels=weights["final_layer.linear.bias"].size // patch_size**2, num_layers=config["depth"],
            sample_size=size if isinstance(size, int) else max(size), patch_size=patch_size,
            num_embeds_ada_norm=config["num_classes"], activation_fn="gelu-approximate",
        )  # fmt: skip
        model = model.to(t_.float64).eval()
        state = to_diffusers({name: lazy(a) for name, a in weights.items()})
        model.load_state_dict({name: t_.tensor(np.array(a.read())) for name, a in state.items()})
        for part in model.transformer_blocks:
            part.norm1.emb.time_proj = _in_float64(part.norm1.emb.time_proj)
        _place_in_float64(model.pos_embed, x.shape[2] // patch_size, x.shape[3] // patch_size)
        with t_.no_grad():
            return to_numpy(model(t_.tensor(x), t_.tensor(t), t_.tensor(y), return_dict=False)[0])

    def label_dropout(y: Array, p: float, num_classes: int, depth: int, train: bool, seed: int) -> Array:
        """What each block's own embedder is told of the labels. It calls dropout "on" by its training flag."""
        model = diffusers().DiTTransformer2DModel(
            num_attention_heads=1, attention_head_dim=4, num_layers=depth, in_channels=1, sample_size=4,
            num_embeds_ada_norm=num_classes,
        )  # fmt: skip
        t_.manual_seed(seed)
        heard: list[Array] = []
        for part in model.train(train).transformer_blocks:
            embedder = part.norm1.emb.class_embedder
            embedder.dropout_prob = p
            embedder.embedding_table.register_forward_pre_hook(lambda _, labels: heard.append(to_numpy(labels[0])))
            embedder(t_.tensor(y))
        return np.stack(heard)

    return {"dit_square": dit, "label_dropout": label_dropout}


def _in_float64(embed: Any) -> Any:
    """A Timesteps module by its own options, but in float64; ValueError where it says something else than the original."""
    t_ = torch()

    class Sinusoids(t_.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, t: Array) -> Any:
            half = embed.num_channels // 2
            angle = t_.arange(half, dtype=t_.float64) / (half - embed.downscale_freq_shift) * -np.log(10000)
            a = t[:, None] * angle.exp() * embed.scale
            return t_.cat([a.cos(), a.sin()] if embed.flip_sin_to_cos else [a.sin(), a.cos()], dim=1)

    ours, t = Sinusoids(), t_.tensor([0, 7])
    if float((ours(t) - embed(t)).abs().max()) > 1e-5:
        raise ValueError("the time embedding of this version of diffusers is not what its options say")
    return ours


def _place_in_float64(embed: Any, h: int, w: int) -> None:
    """The table of places, which is made in float64 and kept in float32, as it was made; other grids stay as they are."""
    if h == w == embed.height == embed.width:
        make = importlib.import_module("diffusers.models.embeddings").get_2d_sincos_pos_embed
        table = torch().as_tensor(make(embed.pos_embed.shape[-1], h, base_size=embed.base_size, output_type="pt"))
        if float((table - embed.pos_embed[0]).abs().max()) < 1e-6:
            embed.pos_embed = table[None].to(torch().float64)
