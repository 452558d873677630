"""Makes the pictures of docs/story with the shipped weights: every one is seeded, and none is chosen by hand.

python tools/make_story.py [DIR]          DIR: docs/story/pictures
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image as Picture

import minidit as md
from minidit import pictures
from minidit.autograd import value
from minidit.backend import Array
from minidit.data.dataset import Dataset, from_uint8
from minidit.diffusion.level import Level, mix
from minidit.diffusion.prediction import V
from minidit.runs.loading import load
from minidit.runs.pipeline import Pipeline

sys.path.insert(0, str(Path(__file__).parent))
import story_curves
import story_points
from story_marks import WHOLE, tiles

FOLDER = Path(__file__).parents[1] / "docs/story/pictures"
ROOT = Path(__file__).parents[1] / "minidit/weights/fashion"
SEED = 0
SHOE, BAG, DRESS, SANDAL = 7, 8, 3, 5
HANDLE = (0.15, 0.0, 0.85, 0.47)  # where the bag has its handle


@dataclass(frozen=True)
class Studio:
    """The shipped weights and the pictures they are shown beside. latents: (n, 4, 8, 8)."""

    pipeline: Pipeline
    data: Dataset
    images: Array
    latents: Array
    labels: Array

    @classmethod
    def opened(cls) -> Studio:
        """The first picture of each class of the shipped data."""
        pipeline, data = load(ROOT), md.data.fashion()
        first = [int(np.flatnonzero(data.labels == k)[0]) for k in range(10)]
        images = from_uint8(data.images[first])
        return cls(pipeline, data, images, pipeline.encode(images), np.arange(10))

    def level(self, t: int) -> Level:
        assert self.pipeline.ladder is not None
        return self.pipeline.ladder.level(t)

    def guess(self, x_t: Array, t: int, y: Array) -> tuple[Array, Array]:
        """(x̂_0, ε̂) of the network, in one call and without guidance."""
        inputs = self.pipeline.process.path.inputs(x_t, t)
        return V.pair(value(self.pipeline.model(*inputs, y)), x_t, self.level(t))

    def decoded(self, latents: Array) -> Array:
        return self.pipeline.pictures(latents)

    def cropped(self, images: Array) -> Array:
        crop = self.pipeline.crop
        return images[..., crop:-crop, crop:-crop]

    def real(self, kind: int) -> Array:
        """The real picture of a class, (1, 28, 28)."""
        return self.cropped(self.images[kind])

    def average(self, kind: int, n: int = 300) -> Array:
        """The average of the latents of n real pictures of a class, decoded."""
        images = from_uint8(self.data.images[np.flatnonzero(self.data.labels == kind)[:n]])
        return self.decoded(self.pipeline.encode(images).mean(0, keepdims=True))[0]

    def noise(self, n: int, stream: int = 0) -> Array:
        return md.Philox(SEED, stream).normal((n, *self.latents.shape[1:]))


def of_a_real_picture(studio: Studio) -> Picture:
    """x_t of three real pictures, each with its own noise."""
    times = (0, 50, 200, 400, 600, 800, 1000)
    x_0 = studio.images[[SHOE, BAG, DRESS]]
    eps = md.Philox(SEED).normal(x_0.shape)
    frames = np.stack([mix(x_0, eps, studio.level(t)) for t in times])
    return pictures.strip(frames.clip(-1, 1), [f"t = {t}" for t in times], scale=3)


def guesses(studio: Studio) -> Picture:
    """What the network answers, once, for noisy pictures that it is shown; on the right, the average of real pictures."""
    times, rows = (100, 300, 500, 700, 900, 1000), [SANDAL, BAG]
    eps, lines = studio.noise(len(rows)), list[list[Array | None]]()
    noisy = [mix(studio.latents[rows], eps, studio.level(t)) for t in times]
    clean = [studio.guess(x, t, studio.labels[rows])[0] for x, t in zip(noisy, times, strict=True)]
    for i, kind in enumerate(rows):
        lines += [[studio.real(kind), *[studio.decoded(z)[i] for z in noisy], None]]
        lines += [[None, *[studio.decoded(z)[i] for z in clean], studio.average(kind)]]
    last = len(times)
    return pictures.grid(
        tiles(lines, 3, {(row, last + more): WHOLE for row in (1, 3) for more in (0, 1)}),
        len(lines[0]),
        scale=1,
        column_labels=["real", *[f"t = {t}" for t in times], "average"],
        row_labels=["it sees", "it guesses", "it sees", "it guesses"],
    )


def one_step(studio: Studio) -> Picture:
    """From one noise to t = 100, in nine steps of 100 and at once, by the step without fresh noise; below, the guess there."""
    low, rows, shown = 100, [SANDAL, SHOE], (1000, 900, 700, 500, 300, 100)
    y, x = studio.labels[rows], studio.noise(len(rows))
    moments = dict[int, tuple[Array, Array]]()
    for t in range(1000, low - 1, -100):
        x_0_hat, eps_hat = studio.guess(x, t, y)
        moments[t] = x, x_0_hat
        if t == 1000:
            at_once = mix(x_0_hat, eps_hat, studio.level(low))
        x = mix(x_0_hat, eps_hat, studio.level(t - 100))
    columns = [*[moments[t] for t in shown], (at_once, studio.guess(at_once, low, y)[0])]
    lines = [[studio.decoded(column[k])[i] for column in columns] for i in range(len(rows)) for k in (0, 1)]
    last = len(columns) - 1
    return pictures.grid(
        tiles(lines, 3, {(row, column): WHOLE for row in (1, 3) for column in (last - 1, last)}),
        len(columns),
        scale=1,
        column_labels=[*[f"t = {t}" for t in shown], f"{low} at once"],
        row_labels=["noisy", "the guess", "noisy", "the guess"],
    )


def the_walk(studio: Studio) -> Picture:
    """x_t and the guess along a walk of 50 steps; framed: the bag's handle where it is first seen in each."""
    labels, shown = [SHOE, BAG], (0, 5, 10, 20, 30, 40, 49)
    trace = list(studio.pipeline.latents(labels, steps=50, seed=SEED, trace=True, guidance=1.0, solver="euler"))
    moments = [trace[k] for k in shown]
    lines = [
        [studio.decoded(z)[i] for z in kind]
        for i in range(len(labels))
        for kind in ([m.x_t for m in moments], [m.x_0_hat for m in moments])
    ]
    return pictures.grid(
        tiles(lines, 3, {(2, 4): HANDLE, (3, 1): HANDLE}),
        len(shown),
        scale=1,
        column_labels=[f"t = {m.t}" for m in moments],
        row_labels=["noisy", "the guess", "noisy", "the guess"],
    )


