"""The measures of a run, from eval.json, as a table and a chart, and how to read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from minidit.html import chart
from minidit.html.folder import Record, is_number
from minidit.html.page import escape, table


def finite(value: object) -> TypeGuard[float]:
    return is_number(value) and math.isfinite(value)


COLUMNS = {"n": ("samples", "{:,}".format), "accuracy": ("accuracy", "{:.1%}".format), "frechet": ("Fréchet", "{:.1f}".format),
           "multiple": ("multiple", "{:.1f}×".format), "precision": ("precision", "{:.2f}".format),
           "recall": ("recall", "{:.2f}".format), "top_1": ("right first", "{:.1%}".format),
           "top_5": ("among five", "{:.1%}".format), "median": ("median rank", "{:,.0f}".format),
           "used": ("codes in use", "{:,}".format), "perplexity": ("perplexity", "{:.0f}".format),
           "steady": ("steady", "{:.3f}".format), "lawful": ("lawful", "{:.3f}".format), "error": ("error", "{:.2f} px".format)}

FEWEST = 4  # losses through which a line is drawn
HOW_TO_READ = {
    "frechet": "The Fréchet distance compares features of a classifier trained on this data set: smaller is better, "
               "and the number means nothing without its reference.",
    "multiple": "The multiple counts it in units of {unit}.",
    "accuracy": "Accuracy is the share of samples that the classifier assigns to the class they were drawn for. Guidance makes "
                "pictures typical of their class, so it can exceed the accuracy on real images without being better.",
    "precision": "Precision is the share of samples that lie among the real images.",
    "recall": "Recall is the share of real images that lie among the samples.",
    "top_1": "Each picture is compared with all real ones, in means of 4 × 4 pixels: the right one should be the first, or among "
             "the first five.",
    "median": "The median rank is the place of the right one in the middle of all pictures; 1 is best.",
    "perplexity": "The perplexity of codes is their number if all were used equally often.",
    "steady": "A clip is steady if its shifts from frame to frame are all equal; the error is their distance from their median.",
    "lawful": "It is lawful if that shift is a velocity of the data, so it does not stand still.",
}

SOURCES = {  # the name of a row of reference -> what its pictures are
    "held-out real images": "real, not trained on",
    "their reconstructions": "those real pictures, encoded and decoded by the tokenizer",
    "noise": "noise, as an untrained model draws",
    "held-out captions": "drawn by this run for captions that were not trained on",
    "training captions": "drawn by this run for captions of training pictures",
    "nearest caption's picture": "the training picture whose caption is most like the one that was not trained on",
    "chance": "any picture, at random",
    "held-out real clips": "real, not trained on",
    "their frames shuffled": "those real clips with their frames in another order",
    "frames of other clips": "each frame from another real clip",
}
DRAWN = "drawn by this run, by this method in so many steps; w is the scale of guidance"


def sources_of(rows: Sequence[Record]) -> str:
    """Which row is which: where the pictures of each come from, as one sentence."""
    names = [str(row["name"]) for row in rows]
    known = [f"“{name}”: {SOURCES[name]}" for name in names if name in SOURCES]
    drawn = [name for name in names if name not in SOURCES]
    others = [f"{'each other row' if known else 'each row'}, such as “{drawn[0]}”: {DRAWN}"] if drawn else []
    return "; ".join(known + others)


def evaluation(measures: Record) -> str:
    """The table of measures with its reference rows, and how to read it."""
    rows, inner = measures.get("rows", []), ""
    if rows:
        keys = [k for k in COLUMNS if any(k in r for r in rows)]
        notes = any(r.get("note") for r in rows)
        cells = [[escape(r["name"]), *(COLUMNS[k][1](r[k]) if finite(r.get(k)) else "–" for k in keys),
                  *([escape(r.get("note") or "")] if notes else [])] for r in rows]
        inner = table(["pictures", *(COLUMNS[k][0] for k in keys), *(["note"] if notes else [])], cells,
                      numbers=range(1, len(keys) + 1), label="measures of samples and references")
        notes_below = " ".join(text.format(unit=unit_of(rows)) for key, text in HOW_TO_READ.items() if key in keys)
        inner += f'<p class="muted">The pictures of the rows. {escape(sources_of(rows))}.</p>'
        inner += f'<p class="muted">{escape(notes_below)}</p>'
    if isinstance(measures.get("held_out"), str) and measures["held_out"]:
        inner += f'<p class="muted">{escape(measures["held_out"][0].upper() + measures["held_out"][1:])}.</p>'
    if finite(measures.get("bits_per_dim")):
        inner += f"<p>Likelihood bound: {measures['bits_per_dim']:.4g} bits per dimension.</p>"
    if finite(measures.get("nats_per_token")):
        inner += f"<p>Likelihood: {measures['nats_per_token']:.4g} nats per code of held-out images.</p>"
    if finite(measures.get("straightness")):
        inner += f"<p>Straightness of the trajectories: S = {measures['straightness']:.4g} (0: lines).</p>"
    return inner + bends(measures.get("bends"))


def bends(measured: object) -> str:
    """The chart of how far trajectories are from lines, over the time on the straight path; "" if it was not measured."""
    t, squares = (measured.get(key) for key in ("t", "squares")) if isinstance(measured, dict) else (None, None)
    if not isinstance(t, list) or not isinstance(squares, list) or len(t) != len(squares) or not all(map(finite, t + squares)):
        return ""
    figure = chart.line_chart("bend of the trajectories; its mean over t is S", t, squares, axis="t")
    return f'<div class="charts">{figure}</div>' if figure else ""


def fall_of(steps: Sequence[float], losses: Sequence[float]) -> tuple[float, float] | None:
    """(by which part of itself a loss fell in the second half of its updates, how many standard errors that is).

    Of the line through ln loss over ln step, which is nearly straight for most trainings. None for fewer than FEWEST losses.
    """
    pairs = [(x, y) for x, y in zip(steps, losses, strict=True) if 2 * x >= max(steps) > 0 and finite(y) and y > 0]
    if len(pairs) < FEWEST:
        return None
    x, y = np.log(np.array(pairs)).T
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    error = float(np.sqrt(((y - slope * x) ** 2).sum() / (len(x) - 2) / (x @ x)))
    return 1 - float(np.exp2(slope)), -slope / max(error, 1e-12)


def unit_of(rows: Sequence[Record]) -> str:
    """The name of the row whose multiple is 1: the unit of the others."""
    return next((f"“{r['name']}”" for r in rows if finite(r.get("multiple")) and abs(r["multiple"] - 1) < 1e-9), "the reference")
