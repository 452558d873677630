"""A run's folder: what lies in it, and that it never replaces anything unasked."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from small import PROCESSES, begun, lines, run_config, whole

from minidit.checkpoint import load_model, read_arrays
from minidit.runs.config import tables_of
from minidit.runs.folder import delete_replaced
from minidit.runs.lock import locked
from minidit.runs.phases import Run
from minidit.runs.presets import SampleConfig
from minidit.runs.state import paths_of
from minidit.training.loop import RunError


@pytest.mark.parametrize("process", PROCESSES)
def test_a_run_leaves_what_its_page_promises(tmp_path, process):
    config = replace(run_config(process=process), sample=SampleConfig(steps=3, every=2, save_every=4))
    job, pipeline = whole(tmp_path / "run", config)
    assert {p.name for p in job.folder.iterdir()} == {
        "config.toml", "metrics.jsonl", "model.safetensors", "states", "samples",
    }  # fmt: skip
    assert [p.name for p in sorted((job.folder / "samples").iterdir())] == ["step_00000002.png", "step_00000004.png"]
    arrays, meta = read_arrays(paths_of(job.folder, "model")[0])
    assert (meta["phase"], meta["step"]) == ("model", 6) and set(arrays) == {"theta", "m", "v", "ema"}
    model, meta = load_model(job.folder / "model.safetensors")
    assert np.array_equal(model.flat, arrays["ema"]) and np.array_equal(pipeline.model.flat, model.flat)
    assert meta["data"]["class_names"] == [str(i) for i in range(10)] and meta["run"]["process"]["kind"] == process
    assert meta["run"] == json.loads(json.dumps(tables_of(job.config)))
    steps = [(line["step"], "held_out_loss" in line) for line in lines(job.folder)]
    assert steps == [(1, False), (4, True), (6, True)]


def test_a_run_never_replaces_another_unasked(tmp_path):
    job, _ = begun(tmp_path / "run")
    with pytest.raises(RunError, match="holds a run already: choose another --out, --resume it, or --overwrite"):
        job.create()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_is_never_put_among_other_files(tmp_path, overwrite):
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(RunError, match="holds files that are not a run"):
        begun_in = Run(tmp_path, run_config())
        begun_in.fit_to(begun_in.data()[0])
        begun_in.create(overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]


def test_overwriting_leaves_nothing_of_the_old_run_and_nothing_else_is_touched(tmp_path):
    job, _ = whole(tmp_path / "run", replace(run_config(), sample=SampleConfig(steps=3, every=2)))
    own = ("judge.safetensors", "eval.json", "report.html", "trace.npz", "pictures/ddim.png")
    for name in (*own, "notes.txt", "mine/photo.png"):
        (job.folder / name).parent.mkdir(exist_ok=True)
        (job.folder / name).write_text("old")
    job.create(overwrite=True)
    delete_replaced(job.folder)
    left = {str(p.relative_to(job.folder)) for p in job.folder.rglob("*") if p.is_file()}
    assert left == {"config.toml", "notes.txt", "mine/photo.png"} and not (job.folder / ".replaced").exists()


def test_an_overwritten_run_waits_aside_until_the_new_one_has_its_first_checkpoint(tmp_path):
    job, _ = whole(tmp_path / "run")
    old = (job.folder / "model.safetensors").read_bytes()
    for _ in range(2):  # a second start that came to nothing leaves it there as well
        job.create(overwrite=True)
        assert (job.folder / ".replaced" / "model.safetensors").read_bytes() == old
        assert not (job.folder / "model.safetensors").exists()
    job.train(job.data()[0])
    assert (job.folder / "model.safetensors").exists() and not (job.folder / ".replaced").exists()


@pytest.mark.parametrize("text", ["[tool]\nname = 'x'\n", "not TOML at all [", ""])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_somebody_elses_config_is_no_run(tmp_path, text, overwrite):
    mine = {"config.toml": text, "package.json": "{}", "model.safetensors": "mine", "pictures/holiday.png": "mine"}
    for name, content in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    job = Run(tmp_path, run_config())
    job.fit_to(job.data()[0])
    with pytest.raises(RunError, match="holds files that are not a run"):
        job.create(overwrite=overwrite)
    assert {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == mine


def test_a_state_that_is_not_finite_never_replaces_one_that_is(tmp_path):
    job, _ = begun(tmp_path / "run", replace(run_config(), sample=SampleConfig(steps=3, save_every=2)))

    def poison(phase, record, steps):
        if record["step"] == 5:
            job.loop.optimiser.average[3] = np.nan

    job.tell = poison
    told = "averaged weights of the model are not finite after update 6: .*the weights of .*model-00000004.safetensors are safe"
    with pytest.raises(RunError, match=told):
        job.train(job.data()[0])
    arrays, meta = read_arrays(paths_of(job.folder, "model")[0])
    assert meta["step"] == 4 and all(np.isfinite(a).all() for a in arrays.values())


@pytest.mark.skipif(os.name != "posix", reason="locks of files")
def test_one_process_at_a_time_works_in_a_folder_and_the_next_finds_it_free(tmp_path):
    job, _ = begun(tmp_path / "run")
    for work in (lambda: job.train(job.data()[0]), lambda: job.create(overwrite=True)):
        with locked(job.folder), pytest.raises(RunError, match=rf"in use by process {os.getpid()} on \S+, since "):
            work()
    job.train(job.data()[0])
    assert (job.folder / "model.safetensors").exists()


@pytest.mark.skipif(os.name != "posix", reason="locks of files")
def test_a_lock_dies_with_its_process(tmp_path):
    job, _ = begun(tmp_path / "run")
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with locked(job.folder):
            os.write(write, b"x")
            signal.pause()
    os.read(read, 1)
    with pytest.raises(RunError, match="in use"), locked(job.folder):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with locked(job.folder):
        pass
