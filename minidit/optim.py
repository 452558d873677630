"""Optimisation on flat arrays: every equation below is elementwise, so the whole model is one vector.

    m ← β₁ m + (1-β₁) g,   v ← β₂ v + (1-β₂) g²                                                              (O.1)
    θ ← θ - lr (m̂/(√v̂ + ε) + λ θ),    m̂ = m/(1-β₁ⁿ),  v̂ = v/(1-β₂ⁿ)           AdamW at step n = 1, 2, …      (O.2)
    g ← g · min(1, c/‖g‖)                                                        clipping by the global norm    (O.3)
    θ̃ ← d_n θ̃ + (1-d_n) θ,   d_n = min(d, (1+n)/(10+n))                          EMA with warm-up               (O.4)
    lr_n = lr · min(1, n/warmup)                                                 warm-up, then constant         (O.5)
    lr_n = lr · (f + (1-f) ½ (1 + cos π u)),  u = (n-warmup)/(N-warmup)           … or a cosine down to f·lr      (O.6)

The decay λ acts on weights with two axes or more, not on biases, gains and tables of one axis.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.autograd import NoTwin, kernels_on
from minidit.backend import Array, device_of, empty, flat_buffer, to_device, xp_of
from minidit.kernels import cpu_update, cuda_laws
from minidit.keywords import suggesting
from minidit.nn.module import Trainable


@suggesting
@dataclass(frozen=True)
class OptimConfig:
    """The paper's values (Peebles and Xie 2022: AdamW, constant 1e-4, no decay, no clipping, EMA 0.9999) are the defaults."""

    lr: float = 1e-4  # the learning rate, the largest one of the run
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW: how slowly its two averages of the gradient move
    eps: float = 1e-8  # of AdamW: added to the root of the second average
    weight_decay: float = 0.0  # of AdamW: how fast weights shrink by themselves
    warmup: int = 0  # updates over which the rate rises to lr
    final_lr: float = 1.0  # the fraction of lr at the last update; 1 keeps it constant
    clip: float = 0.0  # the largest norm of the whole gradient; 0: no clipping
    ema: float = 0.9999  # decay of the average of the weights, which is what is saved and sampled

    def __post_init__(self) -> None:
        sound = {
            "lr": (self.lr > 0, "above 0"), "betas": (all(0 <= b < 1 for b in self.betas), "from 0 to below 1, each"),
            "eps": (self.eps > 0, "above 0"), "ema": (0 <= self.ema < 1, "from 0 to below 1"),
            "final_lr": (0 <= self.final_lr <= 1, "from 0 to 1"), "clip": (self.clip >= 0, "0 or more"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"), "warmup": (self.warmup >= 0, "0 or more"),
        }  # fmt: skip
        for name, (ok, range_) in sound.items():
            if not ok:
                raise ValueError(f"{name} = {getattr(self, name)} is out of range: it must be {range_}")


def learning_rate(config: OptimConfig, n: int, steps: int) -> float:
    """The rate at step n = 1 .. steps."""
    if n < config.warmup:
        return config.lr * n / config.warmup  # (O.5)
    u = min(1.0, (n - config.warmup) / max(1, steps - config.warmup))
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * u)))  # (O.6)


def ema_decay(decay: float, n: int) -> float:
    """d_n at step n = 1, 2, …: few steps are averaged at first, so that the initial weights are soon forgotten."""
    return min(decay, (1 + n) / (10 + n))  # (O.4)


def clip_factor(norm: Any, limit: float) -> Any:
    """min(1, limit/‖g‖), for a float or a () array on a device; limit 0 means no clipping."""
    if not limit:
        return 1.0
    if isinstance(norm, float):
        return min(1.0, limit / max(norm, 1e-12))  # (O.3)
    return xp_of(norm).minimum(1.0, limit / xp_of(norm).maximum(norm, 1e-12))


