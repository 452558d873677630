"""The kinds of processes that write pictures as numbers: each an order, and the networks and tokenizers that go with it.

    [process] kind = "raster"     one code after another, by a GPT on the codes of vq or fsq             (Q.14, T.41–T.44)
    [process] kind = "scales"     one scale after another, by a VAR on those of multiscale_vq            (Q.14, T.45–T.49)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from minidit.autoregressive.quantiser import Pyramid
from minidit.processes.coded import Codes
from minidit.processes.codes import TokenNetwork, quantiser_of, tokens_of
from minidit.processes.tokens import Raster, Scales, TokenProcess
from minidit.runs.process_config import ProcessConfig, Usual


@dataclass(frozen=True)
class TokensConfig(ProcessConfig):
    """What both have in common: they have no path, and no noise."""

    partners: ClassVar[dict[str, tuple[str, ...]]]  # section -> kinds that go with this process, the usual one first
    rises: ClassVar[bool] = False  # whether guidance rises over the groups, if nothing else is asked for

    @property
    def most_steps(self) -> None:
        return None

    def diffusion(self) -> NoReturn:
        raise TypeError("tokens are written, not denoised")

    def written(self, network: TokenNetwork) -> TokenProcess:
        """The process on the numbers of this tokenizer."""
        raise NotImplementedError


@dataclass(frozen=True)
class RasterConfig(TokensConfig):
    """Next-token prediction, row by row."""

    usual: ClassVar[Usual] = Usual(sampler="raster")
    partners: ClassVar[dict[str, tuple[str, ...]]] = {"model": ("gpt",), "tokenizer": ("vq", "fsq")}

    def written(self, network: TokenNetwork) -> TokenProcess:
        return Raster(tokens_of(network, *Codes(network).grid))


@dataclass(frozen=True)
class ScalesConfig(TokensConfig):
    """Next-scale prediction."""

    usual: ClassVar[Usual] = Usual(sampler="scales")
    partners: ClassVar[dict[str, tuple[str, ...]]] = {"model": ("var",), "tokenizer": ("multiscale_vq",)}
    rises: ClassVar[bool] = True

    def written(self, network: TokenNetwork) -> TokenProcess:
        law = quantiser_of(network)
        assert isinstance(law, Pyramid)  # `check_partners` has seen the tokenizer
        return Scales(law)

