"""The only place where a word of a configuration becomes a kind of network or process; those of laws are in words.py.

    [model] kind = "dit"                DiTConfig -> DiT;  "unet": UNetConfig -> UNet;  "spacetime": for clips
    [process] kind = "ddpm"             DDPMConfig -> a path, the network's output on it (its answer), the loss
    [tokenizer] kind = "autoencoder"    AutoencoderConfig -> Autoencoder; pixels need no network; "vq", …: whole numbers
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.backbone import Indivisible
from minidit.models.dit import DiTConfig
from minidit.models.flux_config import FluxConfig
from minidit.models.gpt import GPTConfig
from minidit.models.kinds import NETWORKS
from minidit.models.mmdit_config import MMDiTConfig
from minidit.models.spacetime_config import SpacetimeConfig
from minidit.models.unet import UNetConfig
from minidit.models.var import VARConfig
from minidit.models.vq import FSQConfig, MultiScaleVQConfig, VQConfig
from minidit.processes.coded import Codes
from minidit.processes.codes import TokenNetwork
from minidit.processes.sample import Trained
from minidit.processes.tokenizer import Latent, Pixels, Tokenizer
from minidit.processes.tokens import TokenProcess
from minidit.random import Philox
from minidit.runs.process_config import ProcessConfig
from minidit.runs.process_kinds import DDPMConfig, EDMConfig, RectifiedFlowConfig
from minidit.runs.teacher_kinds import ConsistencyConfig, GuidanceConfig, MeanVelocityConfig, TrajectoriesConfig
from minidit.runs.token_kinds import RasterConfig, ScalesConfig, TokensConfig


@dataclass(frozen=True)
class PixelsConfig:
    """No tokenizer: the model works on the pictures themselves."""

    factor: ClassVar[int] = 1  # how many times smaller x_0 is on each side


ModelConfig = DiTConfig | UNetConfig | MMDiTConfig | FluxConfig | SpacetimeConfig | GPTConfig | VARConfig
CodesConfig = VQConfig | FSQConfig | MultiScaleVQConfig
TokenizerConfig = PixelsConfig | AutoencoderConfig | AutoencoderKLConfig | CodesConfig
Config = ModelConfig | TokenizerConfig | ProcessConfig
TokenizerNetwork = Autoencoder | AutoencoderKL | TokenNetwork
KINDS: dict[str, dict[str, type[Config]]] = {  # section -> kind -> dataclass; networks have their rows in models/kinds.py
    "model": {name: kind.config for name, kind in NETWORKS.items() if kind.phase == "model"},
    "process": {
        "ddpm": DDPMConfig, "rectified_flow": RectifiedFlowConfig, "edm": EDMConfig,
        "trajectories": TrajectoriesConfig, "mean_velocity": MeanVelocityConfig, "consistency": ConsistencyConfig,
        "guidance": GuidanceConfig, "raster": RasterConfig, "scales": ScalesConfig,
    },
    "tokenizer": {"pixels": PixelsConfig}
    | {name: kind.config for name, kind in NETWORKS.items() if kind.phase == "tokenizer"},
}


def kind_of(section: str, config: Config) -> str:
    """The word for the configuration of a section."""
    return next(kind for kind, cls in KINDS[section].items() if isinstance(config, cls))


def with_room(cls: type[Config], values: Mapping[str, Any], named: Collection[str]) -> dict[str, Any]:
    """Values of a configuration in which the size of samples is a multiple of the patches, unless it is one of those named.

    The data decide this size, and `fitted` checks it, once they are read; until then it only has to be possible.
    """
    try:
        cls(**values)
    except Indivisible as error:
        if error.field not in named:
            sides, n = values.get(error.field, getattr(cls, error.field)), error.multiple
            more = -(-sides // n) * n if isinstance(sides, int) else tuple(-(-side // n) * n for side in sides)
            return with_room(cls, {**values, error.field: more}, {*named, error.field})
    except (ValueError, TypeError):
        pass  # what is wrong is said where these values are used
    return dict(values)


def network_of(config: ModelConfig | TokenizerConfig, rng: Philox | None = None, *, device: str = "cpu") -> Any:
    """The network that a configuration describes; rng None: its weights are allocated only."""
    return next(kind.network for kind in NETWORKS.values() if type(config) is kind.config)(config, rng, device=device)


def shape_of(config: TokenizerConfig, channels: int, *size: int) -> tuple[int, ...]:
    """The shape of x_0 for pictures (channels, H, W), or clips (channels, T, H, W)."""
    c, (*T, H, W) = channels if isinstance(config, PixelsConfig) else config.latent_channels, size
    return (c, *T, H // config.factor, W // config.factor)


def assembled(
    process: ProcessConfig, network: TokenizerNetwork | None, device: str = "cpu"
) -> tuple[Tokenizer, Trained | TokenProcess]:
    """(tokenizer, process) for training or sampling a model. network : that of the tokenizer, None for pixels."""
    if isinstance(network, TokenNetwork):
        assert isinstance(process, TokensConfig)  # `check_partners` has seen it
        return Codes(network), process.written(network)
    return Pixels(device) if network is None else Latent(network), process.diffusion()


def check_partners(process: ProcessConfig, model: ModelConfig, tokenizer: TokenizerConfig) -> None:
    """Raises ValueError unless these are made for each other: codes are written, pixels and latents denoised."""
    here, codes = kind_of("process", process), isinstance(tokenizer, CodesConfig)
    if isinstance(process, TokensConfig):
        for section, config in (("model", model), ("tokenizer", tokenizer)):
            if (kind := kind_of(section, config)) not in process.partners[section]:
                known = " or ".join(process.partners[section])
                raise ValueError(f"--process {here} goes with --{section} {known}; this run has the {section} {kind}")
    elif codes or isinstance(model, GPTConfig | VARConfig):
        section, config = ("tokenizer", tokenizer) if codes else ("model", model)
        raise ValueError(f"the {section} {kind_of(section, config)} is of codes, which --process {here} does not write: "
                         "add --process raster or scales")  # fmt: skip
