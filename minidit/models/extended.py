"""What DiTs have in common that are told one number more than (x, t, y): a span, or a scale of guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from minidit.backend import Array
from minidit.models.condition import Condition
from minidit.models.dit import DiT, DiTConfig
from minidit.models.embedders import FREQUENCIES
from minidit.random import Philox


@dataclass(frozen=True)
class ExtendedConfig(DiTConfig):
    """The sizes of such a DiT, and its costs. Raises ValueError if they conflict."""

    learn_sigma: bool = False  # such a network is trained without a variance

    calls: ClassVar[int] = 1  # of the embedder of its number, per forward pass

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learn_sigma:
            raise ValueError("a DiT that is told a span or a scale of guidance has no variance: learn_sigma must be False")

    @property
    def embeddings(self) -> int:
        """Time, class if there are classes, and those of its number."""
        return super().embeddings + self.calls

    def macs(self) -> int:
        return super().macs() + self.calls * (FREQUENCIES * self.hidden_size + self.hidden_size**2)

    def parameters(self) -> int:
        return super().parameters() + (FREQUENCIES + 1) * self.hidden_size + (self.hidden_size + 1) * self.hidden_size


class ExtendedDiT(DiT):
    """A DiT with one more embedding, whose last weight is zero at the start: a fresh one answers as the DiT that it extends."""

    sizes: ClassVar[type[DiTConfig]]  # the class of its configuration

    @classmethod
    def like(cls, network: DiT, rng: Philox) -> Self:
        """One with the weights of a DiT. Raises ValueError if the DiT also learns the variance."""
        config = cls.sizes(**{name: getattr(network.config, name) for name in DiTConfig.__dataclass_fields__})
        made = cls(config, rng, device=network.device, dtype=network.dtype)
        made.load_state_dict(made.state_dict() | network.state_dict())
        return made


N = TypeVar("N", bound=DiT)


@dataclass(frozen=True)
class Fixed(Generic[N]):
    """Such a network as a `Backbone` (backbone.py), for one value of its number. A subclass has the value and the call."""

    network: N

    @property
    def shape(self) -> tuple[int, ...]:
        return self.network.shape

    @property
    def condition(self) -> Condition:
        return self.network.condition

    @property
    def second_half(self) -> bool:
        return False

    @property
    def device(self) -> str:
        return self.network.device

    @property
    def dtype(self) -> Any:
        return self.network.dtype

    @property
    def flat(self) -> Array:
        """All weights, for the policies of precision."""
        return self.network.flat

    def null(self, y: Array | None) -> Array:
        return self.network.null(y)
