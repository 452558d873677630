"""Diffusion sampling is not the refinement of a picture: feeding an estimate back through the denoiser collapses the data.

The denoiser gives the mean of all pictures that could hide under the noise. Suppose that we "improve" a picture by taking that
mean and denoising it again at the same level of noise: every round is a step of mean-shift towards the middle of the data
nearby, and after a few rounds their variety is gone. Walking down the ladder keeps the distribution. The denoiser here is exact,
a formula (the data are a mixture of Gaussians in the plane), so no network is to blame. Seconds.

The picture, not_refinement.png: feedback under a little noise, where every Gaussian becomes a point; under more noise, where
all of them become one point; and the walk. The last column shows the data.
"""

import numpy as np

import minidit as md
from minidit.diffusion import exact, rungs

sch = md.Schedule.linear(T=1000)
angle = 2 * np.pi * np.arange(7) / 7
data = exact.Mixture(np.full(7, 1 / 7), np.stack([np.cos(angle), np.sin(angle)], axis=1) * 1.4, np.full(7, 0.03), path=sch)


def draw(n, rng):
    """Points of the data: (n, 2)."""
    return data.means[rng.integers(0, 7, (n,))] + 0.03**0.5 * rng.normal((n, 2), dtype=np.float64)


def feedback(x, t, rounds):
    """x_t <- √ᾱ_t x̂_0(x_t), repeated at one rung."""
    at = sch.level(t)
    for _ in range(rounds):
        x = at.alpha * data.denoise(x, at)
    return x


def walk(x, pairs):
    """DDIM down these rungs: x_s = √ᾱ_s x̂_0 + √(1-ᾱ_s) ε̂, the same estimate with its noise put back, a little less each time."""
    for t, s in pairs:
        x = md.ddim_step(x, data(x, sch.time[t]), t, s, sch)
    return x


def scatter(x, size=170):
    """Points (n, 2) as dark dots on white: a picture (1, size, size) in [-1, 1]."""
    edges = np.linspace(-2.4, 2.4, size + 1)
    count, _, _ = np.histogram2d(-x[:, 1], x[:, 0], bins=(edges, edges))
    return (1 - 2 * np.minimum(1, count / 2))[None]


def main(n=6000, steps=40, levels=(100, 300)):
    rng = md.Philox(seed=0)
    x_0, eps = draw(n, rng), rng.normal((n, 2), dtype=np.float64)
    pairs = rungs.pairs(rungs.trailing(sch.T, steps))
    rounds, steps_taken = [0, 1, 2, 4, 8, 16], [round(steps * u) for u in (0, 0.7, 0.8, 0.9, 0.95, 1)]
    rows = [[feedback(md.q_sample(x_0, t, eps, sch), t, k) for k in rounds] for t in levels]
    rows.append([walk(eps, pairs[:k]) for k in steps_taken])
    captions = [f"The estimate fed back at rung {t}" for t in levels] + ["A walk down the ladder"]
    grids = []
    for row, caption, counts in zip(rows, captions, [rounds, rounds, steps_taken], strict=True):
        print(f"{caption}: variances", *(f"{x.var(axis=0).mean():.3f}" for x in (*row, x_0)))
        names = [f"{k} {'steps' if counts is steps_taken else 'rounds'}" for k in counts] + ["the data"]
        grids.append(md.pictures.grid(np.stack([scatter(x) for x in (*row, x_0)]), 7, scale=1, column_labels=names))
    print(md.pictures.save_png("not_refinement.png", md.pictures.stack(grids, captions)))


if __name__ == "__main__":
    main()
