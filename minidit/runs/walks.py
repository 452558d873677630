"""How samples may be asked for: the words of a walk, the usual ones where none is named, and what is refused.

    steps=8, solver="ab2_arc"  ->  Settings  ->  a Sampling, by `Pipeline.settings`, or a Writing, by `Writer.writing`
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

from minidit.backend import Array
from minidit.choices import check_word
from minidit.diffusion.path import Path, Straight
from minidit.diffusion.schedule import Schedule
from minidit.models.guided import GuidedDiT, OfScale
from minidit.processes.sample import Sampling
from minidit.processes.walk import Progress
from minidit.runs.process_config import Usual
from minidit.runs.words import PATHS, SAMPLERS, SOLVERS, SPACINGS


class Settings(TypedDict, total=False):
    """The options of `Pipeline.settings`; see there for their meaning and defaults."""

    steps: int | None
    spacing: str
    path: str
    shift: float | None
    guidance: float | None
    interval: tuple[float, float] | None
    sampler: str
    solver: str
    eta: float
    seed: int
    shards: int
    precision: str
    temperature: float | None
    top_k: int | None
    top_p: float | None
    rising: bool | None


class Options(Settings, total=False):
    """The options of `Pipeline.latents`."""

    n: int
    x_T: Array | None
    progress: Progress | None


def steps_of(ladder: Schedule | None, usual: int, wanted: int | None, flag: str) -> int:
    """A number of steps; None: the usual one, or as many as there are. Raises ValueError for more than there are rungs."""
    if wanted is None:
        return usual if ladder is None else min(usual, ladder.T)
    if ladder is not None and wanted > ladder.T:
        raise ValueError(f"{flag} {wanted}: the ladder has {ladder.T} rungs")
    return wanted


def words_of_walk(usual: Usual, sampler: str, solver: str, eta: float, path: str) -> tuple[str, str]:
    """(sampler, solver), the usual ones where none is named.

    A solver of second order is not usual where noise is drawn, nor EDM's Heun where a walk begins without signal.
    """
    sampler = sampler or usual.sampler
    check_word("sampler", sampler, SAMPLERS)
    if not solver:
        noisy, heun = sampler != "ddim" or eta > 0, path not in ("", "ve") and usual.solver == "heun_edm"
        solver = "euler" if noisy else "heun" if heun else usual.solver
    check_word("solver", solver, SOLVERS)
    return sampler, solver


def other_path(own: Path, word: str, shift: float | None) -> Path | None:
    """The path of a word of PATHS, or a shifted straight one; None for a walk in the coordinates of the training."""
    if word:
        check_word("path", word, PATHS)
    path = PATHS[word]() if word else own
    if shift is not None:
        if not isinstance(path, Straight):
            raise ValueError("only the times of the straight path are shifted: add --path straight")
        if not shift > 0:
            raise ValueError(f"shift {shift:g} must be above 0 (1: the times as they are)")
        return replace(path, shift=shift)
    return None if type(path) is type(own) else path


def in_one_call(network: GuidedDiT, settings: Sampling) -> tuple[OfScale, Sampling]:
    """A network that knows its guidance, asked for this scale once per step. Raises ValueError for a part of the path only."""
    if settings.guidance != 1 and settings.interval != (0.0, 1.0):
        raise ValueError("a network that knows its guidance is guided on the whole path: give the interval 0 1")
    return OfScale(network, settings.guidance), replace(settings, guidance=1.0)


def refuse_other_walks(settings: Sampling) -> None:
    """Raises ValueError, with what to leave out, for walks that a flow map was not trained for: it goes in equal steps."""
    asked = {
        "guidance: that of its teacher is in its weights": settings.guidance != 1,
        "fresh noise": settings.fresh.noisy,
        "a solver of order 2": settings.solver.answer is not None,
        "another spacing": settings.spacing is not None and settings.spacing is not SPACINGS["trailing"],
        "another path": settings.path is not None,
    }
    if reasons := [reason for reason, true in asked.items() if true]:
        raise ValueError(f"a flow map is walked in equal steps and takes no {reasons[0]}; leave it out")
