"""Topics: what happens around the network in training: labels dropped, weights updated and averaged.

AdamW is spelled out, because mistakes change every term of it in the middle (X01 to X13); the tests hold it to `optim`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from minidit import optim
from minidit.backend import Array
from minidit.random import Philox
from minidit.training.source import drop_labels
from minidit.verify.core.draws import SIX
from minidit.verify.core.forms import owned
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.embeddings import null_label
from minidit.verify.topics.layers import normal

topic = Group("training")

# ------------------------------------------------------------------------------------------------ label dropout

CLASSES = 7  # in these probes sample i has the class i mod 7: whatever differs was dropped


def _dropouts() -> list[Probe]:
    y = np.arange(14000) % CLASSES
    probes = [Probe("not-training", (y, 0.2, 10, 4, False, 0), "nothing is dropped outside training")]
    probes += [Probe(f"training-{s}", (y, 0.2, 10, 4, True, s), "one decision a sample, not a block; K = 10") for s in range(3)]
    return [*probes, *(Probe(f"half-{s}", (y, 0.5, 7, 4, True, s), "one decision a sample, not a batch") for s in range(3, 8))]


def dropped_share(labels: Array) -> dict[str, Array]:
    """What a draw says in numbers that do not depend on it; shares in standard errors (at most ½/√B) of a share."""
    rows = np.atleast_2d(np.asarray(labels))
    dropped = rows != np.arange(rows.shape[1]) % CLASSES
    shares = {
        "share dropped": dropped.mean(axis=1).max(),
        "share dropped in every block": dropped.all(axis=0).mean(),
        "share dropped beside a dropped one": (dropped & np.roll(dropped, 1, axis=1)).mean(axis=1).max(),
        "share dropped in the first half": dropped[:, : rows.shape[1] // 2].mean(axis=1).max(),
    }
    seen = np.array([f"{label:g}" for label in np.unique(rows[dropped])], dtype=str)
    return {"labels of dropped samples": seen} | {name: 2 * rows.shape[1] ** 0.5 * share for name, share in shares.items()}


def odd_dropout(labels: Array, args: Sequence[Any], right: Any = None) -> list[str]:
    """What is odd about dropped labels, in plain numbers. args: y, p, num_classes, depth, train, seed."""
    y, p, num_classes, _, train, _ = args
    rows = np.atleast_2d(np.asarray(labels))
    dropped = rows != y
    others = sorted({f"{label:g}" for label in np.unique(rows[dropped])} - {f"{num_classes:g}"})
    if others:
        return [f"dropped labels become {', '.join(others[:3])}, expected {num_classes}"]
    if len(rows) > 1 and not (dropped == dropped[:1]).all():
        return ["every block decides anew which labels it drops"]
    share, right = float(dropped.mean()), p if train else 0.0
    return (
        [f"{share:.3g} of the labels are dropped, expected {right:g}"] if abs(share - right) > 6 * (0.25 / len(y)) ** 0.5 else []
    )


@topic("G.7", "y (B,) ints, p, num_classes, depth, train bool, seed",
       "(B,) the labels that the network is told, or (depth, B) where every block is told its own", _dropouts,
       measure=dropped_share, allowed=6.0, because=SIX, draws="seed", plain=odd_dropout)  # fmt: skip
def label_dropout(R: Reference, y: Array, p: float, num_classes: int, depth: int, train: bool, seed: int) -> Array:
    """y ← num_classes with probability p, one decision per sample, in training only."""
    masks = dropout_masks(R, seed, depth, len(y), dropout_rate(R, p, train))
    return drop_labels(np.broadcast_to(y, masks.shape), ~masks, 0.5, null_label(R, num_classes))


dropout_rate = part(lambda R, p, train: p if train else 0.0)  # p in training, else 0
# true where a label is dropped: (1, B), one decision per sample
dropout_masks = part(lambda R, seed, depth, B, p: np.asarray(Philox(seed, 77).uniform((1, B), dtype=np.float64) < p))


# ------------------------------------------------------------------------------------------------ the average of the weights


@topic("O.4", "decay, n = 1, 2, …: the step", "the decay that is used at step n",
       lambda: [Probe(f"step-{n}", (0.9999, n), "few steps average little") for n in (1, 10, 1000, 100_000_000)])  # fmt: skip
def ema_decay(R: Reference, decay: float, n: int) -> float:
    """min(decay, (1+n)/(10+n))."""
    return optim.ema_decay(decay, n)


@topic("O.4", "average (P,), theta (P,), decay", "the new average (P,)",
       lambda: [Probe("one", (np.array([1.0, -2.0]), np.array([3.0, 0.5]), 0.9)),
                Probe("many", (normal(Philox(91), 7), normal(Philox(92), 7), 0.75))])  # fmt: skip
def ema_update(R: Reference, average: Array, theta: Array, decay: float) -> Array:
    """d θ̃ + (1-d) θ."""
    new = np.array(average)
    optim.ema(new, theta, decay)
    return new


@topic("O.4", "theta_0 (P,), updates (n, P): what the optimiser adds at each step; decay, the same at every step",
       "(theta_n, average_n): the trained weights and their average, which starts as theta_0",
       lambda: [Probe("five-steps", (normal(Philox(93), 3), normal(Philox(94), 5, 3), 0.8), "a closed form: dⁿ θ_0 + …"),
                Probe("one-step", (np.ones(2), np.array([[0.5, -1.0]]), 0.9), "the average reads what the step wrote")
                 ])  # fmt: skip
def ema_run(R: Reference, theta_0: Array, updates: Array, decay: float) -> tuple[Array, Array]:
    """θ ← θ + update, then θ̃ ← d θ̃ + (1-d) θ; training never reads θ̃."""
    theta, average = np.array(theta_0), ema_start(R, theta_0)
    for update in updates:
        theta, average = ema_step(R, theta, average, update, decay)
    return theta, average


ema_start = part(lambda R, theta_0: np.array(theta_0))  # the average begins as the weights


@part
def ema_step(R: Reference, theta: Array, average: Array, update: Array, decay: float) -> tuple[Array, Array]:
    """First the optimiser, then the average."""
    theta = theta + update
    return theta, ema_update(R, average, theta, decay)


class Average(Protocol):
    """What a foreign average of weights must offer."""

    def start(self, theta: Array) -> None:
        """Before the first update of training."""

    def update(self, theta: Array) -> None:
        """After each update of training."""

    def average(self) -> Array:
        """(P,), for a sampler."""


@dataclass(eq=False)
class ReferenceAverage:
    """The reference's average as such an object."""

    R: Reference
    decay: float
    theta: Array = field(default_factory=lambda: np.zeros(0))  # the weights themselves, not a copy
    kept: Array = field(default_factory=lambda: np.zeros(0))
    updates: int = 0

    def start(self, theta: Array) -> None:
        self.theta, self.kept, self.updates = theta, kept_start(self.R, theta), 0

    def update(self, theta: Array) -> None:
        law = ema_update if self.updates else first_update
        self.theta, self.kept, self.updates = theta, law(self.R, self.kept, theta, self.decay), self.updates + 1

    def average(self) -> Array:
        self.kept = read_average(self.R, self.kept, self.theta, self.decay)
        return self.kept


