"""Autoregression on the numbers of a tokenizer: the likelihood that is trained, and how a picture is written.

    loss_b = -(1/N) Σ_i ln p(x_i | groups before that of i)                  nats per token                      (Q.14, Q.18)
    for group g:   logits = network(what is known so far);   x_g = chosen(kept(guided logits), u)                (Q.19 - Q.22)

Raster shows the network the codes themselves; Scales what they draw, the tokenizer's maps f̂ at the size of the next scale (Q.10).
A written token is never changed. Its uniform number is keyed by sample and place, so that any batch writes the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minidit.autograd import Tensor, no_grad, value
from minidit.autoregressive.choose import chosen, guided, kept, nll, rising
from minidit.autoregressive.order import Order, by_scale, raster
from minidit.autoregressive.quantiser import Pyramid
from minidit.autoregressive.scales import inputs_of, maps_of, smaller
from minidit.backend import Array, to_device, xp_of
from minidit.nn.device import can_record, recorded
from minidit.processes.walk import Progress
from minidit.training.draws import Draws

WRITE_STREAM = 0x777269


class TokenProcess:
    """How codes are shown to a network, in training all at once, in writing group by group. The base of both ways."""

    stream: ClassVar[int]
    per: ClassVar[int] = 4
    counted: ClassVar[bool] = False  # whether all groups are one function of their number, which a GPU records

    @property
    def order(self) -> Order:
        """The groups."""
        raise NotImplementedError

    def seen(self, index: Array) -> Array:
        """The codes of the first groups : (B, n)  ->  what the network sees before the group that follows, besides the class."""
        raise NotImplementedError

    def following(self, index: Array) -> Array:
        """The part of `seen` that the last of these groups added: what a network with a cache has not seen yet."""
        raise NotImplementedError

    def loss(self, network: Any, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        """x_0 : (B, N) codes, y : (B,) or None  ->  nats per token : (B,)."""
        before = x_0[:, : x_0.shape[1] - self.order.groups[-1]]
        loss: Tensor = nll(network(self.seen(before), y), x_0)
        return loss, {}


@dataclass(frozen=True)
class Raster(TokenProcess):
    """One code after another.   tokens : the codes of a picture"""

    tokens: int

    stream: ClassVar[int] = 0x726173
    counted: ClassVar[bool] = True

    @property
    def order(self) -> Order:
        return raster(self.tokens)

    def seen(self, index: Array) -> Array:
        return index

    def following(self, index: Array) -> Array:
        return index[:, -1:]


@dataclass(frozen=True)
class Scales(TokenProcess):
    """One scale after another.   law : the tokenizer's pyramid of codes, frozen"""

    law: Pyramid

    stream: ClassVar[int] = 0x736361

    @property
    def order(self) -> Order:
        return by_scale(self.law.sizes)

    def maps(self, index: Array) -> list[Array]:
        """f̂_1, f̂_2, … of the scales that are there."""
        with no_grad():
            return [value(f) for f in maps_of(index, value(self.law.codes), self.law.sizes, self.law.phi)]

    def seen(self, index: Array) -> Array:
        if not index.shape[1]:
            return self.nothing(len(index))
        return value(inputs_of(self.maps(index), self.law.sizes[: self.written(index) + 1]))

    def following(self, index: Array) -> Array:
        if not index.shape[1]:
            return self.nothing(len(index))
        f_hat = smaller(self.maps(index)[-1], self.law.sizes[self.written(index)])
        return value(f_hat).reshape(len(index), -1, f_hat.shape[-1])

    def written(self, index: Array) -> int:
        """The number of scales that these codes are."""
        return self.order.ends.index(index.shape[1]) + 1

    def nothing(self, B: int) -> Array:
        """What is seen before the first scale."""
        codes = value(self.law.codes)
        return xp_of(codes).zeros((B, 0, codes.shape[1]), codes.dtype)


@dataclass(frozen=True)
class Writing:
    """How tokens are chosen.   guidance : w; rising: from 1 at the first group to w at the last   cached : see nn/cache.py

    graph : whether a step that a GPU counts is recorded there
    """

    guidance: float = 1.0
    rises: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    cached: bool = True
    graph: bool = True

    def scale(self, group: int, groups: int) -> float:
        """w of a group."""
        return rising(self.guidance, group, groups) if self.rises else self.guidance


