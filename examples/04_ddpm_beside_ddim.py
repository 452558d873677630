"""One network, two ways down: DDPM and DDIM from the same noise, with few steps and with many.

    python 04_ddpm_beside_ddim.py [RUN]         RUN: a run folder; without one a small digits model is trained first (a minute)

The picture, ddpm_beside_ddim.png: a column for each starting noise, a row for each number of rungs. DDIM adds no noise on its
way: it shows the same picture with 5 rungs as with 200, only better and better. DDPM adds fresh noise at every rung: each row is
another draw, and with few rungs it is a rough one.
"""

import sys

import numpy as np

import minidit as md


def digits_model(steps):
    """A Pipeline, as a run folder would give it: a denoiser with all that it needs to make pictures."""
    digits, model = md.data.digits(), md.DiT(md.DIT["digits"], md.Philox(seed=0))
    recipe = {"prediction": "v", "schedule": "cosine", "lr": 3e-3, "warmup": 30, "final_lr": 0.02, "clip": 1.0}
    for record in md.train(model, digits, steps=steps, betas=(0.9, 0.99), **recipe):
        if record["step"] % 100 == 0:
            print(f"step {record['step']}, loss {record['loss']:.3f}")
    return md.Pipeline(model, None, md.Schedule.cosine(), md.V, digits.class_names)


def main(run=None, train_steps=700, rungs=(3, 5, 10, 25, 50, 200)):
    pipeline = md.load(run) if run else digits_model(train_steps)
    labels = pipeline.labels(None, 10)
    halves = []
    for sampler in ("ddim", "ddpm"):
        x = [pipeline.sample(labels, n=10, steps=steps, sampler=sampler, guidance=1.5, seed=3) for steps in rungs]
        rows, columns = [f"{steps} rungs" for steps in rungs], labels and [pipeline.class_names[k] for k in labels]
        halves.append(md.pictures.grid(np.concatenate(x), 10, row_labels=rows, column_labels=columns))
        moved = [np.abs(a - x[-1]).mean() for a in x[:-1]]
        print(f"{sampler}, difference from {rungs[-1]} rungs:", *(f"{m:.3f} ({s})" for m, s in zip(moved, rungs, strict=False)))
    both = md.pictures.stack(halves, ["DDIM", "DDPM, from the same noise"])
    print(md.pictures.save_png("ddpm_beside_ddim.png", both))


if __name__ == "__main__":
    main(*sys.argv[1:2])
