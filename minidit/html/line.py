"""The page of the one line: one mixture, five samplers, a moving picture.

    x_s = α_s x̂_0 + √(σ_s² - c²) ε̂ + c z                                                              (P.4)

Eight small Gaussians on a ring are the data, so the best guess x̂_0 is a formula. The walks are computed here, by the laws of the
package; the page draws what they did, as bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.diffusion.exact import Mixture
from minidit.diffusion.fresh import DDPM, EVERYTHING, Fresh, ddim
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding, Path, Straight
from minidit.diffusion.prediction import X_0
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.step import step
from minidit.html.formula import displayed
from minidit.html.page import section, table
from minidit.metrics import sliced_wasserstein
from minidit.random import Philox

POINTS, COUNTS, REACH = 240, (1, 2, 4, 8, 32), 1.8  # points per cloud, steps of the walks, and where a picture ends
FORMULA = r"x_s=\alpha_s\,\hat x_0+\sqrt{\sigma_s^2-c^2}\;\hat\epsilon+c\,z"
LADDER, EDM = Schedule.cosine(1000), Exploding(sigma_data=0.5)
RING = Mixture.ring(EDM)
SPREAD = 0.7**2 / 2 + 0.05**2  # the variance of the data along an axis

Guess = Callable[[Array, Level, Any], Array]


@dataclass(frozen=True)
class Sampler:
    """One row of the table. path, times, noise, answer: words and formulas for it; guess(x_t, level, t) -> x̂_0."""

    name: str
    on: Path
    fresh: Fresh
    guess: Guess
    path: str
    times: str
    noise: str
    answer: str


def denoised(x: Array, at: Level, t: Any) -> Array:
    """E[x_0 | x_t = x], a function of the level alone."""
    return RING.denoise(x, at)


def end_of(x: Array, at: Level, t: Any) -> Array:
    """The end of x's own trajectory, by a fine walk: what a perfect consistency model answers at time t."""
    *_, (_, x_0) = moments(x, EDM, Exploding(0.5, low=t / 1000, high=t).grid(60), ddim(), denoised)
    return x_0


SAMPLERS = (
    Sampler("DDPM", LADDER, DDPM, denoised, "ᾱ ladder", "rungs", "of the posterior", "the mean of the data"),
    Sampler("DDIM", LADDER, ddim(), denoised, "ᾱ ladder", "rungs", "0", "the same"),
    Sampler("rectified flow", Straight(), ddim(), denoised, "α = 1 − t, σ = t", "linear", "0", "the same"),
    Sampler("EDM", EDM, ddim(), denoised, "α = 1, σ = t", "Karras", "0", "the same"),
    Sampler("consistency", Exploding(0.5, end=0.002), EVERYTHING, end_of, "α = 1, σ = t", "Karras", "σₛ: all of it",
            "the end of xₜ’s trajectory"),
)  # fmt: skip


def moments(
    x: Array, path: Path, grid: list[tuple[Any, Any]], fresh: Fresh, guess: Guess, rng: Philox | None = None
) -> Iterator[tuple[Any, Array]]:
    """(time, x) before each step of the walk and after the last."""
    t = grid[0][0]
    for t, s in grid:
        yield t, x
        now, below = path.level(t), path.level(s)
        x_0_hat, eps_hat = X_0.pair(guess(x, now, t), x, now)
        z = rng.normal(x.shape, dtype=np.float64) if rng is not None and fresh.noisy and below.sigma > 0 else None
        x = step(x_0_hat, eps_hat, below, c=fresh.c(now, below), z=z)
    yield grid[-1][1], x


def drawn(x: Array, at: Level) -> bytes:
    """The cloud scaled to the variance of the data, so that all paths fill one frame; a byte per number."""
    shown = x * (SPREAD / (at.alpha**2 * SPREAD + at.sigma**2)) ** 0.5
    return bytes(np.clip(np.rint(shown / REACH * 127), -127, 127).astype(np.int8).tobytes())


