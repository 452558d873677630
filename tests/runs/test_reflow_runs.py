"""A run that learns from another: reflow from the command line, stopped, resumed, and what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from small import PROCESSES, begun, folder_of_pictures, interrupted, lines, resumed, run_config, whole

from minidit.checkpoint import CheckpointError
from minidit.cli import main
from minidit.processes.reflow import DrawnPairs, StoredPairs
from minidit.runs.config import read_config
from minidit.runs.folder import config_of
from minidit.runs.loading import load
from minidit.runs.phases import Run
from minidit.runs.presets import SampleConfig
from minidit.runs.process_config import Learner
from minidit.runs.process_kinds import RectifiedFlowConfig
from minidit.training.source import source_of

GUIDED = SampleConfig(steps=3, guidance=3.0, interval=(0.2, 0.7), save_every=2)


def student(teacher, cache, *, pixels=True, **changes):
    """The configuration of a reflow."""
    config = run_config(pixels=pixels, cache=str(cache))
    process = RectifiedFlowConfig(pairs=str(teacher), **{"pairs_n": 12, "pairs_steps": 3} | changes)
    return replace(config, process=process, sample=GUIDED)


@pytest.fixture(scope="module", params=PROCESSES)
def teacher(request, tmp_path_factory):
    """The folder of a finished run of every process."""
    config = replace(run_config(process=request.param), sample=GUIDED)
    return whole(tmp_path_factory.mktemp("runs") / "teacher", config)[0].folder


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "drawn"])
def test_a_run_learns_from_the_pairs_of_a_run_on_any_path(tmp_path, teacher, kept):
    config = student(teacher, tmp_path / "cache", **({} if kept else {"pairs_n": 0}))
    job, pipeline = whole(tmp_path / "run", config)
    assert config_of(job.folder) == job.config and job.config.process == config.process
    assert job.config.sample.guidance == 1.0 and job.config.sample.interval == (0.0, 1.0)  # guidance is in the pairs
    assert (pipeline.guidance, load(job.folder).guidance) == (1.0, 1.0)
    assert (tmp_path / "cache").exists() == kept
    losses = [line["loss"] for line in lines(job.folder) if "loss" in line]
    assert np.isfinite(losses).all() and "held_out_loss" in lines(job.folder)[-1]


@pytest.mark.parametrize("pairs_n, source", [(12, StoredPairs), (0, DrawnPairs)])
def test_pairs_are_drawn_as_the_run_says_and_their_labels_are_never_left_out(tmp_path, teacher, pairs_n, source):
    config = student(teacher, tmp_path / "cache", pairs_solver="heun", pairs_guidance=1.5)
    job, train = begun(tmp_path / "run", replace(config, process=replace(config.process, pairs_n=pairs_n)))
    phase = job.model_phase(None, job.tokenizer(train) or source_of(train), None)
    assert type(phase.source) is source
    if source is DrawnPairs:
        how = phase.source.maker.settings
        assert (how.steps, how.guidance, how.interval, how.solver.asks_twice) == (3, 1.5, (0.0, 1.0), True)
        assert phase.source.source.labels is not None and type(phase.source.source).__name__ == "Pictures"
    held = job.config.process.source(source_of(train), Learner(phase.network, job.teacher(), job.cache(), held_out=True))
    if source is StoredPairs:
        assert (len(phase.source), len(held)) == (12, 2) and not np.isin(
            held.z[np.arange(2)], phase.source.z[np.arange(12)]
        ).any()


@pytest.mark.parametrize("pairs_n", [12, 0])
def test_a_reflow_that_was_stopped_ends_with_the_bits_of_one_that_was_not(tmp_path, teacher, pairs_n):
    config = student(teacher, tmp_path / "cache", pairs_noise=0.5)
    config = replace(config, process=replace(config.process, pairs_n=pairs_n))
    reference, _ = whole(tmp_path / "whole", config)
    for step in (1, 3):
        run = interrupted(tmp_path / f"run{step}", config, step).folder
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # it is made again
        resumed(run)
        for file in ("model.safetensors", "states/model-00000006.safetensors"):
            assert (run / file).read_bytes() == (reference.folder / file).read_bytes(), step
        assert lines(run) == lines(reference.folder), step


def test_a_teacher_that_has_other_weights_now_is_refused(tmp_path):
    first, _ = whole(tmp_path / "teacher", run_config(process="rectified_flow"))
    interrupted(tmp_path / "run", student(first.folder, tmp_path / "cache"), 3)
    shutil.rmtree(first.folder)
    with pytest.raises(CheckpointError, match="teacher: there is no such file"):
        resumed(tmp_path / "run")
    other = run_config(process="rectified_flow")
    whole(tmp_path / "teacher", replace(other, train=replace(other.train, seed=3)))
    with pytest.raises(CheckpointError, match="learned from a network whose weights are others now: bring them back, or begin"):
        resumed(tmp_path / "run")


def test_a_student_keeps_the_tokenizer_of_its_teacher(tmp_path):
    latent = run_config(pixels=False, process="edm")
    first, _ = whole(tmp_path / "teacher", replace(latent, tokenizer_train=replace(latent.tokenizer_train, seed=3)))
    second, _ = whole(tmp_path / "run", student(first.folder, tmp_path / "cache", pixels=False))
    ours, theirs = (load(job.folder / "tokenizer.safetensors") for job in (second, first))
    assert np.array_equal(ours.flat, theirs.flat) and float(ours.scale) == float(theirs.scale)
    with pytest.raises(ValueError, match=r"the teacher .*: its model works on latents, this run on pixels"):
        begun(tmp_path / "third", student(first.folder, tmp_path / "cache"))


def test_what_cannot_learn_from_a_run_is_refused_before_any_work(tmp_path):
    first, _ = whole(tmp_path / "teacher", run_config(process="rectified_flow"))
    with pytest.raises(CheckpointError, match="nowhere: there is no such file"):
        begun(tmp_path / "run", student(tmp_path / "nowhere", tmp_path / "cache"))
    config = student(first.folder, tmp_path / "cache")
    other = replace(config, data=replace(config.data, source=folder_of_pictures(tmp_path / "p")))
    with pytest.raises(ValueError, match=r"its model makes \(1, 8, 8\) of 10 classes, this one \(3, 8, 8\) of 2"):
        whole(tmp_path / "other", other)
    assert not (tmp_path / "run").exists() and not (tmp_path / "other").exists()
    for wrong in ({"pairs_noise": 1.5}, {"pairs_steps": 0}):
        with pytest.raises(ValueError, match="is out of range"):
            replace(config.process, **wrong)
    with pytest.raises(ValueError, match="pairs_solver 'heum' is not one of euler, heun"):
        replace(config.process, pairs_solver="heum")


def test_a_reflow_is_one_line_of_the_command(tmp_path):
    tiny = ["--hidden-size", "32", "--depth", "1", "--num-heads", "2", "--batch-size", "8", "--steps", "2", "--sample-steps", "2",
            "--classifier-steps", "2", "--sample-every", "0", "--quiet", "--cache", str(tmp_path / "cache")]  # fmt: skip
    first, second = (str(tmp_path / name) for name in ("first", "second"))
    assert main(["train", "--preset", "digits-flow", *tiny, "--out", first]) == 0
    again = ["--preset", "digits-flow", "--pairs", first, "--init", first, "--pairs-n", "6", "--pairs-steps", "2"]
    assert main(["train", *again, *tiny, "--out", second]) == 0
    assert main(["eval", second, "-n", "8", "--quiet"]) == 0
    assert read_config(tmp_path / "second" / "config.toml").process.pairs == first
    assert main(["sample", second, "--steps", "1", "--labels", "0-3", "--out", str(tmp_path / "one.png"), "--quiet"]) == 0
    assert Run(tmp_path / "second", config_of(tmp_path / "second")).config.sample.guidance == 1.0
