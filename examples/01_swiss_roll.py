"""A diffusion model in two dimensions, by hand: a spiral dissolves into noise, and noise winds itself up into a spiral.

The whole model is on this page: a small network, the loss, the gradient, the update, the walk back. About half a minute.
The picture, swiss_roll.png: above, data on their way into noise; below, noise on its way back. The colour of a point shows where
on the roll it begins (above) or will end (below): the walk sorts the noise long before a roll can be seen.
"""

import numpy as np

import minidit as md

rng = md.Philox(seed=0)
sch = md.Schedule.linear(T=200)


def swiss_roll(n):  # points on a spiral of one and a half turns: (n, 2)
    angle = 1.5 * np.pi * (1 + 2 * rng.uniform((n, 1)) ** 0.7)
    points = angle * np.concatenate((np.cos(angle), np.sin(angle)), axis=1) / 8
    return (points + 0.02 * rng.normal((n, 2))).astype(np.float32)


class Denoiser(md.nn.Module):  # ε̂(x, t) : (B, 2), (B,)  ->  (B, 2)
    def __init__(self, width):
        self.first, self.last = md.nn.Linear(64 + 32, width), md.nn.Linear(width, 2)
        self.middle = [md.nn.Linear(width, width) for _ in range(3)]
        self.build(md.Philox(seed=1))  # all weights in one flat buffer, initialised

    def forward(self, x, t):
        position = md.nn.timestep_embedding(20 * x.reshape(-1), 32).reshape(-1, 64)  # each coordinate as sines and cosines
        h = self.first(md.ops.concat(position, md.nn.timestep_embedding(t, 32), axis=1))
        for layer in self.middle:
            h = h + layer(md.ops.silu(h))
        return self.last(md.ops.silu(h))


def train(model, steps, batch=256):
    adam = md.AdamW(model, md.OptimConfig(lr=3e-3, warmup=50, final_lr=0.0), steps)
    gradient = np.zeros_like(model.flat)
    gradients = md.Gradients([p.data for p in model.parameters()], model.views(gradient))
    for n in range(1, steps + 1):
        x_0, t, eps = swiss_roll(batch), rng.integers(1, sch.T + 1, (batch,)), rng.normal((batch, 2))
        loss = md.ops.mse(model(md.q_sample(x_0, t, eps, sch), sch.time[t]), eps).mean()
        with gradients:  # backward adds to these arrays
            loss.backward()
        adam.step(gradient, n)


def walk(model, x):  # {t: x_t} from noise x_T down to x_0, one rung at a time, with fresh noise (DDPM)
    x_at = {sch.T: x}
    with md.no_grad():
        for t in range(sch.T, 0, -1):
            eps_hat = model(x, np.full(len(x), sch.time[t])).data
            x_at[t - 1] = x = md.ddpm_step(x, eps_hat, t, t - 1, sch, z=rng.normal(x.shape))
    return x_at


def scatter(points, roll, size=170):
    """Points (n, 2) on white -> a picture (3, size, size).   roll : (n, 2), each point's place on the roll, its colour"""
    u = np.clip((np.hypot(*roll.T) - 0.5) / 1.4, 0, 1)[:, None]  # 0 at the centre, 1 at the outer end
    image, at = np.ones((size + 2, size + 2, 3)), ((points * [1, -1] / 4.6 + 0.5) * size).astype(int)
    inside = ((at >= 0) & (at < size)).all(axis=1)
    for i, j in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        image[at[inside, 1] + i, at[inside, 0] + j] = np.cos(2 * np.pi * (0.8 * u[inside] + [0.0, 0.33, 0.67])) * 0.8 - 0.2
    return image[:size, :size].transpose(2, 0, 1)


def main(steps=3000, n=3000):
    model, rungs, x_0 = Denoiser(128), [0, 5, 15, 30, 60, sch.T], swiss_roll(n)
    train(model, steps)
    x_at = walk(model, rng.normal((n, 2)))
    into_noise = [scatter(md.q_sample(x_0, t, rng.normal((n, 2)), sch) if t else x_0, x_0) for t in rungs]
    back = [scatter(x_at[t], x_at[0]) for t in rungs]
    names = {"row_labels": ["data", "samples"], "column_labels": [f"t = {t}" for t in rungs]}
    grid = md.pictures.grid(np.stack(into_noise + back), len(rungs), scale=1, **names)
    print(md.pictures.save_png("swiss_roll.png", grid))


if __name__ == "__main__":
    main()
