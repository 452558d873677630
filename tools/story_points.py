"""The pictures of docs/story that show points: what its moving parts show, standing still. See make_story.py."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image
from story_marks import INK, INKS, MUTED, PAPER, Sheet

from minidit import pictures
from minidit.backend import Array
from minidit.diffusion.exact import Mixture
from minidit.diffusion.fresh import DDPM, Fresh, ddim
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import Level, mix
from minidit.diffusion.path import Path, Straight
from minidit.diffusion.prediction import X_0
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.step import step
from minidit.html.moving import CLOUDS, FED_BACK, POINTS, REACH
from minidit.random import Philox

SIDE, SPREAD = 150, 0.36  # pixels of a square; the variance of the data along an axis
STEPS, MOMENTS, SHOWN = 20, (0, 10, 17, 20), (0, 3, 11)  # of the walks: their length, what is shown, whose ways
DATA = Mixture(
    np.array(CLOUDS["weights"]),
    np.array(CLOUDS["means"]),
    np.array(CLOUDS["stds"]) ** 2,
    np.array(CLOUDS["classes"]),
    path=Straight(),
)
Z = Philox(0).normal((POINTS, 2), dtype=np.float64)


def place(x: float, y: float) -> tuple[float, float]:
    """Where a point of the plane lies on its sheet."""
    half = SIDE / 2
    return half + x / REACH * half, half - y / REACH * half


def scatter(
    x: Array,
    *,
    ink: tuple[int, int, int] = INK,
    kinds: bool = False,
    trails: Sequence[Array] = (),
    ring: int | None = None,
) -> Image.Image:
    """Points on a square of paper, with the data as faint discs of two standard deviations.

    kinds : the discs in the two colours of the classes
    trails : paths of single points, (steps, 2) each, from a hollow disc to a full one   ring : the cloud that is marked
    """
    sheet = Sheet(SIDE, SIDE)
    for k, ((a, b), s, kind) in enumerate(zip(DATA.means, CLOUDS["stds"], DATA.classes, strict=True)):
        full = INKS[0 if kind else 1] if kinds else MUTED
        u, v = place(a, b)
        faint = (round(0.2 * full[0] + 200), round(0.2 * full[1] + 200), round(0.2 * full[2] + 198))
        sheet.disc(u, v, 2 * s / REACH * SIDE / 2, faint)
        if ring == k:
            sheet.disc(u, v, 2.5 * s / REACH * SIDE / 2, None, INK)
    for a, b in x:
        sheet.disc(*place(a, b), 1.6, ink)
    for k, path in enumerate(trails):
        sheet.line([place(a, b) for a, b in path], INKS[k % len(INKS)], 1.3)
        sheet.disc(*place(*path[0]), 3, PAPER, INKS[k % len(INKS)])
        sheet.disc(*place(*path[-1]), 3, INKS[k % len(INKS)])
    return sheet.drawn()


def row(clouds: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    return pictures.side_by_side(clouds, captions, gap=8)


def walked(path: Path, fresh: Fresh, steps: int, w: float | None = None) -> list[tuple[Level, Array]]:
    """(level, cloud) along a walk by the exact denoiser; w: guided towards the first kind."""
    x, rng, out = path.start(Z), Philox(1), list[tuple[Level, Array]]()
    for t, s in path.grid(steps):
        now, below = path.level(t), path.level(s)
        out.append((now, x))
        x_0_hat = DATA.denoise(x, now)
        if w is not None:
            x_0_hat = guide(x_0_hat, DATA.denoise(x, now, np.zeros(len(x), int)), w)
        z = rng.normal(x.shape, dtype=np.float64) if fresh.noisy and below.sigma > 0 else None
        x = step(*X_0.pair(x_0_hat, x, now), below, c=fresh.c(now, below), z=z)
    return [*out, (Level(1.0, 0.0), x)]


def in_one_frame(walk: Sequence[tuple[Level, Array]]) -> list[Array]:
    """The clouds of a walk, each scaled to the spread of the data."""
    return [x * (SPREAD / (at.alpha**2 * SPREAD + at.sigma**2)) ** 0.5 for at, x in walk]


def points() -> Image.Image:
    """DDPM and DDIM from the same noise: four moments of the walk, and the paths of three points."""
    rows = []
    for name, fresh in (("DDPM", DDPM), ("DDIM", ddim())):
        walk = in_one_frame(walked(Schedule.cosine(1000), fresh, STEPS))
        paths = [np.stack([x[p] for x in walk]) for p in SHOWN]
        drawn = [scatter(walk[k]) for k in MOMENTS]
        last = scatter(np.zeros((0, 2)), trails=paths)
        rows.append(row([*drawn, last], [f"{name}, start", *[f"step {k} of {STEPS}" for k in MOMENTS[1:]], "three paths"]))
    return pictures.stack(rows)


def clouds() -> Image.Image:
    """Guidance towards the first kind, at four scales; the ring: the cloud that is next to the other kind."""
    scales = (0.0, 1.0, 2.0, 4.0)
    ends = [walked(Schedule.cosine(1000), ddim(), 40, w)[-1][1] for w in scales]
    return row([scatter(x, kinds=True, ring=2) for x in ends], [f"w = {w:g}" for w in scales])


def from_one_start(rounds: int = 30) -> tuple[list[Array], list[Array]]:
    """The same noisy data fed back at one level, and walked down from there: x_t/α after each call."""
    path = Straight()
    levels = [path.level(FED_BACK * (rounds - k) / rounds) for k in range(rounds + 1)]
    x = y = mix(walked(Schedule.cosine(1000), ddim(), 40)[-1][1], Z, levels[0])
    fed, walk = [x / levels[0].alpha], [y / levels[0].alpha]
    for now, below in pairwise(levels):
        x = levels[0].alpha * DATA.denoise(x, levels[0])
        y = step(*X_0.pair(DATA.denoise(y, now), y, now), below)
        fed.append(x / levels[0].alpha)
        walk.append(y / below.alpha)
    return fed, walk


def shift() -> Image.Image:
    """Feeding back above a walk, from one start, after as many calls."""
    (fed, walk), calls = from_one_start(), (0, 3, 10, 30)
    return pictures.stack(
        [
            row([scatter(fed[k]) for k in calls], ["fed back: the start", *[f"{k} times" for k in calls[1:]]]),
            row([scatter(walk[k]) for k in calls], ["a walk: the same start", *[f"{k} of 30 steps" for k in calls[1:]]]),
        ]
    )


STILL = {"points": points, "clouds": clouds, "shift": shift}
