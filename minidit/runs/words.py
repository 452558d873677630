"""The words of a run that stand for laws: ladders, spacings, samplers, solvers, paths, weights of a loss.

    --solver ab2_arc  ->  SOLVERS["ab2_arc"]  ->  AB2_ARC, an object of diffusion/solver.py

Those of whole processes, networks and tokenizers are in kinds.py.
"""

from __future__ import annotations

from collections.abc import Callable

from minidit.diffusion import loss, rungs
from minidit.diffusion.fresh import DDPM, DDPM_LEARNED, EVERYTHING, Fresh, ddim
from minidit.diffusion.path import Exploding, Path, Straight
from minidit.diffusion.rungs import Spacing, by_length
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2, AB2_ARC, DPM_2M, EULER, HEUN, HEUN_EDM, Solver
from minidit.processes.diffusion import Weight

# A new ladder: a classmethod in diffusion/schedule.py with its equation in SPEC.md, and a row here.
SCHEDULES: dict[str, Callable[[int], Schedule]] = {  # T -> the ladder
    "linear": Schedule.linear, "cosine": Schedule.cosine, "scaled_linear": Schedule.scaled_linear,
}  # fmt: skip
SPACINGS: dict[str, Spacing] = {  # (a ladder, N) -> rungs
    "trailing": by_length(rungs.trailing), "linspace": by_length(rungs.linspace), "leading": by_length(rungs.leading),
    "quadratic": by_length(rungs.quadratic), "karras": rungs.karras,
}  # fmt: skip
SAMPLERS: dict[str, Callable[[float, bool], Fresh]] = {  # (η, whether the network has learned the variance) -> fresh noise
    "ddim": lambda eta, learned: ddim(eta),
    "ddpm": lambda eta, learned: DDPM_LEARNED if learned else DDPM,
    "consistency": lambda eta, learned: EVERYTHING,
}
SOLVERS: dict[str, Solver] = {  # of walks without fresh noise
    "euler": EULER, "heun": HEUN, "heun_edm": HEUN_EDM, "ab2": AB2, "ab2_arc": AB2_ARC, "dpm_2m": DPM_2M,
}  # fmt: skip
PATHS: dict[str, Callable[[], Path]] = {  # coordinates in which any trained network can be walked
    "vp": Schedule.cosine, "straight": Straight, "ve": Exploding,
}  # fmt: skip
WEIGHTS: dict[str, Weight | None] = {"uniform": None, "min_snr": loss.min_snr, "by_noise": loss.by_noise}
