"""minidit: diffusion transformers from scratch on NumPy and CuPy arrays, with their own autograd.

Names are looked up when they are first used, so that importing costs nothing: `import minidit as md; md.DiT(md.DIT["DiT-S/2"])`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minidit.version import __version__

if TYPE_CHECKING:
    from minidit import data, metrics, nn, ops, pictures, verify
    from minidit.autograd import PRIMITIVES, Gradients, Tensor, no_grad, plain_text, primitive
    from minidit.backend import from_dlpack, to_device, to_host, xp_of
    from minidit.checkpoint import describe, save
    from minidit.diffusion import times
    from minidit.diffusion.ddim import ddim_invert_step, ddim_step
    from minidit.diffusion.ddpm import ddpm_step, posterior, q_sample
    from minidit.diffusion.fresh import DDPM, DDPM_LARGE, DDPM_LEARNED, ddim
    from minidit.diffusion.guidance import guide
    from minidit.diffusion.level import Level
    from minidit.diffusion.path import Exploding, Straight
    from minidit.diffusion.prediction import EPS, X_0, U, V, edm, predict_eps, predict_v, predict_x_0
    from minidit.diffusion.schedule import Schedule
    from minidit.diffusion.solver import AB2, AB2_ARC, EULER, HEUN
    from minidit.images import Pictures
    from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
    from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
    from minidit.models.condition import Classes, Nothing
    from minidit.models.dit import DIT, DiT, DiTConfig
    from minidit.models.flux import Flux
    from minidit.models.flux_config import FLUX, FluxConfig
    from minidit.models.mmdit import MMDiT
    from minidit.models.mmdit_config import MMDIT, MMDiTConfig
    from minidit.models.spacetime import SpacetimeDiT
    from minidit.models.spacetime_config import SPACETIME, SpacetimeConfig
    from minidit.models.unet import UNet
    from minidit.models.unet_config import UNET, UNetConfig
    from minidit.optim import AdamW, OptimConfig
    from minidit.processes.autoencode import AutoencodeConfig, autoencode
    from minidit.processes.diffusion import Diffusion, drawn
    from minidit.processes.sample import Sampling, sample
    from minidit.processes.tokenizer import decode, latents_of, reconstruct
    from minidit.processes.train import loop_for, loss, train
    from minidit.random import Philox
    from minidit.runs.loading import load
    from minidit.runs.pipeline import Pipeline
    from minidit.training.loop import Loop, LoopConfig
    from minidit.training.saved import load_state, save_state

_HOMES = {
    "": ("data", "metrics", "nn", "ops", "pictures", "verify"),
    "autograd": ("Gradients", "PRIMITIVES", "Tensor", "no_grad", "plain_text", "primitive"),
    "backend": ("from_dlpack", "to_device", "to_host", "xp_of"),
    "checkpoint": ("describe", "save"),
    "diffusion": ("times",),
    "diffusion.ddim": ("ddim_invert_step", "ddim_step"),
    "diffusion.ddpm": ("ddpm_step", "posterior", "q_sample"),
    "diffusion.fresh": ("DDPM", "DDPM_LARGE", "DDPM_LEARNED", "ddim"),
    "diffusion.guidance": ("guide",),
    "diffusion.level": ("Level",),
    "diffusion.path": ("Exploding", "Straight"),
    "diffusion.prediction": ("EPS", "U", "V", "X_0", "edm", "predict_eps", "predict_v", "predict_x_0"),
    "diffusion.schedule": ("Schedule",),
    "diffusion.solver": ("AB2", "AB2_ARC", "EULER", "HEUN"),
    "images": ("Pictures",),
    "models.autoencoder": ("Autoencoder", "AutoencoderConfig"),
    "models.autoencoder_kl": ("AutoencoderKL", "AutoencoderKLConfig"),
    "models.condition": ("Classes", "Nothing"),
    "models.dit": ("DIT", "DiT", "DiTConfig"),
    "models.flux": ("Flux",),
    "models.flux_config": ("FLUX", "FluxConfig"),
    "models.mmdit": ("MMDiT",),
    "models.mmdit_config": ("MMDIT", "MMDiTConfig"),
    "models.spacetime": ("SpacetimeDiT",),
    "models.spacetime_config": ("SPACETIME", "SpacetimeConfig"),
    "models.unet": ("UNet",),
    "models.unet_config": ("UNET", "UNetConfig"),
    "optim": ("AdamW", "OptimConfig"),
    "random": ("Philox",),
    "processes.autoencode": ("AutoencodeConfig", "autoencode"),
    "training.loop": ("Loop", "LoopConfig"),
    "training.saved": ("load_state", "save_state"),
    "runs.loading": ("load",),
    "runs.pipeline": ("Pipeline",),
    "processes.diffusion": ("Diffusion", "drawn"),
    "processes.sample": ("Sampling", "sample"),
    "processes.tokenizer": ("decode", "latents_of", "reconstruct"),
    "processes.train": ("loop_for", "loss", "train"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "AB2", "AB2_ARC", "DDPM", "DDPM_LARGE", "DDPM_LEARNED", "DIT", "EPS", "EULER", "FLUX", "HEUN", "MMDIT", "PRIMITIVES",
    "SPACETIME", "UNET", "X_0", "AdamW", "AutoencodeConfig", "Autoencoder", "AutoencoderConfig", "AutoencoderKL",
    "AutoencoderKLConfig", "Classes", "DiT", "DiTConfig", "Diffusion", "Exploding", "Flux", "FluxConfig", "Gradients",
    "Level", "Loop", "LoopConfig", "MMDiT", "MMDiTConfig", "Nothing", "OptimConfig", "Philox", "Pictures", "Pipeline",
    "Sampling", "Schedule", "SpacetimeConfig", "SpacetimeDiT", "Straight", "Tensor", "U", "UNet", "UNetConfig", "V",
    "__version__", "autoencode", "data", "ddim", "ddim_invert_step", "ddim_step", "ddpm_step", "decode", "describe", "drawn",
    "edm", "from_dlpack", "guide", "latents_of", "load", "load_state", "loop_for", "loss", "metrics", "nn", "no_grad", "ops",
    "pictures", "plain_text", "posterior", "predict_eps", "predict_v", "predict_x_0", "primitive", "q_sample", "reconstruct",
    "sample", "save", "save_state", "times", "to_device", "to_host", "train", "verify", "xp_of",
]  # fmt: skip  # a literal, which type checkers read


def _found(name: str) -> Any:
    """The public object of this name, imported from its home."""
    if name not in _HOME:
        from minidit.keywords import meant

        raise AttributeError(f"minidit has no {name!r}{meant(name, __all__) or '; it has ' + ', '.join(__all__)}")
    home = _HOME[name]
    if home == "autograd":
        importlib.import_module("minidit.ops")  # a Tensor's operators are spelled there
    if home == "diffusion":
        importlib.import_module(f"minidit.diffusion.{name}")  # a file there, which importing the folder does not read
    module = importlib.import_module(".".join((__name__, home or name)))
    return getattr(module, name) if home else module


if not TYPE_CHECKING:  # else every name would exist for a type checker
    __getattr__ = _found


def __dir__() -> list[str]:
    return list(__all__)
