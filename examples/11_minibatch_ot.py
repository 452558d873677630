"""Minibatch OT: noise and data of each batch are paired anew, so that the lines between them are shortest and fewer cross.

The flow becomes much straighter without a reflow (Tong et al. 2023; Pooladian et al. 2023). It is an example only: here a batch
shows the whole ring, of pictures it shows next to nothing; the assignment takes time that grows with the cube of the batch; and
where data have labels, a plan within a batch makes the noise depend on the class, of which sampling knows nothing (C2OT, 2025).

The picture, ot.png: trajectories, and below them samples of one step. The table: distances from the data, and S (0: lines).
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import minidit as md
from minidit.diffusion import flow, times

rng = md.Philox(seed=0)


def drawn(n):  # eight small Gaussians on a ring, and noise, independent of each other: (n, 2) each
    angle = 2 * np.pi * rng.integers(0, 8, (n, 1)) / 8
    x_0 = 0.7 * np.concatenate([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.normal((n, 2))
    return x_0.astype(np.float32), rng.normal((n, 2))


def coupled(n):  # the same, paired so that Σ |x_0 - z|² of the batch is least
    x_0, z = drawn(n)
    return x_0, z[linear_sum_assignment(cdist(x_0, z, "sqeuclidean"))[1]]


class Velocity(md.nn.Module):  # u(x, t) : (B, 2), (B,)  ->  (B, 2)
    def __init__(self, width):
        self.layers = [md.nn.Linear(a, b) for a, b in ((64 + 32, width), (width, width), (width, width), (width, 2))]
        self.build(md.Philox(seed=1))

    def forward(self, x, t):
        position = md.nn.timestep_embedding(20 * x.reshape(-1), 32).reshape(-1, 64)  # each coordinate as sines and cosines
        h = self.layers[0](md.ops.concat(position, md.nn.timestep_embedding(1000 * t, 32), axis=1))
        for layer in self.layers[1:]:
            h = layer(md.ops.silu(h))
        return h


def train(model, draw, steps, batch=512):  # draw(n): data and noise, which belong together or not
    adam, gradient = md.AdamW(model, md.OptimConfig(lr=2e-3, warmup=50, final_lr=0.0), steps), np.zeros_like(model.flat)
    gradients = md.Gradients([p.data for p in model.parameters()], model.views(gradient))
    for n in range(1, steps + 1):
        (x_0, z), t = draw(batch), rng.uniform((batch, 1))
        loss = md.ops.mse(model((1 - t) * x_0 + t * z, t[:, 0]), z - x_0).mean()
        gradient[...] = 0
        with gradients:  # backward adds to these arrays
            loss.backward()
        adam.step(gradient, n)


def walk(model, z, steps):  # the states of an Euler walk from noise to data: (steps + 1, n, 2)
    states = [z]
    for t, s in times.linear(steps):
        with md.no_grad():
            states.append(states[-1] + np.float32(s - t) * model(states[-1], np.full(len(z), t)).data)
    return np.stack(states)


def main(steps=3000, n=4000, width=128, counts=(1, 2, 4, 16, 100)):
    (plain, paired), (data, z) = (Velocity(width) for _ in range(2)), drawn(n)
    table, rows, edges = ["steps" + "".join(f"{k:8d}" for k in counts) + "       S"], ([], []), np.linspace(-2, 2, 201)
    for name, model, draw in (("plain ", plain, drawn), ("paired", paired, coupled)):
        train(model, draw, steps)
        states, ends = walk(model, z, 32), [walk(model, z, k)[-1] for k in counts]
        S = flow.straightness(np.linspace(1, 0, 33), states)
        table.append(f"{name}" + "".join(f"{md.metrics.sliced_wasserstein(x, data):8.3f}" for x in ends)[1:] + f"{S:8.4f}")
        rows = rows[0] + [states[:, :60].reshape(-1, 2)], rows[1] + [ends[0]]
    dots = [np.histogram2d(-x[:, 1], x[:, 0], bins=(edges, edges))[0] for row in rows for x in (*row, data)]
    pictures, names = np.stack([(1 - 2 * np.minimum(1, d / 2))[None] for d in dots]), ["plain", "paired", "the data"]
    print(md.pictures.save_png("ot.png", md.pictures.grid(pictures, 3, scale=1, column_labels=names)), *table, sep="\n")


if __name__ == "__main__":
    main()