def write(
    network: Any, process: TokenProcess, labels: Array | None = None, how: Writing | None = None, *, n: int | None = None,
    samples: Array | None = None, given: Array | None = None, progress: Progress | None = None,
) -> Array:  # fmt: skip
    """The codes of new pictures : (B, N) int64, on the network's device; the arguments are those of `groups_written`.

    progress(done, total) is called after every group.
    """
    passes, index = process.order.passes, None
    for g, index in enumerate(groups_written(network, process, labels, how, n=n, samples=samples, given=given)):  # noqa: B007  the last is all
        if progress is not None:
            progress(g + 1, passes)
    return index


def groups_written(
    network: Any, process: TokenProcess, labels: Array | None = None, how: Writing | None = None, *, n: int | None = None,
    samples: Array | None = None, given: Array | None = None,
) -> Iterator[Array]:  # fmt: skip
    """The codes so far : (B, n_1 + … + n_g) int64, after every group.

    labels : (B,) ints; an unconditional network takes n instead.   samples : (B,) the numbers that key their draws, 0 … B-1
    given : (B, n) the codes of the first groups, which are kept; those of the others follow
    """
    how, order = how or Writing(), process.order
    y = None if labels is None else to_device(np.asarray(labels), network.device)
    B = len(y) if y is not None else n or 1
    guides = y is not None and how.guidance != 1
    if guides and network.condition.null is None:
        raise ValueError("guidance needs a model that was trained with classes and label dropout")
    xp = xp_of(network.flat)
    both = xp.concatenate((y, network.null(y))) if guides else y
    draws = Draws(how.seed, WRITE_STREAM, xp.arange(B) if samples is None else samples, network.device, np.float64)
    u = draws.uniform(dtype=np.float64, more=(order.tokens,))  # at once: many small draws take longer than a pass of one token
    if process.counted and how.cached and given is None and can_record(network.device, network.dtype, "writing"):
        yield from counted(network, both, how, u)
        return
    cache = network.cache(2 * B if guides else B) if how.cached else None
    index = xp.zeros((B, 0), np.int64) if given is None else given
    first = 0 if given is None else order.ends.index(given.shape[1]) + 1
    for g, tokens in enumerate(order.groups[first:], first):
        with no_grad():
            seen = process.following(index) if how.cached and g > first else process.seen(index)
            logits = value(network(xp.concatenate((seen, seen)) if guides else seen, both, cache))[:, -tokens:]
        if guides:
            logits = guided(logits[:B], logits[B:], how.scale(g, order.passes))
        logits = kept(logits, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p)
        at = slice(order.ends[g] - tokens, order.ends[g])
        index = xp.concatenate((index, chosen(logits, u[:, at])), axis=1)
        yield index


def counted(network: Any, y: Array | None, how: Writing, u: Array) -> Iterator[Array]:
    """The same on a GPU, one token after another: one step, which reads its number there, recorded once and replayed.

    y : of both halves, if guided   u : (B, N)
    """
    xp, (B, N) = xp_of(u), u.shape
    rows = B if y is None else len(y)
    cache, last, index = network.cache(rows, counted=True), xp.zeros((rows, 1), np.int64), xp.zeros((B, N), np.int64)
    scales = xp.asarray(np.array([how.scale(g, N) for g in range(N)], network.dtype))

    def answer() -> Array:
        """Logits : (B, 1, K)."""
        logits = value(network(last, y, cache))
        return logits if rows == B else guided(logits[:B], logits[B:], scales[cache.at - 1])

    def choose(logits: Array) -> None:
        at = cache.at - 1
        code = chosen(kept(logits, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p), u[:, at])
        index[:, at] = code
        last[:B] = code
        last[rows - B :] = code

    sorts = how.top_k > 0 or how.top_p < 1  # CuPy's sort may wait for the device, which a recording forbids
    replayed = recorded(answer, "writing a code") if how.graph and sorts else answer
    step: Callable[[], None] = lambda: choose(replayed())
    if how.graph and not sorts:
        step = recorded(step, "writing a code")
    for g in range(N):
        with no_grad():
            step()
        yield index[:, : g + 1]
