"""One page about one run: its pictures, its training curves, its evaluation, its configuration.

The page is a single file that needs no network. A section whose files are missing is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.data.decode import opened
from minidit.html import chart
from minidit.html.folder import Record, ReportError, Run, Trace, is_number, read_run, seconds_of, series_of
from minidit.html.measures import COLUMNS, evaluation, finite, unit_of
from minidit.html.page import beside, data_uri, document, escape, section, table
from minidit.incoming import reading
from minidit.outgoing import check_writable, write_atomically

FINAL = {"ddim.png": ("DDIM", "samples drawn with DDIM"), "ddpm.png": ("DDPM", "samples drawn with DDPM"),
         "samples.png": ("Samples", "samples drawn as is usual for the process")}
# the first words of rows of samples
SAMPLED = ("DDIM", "DDPM", "Euler", "Heun", "Adams", "DPM", "consistency", "raster", "scales")
IN_SECTIONS = {"reconstructions.png", "denoising.gif", "x0_strip.png", "neighbours.png", "loss.png", "learning.png", *FINAL}
MOST_FRAMES = 40


def write_report(run: Path, out: Path | None = None) -> Path:
    """Reads the run folder and writes run/report.html, or `out`. The same folder gives the same bytes.

    Raises ValueError for a malformed file, with its name, and the line of metrics.jsonl.
    """
    run = Path(run)
    out = out or run / "report.html"
    if run.is_dir():
        check_writable(out)
    return write_atomically(out, report_of(run))


def report_of(run: Path) -> bytes:
    """The page about a run folder."""
    with reading(run, ReportError), np.errstate(all="ignore"):
        return page_of(read_run(run)).encode("utf-8", errors="backslashreplace")


def page_of(run: Run) -> str:
    others = [n for n in run.pictures if n not in IN_SECTIONS]
    heading = "How a picture is written" if writes(run) else "From noise to picture"
    sections = [("denoising", heading, denoising(run)),
                ("samples", "Samples", "".join(picture(run, name, *words) for name, words in FINAL.items())),
                ("progress", "During training", progress(run.samples) + learning(run)),
                ("curves", "Loss and measures", curves(run)),
                ("reconstructions", "Reconstructions", reconstructions(run)),
                ("evaluation", "Evaluation", evaluation(run.evaluation)),
                ("neighbours", "Nearest training images", neighbours(run)),
                ("more", "More pictures", "".join(picture(run, n, Path(n).stem, n) for n in others)),
                ("configuration", "Configuration", settings(used(run.config))),
                ("environment", "Environment", settings({k: v for k, v in run.config.items() if k == "environment"}))]
    sections = [(name, heading, html) for name, heading, html in sections if html]
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in sections)
    body = "\n".join([f"<main>\n{header(run)}", f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>' if links else "",
                      *(section(*content) for content in sections),
                      "<footer>This page is one file and loads nothing from anywhere.</footer>\n</main>"])
    return document(f"{run.name}: a minidit run", body, css=beside("report.css"), script=beside("report.js"))


# ------------------------------------------------------------------------------------------------ the head of the page


def header(run: Run) -> str:
    """The title, one sentence, and the most important numbers."""
    data, model = run.config.get("data", {}), run.config.get("model", {})
    steps = {entry["phase"]: entry["step"] for entry in run.metrics}
    seconds = seconds_of(run.metrics)
    words = {"hidden_size": "width", "depth": "depth", "patch_size": "patch"}
    sizes = [f"{word} {model[key]}" for key, word in words.items() if key in model]
    what = "a transformer that writes codes" if writes(run) else "a diffusion transformer"
    clauses = [f"{what} ({', '.join(sizes)})" if sizes else what,
               f"on {data['name']}" if "name" in data else "",
               f"after {steps['model']:,} steps" if "model" in steps else "",
               f"and {duration(seconds)} of training" if seconds else ""]
    sentence = " ".join(filter(None, clauses)) + "."
    tiles = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in headlines(run))
    about = "".join(f'<p class="muted">{escape(line)}</p>\n' for line in about_data(run.facts))
    return (f'<header>\n<h1>{escape(run.name)}</h1>\n<p class="lead">{escape(sentence[0].upper() + sentence[1:])}</p>\n{about}'
            + (f'<dl class="facts">{tiles}</dl>\n' if tiles else "") + "</header>")


def about_data(facts: Record) -> list[str]:
    """How many pictures were trained on, which are held out, and how many there are of each class."""
    lines = []
    if is_number(facts.get("images")):
        held_out = facts.get("held_out")
        rest = f"; {held_out}" if isinstance(held_out, str) and held_out else ""
        lines.append(f"{facts['images']:,} pictures are trained on{rest}.")
    counts = facts.get("classes")
    if isinstance(counts, list) and counts and all(isinstance(line, str) for line in counts):
        lines.append("; ".join(counts)[:600] + ".")
    return lines


def used(config: Record) -> Record:
    """The sections of a configuration that this run used: none of an autoencoder where there is none."""
    tokenizer = config.get("tokenizer")
    pixels = isinstance(tokenizer, dict) and tokenizer.get("kind") == "pixels"
    return {k: v for k, v in config.items() if k != "environment" and not (pixels and k == "tokenizer_train")}


def learning(run: Run) -> str:
    """The contact sheet of the grids that were drawn while the model was trained."""
    return picture(run, "learning.png", "Watch it learn: the same noise and the same classes, drawn ever later in the training.",
                   "samples from the same noise, one row per moment of the training")
def writes(run: Run) -> bool:
    """Whether the run's model writes pictures as codes."""
    return isinstance(process := run.config.get("process"), dict) and process.get("kind") in ("raster", "scales")


