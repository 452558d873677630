"""One step: a consistency model beside DDIM, and why more of its steps are not always better.

    f(x_t, t) = the end of the trajectory through x_t;   x_s = f(x_t, t) + √(s²-ε²) z        one or several steps      (S.1, S.2)

The data are eight small Gaussians on a ring, so the perfect denoiser is a formula. A small network learns f from data alone (iCT,
S.16): two neighbours on a trajectory must lead to the same end. A minute or two.

The picture, one_step.png: a row per sampler, a column per number of steps; the last column shows where it should lead.
The table: the sliced Wasserstein distance from there; 0.02 is two samples of the same law.

The last row is guided towards the upper half of the ring, by the perfect f of the guided flow. One step is perfect. But fresh
noise (S.2) returns to the marginals of the plain flow, and f guides again what was guided: each further step leads away.
"""

import numpy as np

import minidit as md
from minidit.diffusion import exact, times
from minidit.diffusion.fresh import EVERYTHING, ddim
from minidit.processes import consistency, train

END, TOP, W = 0.002, 20.0, 3.0
angle, angles = 2 * np.pi * (np.arange(8) + 0.5) / 8, np.pi * np.arange(32) / 32  # of the ring, of the lines
MEANS = 0.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1).reshape(8, 2, 1, 1)
EDM = md.Exploding(0.5, low=END, high=TOP)
RING = exact.Mixture(np.full(8, 1 / 8), MEANS, np.full(8, 0.05**2), np.arange(8) // 4, null=2, path=EDM)  # 0: the upper half
denoised = lambda x, t: RING.denoise(x, EDM.level(t))


def walk(x, path, grid, fresh, guess, rng=None):
    """The loop of all samplers: x at the first time of the grid  ->  x_0."""
    for t, s in grid:
        now, below, x_0_hat = path.level(t), path.level(s), guess(x, t)
        z, eps_hat = rng and rng.normal(x.shape, dtype=np.float64), (x - now.alpha * x_0_hat) / now.sigma
        x = md.diffusion.step.step(x_0_hat, eps_hat, below, c=fresh.c(now, below), z=z if fresh.noisy else None)
    return x


def end_of_trajectory(x, t, w=1.0, calls=40):
    """The perfect f, by a fine walk; for w above 1 that of the flow guided towards the upper half."""
    upper = lambda x, t: RING.denoise(x, EDM.level(t), np.zeros(len(x), int))
    guess = denoised if w == 1 else lambda x, t: md.diffusion.guidance.guide(denoised(x, t), upper(x, t), w)
    return walk(x, EDM, times.down(times.karras(calls, END, t)) if t > END else [], ddim(), guess)


def distance(x, y):
    x, y = (np.sort(a.reshape(len(a), 2) @ np.stack([np.cos(angles), np.sin(angles)]), axis=0) for a in (x, y))
    return np.mean((x - y) ** 2) ** 0.5


def main(n=3000, steps=3000, width=96, counts=(1, 2, 4, 8)):
    rng = md.Philox(seed=0)
    data = MEANS[rng.integers(0, 8, (20000,))] + 0.05 * rng.normal((20000, 2, 1, 1), dtype=np.float64)
    net = md.DiT(md.DiTConfig(1, 1, 2, width, 3, 2, num_classes=0, learn_sigma=False), rng)
    process = consistency.Consistency.improved(steps, s_1=160, high=TOP, mean=1.0)
    config = md.LoopConfig(steps=steps, batch_size=256, lr=2e-3, warmup=100, final_lr=0.01, ema=0.99, clip=1.0, shards=1)
    list((loop := train.loop_for(net, data.astype(np.float32), process, config)).run())
    net.flat[...] = loop.optimiser.average
    z, path = rng.normal((n, 2, 1, 1), dtype=np.float64), process.path
    learned = lambda x, t: process.end(net, x.astype(np.float32), np.full(len(x), t), None).data
    targets, pictures = {1.0: data[:n], W: end_of_trajectory(TOP * z, TOP, W, 400)}, []
    guesses = {"DDIM, perfect denoiser": denoised, "consistency, learned": learned, "consistency, perfect": end_of_trajectory}
    for name, guess in (guesses | {"guided, perfect": lambda x, t: end_of_trajectory(x, t, W)}).items():
        (where, fresh), w = (EDM, ddim()) if guess is denoised else (path, EVERYTHING), W if "guided" in name else 1.0
        clouds = [walk(where.start(z), where, where.grid(k), fresh, guess, md.Philox(seed=1)) for k in counts]
        print(f"{name:24s}", *(f"{k} steps {distance(x, targets[w]):.3f}  " for k, x in zip(counts, clouds, strict=True)))
        for x in (*clouds, targets[w]):
            dots = np.histogram2d(-x[:, 1].ravel(), x[:, 0].ravel(), bins=110, range=[(-1.3, 1.3)] * 2)[0]
            pictures.append(1 - 2 * np.minimum(1, dots / 2))
    columns, rows = [*(f"steps: {k}" for k in counts), "where to"], [*guesses, "guided, perfect"]
    sheet = md.pictures.grid(np.stack(pictures)[:, None], len(columns), scale=1, column_labels=columns, row_labels=rows)
    print(md.pictures.save_png("one_step.png", sheet))


if __name__ == "__main__":
    main()
