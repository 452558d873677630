"""Twins of laws on a GPU: Philox, the noisy sample, a step of a walk, and the optimiser over flat vectors.

What changes from step to step can be read from the device (a counter of draws, a rung, rates), so that a captured graph is
replayed without the host. Each function raises NoTwin, before it has launched anything, where the plain text must run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from minidit import random
from minidit.autograd import NoTwin, kernels_on
from minidit.backend import Array, empty, home_of, module_of, resident, to_device
from minidit.kernels.cuda_launch import NULL, ceil, counters, f32, f64, flat_grid, i32, i64, launch, storage, u32, vector
from minidit.kernels.cuda_rows import dense, kind_of

PARTIAL = 1024  # blocks of the sum of squares


class DevicePhilox(random.Philox):
    """The stream of random.py, one kernel per draw on a GPU: the same integers.

    counter : (1,) int64 on the device, or None: its value times `per` is added to the number of every draw
    """

    def __init__(self, seed: int, stream: int = 0, state: int = 0, *, counter: Array = None, per: int = 1) -> None:
        super().__init__(seed, stream, state)
        self.counter, self.per = counter, per

    def _draw(self, name: str, shape: Sequence[int], samples: Array | None, device: str, dtype: Any, *more: Any) -> Array:
        xp, shape = module_of(device), tuple(int(n) for n in shape)
        if xp is np or not kernels_on():
            raise NoTwin("not on a GPU, or switched off")
        n, per_sample = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        if samples is not None and len(samples) != n:
            raise ValueError(f"{len(samples)} sample indices for a shape {shape}")
        out = xp.empty(shape, dtype)
        if out.size == 0 or per_sample >= 1 << 31 or (name == "integers" and not 0 < more[1] <= 1 << 32):
            raise NoTwin("nothing to draw, or too much")
        variant: Any = {} if name in ("integers", "uniform64") else {"STORAGE": storage(out)}
        index = NULL if samples is None else dense(to_device(samples, device).astype("int64", copy=False))
        counter = (NULL if self.counter is None else self.counter, u32(self.per), u32(self.state & random.LOW))
        key = (u32(self.seed & random.LOW), u32(self.seed >> 32), u32(self.stream), *counter)
        grid = (ceil(n * ceil(per_sample, 4), 256),)
        launch("philox", name, grid, 256, (out, index, i32(n), i32(per_sample), *key, *more), **variant)
        self.state += 1
        return out

    def words(self, shape: Sequence[int], samples: Array | None = None, device: str = "cpu") -> Array:
        if self.counter is not None:  # the plain text knows the host's number only
            raise NoTwin("a draw that is counted on the device needs its kernel")
        return super().words(shape, samples, device)

    def uniform(
        self, shape: Sequence[int] = (), samples: Array | None = None, device: str = "cpu", dtype: Any = np.float32
    ) -> Array:
        with suppress(NoTwin):
            return self._draw("uniform64" if np.dtype(dtype) == np.float64 else "uniform", shape, samples, device, dtype)
        return super().uniform(shape, samples, device, dtype)

    def normal(
        self, shape: Sequence[int] = (), samples: Array | None = None, device: str = "cpu", dtype: Any = np.float32
    ) -> Array:
        with suppress(NoTwin):
            return self._draw("normal", shape, samples, device, dtype)
        return super().normal(shape, samples, device, dtype)

    def integers(
        self, low: int, high: int, shape: Sequence[int] = (), samples: Array | None = None, device: str = "cpu"
    ) -> Array:
        with suppress(NoTwin):
            return self._draw("integers", shape, samples, device, np.int64, i64(low), np.uint64(min(max(0, high - low), 1 << 33)))
        return super().integers(low, high, shape, samples, device)


# ------------------------------------------------------------------------------------------------ diffusion


def on_device(x: Array) -> bool:
    """Whether a law's twin may be asked for at all: switched on, and for an array on a GPU."""
    return home_of(x) == "cupy" and kernels_on()


def mix(x_0: Array, eps: Array, t: Any) -> Array:
    """(P.1): x_0, eps : (B, ...), t : a Level of (B,) float64 arrays on the device  ->  x_t."""
    numbers = [dense(c) for c in t if getattr(c, "shape", None) == x_0.shape[:1] and c.dtype.name == "float64"]
    if len(numbers) < 2:
        raise NoTwin("a level that is not on the device")
    s, x_0, eps, out = kind_of(x_0, eps), dense(x_0), dense(eps), empty(x_0, x_0.shape)
    per_sample = x_0.size // len(x_0)
    v = vector(per_sample, x_0.reshape(len(x_0), -1), eps.reshape(len(x_0), -1))
    launch("diffusion", "mix", flat_grid(x_0.size, v), 256, (x_0, eps, *numbers, out, i64(x_0.size), i64(per_sample)),
           VEC=v, STORAGE=s)  # fmt: skip
    return out


