"""Networks, one file each, readable alone."""

from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DIT, DiT, DiTConfig
from minidit.models.flux import Flux
from minidit.models.flux_config import FLUX, FluxConfig
from minidit.models.mmdit import MMDiT
from minidit.models.mmdit_config import MMDIT, MMDiTConfig
from minidit.models.spacetime import SpacetimeDiT
from minidit.models.spacetime_config import SPACETIME, SpacetimeConfig
from minidit.models.unet import UNet, UNetConfig

__all__ = [
    "DIT", "FLUX", "MMDIT", "SPACETIME", "Autoencoder", "AutoencoderConfig", "AutoencoderKL", "AutoencoderKLConfig", "Classifier",
    "ClassifierConfig", "DiT", "DiTConfig", "Flux", "FluxConfig", "MMDiT", "MMDiTConfig", "SpacetimeConfig", "SpacetimeDiT",
    "UNet", "UNetConfig",
]  # fmt: skip
