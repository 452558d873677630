"""Measures of sample quality: class accuracy, Fréchet distance, precision and recall, nearest neighbours.

All features come from one small classifier trained on the training set; the Fréchet distance of every row is measured
against the training images, with the same number of images in every row (the distance shrinks as the number grows).
Reference rows bracket the others: held-out real images, noise, and for a latent model the reconstructions, its ceiling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import numpy as np

from minidit import metrics
from minidit.backend import Array, to_host
from minidit.data import Dataset
from minidit.diffusion import flow
from minidit.diffusion.solver import share
from minidit.models.classifier import Classifier
from minidit.outgoing import silent
from minidit.processes.classify import judge
from minidit.processes.coded import Codes
from minidit.processes.codes import codes_in_use
from minidit.processes.walk import Progress
from minidit.random import Philox
from minidit.runs.pipeline import Pipeline
from minidit.runs.show import traced
from minidit.runs.walks import Options
from minidit.training.forward import CHUNK

EVAL_STREAM = 0x6576
FEWEST = 4  # pictures of a row: precision and recall look at the three nearest others
BLOCK = 8 * CHUNK  # pictures of the training set that are in memory as floats at one time


def quantiles(d: Array) -> dict[str, float]:
    """The 5 %, 50 % and 95 % quantiles of distances."""
    return {f"q{q:02d}": float(np.quantile(d, q / 100)) for q in (5, 50, 95)}


def features_of(classifier: Classifier, data: Dataset, progress: Progress = silent) -> Array:
    """(N, F) features of all pictures of a set, a block of pictures at a time."""
    parts = []
    for k in range(0, len(data), BLOCK):
        parts.append(judge(classifier, data.x_0(slice(k, k + BLOCK)))[1])
        progress(min(k + BLOCK, len(data)), len(data))
    return np.concatenate(parts)


def nearest(x: Array, data: Dataset, progress: Progress = silent) -> tuple[Array, Array]:
    """x : (Q, C, H, W)  ->  the distance (Q,) of each to its nearest picture of a set, and which one that is (Q,)."""
    best, index = np.full(len(x), np.inf), np.zeros(len(x), np.intp)
    for k in range(0, len(data), BLOCK):
        distance, place = metrics.nearest(x, data.inner(data.x_0(slice(k, k + BLOCK))))
        closer = distance < best
        best[closer], index[closer] = distance[closer], k + place[closer]
        progress(min(k + BLOCK, len(data)), len(data))
    return best, index


def straightness(pipeline: Pipeline, **options: Unpack[Options]) -> float:
    """S of a pipeline's own trajectories, a mean over the numbers of x_0; 0: lines (F.3). options : of `Pipeline.latents`"""
    return flow.straightness(*trajectories(pipeline, **options))


def trajectories(pipeline: Pipeline, **options: Unpack[Options]) -> tuple[Array, Array]:
    """(times, (n+1,), and states, (n+1, B, ...)) of Euler walks, in straight coordinates whatever the pipeline's path is."""
    walk: Options = {"n": 128, "steps": pipeline.steps(None, usual=16), **options, "solver": "euler"}
    *moments, x_0 = traced(pipeline, pipeline.labels(None, walk["n"]), **walk)
    levels = [pipeline.process.path.level(m.t) for m in moments]
    x = [to_host(m.x_t) / (at.alpha + at.sigma) for m, at in zip(moments, levels, strict=True)]
    return np.array([*map(share, levels), 0.0]), np.stack([*x, to_host(x_0)]).astype(np.float64)


class Evaluation:
    """Collects rows: `row(name, x, labels)` measures pictures x with the padding they were trained with."""

    def __init__(
        self,
        classifier: Classifier,
        train: Dataset,
        held_out: Dataset,
        n: int = 500,
        steps: Callable[[str], Progress] = lambda what: silent,
    ) -> None:
        self.classifier, self.train, self.held_out, self.n, self.steps = classifier, train, held_out, min(n, len(held_out)), steps
        self.reference = features_of(classifier, train, steps("features"))
        self.moments = metrics.moments(self.reference)
        self.rows: list[dict[str, Any]] = []

    def padded(self, x: Array) -> Array:
        """Restores the padding that a Pipeline cut off: the classifier was trained with it."""
        c = self.train.crop
        return x if x.shape[2:] == self.train.size else np.pad(x, ((0, 0), (0, 0), (c, c), (c, c)), constant_values=-1.0)

    def row(self, name: str, x: Array, labels: Array | None, note: str = "") -> dict[str, Any]:
        """Adds and returns a row: Fréchet distance (E.3), precision and recall (E.6), and with labels (N,) the accuracy (E.2).

        x : (N, C, H, W) in [-1, 1], with the padding or without it
        """
        logits, features = judge(self.classifier, self.padded(x))
        precision, recall = metrics.precision_recall(self.reference[: 10 * self.n], features)
        row = {
            "name": name, "n": len(x), "frechet": metrics.frechet_of_moments(*self.moments, *metrics.moments(features)),
            "precision": precision, "recall": recall, "note": note,
        }  # fmt: skip
        if labels is not None:
            row["accuracy"] = metrics.accuracy(logits, np.asarray(labels))
        self.rows.append(row)
        return row

    def references(self, pipeline: Pipeline) -> None:
        """Adds the reference rows."""
        subset = self.held_out.take(slice(self.n))
        x, labels = subset.x_0(), subset.labels
        self.row("held-out real images", x, labels, "the best possible")
        if pipeline.tokenizer.limit is None:  # x_0 are latents, and decoding them loses something
            r = pipeline.tokenizer.decode(pipeline.encode(x))
            row = self.row("their reconstructions", r, labels, "the ceiling of a latent model")
            row["psnr"] = metrics.psnr(np.clip(r, -1, 1), x, crop=self.train.crop)
            if isinstance(pipeline.tokenizer, Codes):
                row["used"], row["perplexity"] = codes_in_use(pipeline.encode(x), pipeline.tokenizer.vocabulary)
        noise = Philox(0, EVAL_STREAM).normal(x.shape)
        self.row("noise", np.clip(noise, -1, 1), labels, "the level of an untrained model")

    def samples(self, name: str, pipeline: Pipeline, note: str = "", **options: Unpack[Options]) -> Array:
        """Adds a row of samples, the classes in turn; returns the pictures."""
        labels = pipeline.labels(None, options.setdefault("n", self.n))
        options.setdefault("progress", self.steps(name))
        x = pipeline.sample(labels, **options)
        self.row(name, x, labels, note)
        return x

    def neighbours(self, x: Array) -> dict[str, Any]:
        """Distances from samples to the nearest training images, and from held-out images: a copy would be far nearer."""
        other = self.held_out.inner(self.held_out.x_0(slice(len(x))))
        both, where = nearest(np.concatenate([x, other]), self.train, self.steps("nearest pictures"))
        distance, index, other = both[: len(x)], where[: len(x)], both[len(x) :]
        return {"sample_distance": quantiles(distance), "held_out_distance": quantiles(other), "index": [int(i) for i in index]}

    def table(self) -> list[dict[str, Any]]:
        """The rows, each with its Fréchet distance as a multiple of the ceiling's (or of held-out images, for pixels)."""
        names = [r["name"] for r in self.rows]
        unit = self.rows[names.index("their reconstructions" if "their reconstructions" in names else "held-out real images")]
        for r in self.rows:
            r["multiple"] = r["frechet"] / max(unit["frechet"], 1e-9)
        return self.rows