kept_start = part(lambda R, theta: ema_start(R, theta))  # a copy of the weights
first_update = part(lambda R, average, theta, decay: ema_update(R, average, theta, decay))
read_average = part(lambda R, average, theta, decay: average)  # reading changes nothing


def trained(average: Average) -> dict[str, Array]:
    """What an average says during a training that writes its weights in place, and after they were spoiled."""
    theta, out = normal(Philox(95), 4), {}
    average.start(theta)
    out["at the start"] = owned(average.average())
    for n, update in enumerate(normal(Philox(96), 3, 4)):
        theta += update
        out[f"before update {n + 1}"] = owned(average.average())
        average.update(theta)
    theta[:] = 1e3
    return out | {"at the end": owned(average.average())}


@topic("O.4", "decay, the same at every step", "an object: start(theta), update(theta) after every step, average() -> (P,)",
       lambda: [Probe(f"decay-{d}", (d,), "weights that are overwritten in place") for d in (0.75, 0.9)],
       measure=trained)  # fmt: skip
def ema_object(R: Reference, decay: float) -> Average:
    """The average begins as a copy of the weights; then θ̃ ← d θ̃ + (1-d) θ after every step, whatever becomes of θ."""
    return ReferenceAverage(R, decay)


# ------------------------------------------------------------------------------------------------ the optimiser


