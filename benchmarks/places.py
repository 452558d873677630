"""Places as a table or as rotations: networks that learned small pictures are asked for larger ones.

    python -m benchmarks.places --out places              trains what is not there yet, then measures; --steps N, --seeds 0 1
    python -m benchmarks.places --out places --picture docs/places.png

Coloured shapes of 8 × 8 pixels stand anywhere in a picture, two per 24 × 24 pixels, and never touch. Networks learn pictures of
24 × 24 and are asked for larger ones, of which they see the same number of shapes per area. A table of sines can go on with the
coordinates it knows (`table`), or squeeze the larger grid into the range it knows (`squeezed`); rotations (T.37) see differences
only. Two measures, neither of which is a trained judge:

    error     mean (x̂_0 - x_0)² of real pictures of that size, at four levels of noise
    whole     of the connected spots of samples: the share that one of the shapes in one of the colours explains
    number    shapes that are whole, over those that real pictures of this size have
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import minidit as md
from minidit import pictures
from minidit.autograd import value
from minidit.checkpoint import load_model, save_model
from minidit.data.dataset import from_uint8
from minidit.data.shapes import COLOURS, FINER, QUARTER, SHAPES, mask
from minidit.diffusion.level import mix
from minidit.models.spacetime import SpacetimeDiT
from minidit.models.spacetime_config import SpacetimeConfig
from minidit.nn.position import sincos_1d
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.runs.presets import PRESETS
from minidit.runs.process_kinds import RectifiedFlowConfig

STREAM = 0x706C61
SIDE, AREA = 8, 288  # pixels of a shape, and of a picture per shape
SIZES = ((24, 24), (24, 48), (48, 48))  # the first is learned
KNOWN = SIZES[0]
CONFIG = SpacetimeConfig(KNOWN, patch_size=4, in_channels=3, hidden_size=96, depth=4, num_heads=4, num_classes=0)
PROCESS = RectifiedFlowConfig(
    prediction="x_0", times="logit_normal", times_mean=0.3, times_uniform=0.15, loss_weight="by_noise"
).diffusion()
RECIPE = replace(PRESETS["clips"].train, lr=2e-3, warmup=60, shards=1)
TIMES = (0.3, 0.5, 0.7, 0.9)
RESULTS = Path(__file__).parent / "results" / "places.json"


def things() -> NDArray[np.uint8]:
    """Every shape in every colour on black: (16, 3, SIDE, SIDE)."""
    cut = slice((QUARTER - SIDE) // 2, (QUARTER + SIDE) // 2)
    masks = np.stack([mask(s, SIDE / 2).reshape(QUARTER, FINER, QUARTER, FINER).mean((1, 3))[cut, cut] for s in SHAPES])
    colours = np.array(list(COLOURS.values()))
    return np.rint(colours[:, None, :, None, None] * masks[:, None]).astype(np.uint8).reshape(-1, 3, SIDE, SIDE)


THINGS = things()


def corners(rng: np.random.Generator, H: int, W: int) -> list[tuple[int, int]]:
    """Where the shapes of a picture stand; one that has no room for its shapes is begun again."""
    while True:
        placed: list[tuple[int, int]] = []
        for r, c in rng.integers(0, (H - SIDE + 1, W - SIDE + 1), (100, 2)).tolist():
            if all(max(abs(r - a), abs(c - b)) > SIDE for a, b in placed):
                placed.append((r, c))
            if len(placed) == H * W // AREA:
                return placed


def scenes(n: int, H: int, W: int, seed: int) -> NDArray[np.uint8]:
    """n pictures on which shapes stand anywhere, at least one pixel apart: (n, 3, H, W)."""
    rng, out = np.random.default_rng([seed, H, W]), np.zeros((n, 3, H, W), np.uint8)
    for picture in out:
        for r, c in corners(rng, H, W):
            picture[:, r : r + SIDE, c : c + SIDE] = THINGS[rng.integers(len(THINGS))]
    return out


# ------------------------------------------------------------------------------------------------ measures


def spots(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """x : (3, H, W) in 0..255  ->  (3, h, w) of every connected spot that is not black, cut out by its box."""
    labels, _ = ndimage.label(x.max(axis=0) > 64, np.ones((3, 3)))
    for k, box in enumerate(ndimage.find_objects(labels), start=1):
        yield np.where(labels[box] == k, x[(slice(None), *box)], 0)


SPOTS = [next(spots(thing)) for thing in THINGS]


def explained(spot: NDArray[Any]) -> bool:
    """Whether a shape is nearer to this spot than a tenth of its own light: both are laid upon each other by their corners."""
    for thing in SPOTS:
        h, w = (max(a, b) for a, b in zip(spot.shape[1:], thing.shape[1:], strict=True))
        gap, light = np.zeros((3, h, w)), float((thing.astype(float) ** 2).sum())
        gap[:, : spot.shape[1], : spot.shape[2]] += spot
        gap[:, : thing.shape[1], : thing.shape[2]] -= thing
        if (gap**2).sum() < 0.1 * light:
            return True
    return False


def reading(x: NDArray[Any], expected: int) -> dict[str, float]:
    """x : (n, 3, H, W) in -1..1; expected : shapes per picture."""
    seen = [explained(spot) for picture in (np.clip(x, -1, 1) + 1) * 127.5 for spot in spots(picture)]
    return {"whole": float(np.mean(seen or [0])), "number": sum(seen) / (len(x) * expected)}


def error(network: SpacetimeDiT, x_0: NDArray[Any]) -> float:
    """The mean error of x̂_0 at four levels of noise, which are the same for every network."""
    total = 0.0
    for k, t in enumerate(TIMES):
        eps = Philox(0, STREAM, state=k).normal(x_0.shape)
        times = np.full(len(x_0), t)
        x_t = mix(x_0, eps, PROCESS.path.level(times))
        total += float(((value(network(*PROCESS.path.inputs(x_t, times))) - x_0) ** 2).mean())
    return total / len(TIMES)


# ------------------------------------------------------------------------------------------------ networks


def squeezed(width: int, h: int, w: int) -> NDArray[Any]:
    """The table of (N.7) for a grid that is squeezed into the one that was learned: (1, h · w, width)."""
    fine = 64  # the places between two neighbours of a table of whole places are read from a finer one
    angle = 10000.0 ** (-np.arange(width // 4) / (width // 4))

    def p(n: int, known: int) -> NDArray[Any]:
        s = (np.arange(n) * known / n)[:, None] * angle
        return np.concatenate([np.sin(s), np.cos(s)], axis=1)

    assert np.allclose(p(fine, fine), sincos_1d(width // 2, fine))
    rows, columns = p(h, KNOWN[0] // CONFIG.patch_size), p(w, KNOWN[1] // CONFIG.patch_size)
    return np.concatenate([np.tile(columns, (h, 1)), np.repeat(rows, w, axis=0)], axis=1)[None]


def enlarged(network: SpacetimeDiT, size: tuple[int, int], table: str) -> SpacetimeDiT:
    """The same weights for pictures of another size.   table : "squeezed", or as the network has it"""
    made = SpacetimeDiT(replace(network.config, input_size=size), None)
    state = {name: a for name, a in network.state_dict().items() if name != "pos_embed"}
    made.load_state_dict(made.state_dict() | state)
    if table == "squeezed":
        made.pos_embed[...] = squeezed(CONFIG.hidden_size, *made.config.grid)
    return made


def trained(folder: Path, positions: str, seed: int, steps: int) -> SpacetimeDiT:
    """The network of a folder, which is trained if it is not there."""
    path = folder / f"{positions}-{seed}.safetensors"
    if not path.exists():
        network = SpacetimeDiT(replace(CONFIG, positions=positions), Philox(seed, STREAM))
        x_0 = from_uint8(scenes(8000, *KNOWN, 0))
        loop = loop_for(network, x_0, PROCESS, replace(RECIPE, steps=steps, seed=seed))
        began = time.process_time()
        for record in loop.run():
            if record["step"] % 100 == 0:
                spent = round(time.process_time() - began)
                print(f"{path.stem}: update {record['step']}, loss {float(record['loss']):.4f}, {spent} s", flush=True)
        network.flat[...] = loop.optimiser.average
        save_model(path, network)
    network, _ = load_model(path)
    assert isinstance(network, SpacetimeDiT)
    return network


WAYS = {"table": "sincos", "squeezed": "sincos", "rope": "rope"}  # how a larger grid has its places: with which network


def measured(folder: Path, seeds: list[int], steps: int, n: int) -> list[dict[str, Any]]:
    """One row per way, size and seed; and one per size for real pictures."""
    rows = []
    for size in SIZES:
        expected, real = size[0] * size[1] // AREA, from_uint8(scenes(n, *size, 1))
        rows.append({"way": "real", "size": size, "seed": None, "error": 0.0, **reading(real, expected)})
        for way, seed in product(WAYS, seeds):
            if way == "squeezed" and size == KNOWN:
                continue
            network = enlarged(trained(folder, WAYS[way], seed, steps), size, way)
            x = md.sample(network, PROCESS, n=n // 4, steps=20, solver=md.AB2, clip=True, seed=seed, shards=1)
            rows.append({"way": way, "size": size, "seed": seed, "error": error(network, real), **reading(x, expected)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def picture(folder: Path, out: Path, steps: int, seed: int = 0) -> None:
    """Samples of the largest size, one row per way."""
    rows = []
    for way, positions in WAYS.items():
        network = enlarged(trained(folder, positions, seed, steps), SIZES[-1], way)
        x = md.sample(network, PROCESS, n=6, steps=20, solver=md.AB2, clip=True, seed=seed, shards=1)
        rows.append(pictures.grid(np.clip(x, -1, 1), columns=6, scale=2))
    pictures.save_png(out, pictures.stack(rows, list(WAYS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the networks are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=1500, help="updates of 64 pictures")
    parser.add_argument("-n", type=int, default=128, help="real pictures; a quarter as many samples")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.picture:
        picture(args.out, args.picture, args.steps)
    else:
        rows = measured(args.out, args.seeds, args.steps, args.n)
        args.results.write_text(json.dumps({"steps": args.steps, "n": args.n, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
