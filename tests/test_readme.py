"""Every command and every snippet of the README runs, long ones in a short form."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import minidit as md
from minidit.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.M | re.S)
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
COMMANDS = [line.partition("#")[0].strip() for line in LINES if line.strip()]
TINY = (
    "--steps 2 --batch-size 4 --ae-steps 2 --ae-batch-size 4 --hidden-size 32 --depth 1 --num-heads 2 "
    "--ae-widths 8 8 16 --quiet"
)

# what a test may leave to others: installation and the test command itself are run by .ci/run
SHORT = {
    "pip install .": None,
    "pip install . && minidit demo": None,
    "pip install -e '.[test]' && pytest": None,
    "minidit train --data PICTURES": f"train --data {{pictures}} --out {{run}} --sample-every 2 {TINY}",
    "minidit sample runs/PICTURES --labels 0 --steps 50 --guidance 2 --out grid.png": (
        "sample {run} --labels 0 --steps 2 --guidance 2 --out grid.png --quiet"
    ),
    "minidit eval runs/PICTURES": "eval {run} -n 6 --ddpm-steps 2 --quiet",
    "pip install '.[cuda12]'": None,
    "minidit info": "info --no-speed",
    "minidit train --data PICTURES --device auto --precision bf16": f"train --data {{pictures}} --out auto --device auto {TINY}",
    "minidit info --memory --preset DiT-XL/2 --precision bf16": "info --memory --preset DiT-XL/2 --precision bf16",
    "minidit convert WEIGHTS": "convert {weights}",
    "minidit convert WEIGHTS dit.safetensors --to official": "convert {weights} dit.safetensors --to official",
    "minidit verify mine.py": "verify {mine}",
    "minidit verify M02": "verify M02",
    "minidit vectors export vectors": "vectors export vectors",
    "minidit sample --labels 0-9 --out grid.png": "sample --labels 0-9 --steps 2 --out grid.png --quiet",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty small pictures in two classes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for kind in ("cat", "dog"):
        (folder / kind).mkdir()
        for i in range(20):
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small DiT as diffusers would save it."""
    folder = tmp_path_factory.mktemp("weights") / "dit"
    config = md.DiTConfig(input_size=8, hidden_size=24, depth=1, num_heads=3, num_classes=5)
    md.save(folder, md.DiT(config, md.Philox(0)), grammar="diffusers")
    return folder


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A file with an implementation of somebody's."""
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text("def guide(eps_u, eps_c, w):\n    return eps_u + w * (eps_c - eps_u)\n")
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "PICTURES"


def test_every_command_of_the_readme_is_known_here():
    unknown = [c for c in COMMANDS if c not in SHORT]
    assert not unknown, f"these commands of the README are run by no test: {unknown}"


@pytest.mark.parametrize("command", [c for c in COMMANDS if SHORT.get(c)])
def test_a_command_of_the_readme_runs(command, pictures, weights, mine, run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = SHORT[command].format(pictures=pictures, weights=weights, mine=mine, run=run_folder)
    if short.startswith("eval"):
        config = run_folder / "config.toml"
        config.write_text(re.sub(r"(\[classify\][^\[]*?\nsteps = )\d+", r"\g<1>2", config.read_text()))
    assert main(short.split()) == 0, capsys.readouterr().err


@pytest.mark.parametrize("number", range(len([1 for kind, _ in BLOCKS if kind == "python"])))
def test_a_snippet_of_the_readme_runs_or_stands_in_the_code(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippet = [block for kind, block in BLOCKS if kind == "python"][number]
    if "import minidit" in snippet:
        exec(compile(snippet, "README.md", "exec"), {})
        return
    lines = {line.strip() for path in (ROOT / "minidit").rglob("*.py") for line in path.read_text().splitlines()}
    absent = [line for line in snippet.splitlines() if line.strip() and not any(line.strip() in code for code in lines)]
    assert not absent, f"the README shows code that is not there: {absent}"
