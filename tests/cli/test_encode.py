"""`minidit encode`: pictures to latents or tokens and back, the same as in Python."""

import numpy as np
import pytest
from PIL import Image

import minidit as md
from minidit.runs.loading import load
from minidit.runs.presets import SHIPPED

pytestmark = pytest.mark.skipif(not (SHIPPED / "fashion").is_dir(), reason="no shipped weights in this installation")


@pytest.mark.parametrize("name, array", [("fashion", "latents"), ("raster", "codes"), ("scales", "codes")])
def test_what_is_written_is_what_the_pipeline_encodes_and_it_is_read_back(minidit, tmp_path, name, array):
    file, picture, pipeline = tmp_path / "e.npz", tmp_path / "d.png", load(weights=name)
    code, out, err = minidit("encode", "fashion", "--weights", name, "-n", 3, "--out", file)
    assert (code, out) == (0, f"{file}\n")
    assert err.startswith(f"3 pictures, {array} of ") and f"minidit encode {file} --weights {name} makes" in err
    x = md.data.fashion().take(slice(3))
    with np.load(file) as arrays:
        assert np.array_equal(arrays[array], pipeline.encode(x.x_0())) and np.array_equal(arrays["labels"], x.labels)
    assert minidit("encode", file, "--weights", name, "--out", picture)[0] == 0
    with Image.open(picture) as grid:
        assert np.ptp(np.asarray(grid)) > 0


def test_a_png_shows_both_ways(minidit, tmp_path):
    code, _, err = minidit("encode", "fashion", "-n", 2, "--out", tmp_path / "two.png")
    assert code == 0 and 20 < float(err.split(" dB")[0].rpartition(" ")[2]) < 40
    with Image.open(tmp_path / "two.png") as both:
        assert both.height > both.width / 2  # two rows of two


@pytest.mark.parametrize("words, message", [
    (["emoji"], "pictures of 3 x 32 x 32 do not fit an autoencoder of 1 channels"),
    (["fashion", "--weights", "words"], "works on the pixels themselves"),
    (["fashion", "-n", 0], "-n 0 must be at least 1"),
    (["fashion", "--out", "x.jpg"], "the name must end in .png or .npz"),
    (["LATENTS", "--weights", "raster"], "holds latents, and this model has codes"),
    (["LATENTS", "--out", "x.npz"], "the name must end in .png"),
    (["nowhere"], "no such file or folder"),
])  # fmt: skip
def test_what_cannot_be_encoded_is_said_in_one_line(minidit, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    np.savez("latents.npz", latents=np.zeros((2, 4, 8, 8), np.float32))
    code, out, err = minidit("encode", *("latents.npz" if word == "LATENTS" else word for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    assert [p.name for p in tmp_path.iterdir()] == ["latents.npz"]
