"""Guidance distillation: its target is guidance, a fresh student is its teacher, one scale per sample, runs of its own kind."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn import plain
from small import begun, run_config, whole
from support import agree, host, spec

from minidit.diffusion import times
from minidit.diffusion.guidance import guide
from minidit.diffusion.path import Straight
from minidit.diffusion.prediction import U
from minidit.models.dit import DiT, DiTConfig
from minidit.models.guided import GuidedConfig, GuidedDiT, OfScale
from minidit.processes.diffusion import drawn
from minidit.processes.guidance import GuidanceDistillation
from minidit.random import Philox
from minidit.runs.loading import load
from minidit.runs.process_kinds import RectifiedFlowConfig
from minidit.runs.teacher_kinds import GuidanceConfig, begun_as
from minidit.training.draws import Draws
from minidit.training.loop import LoopConfig
from minidit.training.memory import memory_of_step

SEEDS = st.integers(0, 2**32 - 1)
CONFIG = DiTConfig(input_size=4, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=3, learn_sigma=False)


def teacher(seed=0):
    return plain.grown(DiT(CONFIG, None, dtype=np.float64), seed=seed, size=0.3)[0]


def distillation(network, **more):
    return GuidanceDistillation(Straight(), U, drawn(times.uniform), network, **more)


def batch(seed, n=4):
    r = np.random.default_rng(seed)
    return r.standard_normal((n, *CONFIG.shape)), r.uniform(0.1, 0.9, n), r.integers(0, 3, n)


@spec("G.9", "T.28")
@settings(max_examples=10)
@given(SEEDS)
def test_a_fresh_student_answers_as_its_teacher_does_and_is_right_at_w_1(seed):
    network = teacher(seed)
    student = GuidedDiT.like(network, Philox(seed))
    x, t, y = batch(seed)
    for w in (None, 1.0, 4.5):
        agree(student(x, 1000 * t, y, w=w), network(x, 1000 * t, y).data, bound=0, of="T.28")
    target = distillation(network).target(x, t, y, np.ones(4))
    agree(target, network(x, 1000 * t, y).data, bound=1e-12, of="G.9")


@spec("G.1", "G.9")
@settings(max_examples=10)
@given(SEEDS, st.floats(0.0, 8.0))
def test_the_target_is_guidance_by_each_sample_s_own_scale(seed, w):
    network, (x, t, y) = teacher(seed), batch(seed)
    scales = np.array([w, 1.0, 0.0, 2 * w])
    c, u = (host(network(x, 1000 * t, label)) for label in (y, network.null(y)))
    expected = np.stack([guide(u[i : i + 1], c[i : i + 1], float(scales[i]))[0] for i in range(4)])
    agree(distillation(network).target(x, t, y, scales), expected, bound=1e-12, of=("G.1", "G.9"))


@spec("G.9")
def test_the_loss_is_zero_where_the_student_is_guided_already():
    """A teacher that does not look at the class: guidance changes nothing, the copy is perfect. One that does is not copied."""
    network = teacher()
    process, x_0 = distillation(network), batch(1)[0]
    draws = lambda: Draws(7, process.stream, np.arange(4), "cpu", per=process.per)
    losses, _ = process.loss(GuidedDiT.like(network, Philox(0)), x_0, batch(1)[2], draws())
    assert (host(losses) > 1e-6).all()
    network.y_embedder.embedding_table.weight.data[...] = 1.0
    losses, _ = process.loss(GuidedDiT.like(network, Philox(0)), x_0, batch(1)[2], draws())
    agree(losses, np.zeros(4), bound=1e-20, of="G.9")


class Silent:
    """A student that answers zero and remembers what it was asked."""

    def __call__(self, x, t, y, *, w):
        self.asked = x, t, y, w
        return np.zeros_like(x)


@spec("G.9")
@settings(max_examples=10)
@given(SEEDS)
def test_an_error_counts_beside_the_size_of_the_answer(seed):
    """Who answers zero is wrong by all of F_w: its loss is |F_w|² / (1 + |F_w|²), which grows with w, but never above 1."""
    network, student = teacher(seed), Silent()
    x_0, _, y = batch(seed, n=16)
    process = distillation(network, low=1.0, high=200.0)
    losses, _ = process.loss(student, x_0, y, Draws(seed, process.stream, np.arange(16), "cpu", np.float64, process.per))
    x, time, y, w = student.asked
    size = (process.target(x, time / 1000, y, w) ** 2).mean(axis=(1, 2, 3))
    agree(losses, size / (1 + size), bound=1e-12, of="G.9")


@spec("T.28")
@settings(max_examples=5)
@given(SEEDS)
def test_at_w_1_a_trained_student_is_the_plain_network_of_its_weights(seed):
    student = plain.grown(GuidedDiT(GuidedConfig(**vars(CONFIG)), None, dtype=np.float64), seed=seed, size=0.3)[0]
    plain_dit = DiT(CONFIG, None, dtype=np.float64)
    plain_dit.load_state_dict({n: a for n, a in student.state_dict().items() if "guidance" not in n})
    x, t, y = batch(seed)
    agree(student(x, t, y), plain_dit(x, t, y).data, bound=1e-14, of="T.28")
    agree(OfScale(student, 3.0)(x, t, y), student(x, t, y, w=np.full(4, 3.0)).data, bound=0, of="T.28")
    assert np.abs(host(student(x, t, y, w=3.0)) - host(student(x, t, y))).max() > 1e-9


def test_its_numbers_are_counted():
    config = GuidedConfig(**vars(CONFIG))
    assert config.parameters() == sum(a.size for a in GuidedDiT(config, None).state_dict().values())
    assert memory_of_step(config, LoopConfig(batch_size=2)).total > 0
    with pytest.raises(ValueError, match="learn_sigma must be False"):
        replace(config, learn_sigma=True)


def test_a_teacher_that_learns_the_variance_has_no_student():
    learned = DiT(replace(CONFIG, learn_sigma=True), None)
    with pytest.raises(ValueError, match=r"--process guidance: its teacher learns the variance, .* needs learn_sigma = False"):
        begun_as(GuidedDiT(GuidedConfig(**vars(CONFIG)), None), learned, "guidance")


def test_a_run_learns_its_teacher_s_guidance_and_draws_in_one_call_per_step(tmp_path):
    base = replace(run_config(), process=RectifiedFlowConfig())
    job, _ = whole(tmp_path / "teacher", base)
    model = GuidedConfig(**{f.name: getattr(base.model, f.name) for f in fields(DiTConfig)})
    config = replace(base, model=model, process=GuidanceConfig(str(job.folder), "straight"))
    _, pipeline = whole(tmp_path / "student", config)
    again = load(tmp_path / "student")
    calls, forward = [], GuidedDiT.forward

    def counting(self, x, t, y=None, *, w=None):
        calls.append((len(x), w))
        return forward(self, x, t, y, w=w)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GuidedDiT, "forward", counting)
        x = again.latents([0, 1], steps=3, guidance=2.5, shards=1)
    assert calls == [(2, 2.5)] * 3
    agree(x, pipeline.latents([0, 1], steps=3, guidance=2.5, shards=1), bound=0)
    with pytest.raises(ValueError, match="guided on the whole path"):
        again.latents([0, 1], steps=3, guidance=2.5, interval=(0.2, 0.7))


@pytest.mark.parametrize(("change", "message"), [
    ({"model": CONFIG}, "add --model guided"),
    ({"process": GuidanceConfig("", "straight")}, "name it with --teacher RUN"),
])  # fmt: skip
def test_a_student_that_cannot_learn_is_refused_by_name(change, message, tmp_path):
    base = replace(run_config(), process=RectifiedFlowConfig())
    job, _ = whole(tmp_path / "teacher", base)
    model = GuidedConfig(**{f.name: getattr(base.model, f.name) for f in fields(DiTConfig)})
    config = replace(base, model=model, process=GuidanceConfig(str(job.folder), "straight"))
    change = {"model": base.model} if "model" in change else change
    with pytest.raises(ValueError, match=message):
        student, _ = begun(tmp_path / "student", replace(config, **change))
        student.train(*student.data())
