"""One page about one run: its pictures, its training curves, its evaluation, its configuration.

The page is a single file that needs no network. A section whose files are missing is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from minidit.html import chart
from minidit.html.folder import Record, ReportError, Run, is_number, read_run, seconds_of, series_of
from minidit.html.measures import COLUMNS, evaluation, fall_of, finite, unit_of
from minidit.html.moments import PICTURE_ROOM, image, progress, slider
from minidit.html.page import beside, document, escape, section, table
from minidit.incoming import reading
from minidit.outgoing import check_writable, write_atomically
from minidit.shown import in_time

FINAL = {"ddim.png": ("Drawn by DDIM, which adds no noise on the way: few steps are enough.", "samples drawn with DDIM"),
         "ddpm.png": ("Drawn by DDPM, which adds fresh noise at every step and needs more of them.", "samples drawn with DDPM"),
         "samples.png": ("Samples, drawn as is usual for the process.", "samples drawn as is usual for the process")}
# the first words of rows of samples
SAMPLED = ("DDIM", "DDPM", "Euler", "Heun", "Adams", "DPM", "consistency", "raster", "scales")
FALLING, SURE = 0.15, 3  # the part of itself by which the loss of a short training falls in its second half; standard errors
IN_SECTIONS = {"reconstructions.png", "denoising.gif", "x0_strip.png", "neighbours.png", "loss.png", "learning.png", *FINAL}


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
                ("samples", "Samples", beside_each_other(picture(run, name, *words) for name, words in FINAL.items())),
                ("progress", "During training", progress(run.samples) + learning(run)),
                ("curves", "Loss and measures", curves(run)),
                ("reconstructions", "Reconstructions", reconstructions(run)),
                ("evaluation", "Evaluation", evaluation(run.evaluation)),
                ("neighbours", "Nearest training images", neighbours(run)),
                ("more", "More pictures", beside_each_other(picture(run, n, Path(n).stem, n) for n in others)),
                ("configuration", "Configuration", settings(used(run))),
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
               f"after {updates_of(run, steps['model'])}" if "model" in steps else "",
               f"and {in_time(seconds)} of training" if seconds else ""]
    sentence = " ".join(filter(None, clauses)) + "."
    tiles = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in headlines(run))
    unmeasured = f"Not measured yet: minidit eval and the path of {run.name} add the measures."
    unmeasured = unmeasured if steps and not run.evaluation else ""
    lines = [*about_data(run.facts), *filter(None, [about_length(run), unmeasured])]
    about = "".join(f'<p class="muted">{escape(line)}</p>\n' for line in lines)
    return (f'<header>\n<h1>{escape(run.name)}</h1>\n<p class="lead">{escape(sentence[0].upper() + sentence[1:])}</p>\n{about}'
            + (f'<dl class="facts">{tiles}</dl>\n' if tiles else "") + "</header>")


def updates_of(run: Run, done: int) -> str:
    """How many updates a model has made, and of how many if its training was stopped."""
    train = run.config.get("train", {})
    wanted = train.get("steps") if isinstance(train, dict) else None
    return f"{done:,} of {wanted:,} updates" if is_number(wanted) and wanted > done else f"{done:,} updates"


def about_data(facts: Record) -> list[str]:
    """How many pictures were trained on, which are held out, and how many there are of each class."""
    lines = []
    if is_number(facts.get("images")):
        held_out = facts.get("held_out")
        rest = f"; {held_out}" if isinstance(held_out, str) and held_out else ""
        noun = "clips" if facts.get("noun") == "clip" else "pictures"
        lines.append(f"{facts['images']:,} {noun} are trained on{rest}.")
    counts = facts.get("classes")
    if isinstance(counts, list) and counts and all(isinstance(line, str) for line in counts):
        lines.append("; ".join(counts)[:600] + ".")
    return lines


def about_length(run: Run) -> str:
    """Whether the model was trained too shortly, by how its loss still falls; "" if not, or if its losses do not compare."""
    process = run.config.get("process")
    steps, losses = series_of(run.metrics).get(("model", "loss"), ([], []))
    if not steps or (isinstance(process, dict) and process.get("kind") == "consistency"):  # whose grid becomes finer
        return ""
    few, fall = f"{max(steps):,.0f} updates are few: ", fall_of(steps, losses)
    if fall is None:
        return few + "too few to tell whether the loss still falls."
    part, errors = fall
    return few + f"in their second half the loss still fell by {part:.0%}." if part > FALLING and errors > SURE else ""


def used(run: Run) -> Record:
    """The sections of a configuration that this run used: none of a training of a tokenizer or judge that was not made."""
    trained = {entry["phase"] for entry in run.metrics}
    left_out = {f"{phase}_train" for phase in ("tokenizer", "judge") if run.metrics and phase not in trained}
    return {k: v for k, v in run.config.items() if k != "environment" and k not in left_out}


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
        for key, label in (("frechet", f"Fréchet distance, {best['name']}"), ("multiple", f"times that of {unit_of(rows)}"),
                           ("accuracy", f"in their class for the judge, {best['name']}")):
            if finite(best.get(key)):
                numbers.append((label, COLUMNS[key][1](best[key])))
    if finite(run.evaluation.get("bits_per_dim")):
        numbers.append(("bits per dimension", f"{run.evaluation['bits_per_dim']:.3g}"))
    series = series_of(run.metrics)
    for phase, key, label, form in (("tokenizer", "psnr", "autoencoder PSNR", "{:.1f} dB"),
                                    ("judge", "accuracy", "judge’s accuracy while trained", "{:.1%}"),
                                    ("model", "loss", "last loss", "{:.3g}")):
        values = [v for v in series.get((phase, key), ([], []))[1] if finite(v)]
        if values:
            numbers.append((label, form.format(values[-1])))
    return numbers


# ------------------------------------------------------------------------------------------------ pictures


def denoising(run: Run) -> str:
    """The slider over the rungs of a trace, and its strip; without a trace, the strip and the animation."""
    if writes(run):
        caption = "What is written so far, from the first codes to the last; a code that is written never changes."
        return (picture(run, "x0_strip.png", caption, "a picture that is written piece by piece")
                + film(run, "an animation of pictures that are written piece by piece"))
    strip = picture(run, "x0_strip.png", "The estimate of the clean picture, from the first rung to the last.",
                    "estimates of the clean picture on the way from noise to picture")
    slides = slider(run.trace) if run.trace is not None else ""
    return slides + strip + film(run, "an animation of noise that turns into pictures")


def film(run: Run, alt: str) -> str:
    """The animation, or its name where the page shows its moments under a slider, or where it is large."""
    name = "denoising.gif"
    if name not in run.pictures:
        return ""
    slides = run.trace is not None and not writes(run)
    if slides or run.pictures[name].stat().st_size > PICTURE_ROOM:
        return f'<p class="muted">As a film: pictures/{name} in the folder of the run.</p>\n'
    return picture(run, name, "", alt)


def reconstructions(run: Run) -> str:
    caption = "Held-out images and their reconstructions by the autoencoder: samples cannot be sharper."
    return picture(run, "reconstructions.png", caption, "real images above their reconstructions")


def beside_each_other(figures: Iterable[str]) -> str:
    inner = "".join(figures)
    return f'<div class="pictures">{inner}</div>\n' if inner else ""


def picture(run: Run, name: str, caption: str, alt: str) -> str:
    """A picture of the run as a figure, or "" if the run has no such picture."""
    if name not in run.pictures:
        return ""
    figcaption = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="picture">{figcaption}{image(run.pictures[name], alt)}</figure>\n'


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
        return picture(run, "loss.png", "", "loss over training updates")
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