def adamw(
    theta: Array, m: Array, v: Array, g: Array, decays: Array, *, lr: float, betas: tuple[float, float], eps: float, n: int
) -> None:
    """One step in place on flat arrays of one length; decays is λ where a weight decays and 0 elsewhere, or None."""
    b1, b2 = betas
    m[...] = b1 * m + (1 - b1) * g
    v[...] = b2 * v + (1 - b2) * g * g  # (O.1)
    m_hat, v_hat = m / (1 - b1**n), v / (1 - b2**n)
    theta -= lr * (m_hat / (v_hat**0.5 + eps) + (0.0 if decays is None else decays * theta))  # (O.2)


def ema(average: Array, theta: Array, d: float) -> None:
    """average ← d average + (1-d) θ, in place."""
    average[...] = d * average + (1 - d) * theta  # (O.4)


class AdamW:
    """AdamW and EMA for a Module: moments and average are flat buffers beside the model's own."""

    def __init__(self, model: Trainable, config: OptimConfig, steps: int) -> None:
        like, size = model.flat, model.layout.size
        device = device_of(like)
        self.model, self.config, self.steps = model, config, steps
        self.theta = like
        self.m, self.v, self.average = (flat_buffer(size, like.dtype, device) for _ in range(3))
        self.average[...] = like
        self.copy: Array = None  # θ as factors of products, which `counted_step` writes too, if the loop keeps it
        self.decays = None
        if config.weight_decay:
            decays = np.zeros(size, like.dtype)
            for view in model.views(decays):
                view[...] = config.weight_decay if view.ndim >= 2 else 0.0
            self.decays = to_device(decays, device)

    def step(self, g: Array, n: int, *, factor: Any = 1.0, part: slice = slice(None)) -> None:
        """Step n = 1, 2, … with the gradient factor · g, on a part of the flat vectors. May overwrite g."""
        c = self.config
        theta, m, v, g, average = (a[part] for a in (self.theta, self.m, self.v, g, self.average))
        decays = None if self.decays is None else self.decays[part]
        lr, d = learning_rate(c, n, self.steps), ema_decay(c.ema, n)
        if kernels_on() and isinstance(g, np.ndarray) and g.dtype == np.float32:
            cpu_update.adamw_ema(theta, m, v, g, decays, average, factor=factor, lr=lr, betas=c.betas, eps=c.eps, n=n, d=d)
            return
        with suppress(NoTwin):
            laws: dict[str, Any] = {"lr": lr, "betas": c.betas, "eps": c.eps, "n": n, "d": d}
            return cuda_laws.adamw_ema(theta, m, v, g, decays, average, factor=factor, **laws)
        g *= factor
        adamw(theta, m, v, g, decays, lr=lr, betas=c.betas, eps=c.eps, n=n)
        ema(average, theta, d)

    def counted_step(self, g: Array, done: Array) -> Array:
        """The step after done : (1,) int64 steps, all on a GPU: done += 1, rates and clipping are computed there (O.3 - O.6).

        Returns ‖g‖ : (). Raises NoTwin where the kernels do not serve.
        """
        c, rates, square = self.config, empty(g, (4,)), cuda_laws.square_sum(g)
        cuda_laws.next_rates(done, rates, c, self.steps)
        laws: dict[str, Any] = {"betas": c.betas, "eps": c.eps, "rates": rates, "square": square, "limit": c.clip}
        cuda_laws.adamw_ema(self.theta, self.m, self.v, g, self.decays, self.average, copy=self.copy, **laws)
        return square**0.5

    def weights_changed(self) -> None:
        """To be called when somebody else has changed weights between two updates."""
        if self.copy is not None:
            self.copy[...] = self.theta.astype(self.copy.dtype)

    def state_dict(self) -> dict[str, Array]:
        """The moments and the average as flat arrays."""
        return {"m": self.m, "v": self.v, "ema": self.average}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Restores them. Raises ValueError when they belong to another model."""
        for name, vector in self.state_dict().items():
            if name not in state or state[name].shape != vector.shape:
                raise ValueError(f"the optimiser state has no {name} of {vector.shape[0]} numbers: it belongs to another model")
            vector[...] = to_device(state[name], device_of(vector))
