"""Other formulas that stand in tutorials and papers in the place of a law, tried where no mistake of the bank explains an answer.

Like fits.py these are no rows of the bank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy import special

from minidit import ops
from minidit.backend import Array
from minidit.verify.bank.nonlinear import fit
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import AnyPart, Change, Deviation, Reference
from minidit.verify.topics import (
    chains,
    consistency,
    ddpm,
    embeddings,
    guidance,
    latents,
    layers,
    likelihood,
    losses,
    posterior,
    schedules,
    stream_blocks,
    streams,
    times,
    timesteps,
    tokens,
    training,
    unet,
)  # fmt: skip


def _cosine(u: Array) -> Array:
    return np.asarray(np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2)


def _multistep(R: Reference, T: int, N: int) -> Array:
    return np.linspace(0, T - 1, N + 1).round()[:0:-1].astype(int)


LADDERS: tuple[tuple[str, AnyPart, Change], ...] = (
    ("(i + s)/T for i/T + s under the cosine", schedules.cosine_f,
     instead(lambda R, T: np.cos((np.arange(T + 1) + 0.008) / T / 1.008 * np.pi / 2) ** 2)),
    ("f/f[0] at T places from 0 to 1", schedules.cosine_alpha_bar,
     instead(lambda R, T: _cosine(np.linspace(0, 1, T)) / _cosine(np.zeros(1)))),
    ("f/f[0] at T places from 0 to 1 for f", schedules.cosine_f, instead(lambda R, T: _cosine(np.linspace(0, 1, T + 1)[:T]))),
    ("e^-Σβ, the limit of small β, for the product", schedules.alpha_bar, instead(lambda R, betas: np.exp(-np.cumsum(betas)))),
    ("N + 1 places of which the lowest is left out", timesteps.linspace_timesteps, instead(_multistep)),
    ("ᾱ = 0 in front of the first timestep", posterior.alpha_below, instead(lambda R, a, t, s: float(a[s]) if s >= 0 else 0.0)),
    ("a linear curriculum: s_0 + k/K (s_1 - s_0)", consistency.training_levels,
     instead(lambda R, k, K, s_0, s_1: math.ceil(s_0 + k / K * (s_1 - s_0)) + 1)),
    ("1/t_i", consistency.ict_weights, instead(lambda R, t: 1 / t[:-1])),
    ("u for Φ⁻¹(u)", times.edm_sigmas, instead(lambda R, u: np.exp(-1.2 + 1.2 * u))),
    ("u for Φ⁻¹(u)", times.logit_normal_times, instead(lambda R, u, mean, std: special.expit(mean + std * u))),
    ("1 + a t below", times.shifted, instead(lambda R, t, a: a * t / (1 + a * t))),
    ("1 + (a+1) t below", times.shifted, instead(lambda R, t, a: a * t / (1 + (a + 1) * t))),
    ("ε as the target where v is asked for", losses.target_of,
     instead(lambda R, x_0, eps, a, objective: x_0 if objective == "x_0" else eps)),
)  # fmt: skip


def _bytes(R: Reference, x: Array, per_unit: float, rounded: bool) -> Array:
    levels = np.clip((x + 1) * per_unit, 0, 255)
    return (np.rint(levels) if rounded else levels).astype(np.uint8)


def _without_division(R: Reference, x_0: Array, p: float, most: float) -> Array:
    q = guidance.saturation(R, x_0, p, most)
    return np.clip(x_0, -q, q)


def _ranges() -> Iterator[Deviation]:
    """Where values are cut."""
    for low, high in ((0.0, 1.0), (-0.5, 0.5), (-1.0, 1.0), (-2.0, 2.0), (-3.0, 3.0), (0.0, 255.0)):
        for limited in (ddpm.pixel_range, ddpm.latent_range):
            yield fit(f"x̂_0 between {low:g} and {high:g}", limited, instead(lambda R, x, ends=(low, high): np.clip(x, *ends)))
    for low, high in ((-20.0, 30.0), (-30.0, 30.0), (-20.0, 20.0), (-10.0, 10.0), (-20.0, 10.0), (-30.0, 10.0)):
        change = instead(lambda R, logvar, ends=(low, high): np.clip(logvar, *ends))
        yield fit(f"λ between {low:g} and {high:g}", latents.limited_logvar, change)
    yield fit("values cut at q and not divided by it", guidance.clip_dynamic, instead(_without_division))
    for per_unit in (127.5, 128.0, 127.0, 255.0):
        for rounded, words in ((True, "rounded"), (False, "cut off")):
            change = instead(partial(_bytes, per_unit=per_unit, rounded=rounded))
            yield fit(f"{per_unit:g} (x+1) {words}", latents.pixels_out, change)


def _annotated(R: Reference, x: Any, place: str = "") -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    std = ops.sqrt((centred * centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1))
    return centred / (std + layers.norm_eps(R, place))


def _kl_by_first(R: Reference, mean_1: Array, logvar_1: Array, mean_2: Array, logvar_2: Array) -> Any:
    return 0.5 * (logvar_2 - logvar_1 - 1 + np.exp(logvar_1 - logvar_2) + (mean_1 - mean_2) ** 2 * np.exp(-logvar_1))


@dataclass
class Corrected:
    """An average that starts from zero and is divided by 1 - dⁿ, as Adam's moments are."""

    decay: float
    n: int = 0
    kept: Array = field(default_factory=lambda: np.zeros(0))
    first: Array = field(default_factory=lambda: np.zeros(0))

    def start(self, theta: Array) -> None:
        self.n, self.kept, self.first = 0, np.zeros_like(theta), np.array(theta)

    def update(self, theta: Array) -> None:
        self.n, self.kept = self.n + 1, self.decay * self.kept + (1 - self.decay) * theta

    def average(self) -> Array:
        return self.kept / (1 - self.decay**self.n) if self.n else self.first