def headlines(run: Run) -> list[tuple[str, str]]:
    """(label, number) of the samples nearest to the real images, and the last measures of the other networks."""
    numbers = []
    rows = run.evaluation.get("rows", [])
    samples = [r for r in rows if str(r["name"]).startswith(SAMPLED) and finite(r.get("frechet"))]
    if samples:
        best = min(samples, key=lambda r: r["frechet"])
        for key, label in (("frechet", f"Fréchet distance, {best['name']}"), ("multiple", f"times {unit_of(rows)}"),
                           ("accuracy", f"class accuracy, {best['name']}")):
            if finite(best.get(key)):
                numbers.append((label, COLUMNS[key][1](best[key])))
    if finite(run.evaluation.get("bits_per_dim")):
        numbers.append(("bits per dimension", f"{run.evaluation['bits_per_dim']:.3g}"))
    series = series_of(run.metrics)
    for phase, key, label, form in (("tokenizer", "psnr", "autoencoder PSNR", "{:.1f} dB"),
                                    ("judge", "accuracy", "classifier accuracy", "{:.1%}"),
                                    ("model", "loss", "last loss", "{:.3g}")):
        values = [v for v in series.get((phase, key), ([], []))[1] if finite(v)]
        if values:
            numbers.append((label, form.format(values[-1])))
    return numbers


# ------------------------------------------------------------------------------------------------ pictures


def denoising(run: Run) -> str:
    """The slider over the rungs of a trace, its strip and its animation; of codes, which are never changed, the last two."""
    if writes(run):
        caption = "What is written so far, from the first codes to the last; a code that is written never changes."
        return (picture(run, "x0_strip.png", caption, "a picture that is written piece by piece")
                + picture(run, "denoising.gif", "", "an animation of pictures that are written piece by piece"))
    strip = picture(run, "x0_strip.png", "The estimate of the clean picture, from the first rung to the last.",
                    "estimates of the clean picture on the way from noise to picture")
    film = picture(run, "denoising.gif", "", "an animation of noise that turns into pictures")
    if film and run.trace is not None:
        film = f"<details><summary>As an animation</summary>{film}</details>"
    return (slider(run.trace) if run.trace is not None else "") + strip + film


def slider(trace: Trace) -> str:
    """x_t and x̂_0 side by side on two canvases; a range input chooses the rung."""
    s, n, _, h, w = trace.x_t.shape
    columns, gap, across = math.ceil(math.sqrt(n)), 1, math.ceil(math.sqrt(s * n))
    layout = {"width": w, "height": h, "count": n, "across": across, "columns": columns, "gap": gap,
              "rungs": [time_of(t) for t in trace.rungs]}
    size = f'width="{columns * (w + gap) - gap}" height="{-(-n // columns) * (h + gap) - gap}"'
    views, atlases = [], []
    for name, caption, label in (
            ("x_t", "<i>x<sub>t</sub></i>, the input of the network", "noisy pictures on the chosen rung"),
            ("x_0_hat", "<i>x̂</i><sub>0</sub>, its estimate of the clean picture", "estimates of the clean pictures")):
        views.append(f'<figure><figcaption>{caption}</figcaption><canvas {size} role="img" aria-label="{label}" '
                     f'data-atlas="atlas-{name}"></canvas></figure>')
        uri = data_uri(atlas_png(getattr(trace, name), across), "image/png")
        atlases.append(f'<img id="atlas-{name}" src="{uri}" alt="" hidden>')
    return ('<p>Sampling starts from noise and removes a little of it at every step. Move the slider, or press Play.</p>\n'
            f'<div class="card" data-trace="{escape(json.dumps(layout))}">\n<div class="pair">{"".join(views)}</div>\n'
            '<div class="controls"><button type="button">Play</button>'
            f'<input type="range" min="0" max="{s - 1}" step="1" value="0" aria-label="rung of the sampling run">'
            f'<output>t = {time_of(trace.rungs[0])}</output> '
            f'<span class="muted" data-step>0 of {s - 1} steps taken</span></div>\n'
            + "".join(atlases) + "</div>\n")


