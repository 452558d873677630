"""One network, two ways down: DDPM and DDIM from the same noise, with few steps and with many. About a minute.

    python 04_ddpm_beside_ddim.py [RUN]         RUN: a run folder; without one the shipped weights draw clothes

The picture, ddpm_beside_ddim.png: a column for each starting noise, a row for each number of rungs. DDIM adds no noise on its
way: it shows the same picture with 5 rungs as with 250, only better and better. DDPM adds fresh noise at every rung: each row is
another draw, and with few rungs it is a rough one.
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
        moved = [np.abs(a - x[-1]).mean() for a in x[:-1]]
        told = (f"{m:.3f} ({s})" for m, s in zip(moved, numbers, strict=False))
        print(f"{sampler}, difference from {numbers[-1]} rungs:", *told)
    print(md.pictures.save_png("ddpm_beside_ddim.png", md.pictures.stack(halves)))


if __name__ == "__main__":
    main(*sys.argv[1:2])
