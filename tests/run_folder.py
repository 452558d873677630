"""A run folder with everything that a report can show, for the tests of the report."""

import json

import numpy as np

from minidit import pictures

S, N = 6, 5
RUNGS = [1000, 800, 600, 400, 200, 0]


def trace(seed=0, c=1):
    r = np.random.default_rng(seed)
    return {k: r.integers(0, 256, (S, N, c, 6, 7), np.uint8) for k in ("x_t", "x_0_hat")} | {"rungs": np.array(RUNGS)}


def write_run(folder, seed=0):
    """A run folder with everything in it; the pictures are noise."""
    r = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(
        'seed = 3\n[data]\nname = "digits <8x8>"\n[dit]\nhidden_size = 64\ndepth = 2\npatch_size = 2\nnull = []\n'
        '[environment]\npython = "3.11"\nnote = "<script>alert(1)</script>"\n', "utf-8")
    entries = [{"phase": phase, "step": s, "loss": float(np.exp(-s / 50) + 0.01 + 0.001 * r.random()), "lr": 0.001,
                "wall_s": 2.0 * k + s / 100} for k, phase in enumerate(("autoencoder", "dit")) for s in range(0, 200, 4)]
    entries[10] |= {"psnr": 21.5, "loss": float("nan")}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), "utf-8")
    (folder / "eval.json").write_text(json.dumps({
        "rows": [{"name": "real <held out>", "n": 1500, "accuracy": 0.904, "frechet": 1.5, "multiple": 1.0},
                 {"name": "DDIM 50, w = 2", "n": 500, "accuracy": 0.954, "frechet": 15.1, "multiple": 10.07, "note": "a & b"},
                 {"name": "noise", "n": 500, "frechet": float("nan")}],
        "neighbours": {"sample_distance": {"q05": 0.085, "q50": 0.13, "q95": 0.204}, "held_out_distance": {"q05": 0.08}},
        "bits_per_dim": 3.21}), "utf-8")
    for i in (0, 500, 1000):
        pictures.save_png(folder / "samples" / f"step_{i:08d}.png", pictures.grid(r.uniform(-1, 1, (6, 1, 8, 8)), 3))
    for name in ("reconstructions", "ddim", "ddpm", "x0_strip", "neighbours", "loss", "another <one>"):
        pictures.save_png(folder / "pictures" / f"{name}.png", pictures.grid(r.uniform(-1, 1, (20, 3, 8, 8)), 10))
    pictures.save_gif(folder / "pictures" / "denoising.gif", [pictures.grid(r.uniform(-1, 1, (4, 1, 8, 8)), 2) for _ in range(3)])
    np.savez(folder / "trace.npz", **trace(seed))
    return folder
