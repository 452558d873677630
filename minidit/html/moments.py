"""The parts of a report in which a slider chooses a moment: of a walk from noise to pictures, and of a training.

A page stays below a megabyte: where all moments would take more room than a part has, evenly spaced ones are shown, always with
the first and the last.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from minidit.backend import Array
from minidit.data.decode import opened
from minidit.html.chart import place
from minidit.html.folder import Trace
from minidit.html.page import data_uri, escape

MOST_FRAMES = 40
FEWEST = 4  # moments, whatever they take
WALK_ROOM, TRAINING_ROOM, PICTURE_ROOM = 400_000, 120_000, 250_000  # bytes of files; inside a page they take a third more
LARGEST = 1.6  # times its own width, where the page has room


def spaced(n: int, most: float) -> list[int]:
    """At most `most`, and at least FEWEST, of 0 to n - 1, evenly spaced, with the first and the last."""
    count = max(min(n, FEWEST), min(n, int(most)))
    return [int(i) for i in np.unique(np.linspace(0, n - 1, count).round())]


def image(path: Path, alt: str) -> str:
    """The file inside the page, with its size, so that the layout never moves; a large one as JPEG.

    Raises ValueError if it is no picture.
    """
    from PIL import Image

    with opened(path) as decoded:
        kind, (width, height) = Image.MIME[decoded.format or ""], decoded.size
        content = path.read_bytes()
        if len(content) > PICTURE_ROOM and decoded.format == "PNG":
            smaller = BytesIO()
            decoded.convert("RGB").save(smaller, "JPEG", quality=85)
            kind, content = "image/jpeg", smaller.getvalue()
    return (
        f'<img src="{data_uri(content, kind)}" width="{width}" height="{height}" '
        f'style="--most: {width * LARGEST:g}px" alt="{escape(alt)}">'
    )


def slider(trace: Trace) -> str:
    """x_t and x̂_0 side by side on two canvases; a range input chooses the rung."""
    s, n, _, h, w = trace.x_t.shape
    size = sum(len(atlas_png(x, math.ceil(math.sqrt(s * n)))) for x in (trace.x_t, trace.x_0_hat))
    chosen = spaced(s, s * WALK_ROOM / size)
    columns, gap, across = math.ceil(math.sqrt(n)), 1, math.ceil(math.sqrt(len(chosen) * n))
    layout = {"width": w, "height": h, "count": n, "across": across, "columns": columns, "gap": gap,
              "rungs": [place(trace.rungs[i]) for i in chosen], "steps": chosen}  # fmt: skip
    canvas = f'width="{columns * (w + gap) - gap}" height="{-(-n // columns) * (h + gap) - gap}"'
    views, atlases = [], []
    for name, caption, label in (
        ("x_t", "<i>x<sub>t</sub></i>, the input of the network", "noisy pictures on the chosen rung"),
        ("x_0_hat", "<i>x̂</i><sub>0</sub>, its estimate of the clean picture", "estimates of the clean pictures"),
    ):
        views.append(
            f'<figure><figcaption>{caption}</figcaption><canvas {canvas} role="img" aria-label="{label}" '
            f'data-atlas="atlas-{name}"></canvas></figure>'
        )
        uri = data_uri(atlas_png(getattr(trace, name)[chosen], across), "image/png")
        atlases.append(f'<img id="atlas-{name}" src="{uri}" alt="" hidden>')
    return (
        "<p>Sampling starts from noise and removes a little of it at every step. Move the slider, or press Play.</p>\n"
        f'<div class="card" data-trace="{escape(json.dumps(layout))}">\n<div class="pair">{"".join(views)}</div>\n'
        '<div class="controls"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{len(chosen) - 1}" step="1" value="0" aria-label="rung of the sampling run">'
        f"<output>t = {place(trace.rungs[0])}</output> "
        f'<span class="muted" data-step>0 of {s - 1} steps taken</span></div>\n' + "".join(atlases) + "</div>\n"
    )


def atlas_png(tiles: Array, across: int) -> bytes:
    """All tiles (S, n, C, H, W) uint8 in one PNG, `across` in a row, without gaps."""
    from PIL import Image

    s, n, c, h, w = tiles.shape
    rows = -(-s * n // across)
    sheet = np.zeros((rows * across, h, w, c), np.uint8)
    sheet[: s * n] = tiles.reshape(s * n, c, h, w).transpose(0, 2, 3, 1)
    sheet = sheet.reshape(rows, across, h, w, c).swapaxes(1, 2).reshape(rows * h, across * w, c)
    content = BytesIO()
    Image.fromarray(sheet[..., 0] if c == 1 else sheet).save(content, "PNG", compress_level=9)
    return content.getvalue()


def progress(samples: Sequence[Path]) -> str:
    """The sample grids drawn during training, one at a time under a slider; of many, some, evenly spaced."""
    if not samples:
        return ""
    mean = max(1.0, sum(p.stat().st_size for p in samples) / len(samples))
    paths = [samples[i] for i in spaced(len(samples), min(MOST_FRAMES, TRAINING_ROOM / mean))]
    frames = [
        image(p, f"after {int(n):,} updates" if (n := p.stem.removeprefix("step_")).isdigit() else p.stem) for p in paths
    ]
    images = [f if i == len(frames) - 1 else f.replace("<img ", "<img hidden ", 1) for i, f in enumerate(frames)]
    last = len(frames) - 1
    if not last:
        return f'<p>Samples drawn during training.</p>\n<div class="card frames">{images[0]}</div>'
    return (
        "<p>Samples drawn during training. Move the slider.</p>\n"
        f'<div class="card frames" data-frames><div>{"".join(images)}</div>\n<div class="controls">'
        f'<input type="range" min="0" max="{last}" step="1" value="{last}" aria-label="moment of the training">'
        "<output></output></div></div>"
    )
