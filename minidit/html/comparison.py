"""One page about several runs: the settings in which they differ, their curves in one chart, their measures side by side."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from minidit.html import chart
from minidit.html.folder import Record, ReportError, Run, read_run, seconds_of, series_of
from minidit.html.measures import COLUMNS, finite
from minidit.html.moments import image
from minidit.html.page import beside, document, escape, section, table
from minidit.html.report import plain, used
from minidit.incoming import reading
from minidit.outgoing import write_text
from minidit.shown import in_time

MOST = 6  # runs: as many as there are colours
LONGEST = 150  # bytes of the name of a page, without its ending
WHERE = ("environment", "history")  # sections that are no settings
SHOWN = ("frechet", "accuracy", "precision", "recall")


def write_comparison(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Reads two or more run folders and writes the page, to `out` or to the file that `default_page` names.

    Raises ValueError for a malformed file, with its name.
    """
    if not 2 <= len(folders) <= MOST:
        raise ReportError(f"{len(folders)} runs: a page compares 2 to {MOST}")
    runs = []
    for folder in folders:
        with reading(folder, ReportError):
            runs.append(read_run(folder))
            if not (runs[-1].config or runs[-1].metrics):
                raise ReportError(f"{folder}: no run there (no config.toml)")
    return write_text(out or default_page(folders), page_of(runs, names_of(folders), mark_of(folders)))


def default_page(folders: Sequence[Path]) -> Path:
    """compared-ONE-TWO.html in the current folder, for runs of these names.

    A page of the same runs is replaced. A page of other runs whose names are the same, or any other file, is refused.
    """
    names = [re.sub(r"[^\w.+-]+", "_", name) for name in names_of(folders)]
    page = Path(f"compared-{'-'.join(names)}".encode()[:LONGEST].decode(errors="ignore") + ".html")
    if page.exists() and mark_of(folders) not in page.read_text("utf-8", errors="replace"):
        raise ReportError(f"{page}: there is a page of other runs of these names; say where this one goes: --out FILE")
    return page


def mark_of(folders: Sequence[Path]) -> str:
    """What a page says in its head of the runs that it compares: a digest of where they lie."""
    places = "\0".join(str(folder.resolve()) for folder in folders)
    return f'<meta name="minidit-runs" content="{hashlib.sha256(places.encode("utf-8", "surrogateescape")).hexdigest()[:16]}">'


