"""Pictures between two pictures: the noise of one is turned into the noise of the other in small steps.

    python 06_interpolation.py [RUN]            RUN: a run folder (default: the shipped weights); seconds

    slerp(a, b, u) = (sin((1-u)θ) a + sin(uθ) b) / sin θ,     cos θ = a·b / |a||b|

Noise in many dimensions lies on a shell of radius √dimensions. The arc between two of its points stays on the shell; the straight
line leaves it, and the network was never trained there. The picture, interpolation.png: for each pair the arc, below it the line.
"""

import sys

import numpy as np

import minidit as md


def slerp(a, b, u):
    """a, b : (C, H, W), u : (S,) in [0, 1]  ->  (S, C, H, W), of norms between those of a and b."""
    theta = np.arccos((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
    u = u.reshape(-1, 1, 1, 1)
    return (np.sin((1 - u) * theta) * a + np.sin(u * theta) * b) / np.sin(theta)


def lerp(a, b, u):
    u = u.reshape(-1, 1, 1, 1)
    return (1 - u) * a + u * b


def main(run=None, steps=50, labels=(3, 5, 8), columns=9):
    pipeline = md.load(run)
    config, names = pipeline.model.config, pipeline.class_names
    u = np.linspace(0, 1, columns)
    noise = md.Philox(seed=11).normal((2 * len(labels), config.in_channels, *config.size))
    grids, captions = [], []
    for k, label in enumerate(labels):
        y = [label % config.num_classes] * columns if config.num_classes else None
        rows = []
        for between in (slerp, lerp):
            x_T = between(noise[2 * k], noise[2 * k + 1], u).astype(np.float32)
            rows.append(pipeline.sample(y, x_T=x_T, steps=steps, n=columns, guidance=1.25))
        grids.append(md.pictures.grid(np.concatenate(rows), columns, row_labels=["arc", "line"]))
        captions.append(names[y[0]] if y and names else f"pair {k + 1}")
    print(md.pictures.save_png("interpolation.png", md.pictures.stack(grids, captions)))


if __name__ == "__main__":
    main(*sys.argv[1:2])
