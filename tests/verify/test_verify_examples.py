"""The examples of verification run and say what they promise; those that need PyTorch or diffusers are skipped without them."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidit import verify
from minidit.cli import main
from minidit.verify import vectors

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "verify"


def example(name):
    where = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(where)
    where.loader.exec_module(module)
    return module


def needs(*packages):
    for name in packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (pip install 'minidit[peers]')")


def test_every_example_is_tried_here():
    tried = {"numpy_step", "test_mine", "torch_functions", "torch_training", "torch_dit", "diffusers_schedulers", "read_vectors"}
    assert {p.stem for p in FOLDER.glob("*.py")} == tried


def test_five_lines_name_a_mistake(capsys):
    report = example("numpy_step").main()
    assert report.mistakes == ["M02"] and "M02 ALPHA_PREV_INDEX" in capsys.readouterr().out


def test_the_readme_shows_what_its_snippet_prints(capsys):
    text = (ROOT / "README.md").read_text("utf-8").split("## Verify yours in 5 lines")[1]
    snippet, shown = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", text, re.S).groups()
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out == shown


def test_a_foreign_suite_is_parametrised_by_the_kit(tmp_path):
    """It passes as it is; with a mistake in it, the case of that topic fails and says its name."""
    text = (FOLDER / "test_mine.py").read_text("utf-8")
    (tmp_path / "test_right.py").write_text(text, "utf-8")
    (tmp_path / "test_wrong.py").write_text(text.replace("1e-6", "1e-5"), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no"]
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, env=here, timeout=120)
    assert done.returncode == 1 and "1 failed, 3 passed" in done.stdout
    assert "test_wrong.py::test_mine[layer_norm]" in done.stdout and "M61 LN_EPS" in done.stdout


def test_functions_on_tensors_are_right(capsys):
    needs("torch")
    assert example("torch_functions").main().ok and example("torch_training").main().ok
    assert main(["verify", "torch", str(FOLDER / "torch_functions.py"), "--topics", "layers"]) == 0
    capsys.readouterr()


def test_a_torch_module_of_other_names_is_right_and_its_mistake_named():
    needs("torch")
    made = example("torch_dit")
    right, wrong = made.main(), made.main(wrong=True, topics=["dit"])
    assert right.ok and {f.topic.name for f in right.findings} == {"dit", "dit_gradients", "parameter_shapes"}
    assert wrong.mistakes == ["M65"]


@pytest.mark.filterwarnings("default")  # theirs, not ours
def test_schedulers_of_diffusers_have_only_named_habits():
    needs("torch", "diffusers")
    for report in example("diffusers_schedulers").main():
        assert all(f.passed or f.candidates for f in report.findings)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    vectors.export(folder)
    return folder


def test_a_runner_without_minidit_reads_the_vectors(suite):
    code = "import runpy, sys; sys.modules['minidit'] = None; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(FOLDER / "read_vectors.py"), str(suite)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "WRONG" not in done.stdout and done.stdout.count("ok    ") > 8


def test_that_runner_sees_mistakes_and_answers_to_nonsense(suite):
    run = example("read_vectors").main
    wrong = run(suite, {"guide": lambda u, c, w: np.broadcast_to(u[0, 0, 0, 0], u.shape)})
    assert not any(wrong.values()) and "guidance.guide.refused-shapes" in wrong


def test_another_library_answers_the_vectors(suite):
    """Every case of the layers and conversions, answered by torch, is within the stated tolerance."""
    needs("torch")
    outcome = example("read_vectors").main(suite, verify.torch.functions(example("torch_functions").mine()))
    assert all(outcome.values()) and len(outcome) > 60
