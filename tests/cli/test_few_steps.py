"""`minidit sample --steps 1|2|4` without a run: the shipped flow map, and nothing else of the command changes."""


import numpy as np
import pytest

from minidit.cli import main
from minidit.cli.parser import Parser
from minidit.cli.sample import add_arguments, in_few_steps
from minidit.models.dit import DiT
from minidit.models.flow_map import FlowMapDiT
from minidit.runs.loading import FEW_STEPS, load, load_few_steps
from minidit.runs.presets import SHIPPED

pytestmark = pytest.mark.skipif(not (SHIPPED / "fashion" / FEW_STEPS).exists(), reason="no weights for few steps are shipped")


def asked(*words):
    parser = Parser()
    add_arguments(parser)
    return in_few_steps(parser.parse_args(list(words)))


def drawn(folder, *words):
    file = folder / "x.npz"
    assert main(["sample", *words, "--labels", "shirt,bag", "--out", str(file), "--quiet"]) == 0
    with np.load(file) as arrays:
        return arrays["arr_0"]


def test_one_two_and_four_steps_without_more_words_mean_the_flow_map():
    assert all(asked("--steps", n) for n in ("1", "2", "4"))
    assert all(asked("--steps", "2", *more) for more in (["--labels", "bag"], ["-n", "3"], ["--seed", "5"], ["--out", "a.gif"]))
    assert not any(asked("--steps", n) for n in ("3", "8", "50")) and not asked() and not asked("a-run", "--steps", "1")
    for more in (
        ["--guidance", "4"], ["--guidance", "1"], ["--guidance-interval", "0.2", "0.7"], ["--solver", "euler"],
        ["--solver", "ab2"], ["--sampler", "ddpm"], ["--eta", "1"],
        ["--spacing", "trailing"], ["--path", "straight"], ["--state", "best"],
    ):  # fmt: skip
        assert not asked("--steps", "4", *more), more


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_command_draws_the_pictures_of_the_flow_map(steps, tmp_path):
    few = load_few_steps()
    labels = few.labels("shirt,bag")
    want = few.sample(labels, steps=steps, seed=0)
    got = drawn(tmp_path, "--steps", str(steps))
    assert got.shape == (2, 28, 28, 1)
    assert np.abs(got[..., 0] / 127.5 - 1 - want[:, 0]).max() < 0.01
    other = drawn(tmp_path, "--steps", str(steps), "--solver", "euler")
    plain = load().sample(labels, steps=steps, seed=0)
    assert np.abs(other[..., 0] / 127.5 - 1 - plain[:, 0]).max() < 0.01 and np.abs(plain - want).max() > 0.1


def test_the_shipped_flow_map_has_the_sizes_of_its_teacher_and_its_classes():
    few, teacher = load_few_steps(), load()
    assert type(few.model) is FlowMapDiT and type(teacher.model) is DiT
    assert few.class_names == teacher.class_names and few.crop == teacher.crop and few.usual.few and few.guidance == 1.0
    assert few.process.path.grid(4) == teacher.process.path.grid(4) and few.process.answer is teacher.process.answer
    assert np.array_equal(few.tokenizer.autoencoder.flat, teacher.tokenizer.autoencoder.flat)
    assert (SHIPPED / "fashion" / FEW_STEPS).stat().st_size < 8_000_000
    assert (SHIPPED / "fashion" / "FEW_STEPS.md").read_text().startswith("# Fashion-MNIST in one, two and four steps")


def test_one_step_ends_near_where_its_teacher_ends_in_eight():
    few, teacher = load_few_steps(), load()
    y = list(range(10)) * 2
    ends = teacher.latents(y, steps=8, solver="ab2_arc", seed=7)
    far = {
        "student": np.mean((few.latents(y, steps=1, seed=7) - ends) ** 2),
        "teacher": np.mean((teacher.latents(y, steps=1, seed=7) - ends) ** 2),
    }
    assert far["student"] < 0.3 * far["teacher"], far
