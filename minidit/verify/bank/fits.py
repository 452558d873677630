"""Constants that are tried, beside the laws of nonlinear.py, where no mistake of the bank explains an answer.

They are no rows of the bank: nobody is known to have made them, and they have no ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from minidit import ops
from minidit.verify.bank.cuts import alike, cuts
from minidit.verify.bank.nonlinear import NONLINEAR, fit
from minidit.verify.bank.others import OTHERS
from minidit.verify.bank.wrap import arguments, instead, then
from minidit.verify.core.reference import AnyTopic, Change, Deviation, Form
from minidit.verify.topics import embeddings, layers, schedules

PERIODS = (10.0, 100.0, 256.0, 500.0, 1000.0, 1024.0, 2000.0, 5000.0, 8000.0, 20000.0, 50000.0, 1e5, 5e5, 1e6)
UNITS = {"2π": 2 * math.pi, "π": math.pi, "½": 0.5, "2": 2.0, "10": 10.0, "100": 100.0, "1/10": 0.1, "1/100": 0.01}
EPSILONS = (0.0, 1e-1, 1e-2, 1e-4, 1e-7, 1e-9, 1e-10, 5e-6, 2e-6)


def _constant(value: Any) -> Change:
    return lambda original: lambda R, *args: value


def _of_length_1(qkv: Any, k: int) -> Any:
    return tuple(a / ops.sqrt((a * a).sum(axis=-1, keepdims=True)) if j == k else a for j, a in enumerate(qkv))


def _made() -> Iterator[Deviation]:
    for base in PERIODS:
        for part, of in ((embeddings.time_frequencies, "time"), (embeddings.position_frequencies, "place")):
            yield fit(f"period {base:g} of {of}", part, instead(lambda R, n, base=base: base ** (-np.arange(n) / n)))
    for words, unit in UNITS.items():
        yield fit(f"{words} times t", embeddings.time_angles, arguments(lambda t, f, u=unit: (u * np.asarray(t, np.float64), f)))
    for eps in EPSILONS:
        yield fit(f"ε = {eps:g} in every norm", layers.norm_eps, _constant(eps))
    for s in (0.0, 0.001, 0.004, 0.0079, 0.009, 0.01, 0.016, 0.02, 0.05, 0.08, 0.1):
        f: Form = lambda R, T, s=s: np.cos((schedules.cosine_grid(R, T) + s) / (1 + s) * np.pi / 2) ** 2
        yield fit(f"offset {s:g}", schedules.cosine_f, instead(f))
    for cap in (0.02, 0.5, 0.9, 0.95, 0.99, 0.995, 0.9999, 0.99999):
        yield fit(f"β cut at {cap:g}", schedules.cosine_cap, instead(lambda R, betas, cap=cap: np.minimum(betas, cap)))
    yield fit("logits divided by the fourth root of K", layers.logit_scale, instead(lambda R, heads, K: K**-0.25))
    for number in (4, 8, 16, 32, 64, 128):
        yield fit(f"logits divided by {number}", layers.logit_scale, _constant(1 / number))
    for name, k in (("queries", 0), ("keys", 1)):
        yield fit(f"{name} of length 1", layers.split_heads, then(partial(_of_length_1, k=k)))


FITS: tuple[Deviation, ...] = (*_made(), *NONLINEAR)

# ------------------------------------------------------------------------------------------------ a mistake in one place only

NETWORKS = ("dit", "dit_square", "dit_gradients")
PLACES: dict[str, Callable[[str], bool]] = {
    "in the blocks only": lambda where: where.startswith("blocks."),
    "in the final layer only": lambda where: where == "final_layer",
    "in the first block only": lambda where: where == "blocks.0",
    "from the second block on": lambda where: where.startswith("blocks.") and where != "blocks.0",
    "before the blocks only": lambda where: where == "embedders",
}


def placed(d: Deviation) -> Iterator[Deviation]:
    """A mistake of the bank, in one place of a network only."""
    for words, here in PLACES.items():
        patches = {part: _there(change, here) for part, change in d.patches.items()}
        yield Deviation(f"{d.id} {words}", f"{d} {words}", d.spec, d.wrong, d.right, patches)


def beyond(topic: AnyTopic, near: Sequence[Deviation]) -> Iterator[Deviation]:
    """What is tried beyond the bank for answers of a topic; near: the mistakes of the bank that could change them."""
    yield from (*FITS, *OTHERS, *alike(topic))
    if topic.name in NETWORKS:
        for d in near:
            yield from placed(d)
    yield from cuts(topic)


def _there(change: Change, here: Callable[[str], bool]) -> Change:
    def placed_change(original: Form) -> Form:
        changed = change(original)
        return lambda R, *args: (changed if here(R.where) else original)(R, *args)

    return placed_change
