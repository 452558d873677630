"""Initial values of weights.

    U(-b, b),  b = √(6 / (fan_in + fan_out))        Xavier uniform: keeps variances forwards and backwards       (N.1)
    N(0, 1/fan_in)                                   LeCun normal: a sum of fan_in terms keeps its variance        (N.2)

A weight is (out, in, …): fan_out = out and fan_in is the product of all the rest (a patch embedding counts as a linear layer).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from minidit.backend import Array
from minidit.nn.module import Init
from minidit.random import Philox


def zeros(rng: Philox, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """All zero; draws nothing."""
    return np.zeros(shape, dtype)


def ones(rng: Philox, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """All one; draws nothing."""
    return np.ones(shape, dtype)


def normal(std: float) -> Init:
    """N(0, std²)."""
    return lambda rng, shape, dtype: (std * rng.normal(shape, dtype=np.float64)).astype(dtype)


def xavier_uniform(rng: Philox, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Uniform, Glorot and Bengio 2010."""
    return uniform(math.sqrt(6 / (shape[0] + math.prod(shape[1:]))))(rng, shape, dtype)  # (N.1)


def lecun_normal(rng: Philox, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Normal, LeCun et al. 1998."""
    std = math.sqrt(1 / math.prod(shape[1:]))  # (N.2)
    return (std * rng.normal(shape, dtype=np.float64)).astype(dtype)


def uniform(bound: float) -> Init:
    """U(-bound, bound)."""
    return lambda rng, shape, dtype: (bound * (2 * rng.uniform(shape, dtype=np.float64) - 1)).astype(dtype)


def dirac(rng: Philox, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A convolution (O, C, k, k), k odd, that changes nothing: one in the middle of kernel (i, i); draws nothing."""
    weight = np.zeros(shape, dtype)
    i = np.arange(min(shape[:2]))
    weight[i, i, shape[2] // 2, shape[3] // 2] = 1
    return weight
