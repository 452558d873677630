"""Reflow makes a flow straight: the second flow goes in one step where the first one needs many.

A rectified flow is trained on lines from noise to data. They cross, so its trajectories bend, and one step ends near the middle
of the data. Its own pairs, noise and the end of that noise, do not cross: a flow trained on them is almost straight.

Minibatch OT (Tong et al., Pooladian et al. 2023) makes fewer lines cross from the start: each batch is paired anew, so that the
lines are shortest. It stays an example. Of a plan between all noise and all data a batch knows little, the less the more numbers
a sample has; the assignment takes time that grows with the cube of the batch; and where data have labels, a plan within a batch
makes the noise depend on the class, which sampling does not know (C2OT, 2025).

The picture, reflow.png: trajectories, and below them samples of one step. The table: the distance from the data by the number of
steps, and the straightness S (0: lines). A few minutes.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import minidit as md
from minidit.diffusion import flow, times

rng = md.Philox(seed=0)


def ring(n):  # (n, 2): eight small Gaussians
    angle = 2 * np.pi * rng.integers(0, 8, (n, 1)) / 8
    return (0.7 * np.concatenate([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.normal((n, 2))).astype(np.float32)


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


def drawn(n):  # data and noise, independent of each other
    return ring(n), rng.normal((n, 2))


def coupled(n):  # the same, paired so that Σ |x_0 - z|² of the batch is least
    x_0, z = drawn(n)
    return x_0, z[linear_sum_assignment(cdist(x_0, z, "sqeuclidean"))[1]]


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


def distance(x, y):  # the sliced Wasserstein distance of two clouds of as many points
    turn = np.stack([np.cos(lines := np.pi * np.arange(32) / 32), np.sin(lines)])
    return float(np.mean((np.sort(x @ turn, axis=0) - np.sort(y @ turn, axis=0)) ** 2) ** 0.5)


def main(steps=3000, pairs=20000, n=4000, width=128, counts=(1, 2, 4, 16, 100)):
    (first, second, third), (data, z) = (Velocity(width) for _ in range(3)), drawn(n)
    train(first, drawn, steps)
    made = np.stack(flow.pairs(lambda noise: walk(first, noise, 100)[-1], rng.normal((pairs, 2))))
    second.flat[...] = first.flat  # it starts where the first one ended
    train(second, lambda b: made[:, rng.integers(0, pairs, (b,))], steps)
    train(third, coupled, steps)
    table, rows, edges = ["steps" + "".join(f"{k:8d}" for k in counts) + "       S"], ([], []), np.linspace(-2, 2, 201)
    for name, model in (("1-RF", first), ("2-RF", second), ("OT  ", third)):
        states, ends = walk(model, z, 32), [walk(model, z, k)[-1] for k in counts]
        S = flow.straightness(np.linspace(1, 0, 33), states)
        table.append(f"{name} " + "".join(f"{distance(x, data):8.3f}" for x in ends) + f"{S:8.4f}")
        rows = rows[0] + [states[:, :60].reshape(-1, 2)], rows[1] + [ends[0]]
    dots = [np.histogram2d(-x[:, 1], x[:, 0], bins=(edges, edges))[0] for row in rows for x in (*row, data)]
    pictures, names = np.stack([(1 - 2 * np.minimum(1, d / 2))[None] for d in dots]), ["1-RF", "2-RF", "OT", "the data"]
    print(md.pictures.save_png("reflow.png", md.pictures.grid(pictures, 4, scale=1, column_labels=names)), *table, sep="\n")


if __name__ == "__main__":
    main()
