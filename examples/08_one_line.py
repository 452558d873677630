"""Five samplers are one line: DDPM, DDIM, rectified flow, EDM and a consistency model walk to the same data.

    x_s = α_s x̂_0 + √(σ_s² - c²) ε̂ + c z

They differ in the path, which gives (α, σ) at a time, in the grid of times, and in c, the part of the noise that is drawn afresh.
The data are eight small Gaussians on a ring, so the perfect guess x̂_0 is a formula. The consistency model's guess is another
one, the end of the trajectory through x_t, found here by a fine walk. Seconds.

The picture, one_line.png: a row per sampler, a column per number of steps; the last column shows the data. In one step all
denoisers give the mean of the data, and the consistency model gives samples. The table: each cloud's distance from the data.
"""

import numpy as np

import minidit as md
from minidit.diffusion import exact
from minidit.diffusion.fresh import DDPM, EVERYTHING, ddim
from minidit.diffusion.step import step

angle = 2 * np.pi * np.arange(8) / 8
LADDER, EDM = md.Schedule.cosine(1000), md.Exploding(sigma_data=0.5)
RING = exact.Mixture(np.full(8, 1 / 8), 0.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full(8, 0.05**2), path=EDM)


def denoised(x, at, t):
    """E[x_0 | x], a function of the level alone."""
    return RING.denoise(x, at)


def end_of(x, at, t, calls=60):
    """The end of x's own trajectory: what a perfect consistency model answers at time t."""
    return walk(x, EDM, md.Exploding(0.5, low=t / 1000, high=t).grid(calls), ddim(), denoised)


SAMPLERS = {  # name: path, fresh noise, guess
    "DDPM": (LADDER, DDPM, denoised),
    "DDIM": (LADDER, ddim(), denoised),
    "rectified flow": (md.Straight(), ddim(), denoised),
    "EDM": (EDM, ddim(), denoised),
    "consistency": (md.Exploding(0.5, end=0.002), EVERYTHING, end_of),
}


def walk(x, path, grid, fresh, guess, rng=None):
    """The loop of all five: x at the first time of the grid  ->  x_0."""
    for t, s in grid:
        now, below, x_0_hat = path.level(t), path.level(s), guess(x, path.level(t), t)
        eps_hat = (x - now.alpha * x_0_hat) / now.sigma
        x = step(x_0_hat, eps_hat, below, c=fresh.c(now, below), z=rng.normal(x.shape, dtype=np.float64) if fresh.noisy else None)
    return x


def distance(x, y, lines=32):
    """The sliced Wasserstein distance of two clouds of as many points."""
    turn = np.exp(1j * np.pi * np.arange(lines) / lines)
    x, y = (np.sort(a @ np.stack([turn.real, turn.imag]), axis=0) for a in (x, y))
    return float(np.mean((x - y) ** 2) ** 0.5)


def scatter(x, size=130):
    """Points (n, 2) as dark dots on white: a picture (1, size, size) in [-1, 1]."""
    edges = np.linspace(-1.2, 1.2, size + 1)
    return (1 - 2 * np.minimum(1, np.histogram2d(-x[:, 1], x[:, 0], bins=(edges, edges))[0] / 2))[None]


def main(n=3000, counts=(1, 2, 4, 8, 50)):
    rng, pictures, table = md.Philox(seed=0), [], ["steps          " + "".join(f"{k:8d}" for k in counts)]
    data = RING.means[rng.integers(0, 8, (n,))] + 0.05 * rng.normal((n, 2), dtype=np.float64)
    z, columns = rng.normal((n, 2), dtype=np.float64), [f"steps: {k}" for k in counts] + ["the data"]
    for name, (path, fresh, guess) in SAMPLERS.items():
        clouds = [walk(path.start(z), path, path.grid(k), fresh, guess, md.Philox(seed=1)) for k in counts]
        pictures += [scatter(x) for x in (*clouds, data)]
        table.append(f"{name:15s}" + "".join(f"{distance(x, data):8.3f}" for x in clouds))
    grid = md.pictures.grid(np.stack(pictures), len(columns), scale=1, column_labels=columns, row_labels=list(SAMPLERS))
    print(md.pictures.save_png("one_line.png", grid), *table, sep="\n")


if __name__ == "__main__":
    main()
