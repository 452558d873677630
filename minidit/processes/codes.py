"""A tokenizer of whole numbers: how it is trained, and pictures as sequences of codes.

    loss = mean (x - x̂)² + codes and commitment                    (Q.3), at first without codes:
    updates 0 .. warm-1    x̂ = decode(z), nothing is quantised
    update warm            the codes are laid by k-means among the vectors of one batch                          (Q.7)
    from then on           x̂ = decode(code nearest to z)
    every `revive` updates of the first half      a code that no vector of a batch is nearest to becomes one of these vectors

Codes that are laid before the encoder has settled die: it moves away from them (docs/tokens.md has the table).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minidit import ops
from minidit.autograd import Tensor, no_grad, value
from minidit.autoregressive.quantiser import Levels, Nearest, Pyramid, Quantiser
from minidit.autoregressive.quantize import counts, k_means_round, perplexity
from minidit.autoregressive.scales import phi_of
from minidit.backend import Array, to_device, to_host, xp_of
from minidit.models.vq import FSQ, VQ, MultiScaleVQ
from minidit.processes.autoencode import AutoencodeConfig
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.forward import forward
from minidit.training.loop import Loop
from minidit.training.source import Source, source_of

CODES_STREAM = 0x636F64  # of the vectors among which codes are laid
TokenNetwork = VQ | FSQ | MultiScaleVQ


def quantiser_of(network: TokenNetwork, beta: float = 0.25) -> Quantiser:
    """The law by which a network's vectors become numbers."""
    if isinstance(network, FSQ):
        return Levels(network.config.levels)
    if isinstance(network, MultiScaleVQ):
        K, n = len(network.config.sizes), network.config.phis
        return Pyramid(network.codebook.weight, network.config.sizes, lambda k, h: network.phi(phi_of(k, K, n), h), beta)
    return Nearest(network.codebook.weight, network.config.sphere, beta)


