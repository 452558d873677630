"""The page of the one line draws what the samplers of the package do."""

import base64

import numpy as np
import pytest

from minidit.diffusion.level import Level
from minidit.html import line
from minidit.random import Philox


def ends(name, count, points=64):
    sampler = next(s for s in line.SAMPLERS if s.name == name)
    z = Philox(seed=3).normal((points, 2), dtype=np.float64)
    grid = list(sampler.on.grid(count))
    *_, (_, x) = line.moments(sampler.on.start(z), sampler.on, grid, sampler.fresh, sampler.guess, Philox(seed=4))
    return x


def test_without_fresh_noise_all_paths_end_at_the_same_points():
    """But for the ends of the paths: the exploding path stops at a finite noise."""
    ddim, straight, edm = (ends(name, 400) for name in ("DDIM", "rectified flow", "EDM"))
    for other in (straight, edm):
        distance = np.linalg.norm(ddim - other, axis=1)
        assert np.median(distance) < 0.01


def test_one_step_of_a_denoiser_is_the_mean_of_the_data_and_one_of_a_consistency_model_is_a_sample():
    assert np.abs(ends("rectified flow", 1)).max() < 0.05
    nearest = np.linalg.norm(ends("consistency", 1)[:, None] - line.RING.means, axis=-1).min(axis=1)
    assert np.median(nearest) < 0.1


@pytest.mark.parametrize("at", [Level(1.0, 80.0), Level(0.0, 1.0), Level(1.0, 0.0)])
def test_a_cloud_is_drawn_at_the_variance_of_the_data_whatever_its_path(at):
    rng = np.random.default_rng(0)
    x = at.alpha * line.SPREAD**0.5 * rng.standard_normal((4000, 2)) + at.sigma * rng.standard_normal((4000, 2))
    shown = np.frombuffer(line.drawn(x, at), np.int8).astype(float) * line.REACH / 127
    assert shown.var() == pytest.approx(line.SPREAD, rel=0.05)


def test_every_walk_has_a_frame_per_stop_and_every_sampler_a_row(monkeypatch):
    monkeypatch.setattr(line, "COUNTS", (1, 3))
    monkeypatch.setattr(line, "POINTS", 5)
    frames, rows = line.walks()
    assert [(f["name"], f["steps"]) for f in frames] == [(s.name, k) for s in line.SAMPLERS for k in (1, 3)]
    for f in frames:
        assert len(f["levels"]) == f["steps"] + 1 and len(base64.b64decode(f["x"])) == 2 * 5 * len(f["levels"])
    assert [row[0] for row in rows] == [*(s.name for s in line.SAMPLERS), "other points of the data"]
