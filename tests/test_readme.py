"""The commands and snippets of the README and of the pages for users run, long ones in a short form; links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import minidit as md
from minidit.cli import main

ROOT = Path(__file__).parent.parent
FOR_USERS = ("README.md", "docs/results.md", "docs/runs.md", "docs/data.md", "docs/python.md")
PAGES = [name for name in FOR_USERS if (ROOT / name).exists()]  # a source distribution has only docs/story
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in PAGES}
BLOCKS = [block for text in TEXTS.values() for block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S)]
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.replace("\\\n", "").splitlines()]
COMMANDS = list(dict.fromkeys(" ".join(line.partition("#")[0].split()) for line in LINES if line.strip()))
SNIPPETS = [block for kind, block in BLOCKS if kind == "python"]
TINY = (
    "--steps 2 --batch-size 4 --ae-steps 2 --ae-batch-size 4 --hidden-size 32 --depth 1 --num-heads 2 --ae-widths 8 8 16 --quiet"
)
SMALL = "--batch-size 4 --hidden-size 32 --depth 1 --num-heads 2 --sample-every 0 --sample-steps 2 --quiet --cache cache"

PAINTED = (
    'minidit sample --prompt "rainbow, fluent" --prompt "cat face, noto" --prompt "red apple, fluent" '
    '--prompt "smiling face with sunglasses, noto" --prompt "woman scientist, dark skin tone, noto" '
    '--prompt "four leaf clover, fluent" --prompt "doughnut, fluent" --prompt "woman pilot, dark skin tone, fluent"'
)

# what a test may leave to others: installation and the test command itself are run by .ci/run, the demo too in its quick form
SHORT = {
    "pip install .": None,
    "minidit demo": None,
    "minidit demo --quick": None,
    PAINTED: f"{PAINTED.removeprefix('minidit ')} --steps 2 --quiet",
    "pip install -e '.[test]' && pytest": None,
    "minidit train --data PICTURES": f"train --data {{pictures}} --out {{run}} --sample-every 2 {TINY}",
    "minidit sample runs/PICTURES --labels 0 --steps 50 --guidance 2 --out grid.png": (
        "sample {run} --labels 0 --steps 2 --guidance 2 --out grid.png --quiet"
    ),
    "minidit sample runs/PICTURES --state best": "sample {run} --labels 0 --steps 2 --state best --out grid.png --quiet",
    "minidit report runs/PICTURES": "report {run}",
    "minidit report runs/PICTURES --csv numbers.csv": "report {run} --csv numbers.csv",
    "minidit report runs/PICTURES --tensorboard tb": None,  # tests/cli/test_report.py
    "minidit train --data PICTURES --dry-run": f"train --data {{pictures}} --dry-run {TINY}",
    "minidit train --help-all": "train --help-all",
    'eval "$(minidit completion bash)"': None,  # tests/cli/test_help.py
    "minidit report runs/PICTURES runs/tuned": "report {run} {run} --out compared.html",
    "minidit train --resume runs/PICTURES": "train --resume {run} --quiet",
    "minidit train --resume runs/PICTURES --steps 6000": "train --resume {run} --steps 3 --quiet",
    "minidit train --data PICTURES --resume auto": f"train --data {{pictures}} --out resumed --resume auto {TINY}",
    "minidit train --data OTHERS --init runs/PICTURES": f"train --data {{pictures}} --init {{run}} --out tuned {TINY}",
    "minidit sample runs/RUN --path straight --solver ab2 --steps 8": (
        "sample {run} --path straight --solver ab2 --steps 2 --out grid.png --quiet"
    ),
    "minidit sample runs/FLOW --shift 3": "sample {run} --path straight --shift 3 --steps 2 --out grid.png --quiet",
    "minidit train --preset digits-flow --out runs/flow": f"train --preset digits-flow --out {{flow}} --steps 2 {SMALL}",
    "minidit train --preset digits-flow --out runs/reflow --pairs runs/flow --init runs/flow --lr 1e-3 --steps 800": (
        f"train --preset digits-flow --out {{flow}}2 --pairs {{flow}} --init {{flow}} --pairs-n 6 --steps 2 {SMALL}"
    ),
    "minidit sample runs/reflow --steps 1": "sample {flow}2 --steps 1 --quiet",
    "minidit train --data clips --pictures 0.25": f"train --data clips --pictures 0.25 --out {{flow}}-clips --steps 2 {SMALL}",
    "minidit sample runs/clips --labels 0-9 --out clips.gif": "sample {flow}-clips --labels 0-9 --steps 2 --out c.gif --quiet",
    "minidit sample runs/clips --labels 0-9 --frames 1": "sample {flow}-clips --labels 0-9 --frames 1 --steps 2 --quiet",
    "minidit eval runs/clips": "eval {flow}-clips -n 6 --quiet",
    "minidit eval runs/PICTURES": "eval {run} -n 6 --ddpm-steps 2 --quiet",
    "pip install '.[cuda12]'": None,
    "mpiexec -n 4 minidit train --data PICTURES": None,  # tests/cli/test_ranks.py
    'minidit sample runs/FOLDER --prompt "a running cat" --prompt "a dog"': None,  # tests/runs/test_captioned_runs.py
    "minidit eval runs/FOLDER": None,
    "minidit info": "info --no-speed",
    "minidit train --data PICTURES --device auto --precision bf16": f"train --data {{pictures}} --out auto --device auto {TINY}",
    "minidit info --memory --network DiT-XL/2 --precision bf16": "info --memory --network DiT-XL/2 --precision bf16",
    "minidit convert WEIGHTS": "convert {weights}",
    "minidit convert WEIGHTS dit.safetensors --to official": "convert {weights} dit.safetensors --to official",
    "minidit verify mine.py": "verify {mine}",
    "minidit verify M02": "verify M02",
    "minidit vectors export vectors": "vectors export vectors",
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
    """A file with somebody's implementation of one topic."""
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text("def guide(eps_u, eps_c, w):\n    return eps_u + w * (eps_c - eps_u)\n")
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "PICTURES"


