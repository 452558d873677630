"""Five ways to use what was made before to make a picture, on the same pictures, with the shipped weights: what is fed back?

1. The picture itself: the estimate of a denoiser, denoised again at the same level of noise. Mean-shift: the variety dies.
2. Diffusion: the estimate with its noise put back, a little less each time. The distribution is kept.
3. A flow map: the same in two calls.
4. Codes, one after another (GPT): what is written is read again, and never changed.
5. Scales, from coarse to fine (VAR): the picture so far, to which every scale adds. It is never noisy, and nothing is taken back.

The table: calls of the network, CPU seconds for all pictures, and the variety of the pictures of one class, 1 for real ones
(guidance makes it smaller). The picture, tokens.png: a block for each way, the columns are its states. Half a minute.
"""

import time

import numpy as np

import minidit as md
from minidit.runs.loading import load_few_steps


def real(each):
    """(pictures, labels): so many held-out ones of every class, the classes in turn."""
    data = md.data.load("fashion", part="test")
    rows = np.stack([np.flatnonzero(data.labels == k)[:each] for k in range(10)], axis=1).ravel()
    return data.x_0()[rows], data.labels[rows]


def feedback(pipeline, x, y, at, rounds):
    """x_t <- √ᾱ_t x̂_0(x_t) at one rung, from real pictures x with noise; the estimates x̂_0."""
    sch, x_0 = pipeline.ladder, pipeline.encode(x)
    x_t, level = md.q_sample(x_0, at, md.Philox(0).normal(x_0.shape), sch), sch.level(at)
    for _ in range(rounds):
        with md.no_grad():
            F = pipeline.model(x_t, np.full(len(y), sch.time[at]), y).data
        x_0 = pipeline.prediction.pair(F, x_t, level)[0]
        x_t = level.alpha * x_0
        yield x_0


def states(pipeline, y, **options):
    """What a pipeline works on, from step to step, then the end."""
    for moment in pipeline.latents(y, trace=True, **options):
        yield getattr(moment, "x_t", moment)


def variety(x, y):
    """The variance of pictures of one class, the mean over classes and pixels."""
    return np.mean([x[y == k].var(axis=0).mean() for k in range(10)])


def main(each=10, rounds=32, steps=8):
    dit, few, gpt, var = md.load(), load_few_steps(), md.load(weights="raster"), md.load(weights="scales")
    x, y = real(each)
    ways = {
        "the picture fed back": (dit, lambda: feedback(dit, x, y, 500, rounds)),
        "diffusion": (dit, lambda: states(dit, y, steps=steps, solver="ab2_arc")),
        "a flow map": (few, lambda: states(few, y, steps=2)),
        "codes (GPT)": (gpt, lambda: states(gpt, y)),
        "scales (VAR)": (var, lambda: states(var, y)),
    }
    blocks, whole = [], variety(x, y)
    for name, (pipeline, run) in ways.items():
        began, seen = time.process_time(), list(run())
        seconds, calls = time.process_time() - began, len(seen) - (name != "the picture fed back")
        columns = [round(k * (len(seen) - 1) / 7) for k in range(8)] if len(seen) > 8 else list(range(len(seen)))
        pictures = [pipeline.pictures(seen[k]) for k in columns]
        print(f"{name:21s} {calls:3d} calls {seconds:6.2f} s   variety {variety(pictures[-1], y) / whole:.2f}")
        blocks.append(md.pictures.strip(np.stack([p[:3] for p in pictures]), [str(k + 1) for k in columns], title=name))
    print(md.pictures.save_png("tokens.png", md.pictures.stack(blocks)))


if __name__ == "__main__":
    main()
