"""Another label for the same picture: climb from a real picture to its noise, then walk down with another label.

    python 05_image_to_image.py [RUN]           RUN: of a ladder (default: the shipped weights); half a minute

DDIM without fresh noise can be walked in both directions. The way up, with the true label, gives noise that still holds the pose
and the darkness of the picture; the way down, with another label, draws something else in that pose.
The picture, image_to_image.png: real pictures, the same after up and down with their true label, and with every label.
"""

import sys

import numpy as np

import minidit as md
from minidit.processes.denoise import Denoiser


def climb(pipeline, x_0, labels, rungs):
    """x_0 up the ladder, one rung at a time: the noise from which DDIM returns to it."""
    sch, x = pipeline.ladder, x_0
    denoiser = Denoiser(pipeline.model, sch, pipeline.prediction)
    with md.no_grad():
        for s, t in zip([0, *rungs], rungs, strict=False):
            rung = max(s, rungs[0])  # at s = 0 there is no noise to predict
            _, eps_hat = pipeline.prediction.pair(denoiser(x, rung, labels).F, x, sch.level(rung))
            x = md.ddim_invert_step(x, eps_hat, s, t, sch)
    return x


def main(run=None, steps=50, n=10):
    pipeline = md.load(run)
    source = pipeline.meta["data"]
    part = "test" if source["name"] in ("digits", "fashion") else None  # pictures that the network never saw
    data = md.data.load(source["name"], size=source["size"][0], channels=source["channels"], part=part)
    K = data.num_classes
    rungs = [round(t) for t in np.linspace(1, pipeline.ladder.T, steps)]
    index = np.concatenate([np.flatnonzero(data.labels == k)[:1] for k in range(K)])[:n]
    x, labels = data.x_0(index), data.labels[index]

    x_T = climb(pipeline, pipeline.encode(x), labels, rungs)
    down = {"x_T": x_T, "steps": steps, "spacing": "linspace", "n": len(x)}  # the rungs of the way up
    same = pipeline.sample(labels, guidance=1.0, **down)
    others = [pipeline.sample(np.full(len(x), k), guidance=2.0, **down) for k in range(K)]

    print(f"up and down again: {np.abs(same - data.inner(x)).mean():.3f} mean difference (the range is 2)")
    rows = np.stack([data.inner(x), same, *others])  # one column per picture
    grid = md.pictures.grid(np.concatenate(rows), len(x), row_labels=["real", "up and down", *data.class_names])
    print(md.pictures.save_png("image_to_image.png", grid))


if __name__ == "__main__":
    main(*sys.argv[1:2])
