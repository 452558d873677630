"""placeholder of the lead's"""

from __future__ import annotations

from dataclasses import dataclass

from minidit.diffusion.prediction import Prediction
from minidit.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Diffusion:
    path: Schedule
    answer: Prediction
