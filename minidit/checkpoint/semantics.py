"""What a network computes differently in another project's code, although every weight is the same.

A Difference names one computation in which the project that a grammar belongs to departs from this package, and says whether
the network here computes it that project's way. Names that begin with M are those of `minidit verify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from minidit.choices import check_word
from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.models.dit import DiTConfig
from minidit.models.unet_config import UNetConfig

OFFICIAL_EPS, DIFFUSERS_EPS = 1e-6, 1e-5


@dataclass(frozen=True)
class Difference:
    """One computation that the other project does in its own way. kept: the network here does it that way too."""

    name: str
    about: str
    kept: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.about} [{'kept' if self.kept else 'differs'}]"


def explained(differences: Iterable[Difference]) -> list[str]:
    """Lines about what another project computes in its own way, and what their marks mean; none without differences."""
    lines = [f"  {difference}" for difference in differences]
    marks = "  [kept]: computed here in that project's way too; [differs]: computed here otherwise, so that numbers differ"
    return [*lines, marks] if lines else []


DIALECTS = ("official", "diffusers")


def check_dialect(dialect: str | None) -> None:
    """Raises ValueError for an unknown dialect."""
    if dialect is not None:
        check_word("dialect", dialect, DIALECTS)


def in_dialect(config: DiTConfig, dialect: str | None) -> DiTConfig:
    """The configuration as a project runs it; None: unchanged. Raises ValueError for an unknown dialect."""
    check_dialect(dialect)
    if dialect is None:
        return config
    if dialect == "official":
        return replace(config, freq_shift=0, mlp_norm_eps=OFFICIAL_EPS)
    eps = DIFFUSERS_EPS if config.mlp_norm_eps == OFFICIAL_EPS else config.mlp_norm_eps
    return replace(config, freq_shift=1, mlp_norm_eps=eps)


def of_dit(project: str, config: DiTConfig, *, eps: float) -> tuple[Difference, ...]:
    """What the official DiT, or diffusers, computes differently from a network of this configuration; eps: of its norms."""
    official = project == "official"
    shift = 0 if official else 1
    since = "the published weights were trained with these" if official else "the published weights were trained with 128"
    differences = [
        Difference("M76", f"time frequencies 10000^(-i/{128 - shift}), N.10: {since}", config.freq_shift == shift),
        Difference("M61", f"ε = {eps:g} in the layer norm before the MLP", config.mlp_norm_eps == eps),
    ]
    if official:
        about = "its sampler guides three of the four latent channels (G.5); all are guided here"
        differences.append(Difference("M86", about, False))
        return tuple(differences)
    differences += [
        Difference("float32 time", "computes the time embedding in float32 for any weights: off by 3e-5 at t = 999", False),
        Difference("M83", "drops labels in every block separately when it trains; here there is one draw per sample", False),
        Difference("position table", "recomputes it and does not save it", True),
        Difference("learned sigma", "its pipeline discards the predicted variance", False),
    ]
    if config.num_classes != 1000:
        differences.append(Difference("M81", f"its pipeline's null label is 1000; here it is {config.num_classes}", False))
    return tuple(differences)


def of_unet(config: UNetConfig) -> tuple[Difference, ...]:
    """What diffusers computes differently from a U-Net of this configuration."""
    about = "computes the time embedding in float32 for any weights: off by 3e-5 at t = 999"
    differences = [Difference("float32 time", about, False)]
    if config.condition.rows:
        differences.append(Difference("null label", "knows none: its classes are all rows of the table", False))
    return tuple(differences)


def of_size(config: DiTConfig, *, stated: bool) -> tuple[Difference, ...]:
    """A size that no array of the file shows."""
    about = f"the file holds no position table, which shows the size of the picture: {config.size[0]} is assumed"
    return () if stated else (Difference("input size", about, False),)


def of_kl(project: str, config: AutoencoderKLConfig, *, complete: bool) -> tuple[Difference, ...]:
    """What diffusers or LDM does differently from a network of this configuration; complete: the file states scale and groups."""
    differences: list[Difference] = []
    if not complete:
        about = f"the file does not state the scale of latents and the groups: {config.scale:g} and {config.groups} are assumed"
        differences.append(Difference("M89", about, True))
    if project == "ldm":
        differences.append(Difference("attention", "its linear maps are 1 × 1 convolutions with the same numbers", True))
    else:
        differences.append(Difference("tiling", "may cut large pictures into tiles and normalise each tile separately", False))
    return tuple(differences)


def of_settings(names: list[str], settings: Mapping[str, object]) -> tuple[Difference, ...]:
    """Settings of a config.json that this package does not know."""
    return tuple(Difference("unknown setting", f"{n} = {settings[n]!r}", False) for n in names)
