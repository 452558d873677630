"""The parts of the story that move: their numbers, their controls, and what is shown where scripts do not run.

The laws are computed in the browser by laws.js, which tests hold equal to the package; moving.js draws what they say. Each part
stands around the picture that shows the same without a script.
"""

from __future__ import annotations

import base64
import json

import numpy as np

from minidit.backend import Array
from minidit.html.page import beside, escape

POINTS = 200
CLOUDS = {  # five small Gaussians of two kinds, the data of all walks
    "weights": [0.25, 0.15, 0.2, 0.25, 0.15],
    "means": [[-0.75, 0.35], [0.0, 0.75], [0.1, -0.1], [0.75, 0.3], [-0.3, -0.65]],
    "stds": [0.13, 0.09, 0.16, 0.13, 0.15],
    "classes": [0, 0, 0, 1, 1],
}
REACH = 1.4  # where a picture of points ends
FED_BACK = 0.2  # the time, on the straight path, at which the guess is fed back
NAMES = ("slider", "schedules", "spacings", "points", "guidance", "meanshift")


def slider(name: str, label: str, low: float, high: float, value: float, step: float = 1) -> str:
    return (
        f'<label>{label} <input type="range" name="{name}" min="{low:g}" max="{high:g}" step="{step:g}" value="{value:g}">'
        f"<output></output></label>"
    )


def choice(name: str, label: str, options: dict[str, str], value: str) -> str:
    inside = "".join(f'<option value="{k}"{" selected" if k == value else ""}>{escape(v)}</option>' for k, v in options.items())
    return f'<label>{label} <select name="{name}">{inside}</select></label>'


def canvas(label: str, width: int = 420, height: int = 420) -> str:
    return f'<canvas width="{width}" height="{height}" role="img" aria-label="{escape(label)}"></canvas>'


PLAY = '<button type="button" name="play">Pause</button>'
SAMPLERS = {
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "euler": "rectified flow, Euler",
    "heun": "rectified flow, Heun",
    "two": "consistency, two steps",
    "one": "consistency, one step",
}
PARTS = {
    "slider": (
        "Noise a real picture yourself",
        slider("t", "t", 0, 1000, 300),
        '<div class="canvases">'
        + canvas("the noisy picture", 256, 256)
        + canvas("its picture and its noise alone", 256, 256)
        + "</div>",
    ),
    "schedules": (
        "How much signal is left",
        choice("show", "show", {"bar": "the share of the signal, α²/(α²+σ²)", "snr": "SNR, on a logarithmic scale"}, "bar")
        + slider("t", "t", 0, 1000, 500),
        canvas("the share of the signal at each t, for five schedules", 640, 340) + '<ul class="legend"></ul>',
    ),
    "spacings": (
        "Which rungs a short walk visits",
        slider("n", "steps", 1, 50, 10),
        canvas("the rungs that six spacings visit", 640, 300),
    ),
    "points": (
        "From noise to data",
        PLAY
        + choice("sampler", "sampler", SAMPLERS, "ddim")
        + slider("steps", "steps", 1, 60, 20)
        + slider("at", "how far", 0, 1000, 0),
        canvas("two hundred points on their way from noise to five clouds"),
    ),
    "guidance": (
        "Guidance on two kinds of points",
        slider("w", "w", 0, 8, 1, 0.25),
        canvas("points drawn for one of two kinds at the chosen scale"),
    ),
    "meanshift": (
        "Fed back, and walked",
        PLAY + slider("at", "rounds", 0, 30, 0),
        '<div class="canvases">'
        + canvas("mean shift: the points collapse", 300, 300)
        + canvas("a walk: the points become clouds", 300, 300)
        + "</div>",
    ),
}


def part(name: str, still: str) -> str:
    """One moving part; still: the HTML that stands in its place without a script."""
    heading, controls, drawing = PARTS[name]
    return (
        f'<section class="moving" id="{name}" aria-labelledby="{name}-title"><h3 id="{name}-title">{escape(heading)}</h3>'
        f'<div class="still">{still}<p class="muted">With scripts, this picture moves.</p></div>'
        f'<div class="live" hidden><p class="controls">{controls}</p>{drawing}<p class="says" aria-live="polite"></p></div>'
        "</section>"
    )


def script(picture: Array) -> str:
    """Everything that the moving parts of a page need. picture : (32, 32) uint8, the one that is noised."""
    facts = {
        "points": POINTS,
        "reach": REACH,
        "clouds": CLOUDS,
        "fedBack": FED_BACK,
        "side": len(picture),
        "picture": base64.b64encode(np.ascontiguousarray(picture).tobytes()).decode("ascii"),
    }
    return f"{beside('laws.js')}\nconst MOVING = {json.dumps(facts)};\n{beside('moving.js')}"
