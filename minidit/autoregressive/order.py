"""In which order tokens are written, and what each of them may see.

    p(x) = Π_g p(x_g | x_1 … x_{g-1})            groups g: one token each (raster), or one scale each               (Q.14)
    query i sees key j where group(j) ≤ group(i)   raster: causal; scales: block-causal                             (Q.15)
    passes = groups;   pairs = Σ_g n_g (n_1 + … + n_g) with a cache,   Σ_g (n_1 + … + n_g)² without                  (Q.16)

A token of group g is predicted from groups before g only: the tokens of one group are independent given those. That costs the
total correlation inside the groups, and no network can win it back (Q.17).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Order:
    """The numbers of tokens that are written together, one group after another.   groups : (n_1, n_2, …)"""

    groups: tuple[int, ...]  # (Q.14)

    @property
    def ends(self) -> tuple[int, ...]:
        """The number of tokens up to and with every group."""
        return tuple(accumulate(self.groups))

    @property
    def tokens(self) -> int:
        return self.ends[-1]

    @property
    def passes(self) -> int:
        """Calls of a network for one picture, guidance not counted."""
        return len(self.groups)

    @property
    def group_of(self) -> NDArray[np.int64]:
        """(N,), the group of every token."""
        return np.repeat(np.arange(len(self.groups)), self.groups)

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(N, N), whether the query of row i sees the key of column j."""
        return self.group_of[:, None] >= self.group_of  # (Q.15)

    def pairs(self, *, cached: bool = True) -> int:
        """Products of a query and a key for one picture: with a cache of keys and values, or all computed again every time."""
        return sum((n if cached else end) * end for n, end in zip(self.groups, self.ends, strict=True))  # (Q.16)


def raster(tokens: int) -> Order:
    """One token after another."""
    return Order((1,) * tokens)  # (Q.14)


def by_scale(sizes: Sequence[int]) -> Order:
    """One scale of p × p tokens after another."""
    return Order(tuple(p * p for p in sizes))  # (Q.14)


def total_correlation(p: NDArray[np.float64]) -> float:
    """p : a table of probabilities, one axis per token  ->  Σ H(token) - H(all), in nats: the price of independence."""

    def entropy(q: NDArray[np.float64]) -> float:
        q = q[q > 0]
        return -float((q * np.log(q)).sum())

    axes = range(p.ndim)
    return sum(entropy(p.sum(axis=tuple(a for a in axes if a != k))) for k in axes) - entropy(p)  # (Q.17)
