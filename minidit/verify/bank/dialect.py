"""What a dialect is: a project's deliberate conventions, and the aspects in which projects differ."""

from __future__ import annotations

from dataclasses import dataclass

from minidit.verify.bank import DEVIATIONS
from minidit.verify.core.reference import Deviation

ASPECTS = (
    "spacing", "ᾱ past the last rung", "ε̂ after clipping", "clipping of x̂_0", "variance at t = 0", "time embedding",
    "ε of LayerNorm", "guidance: batch", "guidance: scale", "guidance: channels", "null label", "label dropout", "Φ", "bytes",
    "tables",
)  # fmt: skip
CONTINUOUS_ASPECTS = (
    "time", "velocity", "time of the network", "grid of a flow", "shift", "noise number of EDM", "order of noise levels",
    "f at the data end", "μ(k)",
)  # fmt: skip
TOKEN_ASPECTS = (
    "turn of the class token", "guidance of logits", "one scale alone", "weights of the loss of codes",
    "halves of the last modulation", "place of the first frame",
)  # fmt: skip


@dataclass(frozen=True)
class Dialect:
    """A project (and its versions): its habits, which count as right where it is declared, and what it does in each aspect.

    also: deviations behind one of its options or doors; reports name them with it, and they do not count as right.
    """

    name: str
    versions: str
    says: str
    habits: tuple[str, ...]
    also: tuple[str, ...]
    does: tuple[str, ...] = ()  # as ASPECTS; empty for a project without a ladder
    continuously: tuple[str, ...] = ()  # as CONTINUOUS_ASPECTS; empty for a project without continuous time
    with_tokens: tuple[str, ...] = ()  # as TOKEN_ASPECTS; empty for a project of one stream of pixels

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        return tuple(DEVIATIONS[i] for i in self.habits)

    @property
    def conventions(self) -> dict[str, str]:
        """aspect -> what it does."""
        tables = ((ASPECTS, self.does), (CONTINUOUS_ASPECTS, self.continuously), (TOKEN_ASPECTS, self.with_tokens))
        return {aspect: does for aspects, words in tables if words for aspect, does in zip(aspects, words, strict=True)}
