"""What differs after every array has found its place: the same weights, and still another function.

A Difference names what the project that a grammar belongs to computes otherwise, and says whether the network here does it that
project's way. The names beginning with M are those of `minidit verify`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.models.dit import DiTConfig

OFFICIAL_EPS, DIFFUSERS_EPS = 1e-6, 1e-5


@dataclass(frozen=True)
class Difference:
    """name; what it is about; kept: the network computes as that project does."""

    name: str
    about: str
    kept: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.about} [{'kept' if self.kept else 'differs'}]"


DIALECTS = ("official", "diffusers")


def in_dialect(config: DiTConfig, dialect: str | None) -> DiTConfig:
    """The same network as one project runs it; None: as it is. Raises ValueError for an unknown one."""
    if dialect is None:
        return config
    if dialect not in DIALECTS:
        raise ValueError(f"dialect {dialect!r} is not one of {', '.join(DIALECTS)}")
    if dialect == "official":
        return replace(config, freq_shift=0, mlp_norm_eps=OFFICIAL_EPS)
    eps = DIFFUSERS_EPS if config.mlp_norm_eps == OFFICIAL_EPS else config.mlp_norm_eps
    return replace(config, freq_shift=1, mlp_norm_eps=eps)


def of_dit(project: str, config: DiTConfig, *, eps: float) -> tuple[Difference, ...]:
    """How the official DiT, or diffusers, computes beside a network of this configuration; eps: what that project uses."""
    official = project == "official"
    shift = 0 if official else 1
    since = "the published weights were trained with these" if official else "the published weights were trained with 128"
    found = [
        Difference("M76", f"time frequencies 10000^(-i/{128 - shift}), N.10: {since}", config.freq_shift == shift),
        Difference("M61", f"ε = {eps:g} in the layer norm before the MLP", config.mlp_norm_eps == eps),
    ]
    if official:
        found.append(Difference("M86", "its sampler guides three of the four latent channels (G.5); all are guided here", False))
        return tuple(found)
    found += [
        Difference("float32 time", "computes the time embedding in float32 whatever the weights are: 3e-5 at t = 999", False),
        Difference("M83", "drops labels in every block by itself when it trains; one draw a sample here", False),
        Difference("position table", "recomputes it; not among the arrays", True),
        Difference("learned sigma", "its pipeline throws the predicted variance away", False),
    ]
    if config.num_classes != 1000:
        found.append(Difference("M81", f"its pipeline's null label is 1000; here it is {config.num_classes}", False))
    return tuple(found)


def of_kl(project: str, config: AutoencoderKLConfig, *, told: bool) -> tuple[Difference, ...]:
    """How diffusers or LDM computes beside a network of this configuration; told: whether the file tells scale and groups."""
    found: list[Difference] = []
    if not told:
        about = f"the file does not tell the scale of latents and the groups: {config.scale:g} and {config.groups} are assumed"
        found.append(Difference("M89", about, True))
    if project == "ldm":
        found.append(Difference("attention", "its linear maps are 1 × 1 convolutions, the same numbers in another shape", True))
    else:
        found.append(Difference("tiling", "may cut large pictures into tiles, each encoded with statistics of its own", False))
    return tuple(found)


def of_settings(names: list[str], settings: dict[str, Any]) -> tuple[Difference, ...]:
    """Settings of a config.json that nobody here knows."""
    return tuple(Difference("unknown setting", f"{n} = {settings[n]!r}", False) for n in names)
