"""One step: a consistency model beside DDIM, and why more of its steps are not always better.

    f(x_t, t) = the end of the trajectory through x_t;   x_s = f(x_t, t) + √(s²-ε²) z        one or several steps      (S.1, S.2)

The data are eight small Gaussians on a ring, so the perfect denoiser is a formula. A small network learns f from it by
distillation: two neighbours on a trajectory must lead to the same end. Its rival is DDIM with the perfect denoiser. A minute.

The picture, one_step.png: a row per sampler, a column per number of steps; the last column shows where it should lead.
The table: distance of each cloud from there, the sliced Wasserstein distance. About 0.03 is two clouds of the same law.

The last row is guided towards the upper half of the ring, w = 3, with the perfect f of the guided flow. One step is perfect.
But fresh noise (S.2) returns to the marginals of the plain flow, not to those of the guided one, so that further steps lead
away from where the guided flow ends. Without guidance the perfect f may take any number of steps.
"""

import numpy as np

import minidit as md
from minidit.diffusion import consistency, exact, times
from minidit.diffusion.fresh import EVERYTHING, ddim
from minidit.diffusion.guidance import guide
from minidit.diffusion.step import step
from minidit.processes.consistency import Consistency, fixed
from minidit.processes.denoise import Denoiser
from minidit.training.loop import Loop
from minidit.training.source import source_of

END, TOP, W = 0.002, 20.0, 3.0
angle = 2 * np.pi * (np.arange(8) + 0.5) / 8
MEANS = 0.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1).reshape(8, 2, 1, 1)
EDM = md.Exploding(0.5, low=END, high=TOP)
RING = exact.Mixture(np.full(8, 1 / 8), MEANS, np.full(8, 0.05**2), np.arange(8) // 4, null=2, path=EDM)  # 0: the upper half


class Perfect:
    """The denoiser that knows the data, as a backbone."""

    shape, condition, second_half, device, dtype = (2, 1, 1), md.models.backbone.Nothing(), False, "cpu", np.float32

    def __call__(self, x, time, y=None):
        return RING(x, time)


def denoised(x, at, w=1.0):
    """E[x_0 | x], or guided towards the upper half of the ring."""
    return RING.denoise(x, at) if w == 1 else guide(RING.denoise(x, at), RING.denoise(x, at, np.zeros(len(x), int)), w)


def walk(x, path, grid, fresh, guess, rng=None):
    """The loop of all samplers: x at the first time of the grid  ->  x_0."""
    for t, s in grid:
        now, below = path.level(t), path.level(s)
        x_0_hat = guess(x, t)
        z = rng.normal(x.shape, dtype=np.float64) if fresh.noisy else None
        x = step(x_0_hat, (x - now.alpha * x_0_hat) / now.sigma, below, c=fresh.c(now, below), z=z)
    return x


def end_of_trajectory(x, t, w=1.0, calls=40):
    """The perfect f, by a fine walk."""
    grid = times.down(times.karras(calls, END, t)) if t > END else []
    return walk(x, EDM, grid, ddim(), lambda x, t: denoised(x, EDM.level(t), w))


def distance(x, y, lines=32):
    """The sliced Wasserstein distance of two clouds of as many points."""
    turn = np.exp(1j * np.pi * np.arange(lines) / lines)
    x, y = (np.sort(a.reshape(len(a), 2) @ np.stack([turn.real, turn.imag]), axis=0) for a in (x, y))
    return float(np.mean((x - y) ** 2) ** 0.5)


def scatter(x, size=110):
    """Points as dark dots on white: a picture (1, size, size) in [-1, 1]."""
    edges, x = np.linspace(-1.3, 1.3, size + 1), x.reshape(len(x), 2)
    return (1 - 2 * np.minimum(1, np.histogram2d(-x[:, 1], x[:, 0], bins=(edges, edges))[0] / 2))[None]


def main(n=3000, steps=3000, width=96, counts=(1, 2, 4, 8)):
    rng = md.Philox(seed=0)
    data = MEANS[rng.integers(0, 8, (20000,))] + 0.05 * rng.normal((20000, 2, 1, 1), dtype=np.float64)
    net = md.DiT(md.DiTConfig(input_size=1, patch_size=1, in_channels=2, hidden_size=width, depth=3, num_heads=2, num_classes=0,
                              learn_sigma=False), rng)  # fmt: skip
    grid = fixed(consistency.rising_grid(19, END, TOP))
    process = Consistency.on_exploding(END, TOP, grid=grid, teacher=Denoiser(Perfect(), EDM))
    config = md.LoopConfig(steps=steps, batch_size=256, lr=2e-3, warmup=100, final_lr=0.01, ema=0.99, clip=1.0, shards=1)
    loop = Loop(net, process, source_of(data.astype(np.float32)), config)
    for _ in loop.run():
        pass
    net.flat[...] = loop.optimiser.average
    z, path = rng.normal((n, 2, 1, 1), dtype=np.float64), process.path
    one = lambda x, t: process.end(net, x.astype(np.float32), np.full(len(x), t), None).data
    targets = {1.0: data[:n], W: end_of_trajectory(TOP * z, TOP, W, 400)}
    rows = {
        "DDIM, perfect denoiser": (EDM, ddim(), lambda x, t: denoised(x, EDM.level(t)), 1.0),
        "consistency, learned": (path, EVERYTHING, one, 1.0),
        "consistency, perfect": (path, EVERYTHING, end_of_trajectory, 1.0),
        "guided, perfect": (path, EVERYTHING, lambda x, t: end_of_trajectory(x, t, W), W),
    }
    pictures, table = [], ["steps                   " + "".join(f"{k:8d}" for k in counts)]
    for name, (where, fresh, guess, w) in rows.items():
        clouds = [walk(where.start(z), where, where.grid(k), fresh, guess, md.Philox(seed=1)) for k in counts]
        pictures += [scatter(x) for x in (*clouds, targets[w])]
        table.append(f"{name:24s}" + "".join(f"{distance(x, targets[w]):8.3f}" for x in clouds))
    columns = [f"steps: {k}" for k in counts] + ["where to"]
    sheet = md.pictures.grid(np.stack(pictures), len(columns), scale=1, column_labels=columns, row_labels=list(rows))
    print(md.pictures.save_png("one_step.png", sheet), *table, sep="\n")


if __name__ == "__main__":
    main()
