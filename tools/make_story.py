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
from minidit.data.dataset import from_uint8
from minidit.diffusion.level import Level, mix
from minidit.diffusion.prediction import V
from minidit.runs.loading import load
from minidit.runs.pipeline import Pipeline

sys.path.insert(0, str(Path(__file__).parent))
from story_points import STILL

FOLDER = Path(__file__).parents[1] / "docs/story/pictures"
ROOT = Path(__file__).parents[1] / "minidit/weights/fashion"
SEED = 0
SHOE, BAG, DRESS = 7, 8, 3


@dataclass(frozen=True)
class Studio:
    """The shipped weights and the pictures they are shown beside. latents: (n, 4, 8, 8)."""

    pipeline: Pipeline
    images: Array
    latents: Array
    labels: Array

    @classmethod
    def opened(cls) -> Studio:
        """The first picture of each class of the shipped data."""
        pipeline, data = load(ROOT), md.data.fashion()
        first = [int(np.flatnonzero(data.labels == k)[0]) for k in range(10)]
        images = from_uint8(data.images[first])
        return cls(pipeline, images, pipeline.encode(images), np.arange(10))

    def level(self, t: int) -> Level:
        assert self.pipeline.ladder is not None
        return self.pipeline.ladder.level(t)

    def guess(self, x_t: Array, t: int, y: Array) -> tuple[Array, Array]:
        """(x̂_0, ε̂) of the network, in one call and without guidance."""
        inputs = self.pipeline.process.path.inputs(x_t, t)
        return V.pair(value(self.pipeline.model(*inputs, y)), x_t, self.level(t))

    def decoded(self, latents: Array) -> Array:
        return self.pipeline.pictures(latents)

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
    """What the network answers, once, for noisy pictures that it is shown."""
    times, rows = (100, 300, 500, 700, 900, 1000), [SHOE, BAG]
    x_0, y = studio.latents[rows], studio.labels[rows]
    eps = studio.noise(len(rows))
    noisy = [mix(x_0, eps, studio.level(t)) for t in times]
    clean = [studio.guess(x, t, y)[0] for x, t in zip(noisy, times, strict=True)]
    shown = [np.stack([studio.decoded(z)[i] for z in kind]) for i in range(len(rows)) for kind in (noisy, clean)]
    return pictures.grid(
        np.concatenate(shown),
        len(times),
        scale=3,
        column_labels=[f"t = {t}" for t in times],
        row_labels=["the network sees", "and guesses", "it sees", "and guesses"],
    )


def one_step(studio: Studio) -> Picture:
    """From t = 700 to three times below it, by the step without fresh noise."""
    t, below, rows = 700, (600, 400, 200, 0), [SHOE, BAG]
    y = studio.labels[rows]
    x_t = mix(studio.latents[rows], studio.noise(len(rows)), studio.level(t))
    x_0_hat, eps_hat = studio.guess(x_t, t, y)
    ends = [mix(x_0_hat, eps_hat, studio.level(s)) for s in below]
    frames = np.stack([studio.decoded(z) for z in (x_t, x_0_hat, *ends)])
    return pictures.strip(frames, ["x_t, t = 700", "guess", *[f"s = {s}" for s in below]], scale=3)


def the_walk(studio: Studio) -> Picture:
    """x_t and the guess along a walk of 50 steps."""
    labels, shown = [SHOE, BAG], (0, 10, 20, 30, 40, 45, 49)
    trace = list(studio.pipeline.latents(labels, steps=50, seed=SEED, trace=True, guidance=2.0))
    moments = [trace[k] for k in shown]
    rows = [
        np.stack([studio.decoded(z)[i] for z in kind])
        for i in range(len(labels))
        for kind in ([m.x_t for m in moments], [m.x_0_hat for m in moments])
    ]
    return pictures.grid(
        np.concatenate(rows),
        len(shown),
        scale=3,
        column_labels=[f"t = {m.t}" for m in moments],
        row_labels=["x_t", "guess", "x_t", "guess"],
    )


def counts(studio: Studio) -> Picture:
    """The same noise walked in 1 to 50 steps, with DDIM and with DDPM."""
    drawn, names = [], []
    for sampler in ("ddim", "ddpm"):
        for steps in (1, 2, 5, 20, 50):
            drawn.append(studio.pipeline.sample("0-9", steps=steps, seed=SEED, sampler=sampler, guidance=2.0, solver="euler"))
            names.append(f"{sampler.upper()}, {steps} call{'s' * (steps > 1)}")
    return pictures.grid(np.concatenate(drawn), 10, scale=2, row_labels=names)


def guidance(studio: Studio) -> Picture:
    """Twelve shoes from the same twelve noises, at four scales."""
    scales = (0.0, 1.0, 2.0, 4.0)
    drawn = [studio.pipeline.sample([SHOE] * 12, steps=50, seed=SEED + 1, guidance=w) for w in scales]
    return pictures.grid(np.concatenate(drawn), 12, scale=2, row_labels=[f"w = {w:g}" for w in scales])


def latents(studio: Studio) -> Picture:
    """Real pictures, the four channels of their latents, and what the decoder makes of those."""
    rows = [SHOE, BAG, DRESS]
    z = studio.latents[rows]
    channels = (z / 3).clip(-1, 1).repeat(4, -1).repeat(4, -2)  # 8 × 8 shown as large as 32 × 32
    crop = studio.pipeline.crop
    whole = studio.images[rows][..., crop:-crop, crop:-crop]
    tiles = [np.stack([whole[i], *channels[i][:, None, crop:-crop, crop:-crop], studio.decoded(z)[i]]) for i in range(len(rows))]
    return pictures.grid(np.concatenate(tiles), 6, scale=3, column_labels=["picture", "channel 1", "2", "3", "4", "decoded"])


def patches(studio: Studio) -> Picture:
    """One latent channel with the borders of its 16 patches, and the patches apart, in reading order."""
    z = (studio.latents[BAG, :1] / 3).clip(-1, 1)
    whole = pictures.grid(z[None], 1, scale=22, gap=2)
    apart = pictures.grid(
        np.stack([z[:, i : i + 2, j : j + 2] for i in range(0, 8, 2) for j in range(0, 8, 2)]), 16, scale=14, gap=5
    )
    return pictures.stack(
        [whole, apart], ["one channel of the latent, 8 x 8", "its 16 patches of 2 x 2 in reading order: one token each"]
    )


def fed_back(studio: Studio) -> Picture:
    """The guess shown to the network again and again at one level of noise, beside a walk that adds and removes noise."""
    rows, t, shown = [SHOE, BAG, DRESS, 0, 9], 400, (1, 2, 5, 10, 30)
    y, x = studio.labels[rows], mix(studio.latents[rows], studio.noise(len(rows)), studio.level(t))
    frames = []
    for k in range(1, shown[-1] + 1):
        x_0_hat, _ = studio.guess(x, t, y)
        x = studio.level(t).alpha * x_0_hat
        frames += [studio.decoded(x_0_hat)] if k in shown else []
    walks = [studio.pipeline.sample(y, steps=k, seed=SEED, guidance=1.0) for k in shown]
    names = [f"{k} time{'s' * (k > 1)}" for k in shown]
    left = pictures.grid(np.concatenate(frames), len(rows), scale=2, row_labels=names)
    right = pictures.grid(np.concatenate(walks), len(rows), scale=2, row_labels=[f"{k} step{'s' * (k > 1)}" for k in shown])
    return pictures.side_by_side([left, right], ["fed back at the level t = 400", "a walk from noise"])


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
    for name, picture in all_of_them():
        print(pictures.save_png(folder / f"{name}.png", picture))
