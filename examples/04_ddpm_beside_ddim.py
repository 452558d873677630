"""One network, two samplers: DDPM and DDIM from the same noise, with few steps and with many. About a minute.

    python 04_ddpm_beside_ddim.py [RUN]         RUN: a run folder (default: the shipped weights, which draw clothes)

The picture, ddpm_beside_ddim.png: one column per starting noise, one row per number of rungs. DDIM adds no noise on its way:
with 5 rungs it draws the same picture as with 250, only less well. DDPM adds fresh noise at every rung: each row is another
sample, and with few rungs a rough one.
"""

import sys

import numpy as np

import minidit as md

RUNGS = {"ddim": (5, 10, 20, 50, 250), "ddpm": (50, 250, 1000)}


def main(run=None, rungs=RUNGS):
    pipeline = md.load(run)
    labels = pipeline.labels(None, 10)
    names = labels and [pipeline.class_names[k] for k in labels]
    halves = []
    for sampler, numbers in rungs.items():
        x = [pipeline.sample(labels, n=10, steps=steps, sampler=sampler, seed=3) for steps in numbers]
        rows = [f"{sampler.upper()} {steps}" for steps in numbers]
        halves.append(md.pictures.grid(np.concatenate(x), 10, row_labels=rows, column_labels=names))
        differences = [f"{np.abs(a - x[-1]).mean():.3f} ({s})" for a, s in zip(x[:-1], numbers, strict=False)]
        print(f"{sampler}, difference from {numbers[-1]} rungs:", *differences)
    print(md.pictures.save_png("ddpm_beside_ddim.png", md.pictures.stack(halves)))


if __name__ == "__main__":
    main(*sys.argv[1:2])
