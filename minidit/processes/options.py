"""The keywords of `md.sample` and `md.train`: the fields of Sampling and of LoopConfig, for editors and type checkers."""

from __future__ import annotations

from typing import TypedDict

from minidit.diffusion.fresh import Fresh
from minidit.diffusion.path import Path
from minidit.diffusion.prediction import Prediction
from minidit.diffusion.rungs import Spacing
from minidit.diffusion.solver import Solver
from minidit.diffusion.threshold import Limit
from minidit.processes.walk import Grid


class SamplingOptions(TypedDict, total=False):
    """The fields of `md.Sampling`; see there for their meaning and defaults."""

    steps: int | None
    spacing: Spacing | None
    grid: Grid | None
    path: Path | None
    solver: Solver
    fresh: Fresh
    prediction: Prediction | str | None
    guidance: float
    interval: tuple[float, float]
    clip: bool
    limit: Limit | None
    seed: int
    shards: int
    precision: str
    graph: bool


class TrainingOptions(TypedDict, total=False):
    """The fields of `md.LoopConfig`; see there for their meaning and defaults."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    warmup: int
    final_lr: float
    clip: float
    ema: float
    steps: int
    batch_size: int
    seed: int
    shards: int
    precision: str
    accumulate: int
    graph: bool
    detect_anomaly: bool
    checkpoint_blocks: bool