def walks() -> tuple[list[dict[str, Any]], list[list[str]]]:
    """(per sampler and number of steps the frames for the page, rows of the table of distances from the data)."""
    rng, frames, rows = Philox(seed=0), list[dict[str, Any]](), list[list[str]]()
    z = rng.normal((POINTS, 2), dtype=np.float64)
    data, more = (RING.means[rng.integers(0, 8, (POINTS,))] + 0.05 * rng.normal((POINTS, 2), dtype=np.float64) for _ in range(2))
    for sampler in SAMPLERS:
        ends = list[str]()
        for count in COUNTS:
            path = sampler.on
            walk = list(moments(path.start(z), path, list(path.grid(count)), sampler.fresh, sampler.guess, Philox(seed=1)))
            levels = [path.level(t) for t, _ in walk]
            clouds = b"".join(drawn(x, at) for (_, x), at in zip(walk, levels, strict=True))
            numbers = [[float(f"{n:.3g}") for n in (at.alpha, at.sigma)] for at in levels]
            frames.append({"name": sampler.name, "steps": count, "levels": numbers, "x": base64.b64encode(clouds).decode()})
            ends.append(f"{sliced_wasserstein(walk[-1][1], data, 32):.3f}")
        rows.append([sampler.name, *ends])
    return frames, [*rows, ["other points of the data", *[f"{sliced_wasserstein(more, data, 32):.3f}"] * len(COUNTS)]]


def script(frames: list[dict[str, Any]]) -> str:
    """The numbers that line.js draws."""
    facts = {"points": POINTS, "counts": COUNTS, "names": [s.name for s in SAMPLERS]}
    return f"const LINE = {json.dumps(facts | {'walks': frames})};"


def line_page(link: Callable[[str], str], rows: list[list[str]]) -> str:
    """The body of the page. link(id): the address of an equation."""
    def named(identifier: str) -> str:
        address = link(identifier)
        return f'<a href="{address}">{identifier}</a>' if address else identifier

    canvases = "".join('<figure class="walk"><canvas width="320" height="320" role="img" '
                       f'aria-label="the samples of {s.name}"></canvas>'
                       f"<figcaption><b>{s.name}</b> <span></span></figcaption></figure>" for s in SAMPLERS)
    options = "".join(f"<option{' selected' if c == COUNTS[-1] else ''}>{c}</option>" for c in COUNTS)
    controls = ('<p class="controls"><button type="button">Pause</button> <label>steps <select aria-label="steps">'
                f'{options}</select></label> '
                '<input type="range" min="0" max="1000" value="0" aria-label="how far the walks are"></p>')
    samplers = table(("sampler", "path", "times", "fresh noise c", "x̂₀ is"),
                     [[s.name, s.path, s.times, s.noise, s.answer] for s in SAMPLERS], label="The five samplers")
    distances = table(("steps", *map(str, COUNTS)), rows, numbers=range(1, 1 + len(COUNTS)), label="Distance from the data")
    return (
        "<h1>One line, five samplers</h1>"
        f'<div class="equation" tabindex="0">{displayed(FORMULA)}</div>'
        "<p>A level of noise is two numbers: a sample is xₜ = α x₀ + σ ε. Every sampler of this package guesses the data x̂₀ "
        f"and the noise ε̂ from xₜ and goes on with this line ({named('P.4')}) to a level of less noise. They differ in the path, "
        f"in the times at which they stop, and in c, the part of the noise that is drawn afresh ({named('P.5')}).</p>"
        f"{samplers}"
        '<section id="moving" aria-labelledby="moving-title"><h2 id="moving-title">The same noise, the same data</h2>'
        "<p>Eight small Gaussians on a ring are the data, so each guess is exact, and what is left of the distance is the "
        "sampler’s own. DDIM, rectified flow and EDM walk along the same curves, in other coordinates "
        f"({named('P.11')}): in the limit of many steps a noise ends at the same point. Clouds are drawn at the variance of the "
        f'data.</p>{controls}<div class="walks">{canvases}</div>'
        "<noscript><p>The moving picture needs scripts.</p></noscript></section>"
        + section("distances", "How far from the data",
                  "<p>The sliced Wasserstein distance of the end points from as many points of the data; the last row is what is "
                  "left by chance. In one step every denoiser answers the mean of the data, a point in the middle; the "
                  "consistency model answers samples.</p>", distances)
    )  # fmt: skip
