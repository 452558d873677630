"""The examples of verification run and say what they promise; those that need PyTorch or diffusers are skipped without them."""

import importlib.util
import os
import re
import subprocess
import sys
import types
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


def altered(name, right, wrong):
    """The example with one piece of its text changed."""
    text, module = (FOLDER / f"{name}.py").read_text("utf-8"), types.ModuleType(f"altered_{name}")
    assert text.count(right) == 1, (right, text.count(right))
    exec(compile(text.replace(right, wrong), f"{name}.py", "exec"), module.__dict__)
    return module


def needs(*packages):
    for name in packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (pip install 'minidit[peers]')")


def test_every_example_is_tried_here():
    tried = {"numpy_step", "test_mine", "diffusers_schedulers", "read_vectors", "torch_dit"}
    assert {p.stem for p in FOLDER.glob("*.py")} == tried.union(WHOLE)


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


# one mistake in each file, as a change of its text, and the topics that are asked then
WHOLE = {
    "torch_functions": (
        "M59", 'F.gelu(x, approximate="tanh")\n\n\ndef silu', "F.gelu(x)\n\n\ndef silu", ["gelu", "silu", "linear"]),
    "torch_sampling": ("M31", "eps = (x_t - math.sqrt(a) * x_0) / math.sqrt(1 - a)", "pass", ["ddim_step", "ddim_step_clipped"]),
    "torch_training": ("M39", "eps_hat.detach()", "eps_hat", ["hybrid_loss", "hybrid_gradient"]),
    "torch_continuous": (
        "M106", "sigma_data / (t.square() + data).sqrt()", "sigma_data / ((t - end).square() + data).sqrt()",
        ["consistency_scalings", "consistency_end"]),
    "scipy_continuous": ("M102", "np.ones(len(x_0))) - straight_sample(x_0, eps, np.zeros(len(x_0)))",
        "np.zeros(len(x_0))) - straight_sample(x_0, eps, np.ones(len(x_0)))", ["straight_sample", "straight_velocity"]),
    "torch_unet": ("M125c", "angle.sin(), angle.cos()", "angle.cos(), angle.sin()", ["unet_time_embedding"]),
    "scipy_unet": ("X202", "(silu(c) @ w.T + b)", "(c @ w.T + b)", ["unet_block", "group_norm"]),
    "torch_tokens": (
        "M130", "F.mse_loss(e, z.detach()) + beta * F.mse_loss(z, e.detach())",
        "beta * F.mse_loss(e, z.detach()) + F.mse_loss(z, e.detach())", ["codebook_loss", "straight_through"]),
    "scipy_tokens": ("M133", "def keys(x, a=-0.75)", "def keys(x, a=-0.5)", ["bicubic_rows", "residual_codes", "scale_inputs"]),
    "torch_streams": (
        "M159", 'entered(x, *parts_of(weights, "adaLN_modulation.1", c, 2))',
        'entered(x, *parts_of(weights, "adaLN_modulation.1", c, 2)[::-1])', ["stream_final", "single_block"]),
    "scipy_streams": (
        "M164", "np.array([clip[b, :, s] for b in range(B) for s in range(N // T)])", "x.reshape(-1, T, D)",
        ["factorised_groups", "group_conditions"]),
    "torch_around": ("X237", "copy.deepcopy(torch.as_tensor(theta))", "torch.as_tensor(theta)", ["ema_object"]),
    "scipy_around": ("X235", "alpha_bar[-1] ** 0.5 * x_0", "alpha_bar[-1] * x_0", ["prior_moments", "weighted_loss"]),
    "scipy_sampling": ("M14", "np.cos(a) ** 2, 0.999)", "np.cos(a) ** 2, 1.0)", ["cosine_betas", "linear_betas"]),
    "scipy_network": ("X56", "np.add.at(table, self.y, c_bar)", "table[self.y] += c_bar", ["dit_gradients"]),
    "scipy_training": ("M38", "1e-3 * len(alpha_bar) * kl", "1e-3 * kl", ["hybrid_loss", "hybrid_gradient"]),
}  # fmt: skip


def answers(name, module):
    """The example's functions as the kit asks them."""
    return verify.torch.functions(module.mine()) if name.startswith("torch") else module.mine()


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_implementation_in_another_library_is_right(name, capsys):
    needs(*(["torch"] if name.startswith("torch") else []))
    report = example(name).main()
    assert report.ok and "equal" in {f.verdict for f in report.findings} and capsys.readouterr().out


@pytest.mark.parametrize("name", WHOLE)
def test_and_with_one_mistake_in_it_gets_its_name(name):
    needs(*(["torch"] if name.startswith("torch") else []))
    mistake, right, wrong, topics = WHOLE[name]
    report = verify.check(answers(name, altered(name, right, wrong)), topics=topics)
    assert report.mistakes == [mistake]


def test_two_whole_implementations_answer_every_topic_that_is_no_draw():
    needs("torch")
    exact = {name for name, topic in verify.TOPICS.items() if not topic.allowed}
    for library, more in (("torch", ["torch_dit"]), ("scipy", [])):
        named = [example(name).mine() for name in (*WHOLE, *more) if name.startswith(library)]
        assert exact == set().union(*named), library


def test_functions_on_tensors_are_asked_from_the_command_line(capsys):
    needs("torch")
    assert main(["verify", "torch", str(FOLDER / "torch_functions.py"), "--topics", "layers"]) == 0
    capsys.readouterr()


def test_a_torch_module_of_other_names_is_right_and_its_mistake_named():
    needs("torch")
    made = example("torch_dit")
    right, wrong = made.main(), made.main(wrong=True, topics=["dit"])
    assert right.ok and {"dit", "dit_gradients", "dit_square", "initial_weights"} < {f.topic.name for f in right.findings}
    assert wrong.mistakes == ["M65"]
    unchecked = altered("torch_dit", "torch.equal(first, other)", "True")
    assert verify.check(unchecked.mine(), topics=["checkpoints"]).mistakes == ["X70"]


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
