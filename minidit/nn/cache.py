"""Keys and values of the tokens that are already written, so that a new token costs one row of attention and not all of them.

    q of the new tokens only;   k, v = (cached; new);   y = softmax(q kᵀ/√K + mask) v                      (N.16)

The whole length is allocated once. Keys are stored as attention uses them: normalised and turned by their places.

A cache may count its tokens on the device. Then every token is one function of the same arrays, which can be recorded: it is
written at the place that the counter says, and sees the whole length under a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from minidit.autograd import Value, kernels_on, recording, value, watcher
from minidit.backend import Array, module_of
from minidit.kernels.cpu_step import memory
from minidit.nn.attention import constant
from minidit.nn.module import Module

T = TypeVar("T")


class Cache:
    """Room for `length` tokens of `batch` sequences in every layer of a network.

    used : the number of tokens that all layers hold   at : the same as a counter (1,) int64 on the device, or None
    """

    def __init__(
        self, network: Module, layers: int, batch: int, heads: int, length: int, width: int, *, counted: bool = False
    ) -> None:
        xp, shape = module_of(network.device), (layers, 2, batch, heads, length, width)
        self.at: Array = xp.zeros((1,), np.int64) if counted else None
        if counted:
            self.both = xp.zeros(shape, network.dtype)  # places behind the mask have weight 0, and 0 times a NaN would be a NaN
        else:
            self.both = memory(*shape) if xp is np and network.dtype == np.float32 else xp.empty(shape, network.dtype)
        self.keys, self.values = self.both[:, 0], self.both[:, 1]
        self.length, self.used, self._made = length, 0, dict[object, Any]()

    def extended(self, layer: int, k: Value, v: Value) -> tuple[Array, Array]:
        """k, v : (B, heads, n, K) of the next n tokens  ->  those of all tokens so far : (B, heads, used + n, K), views.

        Counted on the device: those of the whole length. No gradient passes through a cache.
        """
        if self.at is not None:
            keys, values = self.both[layer]
            keys[:, :, self.at], values[:, :, self.at] = value(k), value(v)
            return keys, values
        keys, values = self.room(k.shape[2])[layer]
        keys[:, :, self.used :], values[:, :, self.used :] = value(k), value(v)
        return keys, values  # (N.16)

    def room(self, tokens: int) -> Array:
        """Keys and values of all tokens so far and of so many more, which are not written yet : (layers, 2, B, heads, M, K)."""
        end = self.used + tokens
        if end > self.length:
            raise ValueError(f"the cache has room for {self.length} tokens, and this would be token {end}")
        return self.both[:, :, :, :, :end]

    def written(self, tokens: int) -> None:
        """Says that all layers have seen the next tokens."""
        if self.at is None:
            self.used += tokens
        else:
            self.at += tokens

    def once(self, make: Callable[..., T], *args: object) -> T:
        """make(*args) at the first call, later the same object again: for what all steps of a sequence have in common."""
        if make not in self._made:
            self._made[make] = make(*args)
        result: T = self._made[make]
        return result

    @property
    def fuses(self) -> bool:
        """Whether blocks may take their fused forms (kernels/cpu_step.py): float32 on a CPU, no tape, nobody who watches."""
        if recording() or not kernels_on() or watcher() is not None:
            return False
        return type(self.keys) is np.ndarray and self.keys.dtype == np.float32


def new_rows(mask: Array, used: int, tokens: int, like: Value) -> Array | None:
    """The rows of a mask (N, N) for the next tokens, with the columns of all so far; None if they see all of them.

    like : in whose home they are. The whole mask goes there once.
    """
    rows = slice(used, used + tokens), slice(used + tokens)
    return None if tokens == 1 or not mask[rows].any() else constant(mask, like)[rows]
