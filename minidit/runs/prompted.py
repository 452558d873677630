"""How well a model of captions draws what it is asked for: where the right picture stands among all real ones.

    rank = how many real pictures are more like the drawn one than the right one is                        (E.11)

Beside it stand what chance reaches, and what somebody would reach without a network: the training picture whose caption has most
words in common with the one that is asked for.
"""

from __future__ import annotations

import json
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from minidit import metrics
from minidit.backend import Array
from minidit.data import Dataset
from minidit.outgoing import write_atomically
from minidit.pictures import save_png, stack
from minidit.runs.phase import Note
from minidit.runs.pipeline import Pipeline
from minidit.runs.show import caption_grid
from minidit.runs.trainer import Trainer
from minidit.runs.walks import Options

SHOWN = 16
MOST = 20_000  # real pictures among which the right one is looked for


def similarity(a: NDArray[np.int64], b: NDArray[np.int64], words: int) -> Array:
    """The share of words that captions have in common, of all words that they have : (len(a), len(b))."""
    bags = [np.zeros((len(rows), words), np.float32) for rows in (a, b)]
    for bag, rows in zip(bags, (a, b), strict=True):
        np.put_along_axis(bag, rows, 1, axis=1)
        bag[:, 0] = 0  # padding is no word
    common = bags[0] @ bags[1].T
    return common / np.maximum(bags[0].sum(1)[:, None] + bags[1].sum(1)[None] - common, 1)


def spread(n: int, most: int) -> NDArray[np.int64]:
    """At most so many of n places, from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def shares(ranks: Array) -> dict[str, float]:
    """How often the right picture is the first, one of the first five, and its median rank (from 1)."""
    return {"top_1": float((ranks < 1).mean()), "top_5": float((ranks < 5).mean()), "median": float(np.median(ranks)) + 1}


def measure_prompted(
    run: Trainer, pipeline: Pipeline, train: Dataset, held_out: Dataset, most: int, note: Note, **options: Unpack[Options]
) -> dict[str, Any]:
    """eval.json and pictures/prompted.png: pictures drawn for held-out captions, and for captions of training pictures.

    most : pictures per row
    """
    assert pipeline.vocabulary is not None
    train = train.take(slice(MOST))
    few, known = spread(len(held_out), most), spread(len(train), most)
    some, seen = held_out.take(few), train.take(known)
    bank = np.concatenate([data.inner(data.x_0()) for data in (some, train)])
    rows: list[dict[str, Any]] = []
    drawn = pipeline.sample(some.captions, **options)
    for name, x, right in (
        ("held-out captions", drawn, np.arange(len(some))),
        ("training captions", pipeline.sample(seen.captions, **options), len(some) + known),
    ):
        rows.append({"name": name, "n": len(x), **shares(metrics.ranks(x, right, bank))})
    nearest = similarity(some.captions, train.captions, len(pipeline.vocabulary)).argmax(1)
    copies = train.inner(train.take(nearest).x_0())
    copied = metrics.ranks(copies, np.arange(len(some)), bank)
    rows.append({"name": "nearest caption's picture", "n": len(some), **shares(copied)})
    rows.append({"name": "chance", "n": len(some), "top_1": 1 / len(bank), "top_5": 5 / len(bank), "median": (len(bank) + 1) / 2})
    for row in rows:
        note(f"  {row['name']:26s} n {row['n']:4d}  right first {row['top_1']:.3f}  among five {row['top_5']:.3f}  "
             f"median rank {row['median']:.0f} of {len(bank)}")  # fmt: skip
    measures = {"rows": rows, "among": len(bank), "held_out": run.parts.about if run.parts else ""}
    if run.ranks.first:
        texts = pipeline.vocabulary.texts(some.captions[:SHOWN])
        real = caption_grid(some.inner(some.x_0(slice(SHOWN))), texts)
        both = stack([caption_grid(drawn[:SHOWN], texts), real], ["drawn", "real, held out"])
        save_png(run.folder / "pictures" / "prompted.png", both)
        write_atomically(run.folder / "eval.json", json.dumps(measures, indent=1).encode())
    return measures
