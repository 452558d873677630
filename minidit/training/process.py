"""A process computes a loss from a network, a batch and random numbers; the loop does the rest.

    loss_b = process.loss(network, x_0, y, draws)        one number per sample; the loop averages over the batch
"""

from __future__ import annotations

from typing import Any, Protocol

from minidit.autograd import Tensor
from minidit.backend import Array
from minidit.training.draws import Draws


class Process(Protocol):
    """Diffusion, the autoencoder's reconstruction, the judge's classification. It knows a network only as a callable."""

    @property
    def stream(self) -> int:
        """The random stream of its training, different for each process."""

    @property
    def per(self) -> int:
        """The maximum number of draws per update."""

    def loss(self, network: Any, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        """x_0 : (B, ...), y : (B,) or None  ->  (losses : (B,), other numbers to record : {name: (B,)})."""
