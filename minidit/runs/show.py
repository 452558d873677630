"""The pictures of a run."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from minidit.backend import Array, to_host
from minidit.frames import in_strips
from minidit.outgoing import silent, write_atomically
from minidit.pictures import alike, grid, save_gif, save_png, side_by_side, stack, strip, to_uint8
from minidit.processes.walk import Progress
from minidit.runs.pipeline import Pipeline
from minidit.runs.presets import SampleConfig
from minidit.runs.walks import Options
from minidit.runs.wanted import Labels
from minidit.training.ranks import ranks

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

GRID = 20  # pictures of a grid during training, about
WALKED, FRAMES = 10, 40  # pictures of a walk that is shown from noise to picture, and the moments that are kept of it
LEARNING = 10  # rows of learning.png
WIDE, ACROSS, LETTERS = 128, 8, 17  # of a picture with a caption: pixels, pictures in a row, letters in a line
TOGETHER = 128  # pictures of a walk that are decoded in one pass: a pass for each moment would mostly start and end workers

Steps = Callable[[str], Progress]  # what is done  ->  who is told how far it is
Moments = list[tuple[float, Array, Array]]  # (rung or time, pictures of x_t, pictures of x̂_0)


def is_clips(x: Array) -> bool:
    """Whether these are clips (B, C, T, H, W), not pictures."""
    return len(x.shape) == 5


def columns_of(x: Array) -> int:
    """Pictures per row of a grid of all; clips have a row each."""
    n = len(x)
    return 1 if is_clips(x) else n if n <= 10 else int(np.ceil(np.sqrt(n)))


def class_grid(x: Array, labels: Sequence[int] | None, class_names: Sequence[str] = (), title: str | None = None) -> Picture:
    """One row per class if every class has the same number of pictures, more than one; else a square. Clips have a row each."""
    n = len(x)
    if is_clips(x):
        names = [class_names[k] for k in labels] if labels is not None and class_names else None
        return grid(x, columns=1, row_labels=names, title=title)
    if labels is not None and class_names:
        kinds = sorted(set(labels))
        each = n // len(kinds)
        if each > 1 and all(list(labels).count(k) == each for k in kinds):
            order = np.argsort(np.asarray(labels), kind="stable")
            return grid(x[order], columns=each, row_labels=[class_names[k] for k in kinds], title=title)
    return grid(x, columns=columns_of(x), title=title)


def caption_grid(x: Array, texts: Sequence[str], title: str | None = None) -> Picture:
    """Every picture below the words that it was drawn for."""
    lines = [textwrap.wrap(text, LETTERS) for text in texts]
    height, tiles = max(map(len, lines)), []
    for picture, words in zip(x, lines, strict=True):
        tile = grid(picture[None], columns=1, scale=max(1, round(WIDE / x.shape[3])))
        for line in reversed([" "] * (height - len(words)) + words):
            tile = stack([tile], [line], gap=0)
        tiles.append(tile)
    tiles, across = alike(tiles), min(len(x), ACROSS)
    rows = [side_by_side(tiles[k : k + across], gap=6) for k in range(0, len(tiles), across)]
    return stack([stack(rows)], [title]) if title else stack(rows)


def sheet(x: Array, labels: Labels | None, pipeline: Pipeline, title: str | None = None) -> Picture:
    """The pictures that a pipeline drew, as fits its condition: by class, or each with its caption."""
    if pipeline.vocabulary is not None and labels is not None:
        return caption_grid(x, pipeline.vocabulary.texts(labels), title)
    return class_grid(x, None if labels is None else [int(k) for k in labels], pipeline.class_names, title)


def playing(x: Array, labels: Labels | None, pipeline: Pipeline) -> list[Picture]:
    """x : (B, C, T, H, W)  ->  T pictures, the sheets of each frame: a GIF in which all clips play."""
    return [sheet(x[:, :, k], labels, pipeline) for k in range(x.shape[2])]


def save_grid(run: Path, pipeline: Pipeline, config: SampleConfig, step: int) -> None:
    """A small grid during training, always from the same noise, so that progress is visible."""
    labels = pipeline.labels(None, 2 * min(10, max(4, pipeline.model.condition.count)))
    n = 16 if labels is None else len(labels)
    x = pipeline.sample(labels, n=n, steps=pipeline.in_short(config.steps), seed=config.seed)
    path = run / "samples" / f"step_{step:08d}.png"
    if ranks().first:
        path.parent.mkdir(exist_ok=True)
        columns = 1 if is_clips(x) else -(-len(x) // 2)
        save_png(path, grid(x, columns=columns) if pipeline.vocabulary is None else sheet(x, labels, pipeline))


def reconstructions(x: Array, x_hat: Array) -> Picture:
    """Real pictures above, their reconstructions below."""
    return stack([grid(x, columns=len(x)), grid(np.clip(x_hat, -1, 1), columns=len(x))], ["real", "reconstructed"])


def traced(pipeline: Pipeline, labels: Labels | None, **options: Unpack[Options]) -> list[Any]:
    """The moments of a walk, x_0 last; `progress` is told of each, which a walk that is traced does not do."""
    found, total, progress = [], pipeline.steps(options.get("steps")), options.get("progress") or silent
    for moment in pipeline.latents(labels, trace=True, **options):
        found.append(moment)
        if len(found) <= total:
            progress(len(found), total)
    return found


def moments(
    pipeline: Pipeline,
    labels: Labels | None,
    *,
    frames: int = FRAMES,
    work: Steps = lambda what: silent,
    **options: Unpack[Options],
) -> Moments:
    """Noise turning into pictures, at about `frames` of the walk's steps; at the last, t = 0, both pictures are x_0.

    work : is told of the walk, unless `progress` is, and of the decoding
    """
    options.setdefault("progress", work("from noise to picture"))
    *walk, x_0 = traced(pipeline, labels, **options)
    kept = [walk[k] for k in sorted({round(k * (len(walk) - 1) / max(1, frames - 1)) for k in range(frames)})]
    written = all(m.x_0_hat is m.x_t for m in kept)  # where codes are written, both are what there is so far
    parts = [m.x_t for m in kept] + [m.x_0_hat for m in kept if not written] + [x_0]
    *pictures, last = decoded(pipeline, [to_host(x) for x in parts], work("pictures of the walk"))
    noisy, clean = pictures[: len(kept)], pictures[-len(kept) :]
    return [*((m.t, *both) for m, *both in zip(kept, noisy, clean, strict=True)), (0, last, last)]


def decoded(pipeline: Pipeline, parts: Sequence[Array], progress: Progress = silent) -> list[Array]:
    """The pictures of many small x_0, several of one shape in a pass."""
    pictures: list[Array] = []
    for some in _of_one_shape(parts):
        made = pipeline.pictures(np.concatenate(some))
        pictures += np.split(made, np.cumsum([len(x) for x in some])[:-1])
        progress(len(pictures), len(parts))
    return pictures


def _of_one_shape(parts: Sequence[Array]) -> Iterator[list[Array]]:
    """Neighbours of one shape, about TOGETHER samples at a time."""
    some: list[Array] = []
    for x in parts:
        if some and (x.shape[1:] != some[0].shape[1:] or sum(map(len, some)) + len(x) > TOGETHER):
            yield some
            some = []
        some.append(x)
    yield some


def film(steps: Moments) -> list[Picture]:
    """Frames of a GIF: x_t on the left, the network's x̂_0 on the right; of codes, what is written so far."""
    n, clips = len(steps[0][1]), is_clips(steps[0][1])
    columns = 1 if clips else 5 if n % 5 == 0 else 4
    if all(x_t is x_0 for _, x_t, x_0 in steps):
        return alike([stack([grid(x, columns=columns)], [f"{1 - t:.0%} written"]) for t, x, _ in steps])
    pairs = ((t, [grid(x, columns=columns) for x in both]) for t, *both in steps)
    return alike([side_by_side(grids, [f"x_t, t = {t:.4g}", "the guess x̂_0"]) for t, grids in pairs])


