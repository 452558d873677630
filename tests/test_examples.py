"""Every example, in a short form, runs and draws the picture that its docstring names."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image
from small import run_config

from minidit.runs.phases import Run

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SHORT = {
    "01_swiss_roll": {"steps": 5, "n": 50},
    "02_digits_pixels": {"steps": 2, "sampling_steps": 2, "per_class": 2},
    "03_latent_dit": {"autoencoder_steps": 1, "steps": 2, "sampling_steps": 2, "hidden_size": 32, "depth": 1},
    "04_ddpm_beside_ddim": {"run": True, "rungs": {"ddim": (2, 3), "ddpm": (2,)}},
    "05_image_to_image": {"run": True, "steps": 3, "n": 2},
    "06_interpolation": {"run": True, "steps": 2, "labels": (3, 5), "columns": 3},
    "07_not_refinement": {"n": 200, "steps": 10},
    "08_one_line": {"n": 60, "counts": (1, 3)},
    "09_reflow": {"steps": 2, "pairs": 30, "n": 20, "width": 8, "counts": (1, 2)},
