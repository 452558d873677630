"""Runs that learn from a run: trajectories, mean velocity, consistency. Trained, stopped, resumed and sampled like any other."""

from dataclasses import fields, replace

import numpy as np
import pytest
from small import begun, interrupted, lines, resumed, run_config, whole
from support import agree

from minidit.data import digits
from minidit.diffusion.solver import AB2_ARC
from minidit.models.dit import DiTConfig
from minidit.models.flow_map import FlowMapConfig
from minidit.processes import distil, pairs
from minidit.processes.sample import Sampling, sample
from minidit.runs.kinds import network_of
from minidit.runs.loading import load
from minidit.runs.process_config import Learner
from minidit.runs.process_kinds import DDPMConfig, RectifiedFlowConfig
from minidit.runs.teacher_kinds import ConsistencyConfig, MeanVelocityConfig, TrajectoriesConfig
from minidit.training.draws import Draws
from minidit.training.source import source_of

TRAJECTORIES = TrajectoriesConfig(T=1000, pool=12, teacher_steps=4)


def flow_map(config: DiTConfig) -> FlowMapConfig:
    return FlowMapConfig(**{f.name: getattr(config, f.name) for f in fields(DiTConfig)})


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Trained runs on the cosine ladder and on the straight path."""
    place, made = tmp_path_factory.mktemp("teachers"), {}
    for name, process in (("ladder", DDPMConfig("v", "cosine", 1000)), ("straight", RectifiedFlowConfig())):
        job, _ = whole(place / name, replace(run_config(), process=process))
        made[name] = str(job.folder)
    return made


def student(kind, teachers):
    """The configuration of a run of this kind."""
    base = run_config()
    return {
        "trajectories": replace(base, model=flow_map(base.model), process=replace(TRAJECTORIES, learn_from=teachers["ladder"])),
        "mean velocity": replace(base, model=flow_map(base.model), process=MeanVelocityConfig(teachers["straight"])),
        "distillation on the ladder": replace(base, process=ConsistencyConfig(teachers["ladder"], levels=6)),
        "distillation on the line": replace(base, process=ConsistencyConfig(teachers["straight"], "straight", 6)),
        "consistency training": replace(base, process=ConsistencyConfig(updates=6, first_levels=3, last_levels=6)),
    }[kind]


KINDS = ["trajectories", "mean velocity", "distillation on the ladder", "distillation on the line", "consistency training"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_trained_resumed_and_sampled_like_any_other_run(kind, teachers, tmp_path):
    config = student(kind, teachers)
    job, pipeline = whole(tmp_path / "whole", config)
    interrupted(tmp_path / "parts", config, 3)
    resumed(tmp_path / "parts")
    again = load(tmp_path / "parts")
    assert np.array_equal(again.model.flat, pipeline.model.flat) and lines(tmp_path / "parts") == lines(job.folder)
    for steps in (None, 1, 2, 4):
        x = again.sample("0-2", n=3, steps=steps)
        assert x.shape == (3, 1, 8, 8) and np.isfinite(x).all()
    assert type(again.process.path) is type(config.process.diffusion().path) and again.usual == config.process.usual


def test_a_flow_map_is_walked_in_equal_steps_and_refuses_other_walks(teachers, tmp_path):
    config = student("trajectories", teachers)
    _, pipeline = whole(tmp_path / "run", config)
    for words, options in {
        "guidance": {"guidance": 2.0}, "fresh noise": {"eta": 1.0}, "order 2": {"solver": "ab2"},
        "spacing": {"spacing": "linspace"}, "path": {"path": "straight"},
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"a flow map is walked in equal steps and takes no .*{words}"):
            pipeline.sample("0", steps=2, **options)
    assert np.array_equal(pipeline.sample("0", steps=2, guidance=1.0, spacing="trailing"), pipeline.sample("0", steps=2))


def test_trajectories_are_walked_once_and_kept_for_a_run_that_goes_on(teachers, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 5)  # several blocks, the last one shorter
    config = student("trajectories", teachers)
    teacher = load(config.process.teacher())
    network = network_of(flow_map(teacher.model.config))
    config = replace(config, data=replace(config.data, cache=str(tmp_path / "cache")))
    reference, _ = whole(tmp_path / "whole", config)
    caches, everything = (None, reference.cache()), np.arange(TRAJECTORIES.pool)
    walked, kept = (config.process.source(source_of(digits()), Learner(network, teacher, cache)) for cache in caches)
    agree(kept.x[everything], walked.x[everything], bound=1e-5)
    interrupted(tmp_path / "run", config, 3)
    monkeypatch.setattr(distil, "sample", lambda *_, **__: pytest.fail("a trajectory was walked again"))
    resumed(tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (reference.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["trajectories", "mean velocity", "distillation on the ladder"])
def test_a_student_begins_with_the_weights_of_its_teacher_and_learns_from_guided_answers(kind, teachers):
    config = student(kind, teachers)
    teacher = load(config.process.teacher())
    teacher.guidance, teacher.interval = 3.0, (0.2, 0.7)
    network = network_of(teacher.model.config if kind.startswith("dist") else flow_map(teacher.model.config))
    source = config.process.source(source_of(digits("test")), Learner(network, teacher))
    process = config.process.process(network, source, teacher)
    theirs = teacher.model.state_dict()
    assert all(np.array_equal(network.state_dict()[name], a) for name, a in theirs.items())
    if kind == "trajectories":
        settings = Sampling(4, solver=AB2_ARC, guidance=3.0, interval=(0.2, 0.7))
        want = sample(teacher.model, teacher.process, np.arange(12) % 10, settings, x_T=source.x[:, 0])
        agree(source.x[:, -1], want, bound=1e-5)
    else:
        guided = process.teacher
        part = teacher.process.path.part
        assert (guided.guidance, guided.low, guided.high) == (3.0, part(0.2), part(0.7)) and guided.network is teacher.model
        index = np.arange(20)
        labels = source.draw(index, Draws(0, 1, index, per=8))[1]
        assert (labels < 10).all()  # no class is left out


@pytest.mark.parametrize("change, words", [
    ({"process": TRAJECTORIES}, "name it with --teacher RUN"),
    ({"process": MeanVelocityConfig()}, "name it with --teacher RUN"),
    ({"model": run_config().model}, "add --model flow_map"),
    ({"model": replace(flow_map(run_config().model), depth=2)}, "begins as a copy of its teacher: it needs depth = 1"),
    ({"process": {"T": 100}}, "is on another ladder"),
    ({"process": {"prediction": "eps"}}, "is on another ladder, or predicts v"),
    ({"process": {"learn_from": "straight"}}, "is on another ladder, or predicts u"),
])  # fmt: skip
def test_a_student_without_its_teacher_or_unlike_it_is_refused_in_one_line(change, words, teachers, tmp_path):
    config = student("trajectories", teachers)
    if isinstance(change.get("process"), dict):
        fields_of = {k: teachers.get(v, v) for k, v in change["process"].items()}
        change = {"process": replace(config.process, **fields_of)}
    job, _ = begun(tmp_path / "run", replace(config, **change))
    with pytest.raises(ValueError, match=words):
        job.train(*job.data())


@pytest.mark.parametrize("bad, message", [
    ({"pool": 0}, "pool = 0"), ({"teacher_steps": 6}, "teacher_steps = 6 a multiple of 4"), ({"single": 1.0}, "single = 1.0"),
    ({"schedule": "line"}, "schedule 'line' is not one of"),
])  # fmt: skip
def test_what_means_nothing_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        TrajectoriesConfig(**bad)
    for other in ({"coordinates": "ve"}, {"levels": 1}, {"sigma_max": 0.0}):
        with pytest.raises(ValueError):
            ConsistencyConfig(**other)


def test_consistency_is_distilled_from_a_teacher_on_its_own_path_only(teachers, tmp_path):
    config = student("distillation on the line", teachers)
    job, _ = begun(tmp_path / "run", replace(config, process=replace(config.process, coordinates="vp")))
    with pytest.raises(ValueError, match="is not on the path 'vp' with the answer v"):
        job.train(*job.data())
