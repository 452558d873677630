"""Keys and values of the tokens that are already written, so that a new token costs one row of attention and not all of them.

    q of the new tokens only;   k, v = (cached; new);   y = softmax(q kᵀ/√K + mask) v                      (N.16)

The whole length is allocated once. Keys are stored as attention uses them: normalised and turned by their places.
"""

from __future__ import annotations

import numpy as np

from minidit.autograd import Value, kernels_on, recording, value, watcher
from minidit.backend import Array, module_of
from minidit.nn.module import Module


class Cache:
    """Room for `length` tokens of `batch` sequences in every layer of a network.

    used : the number of tokens that all layers hold
    """

    def __init__(self, network: Module, layers: int, batch: int, heads: int, length: int, width: int) -> None:
        xp = module_of(network.device)
        self.keys, self.values = (xp.empty((layers, batch, heads, length, width), network.dtype) for _ in range(2))
        self.length, self.used = length, 0

    def extended(self, layer: int, k: Value, v: Value) -> tuple[Array, Array]:
        """k, v : (B, heads, n, K) of the next n tokens  ->  those of all tokens so far : (B, heads, used + n, K), views.

        No gradient passes through a cache.
        """
        n = k.shape[2]
        keys, values = self.room(layer, n)
        keys[:, :, self.used :], values[:, :, self.used :] = value(k), value(v)
        return keys, values  # (N.16)

    def room(self, layer: int, tokens: int) -> tuple[Array, Array]:
        """Keys and values of all tokens so far and of so many more, which are not written yet."""
        end = self.used + tokens
        if end > self.length:
            raise ValueError(f"the cache has room for {self.length} tokens, and this would be token {end}")
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def written(self, tokens: int) -> None:
        """Says that all layers have seen the next tokens."""
        self.used += tokens


def one_token(x: Value, cache: Cache) -> bool:
    """Whether a block may take its fused form (kernels/cpu_step.py): one new token, float32 on a CPU, no tape."""
    if x.shape[1] != 1 or recording() or not kernels_on() or watcher() is not None:
        return False
    return type(cache.keys) is np.ndarray and cache.keys.dtype == np.float32 == value(x).dtype


def new_rows(mask: Array, used: int, tokens: int) -> Array | None:
    """The rows of a mask (N, N) for the next tokens, with the columns of all so far; None if they see all of them."""
    rows = mask[used : used + tokens, : used + tokens]
    return None if tokens == 1 or not rows.any() else rows
