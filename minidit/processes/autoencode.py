"""Training the latent autoencoder.

    loss = mean (x - x̂)² + w · KL / (number of latent numbers)        images in [-1, 1], w = 1e-4 by default      (L.2)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from minidit import ops
from minidit.autograd import Tensor
from minidit.backend import Array
from minidit.models.autoencoder import Autoencoder
from minidit.training.draws import Draws
from minidit.training.loop import Loop, ShortRecipe
from minidit.training.source import Data, source_of


@dataclass(frozen=True)
class AutoencodeConfig(ShortRecipe):
    """The training of a tokenizer: of an autoencoder with a Gaussian posterior, or of codes (codes.py)."""

    kl_weight: float = 1e-4  # of a Gaussian posterior: how much the latents are drawn towards a standard normal distribution
    beta: float = 0.25  # of codes: how fast vectors go to theirs
    warm: int = 200  # of codes: updates before anything is quantised (FSQ needs none)
    revive: int = 100  # of codes: updates between two looks for unused ones, in the first half of the training; 0: never

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.beta, self.warm, self.revive) < 0:
            raise ValueError(f"beta = {self.beta}, warm = {self.warm} and revive = {self.revive} must be at least 0")


@dataclass(frozen=True)
class Reconstruction:
    """The loss of an autoencoder."""

    kl_weight: float = 1e-4

    stream: ClassVar[int] = 0x6165
    per: ClassVar[int] = 4

    def loss(self, network: Any, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        x_hat, mean, logvar = network(x_0, draws.normal((len(x_0), *network.latent_shape(*x_0.shape[2:]))))
        error = ops.mse(x_hat, x_0)
        kl = ops.gaussian_kl(mean, logvar) * (1 / mean.data[0].size)
        return error + kl * self.kl_weight, {"mse": error.data, "kl": kl.data}  # (L.2)


def autoencode(model: Autoencoder, data: Data, config: AutoencodeConfig, *, kind: str | None = None) -> Loop:
    """The Loop of an autoencoder."""
    source = source_of(data, model.device, model.dtype)
    return Loop(model, Reconstruction(config.kl_weight), source, config, kind=kind)
