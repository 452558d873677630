"""Deliberate conventions of known projects: records, not errors.

A dialect is a set of deviations that a project made on purpose or keeps for its published weights. A verdict is relative to
the declared dialect; where none is declared, a deviation is reported together with the dialects that share it.
"""

from __future__ import annotations

from dataclasses import dataclass

from minidit.verify.deviations import DEVIATIONS
from minidit.verify.reference import Deviation


@dataclass(frozen=True)
class Dialect:
    """A project (and its versions) with the ids of the deviations that are its habits."""

    name: str
    versions: str
    says: str
    habits: tuple[str, ...]

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """The habits themselves."""
        return tuple(DEVIATIONS[i] for i in self.habits)


DIALECTS: dict[str, Dialect] = {
    d.name: d
    for d in (
        Dialect(
            "openai", "improved-diffusion 1bc7bbb, guided-diffusion 22e0df8",
            "the tanh form of Φ; inversion takes the data for the lowest rung; bytes cut off, not rounded",
            ("M54", "M36b", "M94b"),
        ),
        Dialect(
            "dit-official", "ed81ce2",
            "OpenAI's laws; three of four channels guided; grey-level likelihood on latents; the bound with factor 1; an average "
            "of constant decay",
            ("M54", "M36b", "M50", "M86", "M94", "C05", "M95b"),
        ),
        Dialect(
            "diffusers", "0.42 (DDIMScheduler, DDPMScheduler, DiTTransformer2DModel)",
            "leading spacing, a fixed stride down, β as given for any T, ln 1e-20 at t = 0, ε̂ kept beside a clipped x̂_0; DiT "
            "with the time frequencies of DDPM, ε = 1e-5 before the MLP, and labels dropped anew in every block",
            ("M04", "M05", "M06", "M15", "M25", "C04", "M21b", "M31", "M61b", "M76", "M83"),
        ),
        Dialect(
            "ldm", "latent-diffusion, stable-diffusion 1.x",
            "range(0, T, T//N) plus 1, ᾱ[0] past the last rung, β as given for any T, ln 1e-20 at t = 0",
            ("M06", "M06b", "C02", "M08", "M15", "M25", "M94b"),
        ),
    )
}  # fmt: skip


def sharing(identifier: str) -> list[str]:
    """The dialects that have this habit."""
    return [d.name for d in DIALECTS.values() if identifier in d.habits]
