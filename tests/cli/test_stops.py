"""How the real command stops: signals in every order, a terminal that is gone, a job that is started again."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import states

from minidit.checkpoint import read_arrays
from minidit.runs.phases import resume
from minidit.runs.state import paths_of

ROOT = Path(__file__).parents[2]
TINY = [
    "--data", "digits", "--hidden-size", "32", "--depth", "1", "--num-heads", "2", "--batch-size", "8", "--shards", "2",
    "--T", "20", "--sample-steps", "3", "--sample-every", "0",
]  # fmt: skip
LONG = ["--steps", "1000000"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


def command(*words, before=(), **options):
    """The command in a session of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    words = [*before, sys.executable, "-m", "minidit", *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(words, env=environment, start_new_session=True, **streams)


def training(folder, *more, before=(), **options):
    """A training of hours that has made its first updates."""
    process = command("train", *TINY, *LONG, "--out", folder, *more, before=before, **options)
    while not (folder / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)  # for the file, not for a time
    return process


def group_is_empty(process):
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def whole_state(folder):
    """The number of updates of the latest state, which is whole."""
    return read_arrays(paths_of(folder, "model")[0])[1]["step"]


@pytest.mark.parametrize("numbers", [
    [signal.SIGINT, signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP, signal.SIGHUP], 2 * [signal.SIGHUP],
])  # fmt: skip
def test_a_terminal_that_closes_also_after_a_ctrl_c_waits_for_the_state(tmp_path, numbers):
    with training(tmp_path / "run") as process:
        for number in numbers:
            os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
    done = whole_state(tmp_path / "run")
    assert process.returncode - 128 in numbers and out == "" and group_is_empty(process)  # of two at once, one is the first
    assert err.endswith(f"minidit: stopped at update {done} of the model; continue with: minidit train --resume {tmp_path}/run\n")
    assert resume(tmp_path / "run").config.train.steps == 1000000 and not (tmp_path / "run" / ".lock").exists()


def test_a_terminal_that_closes_while_the_last_update_is_made_waits_for_it(tmp_path):
    with training(tmp_path / "run", "--batch-size", 512) as process:  # an update that lasts
        os.killpg(process.pid, signal.SIGINT)
        while (line := process.stderr.readline()) and not line.startswith("stopping when this update is saved"):
            pass
        os.killpg(process.pid, signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 130 and whole_state(tmp_path / "run") > 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once_and_what_was_saved_is_whole(tmp_path, second):
    """The first one is sent to a command that sleeps, so that the second one finds the update unfinished."""
    with training(tmp_path / "run", "--sample-save-every", 5) as process:
        while not states(tmp_path / "run") and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGSTOP)
        for number in (signal.SIGINT, second):
            os.killpg(process.pid, number)
        os.kill(process.pid, signal.SIGCONT)
        process.communicate(timeout=60)
    assert process.returncode in (-second, 128 + signal.SIGINT, -signal.SIGINT)
    assert whole_state(tmp_path / "run") >= 5
    end = time.monotonic() + 10
    while not group_is_empty(process) and time.monotonic() < end:
        time.sleep(0.01)
    assert group_is_empty(process)  # the workers went with it


def test_a_quiet_command_says_how_to_go_on_as_well(tmp_path):
    with training(tmp_path / "run", "--quiet") as process:
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "")
    first, last = err.splitlines()
    assert first == "stopping when this update is saved (again: at once)" and last.startswith("minidit: stopped at update")


def test_nohup_is_obeyed(tmp_path):
    with training(tmp_path / "run", before=["nohup"], stdin=subprocess.DEVNULL) as process:
        os.killpg(process.pid, signal.SIGHUP)
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143 and whole_state(tmp_path / "run") > 0


def test_a_terminal_that_is_gone_costs_no_update(tmp_path):
    """Its end is closed, so that everything written to it fails; then comes the signal that a terminal sends."""
    ours, theirs = pty.openpty()
    with training(tmp_path / "run", stdout=theirs, stderr=theirs, text=False) as process:
        os.close(theirs)
        os.close(ours)
        before = len((tmp_path / "run" / "metrics.jsonl").read_bytes())
        while len((tmp_path / "run" / "metrics.jsonl").read_bytes()) == before and process.poll() is None:
            time.sleep(0.01)  # it goes on though nobody listens
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGHUP)
        process.wait(timeout=60)
    assert process.returncode == 129 and whole_state(tmp_path / "run") > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends when it next looks at its pipe")
def test_a_worker_ends_with_a_caller_that_was_killed_whatever_it_is_doing(tmp_path):
    with training(tmp_path / "run") as process:
        workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)  # it will not read its pipe again
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    end = time.monotonic() + 10
    while not group_is_empty(process) and time.monotonic() < end:
        time.sleep(0.01)
    assert workers and group_is_empty(process)


def test_sampling_stops_at_once(tmp_path):
    with command("sample", "--steps", 900, "-n", 64, "--out", tmp_path / "grid.png") as process:
        while "sampling" not in process.stderr.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in err and not list(tmp_path.iterdir()) and group_is_empty(process)


# ------------------------------------------------------------------------------------------------ jobs that are started again


def finished(*words):
    with command(*words) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def again(minidit):
    """The command in this process, drawing nothing at the end of a training."""
    return lambda *words: minidit(*words, "--no-gallery")


def test_the_same_command_with_resume_auto_begins_goes_on_and_rests(tmp_path, again):
    words = ["train", *TINY, "--steps", 6, "--out", tmp_path / "run", "--resume", "auto", "--quiet"]
    assert finished(*words)[:2] == (0, f"{tmp_path}/run\n")
    first = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "model.safetensors").unlink()  # as if it had been killed before its last file
    assert again(*words)[0] == 0 and (tmp_path / "run" / "model.safetensors").read_bytes() == first
    assert again(*words)[0] == 0 and states(tmp_path / "run") == [6]
    words[words.index(6)] = 8
    assert again(*words)[0] == 0 and states(tmp_path / "run")[0] == 8
    code, out, err = again(*words, "--lr", 0.5)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"{tmp_path}/run holds a run of another configuration: lr is 0.5, was" in err and "choose another --out" in err


def test_a_run_is_resumed_with_more_updates(tmp_path, again):
    assert again("train", *TINY, "--steps", 4, "--out", tmp_path / "run", "--quiet")[0] == 0
    code, _, err = again("train", "--resume", tmp_path / "run", "--steps", 7)
    assert code == 0 and "model: 7/7" in err and states(tmp_path / "run")[0] == 7
    code, _, err = again("train", "--resume", tmp_path / "run", "--steps", 5)
    assert code == 1 and err.endswith("the model has made 7 updates, 5 is not possible: an update cannot be taken back\n")
    code, _, err = again("train", "--resume", tmp_path / "run", "--steps", 9, "--lr", 1)
    assert code == 2 and "leave out lr" in err


def test_how_an_update_is_computed_may_change_when_a_run_goes_on(tmp_path, again):
    words = ["train", *TINY, "--steps", 6, "--out", tmp_path / "run", "--quiet"]
    assert again(*words)[0] == 0
    more = ["train", "--resume", tmp_path / "run", "--steps", 8, "--quiet", "--detect-anomaly", "--accumulate", 2]
    assert again(*more)[0] == 0 and states(tmp_path / "run")[0] == 8


def test_a_pipe_in_the_place_of_a_configuration_stops_nobody(tmp_path):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "config.toml")
    code, out, err = finished("train", *TINY, "--steps", 1, "--out", tmp_path / "run")
    assert (code, out) == (1, "") and "holds files that are not a run" in err
