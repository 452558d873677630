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
    "10_one_step": {"n": 60, "steps": 2, "width": 8, "counts": (1, 2)},
    "11_minibatch_ot": {"steps": 2, "n": 20, "width": 8, "counts": (1, 2)},
    "13_tokens": {"each": 2, "rounds": 2, "steps": 2},
    "12_words": {"steps": 2, "sampling_steps": 2, "width": 8, "depth": 1},
    "own_network": {"steps": 2, "sampling_steps": 2, "width": 8},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two tiny finished runs: pixels, and latents."""
    folders = []
    for pixels in (True, False):
        job = Run(tmp_path_factory.mktemp("runs") / "tiny", run_config(pixels=pixels))
        train, _ = job.data()
        job.fit_to(train)
        job.create()
        job.train(train)
        folders.append(job.folder)
    return folders


def test_every_example_is_tried_and_short_and_says_what_one_sees():
    assert [path.stem for path in EXAMPLES] == sorted(SHORT)
    for path in EXAMPLES:
        text = path.read_text("utf-8")
        assert len(text.splitlines()) < 80 and text.startswith('"""') and ".png" in text.split('"""')[1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_draws_its_picture(path, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(path))["main"]
    options = SHORT[path.stem]
    for k in range(2 if "run" in options else 1):
        main(**(options | {"run": runs[k]} if "run" in options else options))
        (name,) = re.findall(r"^(\w+\.png)$", capsys.readouterr().out, re.MULTILINE)
        with Image.open(name) as picture:
            assert min(picture.size) > 50
        assert f"{name}:" in path.read_text("utf-8").split('"""')[1]
        Path(name).unlink()
    assert not list(tmp_path.iterdir())


def test_without_a_run_the_fourth_example_draws_with_the_shipped_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES[3]))["main"](rungs={"ddim": (1, 2)})
    assert Path("ddpm_beside_ddim.png").exists()
