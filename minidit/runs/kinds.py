"""The only place where a word of a configuration becomes an object.

    [model] kind = "dit"                DiTConfig -> DiT
    [process] kind = "ddpm"             DDPMConfig -> a ladder of noise levels, the network's output (its answer), the loss
    [tokenizer] kind = "autoencoder"    AutoencoderConfig -> Autoencoder; pixels need no network
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minidit.diffusion import loss, rungs
from minidit.diffusion.fresh import DDPM, DDPM_LEARNED, Fresh, ddim
from minidit.diffusion.prediction import PREDICTIONS, Prediction
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2, DPM_2M, EULER, HEUN, Solver
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.backbone import Backbone
from minidit.models.dit import DiTConfig
from minidit.models.kinds import NETWORKS
from minidit.processes.diffusion import Diffusion, Weight
from minidit.processes.tokenizer import Latent, Pixels, Tokenizer
from minidit.processes.train import fitted_process
from minidit.random import Philox
from minidit.training.process import Process
from minidit.training.source import Source

# A new ladder: a classmethod in diffusion/schedule.py with its equation in SPEC.md, and a row here.
SCHEDULES: dict[str, Callable[[int], Schedule]] = {  # T -> the ladder
    "linear": Schedule.linear, "cosine": Schedule.cosine, "scaled_linear": Schedule.scaled_linear,
}  # fmt: skip
SPACINGS: dict[str, Callable[[int, int], list[int]]] = {  # (T, N) -> N rungs
    "trailing": rungs.trailing, "linspace": rungs.linspace, "leading": rungs.leading, "quadratic": rungs.quadratic,
}  # fmt: skip
SAMPLERS: dict[str, Callable[[float, bool], Fresh]] = {  # (η, whether the network has learned the variance) -> fresh noise
    "ddim": lambda eta, learned: ddim(eta),
    "ddpm": lambda eta, learned: DDPM_LEARNED if learned else DDPM,
}
SOLVERS: dict[str, Solver] = {"euler": EULER, "heun": HEUN, "ab2": AB2, "dpm_2m": DPM_2M}  # of walks without fresh noise
WEIGHTS: dict[str, Weight | None] = {"uniform": None, "min_snr": loss.min_snr}


def check_word(name: str, word: object, words: Collection[str]) -> None:
    """Raises ValueError, with a suggestion, unless `word` is one of `words`."""
    if str(word) not in words:
        near = difflib.get_close_matches(str(word), words, 1)
        raise ValueError(f"{name} {word!r} is not one of {', '.join(words)}" + (f", did you mean {near[0]!r}?" if near else ""))


MOST_RUNGS = 10**6  # of a ladder: its tables are made before anything else is known


@dataclass(frozen=True)
class DDPMConfig:
    """Denoising diffusion on a ladder of T rungs. The defaults are the paper's: ε is predicted, the ladder is linear."""

    prediction: str = "eps"  # eps, x_0 or v
    schedule: str = "linear"  # a row of SCHEDULES
    T: int = 1000
    loss_weight: str = "uniform"  # uniform or min_snr
    vb_weight: float = 1e-3  # λ of the hybrid loss, where the model has learn_sigma

    def __post_init__(self) -> None:
        for name, words in (("prediction", PREDICTIONS), ("schedule", SCHEDULES), ("loss_weight", WEIGHTS)):
            check_word(name, getattr(self, name), words)
        if self.T < 1 or self.T > MOST_RUNGS:
            raise ValueError(f"T = {self.T} must be at least 1 and at most {MOST_RUNGS}")
        self.path()  # an impossible ladder is refused now, not after the tokenizer has been trained

    def path(self) -> Schedule:
        """The ladder."""
        return SCHEDULES[self.schedule](self.T)

    def answer(self) -> Prediction:
        """The network's answer, its output F."""
        return PREDICTIONS[self.prediction]

    def diffusion(self) -> Diffusion:
        """The process, independent of any network."""
        return Diffusion.on_ladder(self.path(), self.answer(), WEIGHTS[self.loss_weight])

    def process(self, network: Backbone, source: Source) -> Process:
        """The process that trains this network on this source."""
        return fitted_process(network, self.diffusion(), source, self.vb_weight)


@dataclass(frozen=True)
class Betas(DDPMConfig):
    """The same on a ladder that another project's file gives as one β per rung."""

    betas: tuple[float, ...] = ()

    def path(self) -> Schedule:
        return Schedule.from_betas(np.asarray(self.betas, np.float64))


@dataclass(frozen=True)
class PixelsConfig:
    """No tokenizer: the model works on the pictures themselves."""

    factor: ClassVar[int] = 1  # how many times smaller x_0 is on each side


ModelConfig = DiTConfig
TokenizerConfig = PixelsConfig | AutoencoderConfig | AutoencoderKLConfig
Config = ModelConfig | TokenizerConfig | DDPMConfig
TokenizerNetwork = Autoencoder | AutoencoderKL
KINDS: dict[str, dict[str, type[Config]]] = {  # section -> kind -> dataclass; networks have their rows in models/kinds.py
    "model": {name: kind.config for name, kind in NETWORKS.items() if kind.phase == "model"},
    "process": {"ddpm": DDPMConfig},
    "tokenizer": {"pixels": PixelsConfig}
    | {name: kind.config for name, kind in NETWORKS.items() if kind.phase == "tokenizer"},
}


def kind_of(section: str, config: Config) -> str:
    """The word for the configuration of a section."""
    return next(kind for kind, cls in KINDS[section].items() if isinstance(config, cls))


def network_of(config: ModelConfig | TokenizerConfig, rng: Philox | None = None, *, device: str = "cpu") -> Any:
    """The network that a configuration describes; rng None: its weights are allocated only."""
    return next(kind.network for kind in NETWORKS.values() if type(config) is kind.config)(config, rng, device=device)


def shape_of(config: TokenizerConfig, channels: int, H: int, W: int) -> tuple[int, int, int]:
    """The shape of x_0 for pictures of shape (channels, H, W)."""
    c = channels if isinstance(config, PixelsConfig) else config.latent_channels
    return c, H // config.factor, W // config.factor


def assembled(process: DDPMConfig, network: TokenizerNetwork | None, device: str = "cpu") -> tuple[Tokenizer, Diffusion]:
    """(tokenizer, process) for training or sampling a model. network : that of the tokenizer, None for pixels."""
    return Pixels(device) if network is None else Latent(network), process.diffusion()
