"""One network for pictures and clips: every update learns from clips, and from one frame of each, a clip of one frame.

    loss_b = (1 - λ) loss(x_0) + λ loss(x_0[frame k])            k uniform, the two with noise and times of their own
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minidit.autograd import Tensor, value
from minidit.backend import Array, xp_of
from minidit.models.backbone import Backbone
from minidit.training.draws import Draws
from minidit.training.process import Process

PICTURES = 0x70000000  # ⊕ the stream of the process: noise and times of the pictures


@dataclass(frozen=True)
class Joint:
    """A process on clips (B, C, T, H, W) that also learns their frames.   share : λ, of the pictures in the loss"""

    process: Process
    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share = {self.share} of the pictures must lie between 0 and 1")

    @property
    def stream(self) -> int:
        return self.process.stream

    @property
    def per(self) -> int:
        return self.process.per + 1

    def loss(self, network: Backbone, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        clips, numbers = self.process.loss(network, x_0, y, draws)
        k = draws.integers(0, x_0.shape[2], number=self.process.per)
        frame = x_0[xp_of(x_0).arange(len(x_0)), :, k][:, :, None]
        pictures, _ = self.process.loss(network, frame, y, replace(draws, stream=draws.stream ^ PICTURES, taken=set()))
        return clips * (1 - self.share) + pictures * self.share, numbers | {"pictures": value(pictures)}