def names_of(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; a folder that is named twice gets a number."""
    parts = [folder.resolve().parts for folder in folders]
    length = next((n for n in range(1, max(map(len, parts)) + 1) if len({p[-n:] for p in parts}) == len(parts)), 1)
    names = [os.path.join(*p[-length:]) for p in parts]
    return [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names, 1)]


def page_of(runs: Sequence[Run], names: Sequence[str], mark: str = "") -> str:
    sections = [("summary", "At a glance", summary(runs, names)),
                ("settings", "Settings that differ", differing(runs, names)),
                ("curves", "Loss and measures", curves(runs, names)),
                ("evaluation", "Evaluation", evaluation(runs, names)),
                ("samples", "Samples", samples(runs, names)),
                ("environment", "Where they ran", differing(runs, names, WHERE))]
    sections = [(name, heading, html) for name, heading, html in sections if html]
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in sections)
    title = f"{', '.join(names[:-1])} and {names[-1]}"
    key = "".join(f'<li><svg viewBox="0 0 30 8" aria-hidden="true"><path class="mean run{k}" d="M0 4H30"/></svg>'
                  f"{escape(name)}</li>" for k, name in enumerate(names))
    body = "\n".join([f'<main>\n<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{len(runs)} runs compared.</p>\n'
                      f'<ul class="key chart">{key}</ul>\n</header>',
                      f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>',
                      *(section(*content) for content in sections),
                      "<footer>This page is one file and loads nothing from anywhere.</footer>\n</main>"])
    return document(f"{title}: minidit runs compared", body, css=beside("report.css"), script=beside("report.js"), head=mark)


def summary(runs: Sequence[Run], names: Sequence[str]) -> str:
    """A table of updates, time and last losses, one column per run."""
    rows: list[list[str]] = []
    phases = dict.fromkeys(entry["phase"] for run in runs for entry in run.metrics)
    for phase in phases:
        last = [[e for e in run.metrics if e["phase"] == phase] for run in runs]
        rows.append([f"{escape(phase)}, updates", *(f"{max(e['step'] for e in part):,}" if part else "–" for part in last)])
        for key, pick, words in (("loss", -1, "last loss"), ("held_out_loss", -1, "held-out loss"),
                                 ("held_out_loss", min, "lowest held-out loss")):
            values = [[v for v in series_of(part).get((phase, key), ([], []))[1] if finite(v)] for part in last]
            numbers = [(pick(v) if callable(pick) else v[pick]) if v else None for v in values]
            if any(n is not None for n in numbers):
                rows.append([f"{escape(phase)}, {words}", *("–" if n is None else f"{n:.4g}" for n in numbers)])
    rows.append(["training time", *(in_time(seconds_of(run.metrics)) if run.metrics else "–" for run in runs)])
    remarks = [f'<p class="muted">{escape(line)}</p>' for line in incomparable(runs)]
    return table(["", *names], rows, numbers=range(1, len(names) + 1), label="the runs at a glance") + "\n".join(remarks)


def incomparable(runs: Sequence[Run]) -> list[str]:
    """What must be said of runs on different pictures."""
    sets = {str(run.config.get("data", {}).get("source")) for run in runs}
    digests = {run.facts.get("digest") for run in runs} - {None}
    if len(sets) == 1 and len(digests) < 2:
        return []
    return ["The runs were trained on different pictures, so their losses cannot be compared."]


def settings_of(run: Run, sections: Sequence[str]) -> Record:
    """(section, key) -> value of the sections of config.toml; without names: of all but those that are no settings."""
    wanted = sections or [name for name in used(run) if name not in WHERE]
    return {f"{name}.{key}": value for name in wanted if isinstance(run.config.get(name), dict)
            for key, value in run.config[name].items()}


def differing(runs: Sequence[Run], names: Sequence[str], sections: Sequence[str] = ()) -> str:
    """A table of the settings in which the runs differ, one column per run."""
    tables = [settings_of(run, sections) for run in runs]
    cells = {key: [plain(t[key]) if key in t else "–" for t in tables] for key in dict.fromkeys(k for t in tables for k in t)}
    rows = [[escape(key), *(f"<code>{escape(value)}</code>" for value in values)]
            for key, values in cells.items() if len(set(values)) > 1]
    if not rows:
        return "" if sections else "<p>None: the configurations are the same.</p>"
    same = len(cells) - len(rows)
    note = "" if sections else f'<p class="muted">The other {same} settings are the same.</p>'
    return table(["", *names], rows, label="settings that differ") + note


def curves(runs: Sequence[Run], names: Sequence[str]) -> str:
    """One chart per phase and measure, one line per run; rates, norms and speeds are folded away."""
    series = [series_of(run.metrics) for run in runs]
    parts: tuple[list[str], list[str]] = [], []
    for phase, key in dict.fromkeys(k for s in series for k in s):
        lines = [(name, *s.get((phase, key), ([], []))) for name, s in zip(names, series, strict=True)]
        figure = chart.several(f"{phase}: {key}", lines, may_log="loss" in key)
        parts[key in ("lr", "grad_norm", "img_per_s")].append(figure)
    charts, folded = ("".join(part) for part in parts)
    if folded:
        folded = f'<details><summary>Learning rate, gradients, speed</summary><div class="charts">{folded}</div></details>'
    words = "Point at a chart, or focus it and use the arrow keys, to read its values. Series of 20 values or more are smoothed."
    return f'<p class="muted">{words}</p>\n<div class="charts">{charts}</div>\n{folded}' if charts or folded else ""


def evaluation(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The measures of rows of one name side by side, and whether they may be compared at all."""
    by_name = [{str(r["name"]): r for r in run.evaluation.get("rows", [])} for run in runs]
    rows = []
    for name in dict.fromkeys(n for rows_of in by_name for n in rows_of):
        for key in SHOWN:
            values = [rows_of.get(name, {}).get(key) for rows_of in by_name]
            if any(finite(v) for v in values):
                cells = [COLUMNS[key][1](v) if finite(v) else "–" for v in values]
                rows.append([f'{escape(name)}, <span class="muted">{COLUMNS[key][0]}</span>', *cells])
    if not rows:
        return ""
    judges = {str([settings_of(run, ("judge_train",)), run.config.get("data", {}).get("source")]) for run in runs}
    note = ("The judges were trained alike, on the same pictures." if len(judges) == 1 else
            "The judges were trained in different ways or on different pictures, so these measures cannot be compared directly: "
            "compare each with the rows of real images of its own run.")
    return (table(["", *names], rows, numbers=range(1, len(names) + 1), label="measures of the runs")
            + f'<p class="muted">{note}</p>')


def samples(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The grids of samples without fresh noise, one per run."""
    figures = [f'<figure class="picture"><figcaption>{escape(name)}</figcaption>'
               f'{image(run.pictures[file], f"{word} of {name}")}</figure>'
               for run, name in zip(runs, names, strict=True)
               for file, word in (("ddim.png", "DDIM samples"), ("samples.png", "samples")) if file in run.pictures]
    seeds = {plain(run.config.get("sample", {}).get("seed", 0)) for run in runs}
    note = f"All from the same noise, seed {min(seeds)}." if len(seeds) == 1 else "From different noise: their seeds differ."
    return f'<p class="muted">{note}</p>\n<div class="pictures">{"".join(figures)}</div>' if figures else ""
