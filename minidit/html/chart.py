"""Line charts as inline SVG in the colours of the page; a pointer or the arrow keys show their values."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from minidit.backend import Array
from minidit.curves import log_ticks, number, smoothed, ticks
from minidit.html.page import escape

WIDTH, HEIGHT = 480, 250
LEFT, TOP, RIGHT, BOTTOM = 52, 14, WIDTH - 12, HEIGHT - 30
MOST = 1e100  # a value beyond it would leave no picture of the others
POINTS = 400  # at most, so that the page of a long run stays small


def line_chart(name: str, steps: Sequence[float], values: Sequence[float], *, may_log: bool = False, axis: str = "step") -> str:
    """One series over steps, or another axis, as a <figure>, or "" if no value is finite; may_log: logarithmic over a decade."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    good = (abs(x) < MOST) & (abs(y) < MOST)  # neither NaN nor infinite
    x, y = x[good], y[good]
    if not len(x):
        return ""
    if len(x) == 1:
        return (f'<figure class="chart"><figcaption><span><strong>{escape(name)}</strong></span>'
                f"<output>one value so far: {y[0]:.4g} at {axis} {x[0]:.10g}</output></figcaption></figure>")
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    log = bool(may_log and y.min() > 0 and y.max() > 10 * y.min())
    average = smoothed(np.log(y) if log else y) if len(y) >= 20 else None
    average = np.exp(average) if log and average is not None else average
    u, v, x_marks, y_marks = _axes(x, y, log)
    points = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    body = _frame(x_marks, y_marks)
    body.append(f'<path class="{"raw" if average is not None else "mean"}" d="{_path(u(x[points]), v(y[points]))}"/>')
    if average is not None:
        body.append(f'<path class="mean" d="{_path(u(x[points]), v(average[points]))}"/>')
    body.append(f'<path class="here" d="M0 {TOP}V{BOTTOM}"/>')
    data = json.dumps([[round(float(a), 1), place(b), float(f"{c:.4g}")] for a, b, c in
                         zip(u(x[points]), x[points], (y if average is None else average)[points], strict=True)])
    last = float((y if average is None else average)[-1])
    end = f"{last:.4g} at {axis} {place(x[-1])}" + (", smoothed" if average is not None else "")
    summary = f"{name}: from {y[0]:.4g} at {axis} {place(x[0])} to {end}"
    scale = " (log)" if log else ""
    return (f'<figure class="chart"><figcaption><span><strong>{escape(name)}</strong>{scale}</span>'
            f'<output>{end}</output></figcaption>\n'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{escape(summary)}" '
            f'data-axis="{axis}" data-points="{escape(data)}">' + "".join(body) + "</svg></figure>")


def place(x: float) -> float:
    """A step, or a place on another axis to four digits."""
    return int(x) if float(x).is_integer() else float(f"{x:.4g}")


def _frame(x_marks: Sequence[tuple[float, float]], y_marks: Sequence[tuple[float, float]]) -> list[str]:
    """The rules and numbers of both axes."""
    body = [f'<path class="rule" d="M{LEFT} {_n(p)}H{RIGHT}"/>'
            f'<text x="{LEFT - 8}" y="{_n(p + 4)}" text-anchor="end">{number(m)}</text>' for m, p in y_marks]
    body += [f'<text x="{_n(p)}" y="{HEIGHT - 10}" text-anchor="middle">{number(m)}</text>' for m, p in x_marks]
    return [*body, f'<path class="base" d="M{LEFT} {BOTTOM}H{RIGHT}"/>']


def _axes(x: Array, y: Array, log: bool) -> tuple[Array, Array, list[tuple[float, float]], list[tuple[float, float]]]:
    """The maps from values to coordinates, and the ticks of both axes with their coordinates."""
    x_low, x_high = (float(x[0]), float(x[-1])) if x[-1] > x[0] else (x[0] - 1, x[0] + 1)
    low, high = float(y.min()), float(y.max())
    pad = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    low, high = (low / 1.1, high * 1.1) if log else (low - pad, high + pad)
    bend = np.log if log else np.asarray

    def u(value: Array) -> Array:
        return LEFT + (value - x_low) / (x_high - x_low) * (RIGHT - LEFT)

    def v(value: Array) -> Array:
        return BOTTOM - (bend(value) - bend(low)) / (bend(high) - bend(low)) * (BOTTOM - TOP)

    x_ticks = ticks(x_low, x_high, 4) if x[-1] > x[0] else [float(x[0])]
    y_ticks = log_ticks(low, high) if log else ticks(low, high, 4)
    return u, v, [(t, float(u(t))) for t in x_ticks], [(t, float(v(t))) for t in y_ticks]


def _path(u: Array, v: Array) -> str:
    return "M" + "L".join(f"{_n(a)} {_n(b)}" for a, b in zip(u, v, strict=True))


def _n(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"


def several(name: str, series: Sequence[tuple[str, Sequence[float], Sequence[float]]], *, may_log: bool = False) -> str:
    """The same measure of several runs in one <figure>: (label, steps, values) each; "" if no value of any run is finite.

    Long series are smoothed. A run's colour and dashes are those of its place in `series`, also where others have no values.
    """
    curves: list[tuple[int, str, Array, Array]] = []
    for k, (label, steps, values) in enumerate(series):
        x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
        good = np.isfinite(x) & np.isfinite(y)
        order = np.argsort(x[good], kind="stable")
        if good.any():
            curves.append((k, label, x[good][order], y[good][order]))
    if not curves:
        return ""
    all_x, all_y = (np.concatenate([c[i] for c in curves]) for i in (2, 3))
    log = bool(may_log and all_y.min() > 0 and all_y.max() > 10 * all_y.min())
    curves = [(k, label, x, _smooth(y, log)) for k, label, x, y in curves]
    u, v, x_marks, y_marks = _axes(np.sort(all_x), np.concatenate([c[3] for c in curves]), log)
    body = _frame(x_marks, y_marks)
    for k, _, x, y in curves:
        at = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
        body.append(f'<path class="mean run{k}" d="{_path(u(x[at]), v(y[at]))}"/>' if len(x) > 1 else
                    f'<circle class="run{k}" cx="{_n(u(x)[0])}" cy="{_n(v(y)[0])}" r="4"/>')
    body.append(f'<path class="here" d="M0 {TOP}V{BOTTOM}"/>')
    marks = np.unique(all_x)
    marks = marks[np.unique(np.linspace(0, len(marks) - 1, min(len(marks), POINTS)).round().astype(int))]
    data = json.dumps([[round(float(u(s)), 1), float(s), _values_at(float(s), curves)] for s in marks])
    rest = "; ".join(f"{label} {y[-1]:.4g} at step {x[-1]:.0f}" for _, label, x, y in curves)
    return (f'<figure class="chart"><figcaption><span><strong>{escape(name)}</strong>{" (log)" if log else ""}</span>'
            f"<output>{escape(rest)}</output></figcaption>\n"
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{escape(f"{name}: {rest}")}" '
            f'data-points="{escape(data)}">' + "".join(body) + "</svg></figure>")


def _smooth(y: Array, log: bool) -> Array:
    if len(y) < 20:
        return y
    return np.exp(smoothed(np.log(y))) if log else smoothed(y)


def _values_at(step: float, curves: Sequence[tuple[int, str, Array, Array]]) -> str:
    """Each run's value at its last record up to a step; a run that has none yet, or has ended, is left out."""
    values = [(label, y[np.searchsorted(x, step, "right") - 1]) for _, label, x, y in curves if x[0] <= step <= x[-1]]
    return ", ".join(f"{label} {value:.4g}" for label, value in values)