def walk_step(
    x_t: Array, F: Array, table: np.ndarray[Any, Any], k: Array, *, F_u: Array = None, w: float = 1.0, z: Array = None,
    v: Array = None, clip: bool = False, limit: Any = None, guess: bool = True, into: Array = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Step k of a walk, as diffusion/row.py has it: (G.1), (P.3), (D.31) and (D.33) if clipped, (P.4)  ->  (x_s, x̂_0 or None).

    F, F_u : (B, C or more, H, W) slices along the first two axes;  k : an int, or (1,) int64 on the device
    """
    if v is not None or limit is not None:
        raise NoTwin("a learned variance, or another limit than the clip")
    s, x_t = kind_of(x_t, F), dense(x_t)
    B, n, per_sample = len(x_t), x_t.size, x_t.size // len(x_t)
    if any(o is not None and (o.shape != x_t.shape or o.strides != (F.strides[0], *x_t.strides[1:])) for o in (F, F_u)):
        raise NoTwin("outputs that are no slices")
    x_s, x_0_hat = empty(x_t, x_t.shape) if into is None else into, empty(x_t, x_t.shape) if guess else NULL
    stride = F.strides[0] // F.itemsize
    rest = [NULL if a is None else a for a in (F_u, None if z is None else dense(z))]
    width = 4 if per_sample % 4 == 0 and stride % 4 == 0 and all(
        a.data.ptr % (4 * a.itemsize) == 0 for a in (x_t, x_s, F, *rest) if a is not NULL
    ) else 1  # fmt: skip
    sizes = (i64(n), i64(per_sample), i64(stride if B > 1 else per_sample))
    if isinstance(k, int):
        k = module_of("cuda").full((1,), k, np.int64)
    args = (x_t, F, *rest, resident(table, x_t), i32(table.shape[1]), k, x_s, x_0_hat, *sizes, f32(w), i32(clip))
    launch("diffusion", "walk_step", flat_grid(n, width), 256, args, VEC=width, STORAGE=s)
    return x_s, (x_0_hat if guess else None)


# ------------------------------------------------------------------------------------------------ the optimiser


def square_sum(g: Array, out: Array = None) -> Array:
    """Σ g² of a flat float32 vector, a () array on the device; always the same bits."""
    if not on_device(g) or g.dtype.name != "float32" or g.ndim != 1 or not g.size or not g.flags.c_contiguous:
        raise NoTwin("not a flat float32 vector on a GPU")
    out = empty(g, (), f32) if out is None else out
    v = vector(len(g), g)
    blocks = min(PARTIAL, ceil(len(g), 256 * v))
    args = (g, out, empty(g, (blocks,), f32), counters(g, 1), i64(len(g)))
    launch("update", "square_sum", (blocks,), 256, args, VEC=v)
    return out


def next_rates(step: Array, rates: Array, config: Any, steps: int) -> None:
    """step : (1,) int64 and rates : (4,) float32 on the device. step += 1, and the rates of that step, in a graph too.

    config : an OptimConfig
    """
    laws = (f64(config.lr), f64(config.final_lr), i64(config.warmup), i64(steps), *map(f64, config.betas), f64(config.ema))
    launch("update", "next_rates", (1,), 32, (step, rates, *laws))


def adamw_ema(
    theta: Array, m: Array, v: Array, g: Array, decays: Array, average: Array, *, lr: float = 0.0, betas: tuple[float, float],
    eps: float, n: int = 1, d: float = 0.0, factor: Any = 1.0, rates: Array = None, square: Array = None, limit: float = 0.0,
    copy: Array = None,
) -> None:  # fmt: skip
    """The twin of cpu_update.adamw_ema: one pass in place. `rates` replaces lr, n and d; `square` and `limit` clip here.

    factor : 1.0 or a () float32 array on the device;   copy : of θ in bfloat16, written too, or None
    """
    if not on_device(g) or theta.dtype.name != "float32" or not theta.size:
        raise NoTwin("not float32 on a GPU")
    if isinstance(factor, float):
        if factor != 1.0:
            raise NoTwin("a factor from the host")
        factor = None
    elif factor.dtype.name != "float32":
        factor = factor.astype(np.float32)
    b1, b2 = betas
    if rates is None:  # written by a kernel: nothing is copied from the host
        rates = empty(theta, (4,), f32)
        launch("update", "set_rates", (1,), 32, (rates, *map(f32, (lr, 1 - b1**n, 1 - b2**n, d))))
    arrays = (theta, m, v, g, decays, average)
    k = vector(len(theta), *(a for a in arrays if a is not None))
    if copy is not None and copy.data.ptr % (2 * k):
        k = 1
    pointers = [NULL if a is None else a for a in (*arrays, rates, square, factor, copy)]
    args = (*pointers, f32(limit), *map(f32, (b1, b2, 1 - b1, 1 - b2, eps)), i64(len(theta)))
    launch("update", "adamw_ema", flat_grid(len(theta), k), 256, args, VEC=k)