class Warmed(training.ReferenceAverage):
    """An average whose decay rises as (1+n)/(10+n)."""

    def update(self, theta: Array) -> None:
        self.updates += 1
        self.kept = training.ema_update(self.R, self.kept, theta, training.ema_decay(self.R, self.decay, self.updates))


def _every_other_pixel(R: Reference, x: Any, p: int) -> Any:
    B, C, H, W = x.shape
    grid = ops.transpose(ops.reshape(x, shape=(B, C, p, H // p, p, W // p)), axes=(0, 3, 5, 1, 2, 4))
    return ops.reshape(grid, shape=(B, (H // p) * (W // p), C * p * p))


def _halves_by_angles_of_neighbours(R: Reference, x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[-1] // 2
    c, s = (a.repeat(2, axis=1)[:, None] for a in (cos, sin))
    return np.asarray(x * c + np.concatenate((-x[..., half:], x[..., :half]), axis=-1) * s)


FORMULAS: tuple[tuple[str, AnyPart, Change], ...] = (
    ("the unbiased deviation, ε beside it and not under a root", layers.layer_norm, instead(_annotated)),
    ("e^-λ₁ for e^-λ₂ behind (μ₁-μ₂)²", likelihood.normal_kl, instead(_kl_by_first)),
    ("the logistic function for Φ", likelihood.cdf, instead(lambda R, z: special.expit(z))),
    ("the logistic function of 1.702 z for Φ(z)", likelihood.cdf, instead(lambda R, z: special.expit(1.702 * z))),
    ("½ (1 + tanh z) for Φ(z)", likelihood.cdf, instead(lambda R, z: 0.5 * (1 + np.tanh(z)))),
    ("an average from zero, divided by 1 - dⁿ", training.ema_object, instead(lambda R, decay: Corrected(decay))),
    ("a decay that rises as (1+n)/(10+n)", training.ema_object, instead(lambda R, decay: Warmed(R, decay))),
    ("1-β₁ before g²", training.moments, instead(lambda R, m, v, g, b1, b2: (b1 * m + (1 - b1) * g, b2 * v + (1 - b1) * g * g))),
    ("1-β₂ before g", training.moments, instead(lambda R, m, v, g, b1, b2: (b1 * m + (1 - b2) * g, b2 * v + (1 - b2) * g * g))),
    ("a patch of pixels that are H/p and W/p apart", embeddings.patches, instead(_every_other_pixel)),
    ("halves turned by angles that stand in turns, as for neighbours", streams.rope, instead(_halves_by_angles_of_neighbours)),
    ("the last token of earlier calls unseen", tokens.sees,
     lambda f: lambda R, used, n: f(R, used, n) & (np.arange(used + n) != used - 1)),
    ("the network asked at the timestep of arrival", chains.step_time,
     instead(lambda R, timesteps, k, T: np.asarray(timesteps)[min(k + 1, len(timesteps) - 1)])),
)  # fmt: skip


def _sides(places: tuple[Array, Array], form: str) -> tuple[Array, Array]:
    """Rows and columns of tokens as parts of the side, or counted otherwise."""
    r, c = (p.astype(np.float64) for p in places)
    sides = [max(p.max() + 1, 1) for p in (r, c)]
    ends = [max(n - 1, 1) for n in sides]
    made = {
        "divided by the side of the grid": (r / sides[0], c / sides[1]),
        "from 0 to 1": (r / ends[0], c / ends[1]),
        "from -1 to 1": (2 * r / ends[0] - 1, 2 * c / ends[1] - 1),
        "counted from 1": (r + 1, c + 1),
        "counted from the middle": (r - (sides[0] - 1) / 2, c - (sides[1] - 1) / 2),
    }
    return made[form]


PLACES = ("divided by the side of the grid", "from 0 to 1", "from -1 to 1", "counted from 1", "counted from the middle")


def _angles_of_the_head(R: Reference, ids: Array, widths: tuple[int, ...], theta: float) -> tuple[Array, Array]:
    f = theta ** (-np.arange(0, sum(widths), 2) / sum(widths))
    axes = np.repeat(np.arange(len(widths)), [d // 2 for d in widths])
    angles = ids[:, axes] * f
    return np.cos(angles), np.sin(angles)


def _words(own: Array) -> Array:
    """Which rows are words: those that see what the first one sees as its own."""
    return np.asarray(own[0])


MASKS = {
    "words that see words only": lambda own: own | ~_words(own)[:, None],
    "a picture that sees itself only": lambda own: own | _words(own)[:, None],
    "a causal mask": lambda own: np.tril(np.ones_like(own)),
}


def _of_the_norm(original: Any) -> Any:
    return lambda R, w, x, groups: original(R, w, x, groups) - x + unet.attended(R, x, w, groups)


def _of_old_stream(original: Any) -> Any:
    def changed(R: Reference, weights: Any, h: Array, y: Array, c: Array) -> tuple[Array, Array]:
        _, _, gate, *of_mlp = stream_blocks.parts_of(R, weights, c, 6)
        after = stream_blocks.after_attention(R, h, gate, stream_blocks.by(weights, "attn.proj", y))
        return original(R, weights, h, y, c)[0], stream_blocks.after_mlp(R, weights, after, h, of_mlp)

    return changed


def _places() -> Iterator[Deviation]:
    """Where tokens stand and what they see."""
    for form in PLACES:
        yield fit(f"places {form}", embeddings.position_grid, then(partial(_sides, form=form)))
    yield fit("the frequencies of the whole head, shared out to the axes", streams.rope_angles, instead(_angles_of_the_head))
    for words, mask in MASKS.items():
        yield fit(words, streams.keys_of, instead(lambda R, every, own, mask=mask: mask(own)))
    yield fit("the normalised input added back for the input", unet.unet_attention, _of_the_norm)
    yield fit("an MLP that sees the h from before the attention", stream_blocks.stream_block, _of_old_stream)


OTHERS: tuple[Deviation, ...] = (*(fit(*row) for row in (*LADDERS, *FORMULAS)), *_ranges(), *_places())