def _adamw() -> list[Probe]:
    rng = Philox(95)
    theta, m, v = normal(rng, 5), normal(rng, 5, std=0.1), normal(rng, 5, std=0.1) ** 2
    g, zero = normal(rng, 5), np.zeros(5)
    return [
        Probe("first", (theta, zero, zero, g, 1, 1e-2, 0.9, 0.99, 1e-8, 0.0), "the first step is -lr sign(g)"),
        Probe("decay", (theta, m, v, g, 7, 1e-2, 0.9, 0.95, 1e-8, 0.1), "the decay is not part of the gradient"),
        Probe("tiny", (theta, m * 1e-6, v * 1e-12, g * 1e-6, 3, 0.5, 0.8, 0.9, 1e-6, 0.0), "tiny gradients show where ε is"),
    ]


@topic("O.2", "theta, m, v, g (P,), n = 1, 2, …, lr, beta1, beta2, eps, weight_decay", "(theta, m, v) after the step", _adamw)
def adamw_update(
    R: Reference, theta: Array, m: Array, v: Array, g: Array, n: int, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """θ ← θ - lr (m̂/(√v̂ + ε) + λ θ), m̂ = m/(1-β₁ⁿ), v̂ = v/(1-β₂ⁿ)."""
    g = gradient_in(R, g, theta, weight_decay)
    m, v = moments(R, m, v, g, beta1, beta2)
    ratio = adam_ratio(R, *corrected(R, m, v, beta1, beta2, n), eps)
    return moved(R, theta, ratio, lr, weight_decay), m, v


gradient_in = part(lambda R, g, theta, weight_decay: g)  # what the moments see: the gradient alone


@part
def moments(R: Reference, m: Array, v: Array, g: Array, beta1: float, beta2: float) -> tuple[Array, Array]:
    """(O.1)."""
    return beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g


corrected = part(lambda R, m, v, beta1, beta2, n: (m / (1 - beta1**n), v / (1 - beta2**n)))  # m̂, v̂
adam_ratio = part(lambda R, m_hat, v_hat, eps: m_hat / (v_hat**0.5 + eps))  # m̂ / (√v̂ + ε)
moved = part(lambda R, theta, ratio, lr, weight_decay: theta - lr * (ratio + weight_decay * theta))  # θ - lr (m̂/(√v̂ + ε) + λ θ)


@topic("O.2", "shapes {name: shape}, weight_decay", "{name: the decay that acts on it}",
       lambda: [Probe("four", ({"a.weight": (4, 3), "a.bias": (4,), "norm.weight": (3,), "conv.weight": (2, 3, 1, 1)}, 0.1),
                       "biases and gains are left alone")])  # fmt: skip
def weight_decays(R: Reference, shapes: dict[str, tuple[int, ...]], weight_decay: float) -> dict[str, float]:
    """λ for weights of two axes or more, else 0."""
    return {name: weight_decay if decays(R, name, shape) else 0.0 for name, shape in shapes.items()}


decays = part(lambda R, name, shape: len(shape) >= 2)  # whether the decay acts on a parameter


def _clips() -> list[Probe]:
    g = {"a": np.array([[3.0, 0.0], [0.0, 0.4]]), "b": np.array([4.0, -0.2])}
    return [Probe("large", (g, 1.0), "the norm of the whole gradient"), Probe("small", (g, 100.0), "a small gradient stays")]


@topic("O.3", "gradients {name: array}, limit", "{name: array}", _clips)
def clip_gradients(R: Reference, gradients: dict[str, Array], limit: float) -> dict[str, Array]:
    """g · min(1, limit/‖g‖), ‖g‖ the norm of the whole gradient."""
    return {k: clip_factor(R, gradients, k, limit) * g for k, g in gradients.items()}


@part
def clip_factor(R: Reference, gradients: dict[str, Array], name: str, limit: float) -> float:
    """One factor for all, by the norm of the whole gradient."""
    norm = float(sum((g * g).sum() for g in gradients.values())) ** 0.5
    return float(optim.clip_factor(norm, limit))


@topic("O.5", "n = 1, 2, …: the step, lr, warmup: how many steps", "the rate at step n",
       lambda: [Probe(f"step-{n}", (n, 1e-3, 10), "the first step already moves") for n in (1, 9, 10, 11, 500)])  # fmt: skip
def warmup_rate(R: Reference, n: int, lr: float, warmup: int) -> float:
    """lr min(1, n/warmup), n = 1, 2, …."""
    return lr * warm_share(R, n, warmup)


# of the full rate at step n
warm_share = part(lambda R, n, warmup: optim.learning_rate(optim.OptimConfig(lr=1.0, warmup=warmup), n, 1000))
