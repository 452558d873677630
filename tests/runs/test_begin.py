"""The first second of a run: what is looked at before any work, and that a start that fails leaves nothing behind."""

import errno
import json
import os
import platform
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace

import pytest
from small import begun, run_config, whole

from minidit.runs import checks, lock
from minidit.runs.folder import sweep
from minidit.runs.lock import LOCK, locked
from minidit.runs.phases import Run
from minidit.training.loop import RunError


def started(folder, config=None):
    job = Run(folder, config or run_config())
    job.fit_to(job.data()[0])
    job.create()
    return job


def test_a_place_where_nothing_may_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(checks.os, "access", lambda path, mode: False)
    with pytest.raises(RunError, match=rf"no permission to write in {tmp_path}: choose another --out"):
        started(tmp_path / "deep" / "run")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/run"):
        with pytest.raises(NotADirectoryError, match="file is a file, not a folder: choose another --out"):
            started(tmp_path / place)


def test_a_disk_that_is_too_small_is_noticed_before_any_work(tmp_path, monkeypatch):
    job = Run(tmp_path / "run", run_config())
    job.fit_to(job.data()[0])
    need = checks.bytes_of(job.config)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage(1, 1, need - 1))
    with pytest.raises(RunError, match=r"the run needs about 0\.\d\d GB, 0\.\d\d GB are free there: make room"):
        job.create()
    assert not list(tmp_path.iterdir())
    more = checks.bytes_of(replace(job.config, sample=replace(job.config.sample, keep=5)))
    assert more > need


def test_a_run_on_its_disk_is_never_larger_than_was_asked_for(tmp_path):
    config = replace(run_config(pixels=False), sample=replace(run_config().sample, save_every=1, keep=2))
    job, _ = begun(tmp_path / "run", config)
    largest = []
    job.tell = lambda *_: largest.append(sum(p.stat().st_size for p in job.folder.rglob("*") if p.is_file()))
    job.train(*job.data())
    assert max(largest) < checks.bytes_of(job.config)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_start_that_fails_leaves_nothing_behind_and_an_overwritten_run_comes_back(tmp_path, overwrite, monkeypatch):
    before = {}
    if overwrite:
        job, _ = whole(tmp_path / "run")
        before = {p: p.read_bytes() for p in job.folder.rglob("*") if p.is_file()}
    job = Run(tmp_path / "run", run_config())
    job.fit_to(job.data()[0])
    job.create(overwrite=overwrite)

    def fails(*_):
        raise MemoryError("as if")

    monkeypatch.setattr(job, "model_phase", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        job.train(*job.data())
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert list(tmp_path.iterdir()) == ([tmp_path / "run"] if overwrite else [])


def test_a_folder_in_which_a_first_write_was_killed_is_free(tmp_path):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    gone = int(child.stdout)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f".config.toml.{gone}.tmp").write_text("[da")
    (folder / LOCK).write_text("")
    job = started(folder)
    assert {p.name for p in job.folder.iterdir()} == {"config.toml"}


def test_only_temporary_files_of_a_run_whose_process_is_gone_are_swept(tmp_path):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    gone, here, other = int(child.stdout), os.getpid(), os.getppid()
    names = (
        ".config.toml.{}.tmp", "states/.model-00000004.safetensors.{}.tmp", "samples/.step_00000002.png.{}.tmp",
        "pictures/.ddim.png.{}.tmp",
    )  # fmt: skip
    swept = [name.format(pid) for name in names for pid in (gone, here)]  # this process has begun to write nothing
    kept = [
        f".config.toml.{other}.tmp",
        f".notes.txt.{gone}.tmp",
        "mine.tmp",
        f"mine/.config.toml.{gone}.tmp",
    ]
    for name in swept + kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    sweep(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(kept)


# ------------------------------------------------------------------------------------------------ the lock


def test_a_lock_leaves_no_file_and_names_its_owner_while_it_is_held(tmp_path):
    with locked(tmp_path):
        owner = json.loads((tmp_path / LOCK).read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), platform.node())
        with pytest.raises(RunError, match=rf"in use by process {os.getpid()} on {platform.node()}, since "), locked(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that has no locks."""

    def flock(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)


@pytest.mark.skipif(os.name != "posix", reason="locks of files")
def test_where_there_are_no_locks_the_file_is_one(tmp_path, without_locks):
    told = rf"in use by process {os.getpid()} .*; if that process is gone, delete .*lock"
    with locked(tmp_path), pytest.raises(RunError, match=told), locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="locks of files")
@pytest.mark.parametrize("host, pid, free", [("here", 2**22 + 1, True), ("elsewhere", 2**22 + 1, False), ("here", 1, False)])
def test_a_stale_lock_of_this_host_is_taken_over_and_one_of_another_is_named(tmp_path, without_locks, host, pid, free):
    owner = {"pid": pid, "host": platform.node() if host == "here" else host, "since": "yesterday"}
    (tmp_path / LOCK).write_text(json.dumps(owner))
    if free:
        with locked(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    else:
        with pytest.raises(RunError, match=f"process {pid} on {owner['host']}, since yesterday; if"), locked(tmp_path):
            pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": -1, "host": "h", "since": "s"}', "\x00" * 50])
def test_a_damaged_lock_file_of_a_dead_process_stands_in_nobodys_way(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with locked(tmp_path):
        pass