def time_of(t: Any) -> float:
    """A rung, or a time of a continuous path to four digits."""
    return int(t) if float(t).is_integer() else float(f"{float(t):.4g}")


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
    """The sample grids drawn during training, one at a time under a slider; of many, at most MOST_FRAMES, evenly spaced."""
    if not samples:
        return ""
    paths = [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, min(len(samples), MOST_FRAMES)).round().astype(int))]
    frames = [image(p, f"after {int(digits):,} steps" if (digits := p.stem.removeprefix("step_")).isdigit() else p.stem)
              for p in paths]
    images = [f if i == len(frames) - 1 else f.replace("<img ", "<img hidden ", 1) for i, f in enumerate(frames)]
    last = len(frames) - 1
    return ('<p>Samples drawn during training. Move the slider.</p>\n'
            f'<div class="card frames" data-frames><div>{"".join(images)}</div>\n<div class="controls">'
            f'<input type="range" min="0" max="{last}" step="1" value="{last}" aria-label="moment of the training">'
            "<output></output></div></div>")


def reconstructions(run: Run) -> str:
    caption = "Held-out images and their reconstructions by the autoencoder: samples cannot be sharper."
    return picture(run, "reconstructions.png", caption, "real images above their reconstructions")


def picture(run: Run, name: str, caption: str, alt: str) -> str:
    """A picture of the run as a figure, or "" if the run has no such picture."""
    if name not in run.pictures:
        return ""
    figcaption = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="picture">{figcaption}{image(run.pictures[name], alt)}</figure>\n'


def image(path: Path, alt: str) -> str:
    """The file inside the page, with its size, so that the layout never moves. Raises ValueError if it is no picture."""
    from PIL import Image

    with opened(path) as content:
        kind, (width, height) = Image.MIME[content.format or ""], content.size
    return f'<img src="{data_uri(path.read_bytes(), kind)}" width="{width}" height="{height}" alt="{escape(alt)}">'


# ------------------------------------------------------------------------------------------------ numbers


def curves(run: Run) -> str:
    """Charts of what each phase logged: losses and measures first, rates and norms in a closed <details>."""
    first: list[str] = []
    folded: list[str] = []
    for (phase, key), (steps, values) in series_of(run.metrics).items():
        figure = chart.line_chart(f"{phase}: {key}", steps, values, may_log="loss" in key)
        (folded if key in ("lr", "grad_norm", "img_per_s") else first).append(figure)
    visible, hidden = "".join(first), "".join(folded)
    inner = f'<div class="charts">{visible}</div>\n' if visible else ""
    if hidden:
        inner += f'<details><summary>Learning rate, gradients, speed</summary><div class="charts">{hidden}</div></details>\n'
    if not inner:
        return picture(run, "loss.png", "", "loss over training steps")
    return f'<p class="muted">Point at a chart, or focus it and use the arrow keys, to read its values.</p>\n{inner}'


def neighbours(run: Run) -> str:
    """Samples beside their nearest training images, and the distances beside those of held-out images."""
    inner = picture(run, "neighbours.png", "Each sample with the training image nearest to it.",
                    "samples and their nearest training images")
    distances = run.evaluation.get("neighbours") or {}
    rows = [(label, distances[key]) for key, label in (("sample_distance", "samples"), ("held_out_distance", "held-out images"))
            if isinstance(distances.get(key), dict)]
    if rows:
        cells = [[label, *(f"{r[m]:.3f}" if finite(r.get(m)) else "–" for m in ("q05", "q50", "q95"))] for label, r in rows]
        inner += table(["nearest distance", "5 %", "median", "95 %"], cells, numbers=(1, 2, 3),
                       label="distances to the training set")
        inner += ('<p class="muted">Root mean square difference of pixels in [0, 1]. Copies of training images would lie '
                  "far nearer than images that the networks never saw.</p>")
    return inner


def settings(tables: Record) -> str:
    """Tables of the configuration, key by key; keys outside a table come first."""
    loose = {k: v for k, v in tables.items() if not isinstance(v, dict)}
    groups = ([("", loose)] if loose else []) + [(k, v) for k, v in tables.items() if isinstance(v, dict) and v]
    boxes = []
    for name, values in groups:
        rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td><code>{escape(plain(v))}</code></td></tr>'
                       for k, v in values.items())
        boxes.append("<div>" + (f"<h3>{escape(name)}</h3>" if name and len(groups) > 1 else "") + f"<table>{rows}</table></div>")
    return f'<div class="settings">{"".join(boxes)}</div>' if boxes else ""


def plain(value: object) -> str:
    """A value as the configuration file writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
