"""Networks, one file each, readable alone."""

from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DIT, DiT, DiTConfig
from minidit.models.spacetime import SPACETIME, SpacetimeConfig, SpacetimeDiT
from minidit.models.unet import UNet, UNetConfig

__all__ = [
    "DIT", "SPACETIME", "Autoencoder", "AutoencoderConfig", "AutoencoderKL", "AutoencoderKLConfig", "Classifier",
    "ClassifierConfig", "DiT", "DiTConfig", "SpacetimeConfig", "SpacetimeDiT", "UNet", "UNetConfig",
]  # fmt: skip