def pace(frames: int) -> int:
    """Milliseconds per frame of a film: 80 of many, more of a few, which would be over before one has looked."""
    return max(80, min(600, 3000 // frames))


def save_learning(run: Path, rows: int) -> None:
    """learning.png: the first row of every grid that was drawn while the model was trained. rows : of these grids"""
    from PIL import Image

    paths = sorted((run / "samples").glob("step_*.png"))
    paths = [paths[round(k * (len(paths) - 1) / (LEARNING - 1))] for k in range(LEARNING)] if len(paths) > LEARNING else paths
    if len(paths) < 2:
        return
    first = []
    for path in paths:
        with Image.open(path) as picture:
            first.append(picture.convert("RGB").crop((0, 0, picture.width, picture.height // rows + 1)))
    save_png(run / "pictures" / "learning.png", stack(alike(first), [f"{int(p.stem[5:]):,} updates" for p in paths], gap=4))


def save_walk(
    run: Path, pipeline: Pipeline, labels: Labels | None, work: Steps = lambda what: silent, **options: Unpack[Options]
) -> None:
    """denoising.gif, x0_strip.png and trace.npz for the report's slider, which shows a clip as a strip of its frames."""
    walk = moments(pipeline, labels, work=work, **options)
    if not ranks().first:
        return
    progress = work("film of the walk")
    save_gif(run / "pictures" / "denoising.gif", film(walk), ms=pace(len(walk)))
    progress(1, 3)
    walk = [(t, in_strips(x_t), in_strips(x_0)) for t, x_t, x_0 in walk]
    chosen = [walk[k] for k in sorted({round(k * (len(walk) - 1) / 9) for k in range(10)})]
    save_png(run / "pictures" / "x0_strip.png", strip([b[:4] for _, _, b in chosen], [f"t = {t:.4g}" for t, _, _ in chosen]))
    progress(2, 3)
    rungs = np.array([t for t, _, _ in walk])
    x_t, x_0_hat = (np.stack([to_uint8(s[i]) for s in walk]) for i in (1, 2))
    content = io.BytesIO()
    np.savez_compressed(content, rungs=rungs, x_t=x_t, x_0_hat=x_0_hat)
    write_atomically(run / "trace.npz", content.getvalue())
    progress(3, 3)
