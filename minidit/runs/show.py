"""The pictures of a run: what a person looks at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.pictures import grid, save_gif, save_png, side_by_side, stack, strip, to_uint8
from minidit.runs.pipeline import Pipeline
from minidit.runs.run import moments


def class_grid(x: Array, labels: Sequence[int] | None, class_names: Sequence[str] = (), title: str | None = None) -> Any:
    """A row a class where every class has equally many pictures and more than one, else a square."""
    n = len(x)
    if labels is not None and class_names:
        kinds = sorted(set(labels))
        each = n // len(kinds)
        if each > 1 and all(list(labels).count(k) == each for k in kinds):
            order = np.argsort(np.asarray(labels), kind="stable")
            return grid(x[order], columns=each, row_labels=[class_names[k] for k in kinds], title=title)
    return grid(x, columns=n if n <= 10 else int(np.ceil(np.sqrt(n))), title=title)


def reconstructions(x: Array, x_hat: Array) -> Any:
    """Real pictures above, their reconstructions below."""
    return stack([grid(x, columns=len(x)), grid(np.clip(x_hat, -1, 1), columns=len(x))], ["real", "reconstructed"])


def walk(pipeline: Pipeline, labels: Any, *, frames: int = 40, **options: Any) -> list[tuple[int, Array, Array]]:
    """[(rung, pictures of x_t, of x̂_0), …] from noise to pictures."""
    return list(moments(pipeline, labels, frames=frames, **options))


def denoising_frames(pipeline: Pipeline, labels: Any, **options: Any) -> list[Any]:
    """Frames of a GIF: x_t on the left, the network's x̂_0 on the right."""
    columns = 5 if labels is not None and len(labels) % 5 == 0 else 4
    return [
        side_by_side([grid(a, columns=columns), grid(b, columns=columns)], [f"x_t, t = {t}", "the guess x̂_0"])
        for t, a, b in walk(pipeline, labels, **options)
    ]


def save_walk(run: Path, pipeline: Pipeline, labels: Any, **options: Any) -> None:
    """denoising.gif, x0_strip.png and trace.npz for the report's slider."""
    steps = walk(pipeline, labels, **options)
    frames = [
        side_by_side([grid(a, columns=5), grid(b, columns=5)], [f"x_t, t = {t}", "the guess x̂_0"]) for t, a, b in steps
    ]
    save_gif(run / "pictures" / "denoising.gif", frames)
    chosen = [steps[round(k * (len(steps) - 1) / 9)] for k in range(10)]
    save_png(run / "pictures" / "x0_strip.png", strip([b[:4] for _, _, b in chosen], [f"t = {t}" for t, _, _ in chosen]))
    rungs = np.array([t for t, _, _ in steps])
    x_t, x_0_hat = (np.stack([to_uint8(s[i]) for s in steps]) for i in (1, 2))
    np.savez_compressed(run / "trace.npz", rungs=rungs, x_t=x_t, x_0_hat=x_0_hat)