def counts(studio: Studio) -> Picture:
    """The same noise walked in 1 to 100 steps: DDIM on the left, DDPM on the right."""
    kinds, numbers, halves = [0, DRESS, SANDAL, 6, BAG], (1, 2, 5, 20, 50, 100), []
    names = [f"{n} call{'s' * (n > 1)}" for n in numbers]
    for sampler in ("ddim", "ddpm"):
        drawn = [
            studio.pipeline.sample("0-9", steps=n, seed=SEED, sampler=sampler, guidance=1.0, solver="euler") for n in numbers
        ]
        frames = {(2, 2): WHOLE, (2, 4): WHOLE}
        halves.append(pictures.grid(tiles([list(x[kinds]) for x in drawn], 2, frames), len(kinds), scale=1, row_labels=names))
    return pictures.side_by_side(halves, ["DDIM", "DDPM"])


def guidance(studio: Studio) -> Picture:
    """Twelve bags from the same twelve noises, at four scales."""
    scales = (0.0, 1.0, 2.0, 4.0)
    drawn = [studio.pipeline.sample([BAG] * 12, steps=50, seed=SEED + 1, guidance=w, solver="euler") for w in scales]
    return pictures.grid(np.concatenate(drawn), 12, scale=2, row_labels=[f"w = {w:g}" for w in scales])


