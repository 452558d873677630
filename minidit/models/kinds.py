"""The networks of this package by name, and the phase of a run that trains each: a new one is a file here and a row below."""

from __future__ import annotations

from typing import Any, NamedTuple

from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT, DiTConfig
from minidit.models.flow_map import FlowMapConfig, FlowMapDiT
from minidit.models.flux import Flux, FluxConfig
from minidit.models.gpt import GPT, GPTConfig
from minidit.models.guided import GuidedConfig, GuidedDiT
from minidit.models.mmdit import MMDiT, MMDiTConfig
from minidit.models.spacetime import SpacetimeDiT
from minidit.models.spacetime_config import SpacetimeConfig
from minidit.models.unet import UNet, UNetConfig
from minidit.models.var import VAR, VARConfig
from minidit.models.vq import FSQ, VQ, FSQConfig, MultiScaleVQ, MultiScaleVQConfig, VQConfig

Network = (
    DiT | UNet | MMDiT | Flux | SpacetimeDiT | GPT | VAR | Autoencoder | AutoencoderKL | VQ | FSQ | MultiScaleVQ | Classifier
)


class Kind(NamedTuple):
    """network(config, rng, device=, dtype=) builds one; rng None only allocates its weights."""

    config: type[Any]
    network: type[Any]
    phase: str  # of a run: model, tokenizer or judge


NETWORKS = {
    "flow_map": Kind(FlowMapConfig, FlowMapDiT, "model"),  # before dit, whose configuration it extends
    "guided": Kind(GuidedConfig, GuidedDiT, "model"),  # likewise
    "dit": Kind(DiTConfig, DiT, "model"),
    "unet": Kind(UNetConfig, UNet, "model"),
    "mmdit": Kind(MMDiTConfig, MMDiT, "model"),
    "spacetime": Kind(SpacetimeConfig, SpacetimeDiT, "model"),
    "flux": Kind(FluxConfig, Flux, "model"),
    "gpt": Kind(GPTConfig, GPT, "model"),
    "var": Kind(VARConfig, VAR, "model"),
    "autoencoder": Kind(AutoencoderConfig, Autoencoder, "tokenizer"),
    "autoencoder_kl": Kind(AutoencoderKLConfig, AutoencoderKL, "tokenizer"),
    "multiscale_vq": Kind(MultiScaleVQConfig, MultiScaleVQ, "tokenizer"),  # before vq, whose configuration it extends
    "vq": Kind(VQConfig, VQ, "tokenizer"),
    "fsq": Kind(FSQConfig, FSQ, "tokenizer"),
    "classifier": Kind(ClassifierConfig, Classifier, "judge"),
}