@dataclass(frozen=True)
class Quantisation:
    """The loss of a tokenizer of whole numbers."""

    beta: float = 0.25
    warm: int = 200
    revive: int = 100

    stream: ClassVar[int] = 0x7671
    per: ClassVar[int] = 4

    def loss(self, network: TokenNetwork, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        z, law = network.encode(x_0), quantiser_of(network, self.beta)
        if self.is_warm(draws.when):
            vectors, codes = law.free(z), xp_of(x_0).zeros(len(x_0), x_0.dtype)
        else:
            vectors, codes = law.training(z)
        error = ops.mse(network.decode(vectors), x_0)
        return error + codes, {"mse": value(error), "codes": value(codes)}

    def is_warm(self, update: object) -> bool:
        """Whether nothing is quantised yet at this update, counted on the host."""
        if self.warm and not isinstance(update, int):
            raise ValueError("codes that begin after some updates are counted on the host: train on the CPU, or with --ae-warm 0")
        return isinstance(update, int) and update < self.warm


def lay_codes(network: TokenNetwork, x: Array, rounds: int = 8, seed: int = 0) -> None:
    """Codes by k-means among the vectors of pictures x : (B, C, H, W), from as many different ones of them as there are codes.

    Nothing is done for a network without a codebook. Raises ValueError if there are fewer vectors than codes.
    """
    if isinstance(network, FSQ):
        return
    law, z = seen_by(network, x)
    vectors, K = law.population(z), network.config.codes
    if len(vectors) < K:
        raise ValueError(f"{len(vectors)} vectors are too few for {K} codes: use more pictures, or fewer codes")
    codes = vectors[to_device(Philox(seed, CODES_STREAM).permutation(len(vectors))[:K], network.device)]
    for _ in range(rounds):
        codes = k_means_round(law.population(z, codes), codes)
    network.codebook.weight.data[...] = codes


def seen_by(network: TokenNetwork, x: Array) -> tuple[Quantiser, Array]:
    """(the law of a network, its vectors of pictures x : (B, C, H, W))."""
    with no_grad():
        return quantiser_of(network), value(network.encode(to_device(x, network.device)))


def revive_codes(network: VQ | MultiScaleVQ, x: Array, seed: int = 0) -> Array:
    """Codes that no vector of pictures x is nearest to become vectors that are drawn among these  ->  which did, (K,) bool."""
    law, z = seen_by(network, x)
    codes = network.codebook.weight.data
    vectors, unused = law.population(z, law.free(codes)), counts(law.numbers(z), len(codes)) == 0
    places = Philox(seed, CODES_STREAM, state=1).permutation(len(vectors))[: int(unused.sum())]
    codes[unused] = vectors[to_device(places, network.device)]
    return unused


def codes_laid(loop: Loop, pictures: int = 256) -> None:
    """After an update of the loop: lays the codes if this was the last one without them, and now and then revives unused ones.

    Weights and average get the same.
    """
    process, network, n, done = loop.process, loop.model, len(loop.source), loop.done
    if not isinstance(process, Quantisation) or not isinstance(network, VQ | MultiScaleVQ):
        return
    begins = process.warm > 0 and done == process.warm
    revives = process.revive and process.warm < done <= loop.config.steps // 2 and (done - process.warm) % process.revive == 0
    if not begins and not revives:
        return
    index = to_device(Philox(loop.config.seed, CODES_STREAM, state=done).permutation(n)[:pictures], loop.device)
    x, _ = loop.source.draw(index, loop.draws.at(done, np.arange(len(index))))
    if begins:
        lay_codes(network, x, seed=loop.config.seed)
    moved = slice(None) if begins else revive_codes(network, x, loop.config.seed + done)
    for p, average in zip(network.parameters(), network.views(loop.optimiser.average), strict=True):
        if p is network.codebook.weight:
            average[moved] = p.data[moved]
    loop.optimiser.weights_changed()


def tokenize(network: TokenNetwork, data: Any, config: AutoencodeConfig, *, kind: str | None = None) -> Loop:
    """The Loop of a tokenizer; call `codes_laid(loop)` after every update."""
    source: Source = source_of(data, network.device, network.dtype)
    return Loop(network, quantisation_of(network, config), source, config, kind=kind)


def quantisation_of(network: TokenNetwork, config: AutoencodeConfig) -> Quantisation:
    """The process that trains this network."""
    return Quantisation(config.beta, 0 if isinstance(network, FSQ) else config.warm, config.revive)


# ------------------------------------------------------------------------------------------------ pictures and numbers


def numbers_of(network: TokenNetwork, x: Array, *, alone: bool = False) -> Array:
    """Pictures x : (B, C, H, W) in [-1, 1]  ->  their numbers : (B, N) int64.   alone : see training/forward.py"""
    law = quantiser_of(network)

    def run(part: slice) -> tuple[Array]:
        return (law.numbers(value(network.encode(to_device(x[part], network.device)))),)

    N = tokens_of(network, *(n // network.config.factor for n in x.shape[2:]))
    (index,) = forward(network, len(x), [(N,)], run, alone=alone)
    return index.astype("int64")  # whole numbers below 2²⁴ are exact in float32


def tokens_of(network: TokenNetwork, h: int, w: int) -> int:
    """The numbers of a picture whose map of vectors is h × w."""
    return sum(p * p for p in network.config.sizes) if isinstance(network, MultiScaleVQ) else h * w


def pictures_of(network: TokenNetwork, index: Array, h: int, w: int) -> np.ndarray[Any, Any]:
    """Numbers : (B, N)  ->  pictures (B, C, 4h, 4w) on the host; of the first numbers only, what they say so far.

    Of several scales these must be whole ones, one at least; elsewhere vectors that no number stands for are zero.
    """
    law, factor = quantiser_of(network), network.config.factor

    def run(part: slice) -> tuple[Array]:
        i = to_device(index[part], network.device)
        if isinstance(law, Pyramid):
            vectors = law.vectors(i, h, w)
        else:
            vectors, xp = law.vectors(i, 1, i.shape[1]), xp_of(i)
            rest = xp.zeros((len(i), 1, h * w - i.shape[1], vectors.shape[3]), vectors.dtype)
            vectors = xp.concatenate((vectors, rest), axis=2).reshape(len(i), h, w, -1)
        return (value(network.decode(vectors.astype(network.dtype))),)

    (x,) = forward(network, len(index), [(network.config.channels, factor * h, factor * w)], run)
    return to_host(x)


def codes_in_use(index: Array, vocabulary: int) -> tuple[int, float]:
    """(number of different codes, perplexity) of numbers of any shape."""
    used = to_host(counts(index, vocabulary))
    return int((used > 0).sum()), perplexity(used)