def latents(studio: Studio) -> Picture:
    """Real pictures, the four channels of their latents, and what the decoder makes of those; framed: a lost pattern."""
    kinds = [SHOE, BAG, DRESS]
    z = studio.latents[kinds]
    channels = (z / 3).clip(-1, 1).repeat(4, -1).repeat(4, -2)  # 8 × 8 shown as large as 32 × 32
    lines = [[studio.real(kind), *studio.cropped(channels[i])[:, None], studio.decoded(z)[i]] for i, kind in enumerate(kinds)]
    return pictures.grid(
        tiles(lines, 3, {(1, 0): WHOLE, (1, 5): WHOLE}),
        6,
        scale=1,
        column_labels=["picture", "channel 1", "2", "3", "4", "decoded"],
    )


def patches(studio: Studio) -> Picture:
    """The four channels of a latent cut into patches, and the 16 tokens in reading order: 16 numbers each."""
    z, chosen = (studio.latents[BAG] / 3).clip(-1, 1), 5
    cut = [z[:, i : i + 2, j : j + 2] for i in range(0, 8, 2) for j in range(0, 8, 2)]  # 16 of (4, 2, 2)
    channels = []
    for c in range(4):
        lines = [[cut[4 * i + j][c : c + 1] for j in range(4)] for i in range(4)]
        channels.append(pictures.grid(tiles(lines, 14, {divmod(chosen, 4): WHOLE}), 4, scale=1, gap=3))
    tokens = [[patch[c : c + 1] for patch in cut] for c in range(4)]
    below = tiles(tokens, 14, {(c, chosen): WHOLE for c in range(4)})
    names = [f"{k + 1}" for k in range(16)]
    return pictures.stack(
        [
            pictures.side_by_side(channels, [f"channel {c + 1}" for c in range(4)], gap=30),
            pictures.grid(below, 16, scale=1, gap=2, column_labels=names, row_labels=[f"channel {c + 1}" for c in range(4)]),
        ],
        ["the latent, 4 x 8 x 8, cut into patches of 2 x 2", "the 16 patches in reading order: each column becomes one token"],
        gap=18,
    )


def fed_back(studio: Studio) -> Picture:
    """The guesses of 30 calls from the same noisy pictures: fed back at one t, fed back while t falls, and along a walk."""
    kinds, top, calls = [SHOE, BAG, 0, 9], 400, (1, 2, 5, 10, 30)
    start = mix(studio.latents[kinds], studio.noise(len(kinds)), studio.level(top))
    falling = [round(top * (30 - k) / 30) for k in range(31)]
    parts = []
    for times, noise in (([top] * 31, False), (falling, False), (falling, True)):
        x, lines = start, [[studio.real(kind) for kind in kinds], list(studio.decoded(start))]
        for k in range(30):
            x_0_hat, eps_hat = studio.guess(x, times[k], studio.labels[kinds])
            below = studio.level(times[k + 1])
            x = mix(x_0_hat, eps_hat, below) if noise else below.alpha * x_0_hat
            lines += [list(studio.decoded(x_0_hat))] if k + 1 in calls else []
        names = [] if parts else ["real", "the start", *[f"guess {k}" for k in calls]]
        parts.append(pictures.grid(tiles(lines, 2), len(kinds), scale=1, row_labels=names or None))
    return pictures.side_by_side(
        parts, ["fed back, always at t = 400", "fed back, while t falls to 0", "a walk: t falls, noise stays in"]
    )


STILL = {**story_curves.STILL, **story_points.STILL}
MAKERS = {
    "noise": of_a_real_picture,
    "guess": guesses,
    "step": one_step,
    "walk": the_walk,
    "counts": counts,
    "guidance": guidance,
    "latents": latents,
    "patches": patches,
    "fed-back": fed_back,
}


def all_of_them() -> Iterator[tuple[str, Picture]]:
    """(name, picture) of the whole story."""
    studio = Studio.opened()
    for name, make in MAKERS.items():
        yield name, make(studio)
    yield from ((name, make()) for name, make in STILL.items())


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in all_of_them():
        print(pictures.save_png(folder / f"{name}.png", picture))
