"""Zero terminal signal (Lin, Liu, Li, Yang 2024): at t = T nothing of the picture is left.

    r_t = √ᾱ_t      r'_t = (r_t - r_T) r_1/(r_1 - r_T)      ᾱ'_t = r'_t²      t = 1..T          (D.16)

ᾱ'_1 = ᾱ_1 and ᾱ'_T = 0. Such a ladder needs a network that predicts v or x_0, and a sampler that starts at T.
"""

from __future__ import annotations

import numpy as np

from minidit.diffusion.schedule import Schedule


def zero_terminal_snr(sch: Schedule) -> Schedule:
    """The same ladder with √ᾱ shifted and stretched so that ᾱ_T = 0. Raises ValueError if T = 1."""
    if sch.T == 1:
        raise ValueError("a ladder of one rung cannot keep ᾱ_1 and reach ᾱ_T = 0")
    r = sch.alpha_bar[1:] ** 0.5
    r = (r - r[-1]) * r[0] / (r[0] - r[-1])
    return Schedule(np.append(1.0, r**2), sch.time)  # (D.16)
