"""The pictures of docs/story that show numbers and points: what its moving parts show, standing still. See make_story.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from minidit import pictures
from minidit.backend import Array
from minidit.diffusion import rungs
from minidit.diffusion.exact import Mixture
from minidit.diffusion.fresh import DDPM, Fresh, ddim
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import Level, mix
from minidit.diffusion.path import Path, Straight
from minidit.diffusion.prediction import X_0
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.diffusion.step import step
from minidit.html.moving import CLOUDS, FED_BACK, POINTS, REACH
from minidit.random import Philox

SIDE, FINE = 150, 4
DATA = Mixture(
    np.array(CLOUDS["weights"]),
    np.array(CLOUDS["means"]),
    np.array(CLOUDS["stds"]) ** 2,
    np.array(CLOUDS["classes"]),
    path=Straight(),
)
INKS = ((31, 95, 168), (194, 84, 10), (47, 125, 79), (138, 75, 175), (176, 48, 92))
Z = Philox(0).normal((POINTS, 2), dtype=np.float64)


def scatter(x: Array, ink: tuple[int, int, int] = (28, 27, 25)) -> Image.Image:
    """Points on a square of paper, with the data as faint discs of two standard deviations."""
    sheet = Image.new("RGB", (SIDE * FINE, SIDE * FINE), (251, 250, 248))
    pen, half = ImageDraw.Draw(sheet), SIDE * FINE / 2
    for (a, b), s, kind in zip(DATA.means, CLOUDS["stds"], DATA.classes, strict=True):
        faint = tuple(round(0.15 * c + 0.85 * 250) for c in INKS[0 if kind else 1])
        u, v, r = half + a / REACH * half, half - b / REACH * half, 2 * s / REACH * half
        pen.ellipse((u - r, v - r, u + r, v + r), fill=faint)
    for a, b in x:
        u, v, r = half + a / REACH * half, half - b / REACH * half, 1.6 * FINE
        pen.ellipse((u - r, v - r, u + r, v + r), fill=ink)
    return sheet.reduce(FINE)


def row(clouds: Sequence[Array], captions: Sequence[str]) -> Image.Image:
    return pictures.side_by_side([scatter(x) for x in clouds], captions, gap=8)


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


def points() -> Image.Image:
    """Three samplers, each at the beginning, two places of the way, and the end."""
    rows = []
    for name, path, fresh in (
        ("DDPM", Schedule.cosine(1000), DDPM),
        ("DDIM", Schedule.cosine(1000), ddim()),
        ("rectified flow", Straight(), ddim()),
    ):
        walk = [walked(path, fresh, 20)[k] for k in (0, 10, 15, 20)]
        size = [(0.36 / (at.alpha**2 * 0.36 + at.sigma**2)) ** 0.5 for at, _ in walk]
        rows.append(row([x * s for (_, x), s in zip(walk, size, strict=True)], [name, "10 of 20 steps", "15", "20"]))
    return pictures.stack(rows)


def clouds() -> Image.Image:
    """Guidance towards the first kind, at four scales."""
    scales = (0.0, 1.0, 2.0, 4.0)
    return row([walked(Schedule.cosine(1000), ddim(), 40, w)[-1][1] for w in scales], [f"w = {w:g}" for w in scales])


def shift() -> Image.Image:
    """Mean shift for 0, 3 and 30 rounds, and a walk's end."""
    at, data = Straight().level(FED_BACK), walked(Schedule.cosine(1000), ddim(), 40)[-1][1]
    x, rounds = mix(data, Z, at), list[Array]()
    for k in range(31):
        if k in (0, 3, 30):
            rounds.append(x / at.alpha)
        x = at.alpha * DATA.denoise(x, at)
    return row([*rounds, data], ["noisy data", "fed back 3 times", "30 times", "a walk's end"])


def schedules() -> Image.Image:
    """The share of the signal of five schedules."""
    t = np.arange(1001)
    straight = (1 - t / 1000) ** 2 / ((1 - t / 1000) ** 2 + (t / 1000) ** 2)
    scaled = Schedule.scaled_linear(1000)
    series = {
        "linear": Schedule.linear(1000).alpha_bar,
        "scaled linear": scaled.alpha_bar,
        "cosine": Schedule.cosine(1000).alpha_bar,
        "zero at the end": zero_terminal_snr(scaled).alpha_bar,
        "straight path": straight,
    }
    return pictures.curves(
        {name: (t, bar) for name, bar in series.items()}, "the share of the signal", smooth=False, x_label="t", size=(640, 340)
    )


def spacings() -> Image.Image:
    """The rungs of six spacings in a walk of ten steps."""
    T, n = 1000, 10
    rows = {
        "trailing": rungs.trailing(T, n),
        "leading": rungs.leading(T, n),
        "linspace": rungs.linspace(T, n),
        "quadratic": rungs.quadratic(T, n),
        "three sections": rungs.sections(T, (3, 3, 4)),
        "integer stride": rungs.stride(T, n),
    }
    strips = []
    for visited in rows.values():
        sheet = Image.new("RGB", (500 * FINE, 18 * FINE), (251, 250, 248))
        pen = ImageDraw.Draw(sheet)
        pen.line((8 * FINE, 9 * FINE, 492 * FINE, 9 * FINE), fill=(222, 218, 211), width=FINE)
        for r in visited:
            u = (8 + r / T * 484) * FINE
            pen.ellipse((u - 4 * FINE, 5 * FINE, u + 4 * FINE, 13 * FINE), fill=INKS[1 if r == T else 0])
        strips.append(sheet.reduce(FINE))
    return pictures.stack(strips, [f"{name}: {v[0]} to {v[-1]}" for name, v in rows.items()], gap=4)


STILL = {"points": points, "clouds": clouds, "shift": shift, "schedules": schedules, "spacings": spacings}