def test_every_command_of_the_pages_is_known_here():
    unknown = [c for c in COMMANDS if c not in SHORT]
    assert not unknown, f"these commands of {PAGES} are run by no test: {unknown}"


@pytest.mark.skipif("docs/results.md" not in PAGES, reason="no docs beside the tests")
def test_every_command_that_is_tried_here_stands_on_a_page():
    absent = [c for c in SHORT if c not in COMMANDS]
    assert not absent, f"no page shows these commands any more: {absent}"


@pytest.mark.parametrize("command", [c for c in COMMANDS if SHORT.get(c)])
def test_a_command_of_the_pages_runs(command, pictures, weights, mine, run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = SHORT[command].format(pictures=pictures, weights=weights, mine=mine, run=run_folder, flow=run_folder.parent / "flow")
    if short.startswith("eval"):
        config = run_folder / "config.toml"
        config.write_text(re.sub(r"(?s)(\[judge_train\].*?\nsteps = )\d+", r"\g<1>2", config.read_text()))
    assert main(shlex.split(short)) == 0, capsys.readouterr().err


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_pages_runs_or_stands_in_the_code(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippet = SNIPPETS[number]
    if "import minidit" in snippet:
        exec(compile(snippet, "README.md", "exec"), {})
        return
    files = [path for room in ("minidit", "tests") for path in (ROOT / room).rglob("*.py")]
    lines = {line.strip() for path in files for line in path.read_text("utf-8").splitlines()}
    absent = [line for line in snippet.splitlines() if line.strip() and not any(line.strip() in code for code in lines)]
    assert not absent, f"the README shows code that is not there: {absent}"


def test_the_equation_of_the_readme_is_that_of_the_spec():
    name, equation = re.search(r"^> \*\*(\w\.\d+ — .*?)\.?\*\* \$(.*?)\$", TEXTS["README.md"], re.M).groups()
    entry = (ROOT / "SPEC.md").read_text("utf-8").split(f"### {name}\n")[1]
    assert entry.startswith("$$" + equation)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_and_picture_leads_somewhere(name):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]) if not link.startswith("http")]
    targets = [(ROOT / name).parent / link.partition("#")[0] for link in links]
    if not (ROOT / "docs/results.md").exists():
        targets = [target for target in targets if "docs" not in target.parts]
    assert links and not [str(target) for target in targets if not target.exists()]
    for link in links:
        page, _, anchor = link.partition("#")
        if anchor and page in PAGES:
            headings = re.findall(r"^#+ (.*)", TEXTS[page], re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_reading_order_names_files_that_exist():
    table = TEXTS["README.md"].split("## Reading order")[1].split("\n## ")[0]
    absent = []
    for row in re.findall(r"^\| (`.*?) \|", table, re.M):
        names = re.findall(r"`([^`]+)`", row)
        folder = names[0].rpartition("/")[0]  # `diffusion/level.py`, `step.py`: the folder is named once
        absent += [n for n in names if not any((ROOT / "minidit" / place).exists() for place in (n, f"{folder}/{n}"))]
    assert not absent


def test_the_readme_is_short():
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 150
    assert not [line for text in TEXTS.values() for line in text.splitlines() if len(line) >= 150 and not line.startswith("|")]


@pytest.mark.parametrize("page", [p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]])
def test_every_row_of_a_table_belongs_to_a_table(page):
    """A blank line ends a table: rows behind it would be shown as text with bars."""
    text = re.sub(r"(?ms)^ *(```|~~~).*?^ *\1", lambda m: "\n" * m[0].count("\n"), (ROOT / page).read_text("utf-8"))
    lines = ["", *text.splitlines(), ""]
    for above, line, below in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("| ") and not above.startswith("|"):
            assert re.fullmatch(r"\|[ :|-]+\|", below), f"{page}: no table begins with {line!r}"
