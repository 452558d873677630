"""A process that dies while it moves a run aside, on a full disk, beside others: the next one finds everything that was there."""

import contextlib
import errno
import os
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest
from small import begun, interrupted, lines, resumed, run_config, states, whole

from minidit.checkpoint import CheckpointError, read_arrays
from minidit.runs import folder as files
from minidit.runs import state
from minidit.runs.folder import REPLACED, config_of
from minidit.runs.lock import LOCK, locked
from minidit.runs.phases import Run, resume
from minidit.runs.presets import SampleConfig
from minidit.runs.state import best_of, paths_of
from minidit.training.loop import RunError

OFTEN = replace(run_config(), sample=SampleConfig(steps=3, save_every=2))
OTHER = replace(OFTEN, train=replace(OFTEN.train, seed=7))
posix = pytest.mark.skipif(os.name != "posix", reason="locks of files, signals")


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name[0] != "."}


def killed_at(k, name, work):
    """Does some work in a process that is killed at its k-th call of a function of os."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    real, count = getattr(os, name), 0

    def call(*arguments, **options):
        nonlocal count
        count += 1
        if count == k:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(os, name, call)
    with contextlib.suppress(BaseException):
        work()
    os._exit(0)


# ------------------------------------------------------------------------------------------------ overwriting


@posix
@pytest.mark.parametrize("k", range(1, 7))
def test_a_run_that_was_half_moved_aside_is_whole_for_the_next_process(tmp_path, k):
    job, _ = whole(tmp_path / "run", OFTEN)
    old = contents(job.folder)
    new = Run(job.folder, OTHER)
    new.fit_to(new.data()[0])
    assert killed_at(k, "replace", lambda: new.create(overwrite=True)) == -signal.SIGKILL
    assert set(old.values()) <= set(contents(job.folder).values())
    assert resume(job.folder).config == job.config and contents(job.folder) == old


@posix
@pytest.mark.parametrize("name, k", [("unlink", 1), ("unlink", 2), *(("replace", k) for k in range(1, 6))])
def test_a_return_that_was_cut_short_is_made_to_its_end(tmp_path, name, k):
    job, _ = whole(tmp_path / "run", OFTEN)
    old = contents(job.folder)
    new = Run(job.folder, OTHER)
    new.fit_to(new.data()[0])
    new.create(overwrite=True)
    (new.folder / "metrics.jsonl").write_text("")
    assert killed_at(k, name, lambda: files.undo(new.folder)) == -signal.SIGKILL
    if (new.folder / "config.toml").exists() and config_of(new.folder) == new.config:  # it did not come so far
        files.undo(new.folder)
    resume(new.folder)
    assert contents(new.folder) == old and not (new.folder / REPLACED).exists()


def test_an_overwritten_run_is_not_lost_for_a_tokenizer_that_was_only_copied(tmp_path):
    job, _ = whole(tmp_path / "run", OFTEN)
    old = contents(job.folder)
    for _ in range(2):  # the first new run dies after it has copied the tokenizer of another run
        job.create(overwrite=True)
        (job.folder / "tokenizer.safetensors").write_bytes(b"a copy")
    files.undo(job.folder)
    assert contents(job.folder) == old


def test_a_run_that_another_process_began_meanwhile_is_not_touched(tmp_path):
    first, train = begun(tmp_path / "run", OFTEN)
    second = Run(first.folder, OTHER)
    second.fit_to(train)
    second.create(overwrite=True)
    there = contents(first.folder)
    with pytest.raises(RunError, match="another process has begun a run there: choose another --out"):
        first.train(train)
    assert contents(first.folder) == there


def test_a_start_that_fails_deletes_no_updates_of_another_process(tmp_path, monkeypatch):
    first, train = begun(tmp_path / "run", OFTEN)
    resumed(first.folder)  # another process trains it to its end
    there = contents(first.folder)
    monkeypatch.setattr(Run, "tokenizer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        first.train(train)
    assert contents(first.folder) == there


# ------------------------------------------------------------------------------------------------ full disks


def full(monkeypatch, at):
    """write_arrays fails for the state of some updates, also when it tries again."""
    real = state.write_arrays

    def write(path, *arguments):
        if path.name == f"model-{at:08d}.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, *arguments)

    monkeypatch.setattr(state, "write_arrays", write)


def test_on_a_full_disk_the_state_that_a_stop_left_stays_if_it_is_the_only_one(tmp_path, monkeypatch):
    job = interrupted(tmp_path / "run", replace(OFTEN, sample=SampleConfig(steps=3, save_every=6)), 3)
    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"model-00000003.safetensors is safe"):
        full(patch, 6)
        resumed(job.folder)
    assert states(job.folder) == [3]
    resumed(job.folder)
    whole(tmp_path / "whole", job.config)
    assert paths_of(job.folder, "model")[0].read_bytes() == paths_of(tmp_path / "whole", "model")[0].read_bytes()


def test_room_is_made_by_the_older_states_but_never_by_the_last_whole_one(tmp_path, monkeypatch):
    config = replace(OFTEN, train=replace(OFTEN.train, steps=8), sample=replace(OFTEN.sample, keep=3))
    job = interrupted(tmp_path / "run", config, 7)
    damaged = paths_of(job.folder, "model")[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert states(job.folder)[:3] == [7, 6, 4]
    with monkeypatch.context() as patch, pytest.raises(RunError, match="No space left"):
        full(patch, 8)
        resumed(job.folder)
    assert states(job.folder)[0] == 6 and state.latest(job.folder, "model")[0].done == 6


@posix
@pytest.mark.filterwarnings("ignore")
def test_a_lock_that_cannot_write_its_owner_holds_without_a_name(tmp_path):
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with locked(tmp_path), pytest.raises(RunError, match="in use by another process"), locked(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ locks and children


@posix
def test_a_lock_ends_with_its_process_also_if_a_child_of_it_lives_on(tmp_path):
    (ready, child), (quiet, end) = os.pipe(), os.pipe()
    owner = os.fork()
    if not owner:
        with locked(tmp_path):
            if not os.fork():  # it waits until the test closes its pipe
                os.close(end)
                os.write(child, b"x")
                os.read(quiet, 1)
                os._exit(0)
            signal.pause()
    os.read(ready, 1)
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    with locked(tmp_path):
        pass
    os.close(end)
    for number in (ready, child, quiet):
        os.close(number)


@posix
def test_a_child_that_leaves_the_block_of_a_lock_does_not_release_it(tmp_path):
    with locked(tmp_path):
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                raise SystemExit
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()


# ------------------------------------------------------------------------------------------------ damaged files


def test_damaged_weights_are_written_anew_from_the_last_state(tmp_path):
    job, _ = whole(tmp_path / "run", OFTEN)
    weights = job.folder / "model.safetensors"
    before, notes = contents(job.folder), []
    data = bytearray(before["model.safetensors"])
    data[-9] ^= 1
    weights.write_bytes(data)
    again = resume(job.folder, note=notes.append)
    again.fit_to(again.data()[0])
    again.train(*again.data())
    assert weights.read_bytes() == before["model.safetensors"] and lines(job.folder) == lines(job.folder)
    assert any("damaged" in note and "written anew from" in note and "model-00000006" in note for note in notes)


def test_damaged_weights_without_a_state_are_an_error_and_never_the_start_of_another_training(tmp_path):
    job, _ = whole(tmp_path / "run", OFTEN)
    for path in paths_of(job.folder, "model"):
        path.unlink()
    (job.folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable"):
        resumed(job.folder)


def test_a_folder_in_the_place_of_a_state_is_never_deleted(tmp_path):
    job = interrupted(tmp_path / "run", OFTEN, 3)
    place = job.folder / "states" / "model-00000099.safetensors"
    (place / "mine").mkdir(parents=True)
    again = resumed(job.folder)
    assert (place / "mine").is_dir() and states(again.folder)[:2] == [99, 6]


# ------------------------------------------------------------------------------------------------ more updates


def test_the_best_state_stays_the_best_when_a_run_is_lengthened(tmp_path, monkeypatch):
    measured = iter([0.7, 0.6, 0.1, 0.5, 0.4])  # after 2, 4, 5 (the end), then 6 and 8
    monkeypatch.setattr(trainer, "held_out_loss", lambda loop, source: next(measured))
    config = replace(OFTEN, train=replace(OFTEN.train, steps=5), sample=replace(OFTEN.sample, keep=1))
    job, _ = whole(tmp_path / "run", config)
    job = resume(job.folder)
    job.lengthen({"model": 8})
    job.fit_to(job.data()[0])
    job.train(*job.data())
    assert states(job.folder) == [8, 5] and best_of(job.folder, "model").name == "model-00000005.safetensors"


@pytest.mark.parametrize("final_lr, told", [(0.1, True), (1.0, False)])
def test_a_longer_run_is_told_what_becomes_of_its_learning_rate(tmp_path, final_lr, told):
    config = replace(OFTEN, train=replace(OFTEN.train, final_lr=final_lr, warmup=0))
    job, _ = whole(tmp_path / "run", config)
    notes = []
    job = resume(job.folder, note=notes.append)
    job.lengthen({"model": 12})
    rates = [line["lr"] for line in lines(job.folder) if "lr" in line]
    assert len(notes) == told
    if told:
        assert notes[0].startswith("model: the learning rate goes on at 0.0") and f"it was {rates[-1]:.3g}" in notes[0]
    assert np.isfinite(read_arrays(paths_of(job.folder, "model")[0])[0]["theta"]).all()
