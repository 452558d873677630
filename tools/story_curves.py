"""The pictures of docs/story that show numbers: schedules and spacings. See make_story.py."""

from __future__ import annotations

import numpy as np
from PIL import Image
from story_marks import INK, INKS, LINE, MUTED, ORANGE, Sheet

from minidit.diffusion import rungs
from minidit.diffusion.schedule import Schedule, zero_terminal_snr

T = 1000


def schedules() -> Image.Image:
    """The share of the signal of five schedules, and where there is as much picture as noise."""
    t = np.arange(T + 1) / T
    scaled = Schedule.scaled_linear(T)
    series = (
        ("cosine: the network of this story", Schedule.cosine(T).alpha_bar),
        ("straight path (Stable Diffusion 3, FLUX)", (1 - t) ** 2 / ((1 - t) ** 2 + t**2)),
        ("scaled linear (Stable Diffusion 1)", scaled.alpha_bar),
        ("scaled linear, moved to 0 at the end", zero_terminal_snr(scaled).alpha_bar),
        ("linear (the DDPM paper)", Schedule.linear(T).alpha_bar),
    )
    inks = (INKS[2], INKS[4], INKS[1], INKS[3], INKS[0])
    left, top, right, bottom = 58, 40, 700, 330
    sheet = Sheet(720, 380)
    sheet.text(14, 18, "share of the signal: alpha squared, divided by alpha squared + sigma squared", size=14)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - share * (bottom - top)
        sheet.line([(left, y), (right, y)], LINE)
        sheet.text(left - 8, y, f"{share:g}", MUTED, anchor="rm")
    half = bottom - 0.5 * (bottom - top)
    sheet.dashes((left, half), right, INK)
    sheet.text(right, half - 10, "as much picture as noise: SNR = 1", anchor="rm")
    for x in range(0, T + 1, 200):
        sheet.text(left + x / T * (right - left), bottom + 16, f"{x}", MUTED, anchor="mm")
    sheet.text(left, bottom + 36, "clean picture", MUTED)
    sheet.text((left + right) / 2, bottom + 36, "t", anchor="mm", size=14)
    sheet.text(right, bottom + 36, "pure noise", MUTED, anchor="rm")
    for k in reversed(range(len(series))):
        name, bar = series[k]
        points = [(left + i / T * (right - left), bottom - float(v) * (bottom - top)) for i, v in enumerate(bar)]
        sheet.line(points, inks[k], 4 if k == 0 else 1.8)
        y = top + 12 + 21 * k
        sheet.line([(430, y), (452, y)], inks[k], 4 if k == 0 else 1.8)
        sheet.text(460, y, name)
    return sheet.drawn()


def spacings() -> Image.Image:
    """The rungs of six spacings in a walk of ten steps; orange: pure noise, hollow where it is not visited."""
    n = 10
    rows = (
        ("trailing", "used here", rungs.trailing(T, n)),
        ("leading", "Stable Diffusion 1", rungs.leading(T, n)),
        ("linspace", "both ends", rungs.linspace(T, n)),
        ("quadratic", "the DDIM paper", rungs.quadratic(T, n)),
        ("three sections", '"3,3,4", OpenAI', rungs.sections(T, (3, 3, 4))),
        ("integer stride", '"ddim10", OpenAI', rungs.stride(T, n)),
    )
    left, right, top, tall = 150, 690, 48, 40
    sheet = Sheet(720, top + tall * len(rows) + 46)
    at = {t: left + t / T * (right - left) for t in (1, 500, T)}
    sheet.text((left + right) / 2 + 8, 18, "the walk goes this way", MUTED)
    sheet.arrow(((left + right) / 2, 18), ((left + right) / 2 - 90, 18), MUTED)
    for k, (name, who, visited) in enumerate(rows):
        y = top + k * tall
        sheet.text(12, y - 7, name)
        sheet.text(12, y + 9, who, MUTED, size=11)
        sheet.line([(left, y), (right, y)], LINE)
        for r in visited:
            aside = 5 * ((r - 1 in visited) - (r + 1 in visited))  # neighbours would lie on each other
            sheet.disc(left + r / T * (right - left), y + aside, 5, ORANGE if r == T else INKS[0])
        if T not in visited:
            sheet.disc(at[T], y, 5, None, ORANGE)
    y = top + len(rows) * tall
    for t, text in ((1, "t = 1"), (500, "500"), (T, "1000")):
        sheet.text(at[t], y, text, anchor="mm")
    sheet.text(left, y + 20, "nearly the picture", MUTED)
    sheet.text(right, y + 20, "pure noise (hollow: not visited)", ORANGE, anchor="rm")
    return sheet.drawn()


STILL = {"schedules": schedules, "spacings": spacings}
