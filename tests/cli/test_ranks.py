"""The commands under mpiexec: rank 0 alone writes, and what it writes is what one process would have written."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from several import end, minidit, needs_mpi, processes, run, start
from support import agree

from minidit.checkpoint import read_arrays
from minidit.runs.state import paths_of

pytestmark = needs_mpi
TINY = [
    "--data", "digits", "--hidden-size", "32", "--depth", "1", "--num-heads", "2", "--batch-size", "8", "--threads", "4",
    "--T", "20", "--sample-steps", "3", "--sample-every", "4", "--sample-save-every", "3",
]  # fmt: skip
AUTOENCODER = ["--tokenizer", "autoencoder", "--ae-steps", "4", "--ae-batch-size", "8"]
ONLY_THE_FIRST = """
import os, sys
from minidit.training.launch import launch
if launch().me:
    def hook(event, args):
        writes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")
        writes |= event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) != 0
        if writes and FOLDER in str(args[0]):
            os.write(2, f"rank {launch().me} writes {args[0]}\\n".encode())
            os._exit(3)
    sys.addaudithook(hook)
from minidit.cli import main
sys.exit(main(sys.argv[1:]))
"""
ON = """
import sys
from pathlib import Path
from minidit.runs.phases import Stopped, resume
job = resume(Path(sys.argv[1]))
job.tell = lambda name, record, steps: setattr(job.loop, "stop", record["step"] == int(sys.argv[2]))
train, _ = job.data()
job.fit_to(train)
try:
    job.train(*job.data())
except Stopped as stop:
    if job.ranks.first: print(stop)
"""


def watched(n, folder, *words):
    """A command on n ranks, of which all but the first may write nothing into the folder."""
    return run(n, "-c", f"FOLDER = {str(folder)!r}" + ONLY_THE_FIRST, *words)


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("wall_s", "img_per_s")} for line in lines]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    job = minidit(1, "train", *TINY, *AUTOENCODER, "--steps", 6, "--out", folder)
    assert job.code == 0, job.err
    return folder


def test_two_and_four_ranks_leave_the_files_of_one_and_only_the_first_writes(alone, tmp_path):
    for n in (2, 4):
        folder = tmp_path / str(n)
        job = watched(n, tmp_path, "train", *TINY, *AUTOENCODER, "--steps", 6, "--out", folder)
        assert (job.code, job.out) == (0, f"{folder}\n"), job.err
        lines = job.err.splitlines()
        assert lines[0].startswith("digits: 1500 pictures") and sum(line.startswith("model: 6/6") for line in lines) == 1
        for name in sorted(str(p.relative_to(alone)) for p in alone.rglob("*.safetensors")):
            assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
        assert metrics(folder) == metrics(alone)
        assert {p.name for p in folder.rglob("*")} == {p.name for p in alone.rglob("*")}


@pytest.mark.parametrize("how", ["the launcher", "one rank"])
def test_a_stopped_job_saves_its_state_and_another_number_of_ranks_goes_on_to_the_same_bits(tmp_path, how):
    folder = tmp_path / "run"
    process = start(4, "-m", "minidit", "train", *TINY, "--steps", 1000000, "--out", folder)
    while not (line := process.stderr.readline()).startswith("model: ") and line:
        pass
    if how == "the launcher":
        process.send_signal(signal.SIGUSR1)  # which it passes on to all
    else:
        assert len(processes(process)) == 4
        os.kill(processes(process)[-1], signal.SIGTERM)
    job = end(process)
    done = read_arrays(paths_of(folder, "model")[0])[1]["step"]
    assert job.code != 0 and job.err.count(f"minidit: stopped at update {done} of the model; continue with: ") == 1, job.err

    ends = []
    for n in (2, 1):  # on from the state with two ranks, and all of it in one process
        if n == 1:
            shutil.rmtree(folder / "states")
        job = run(n, "-c", ON, folder, done + 2)
        assert job.code == 0 and job.out == f"stopped at update {done + 2} of the model\n", job.err
        ends.append(paths_of(folder, "model")[0].read_bytes())
    assert ends[0] == ends[1]


def test_a_run_is_sampled_and_measured_by_two_ranks_as_by_one(alone, tmp_path):
    """Which pieces go through the network together depends on the cores: pictures agree to rounding."""
    pictures, tables = [], []
    for n in (1, 2):
        job = watched(n, alone, "sample", alone, "-n", 6, "--steps", 3, "--out", tmp_path / f"{n}.npz")
        assert (job.code, job.out) == (0, f"{tmp_path}/{n}.npz\n"), job.err
        pictures.append(np.load(tmp_path / f"{n}.npz")["arr_0"].astype(np.float64))
    agree(pictures[0] / 255, pictures[1] / 255, bound=1 / 255)
    for n in (2, 1):
        job = watched(n, tmp_path, "eval", alone, "-n", 20, "--ddpm-steps", 4, "--bpd", 6)
        assert job.code == 0 and job.out.count("held-out real images") == 1, job.err
        measures = json.loads((alone / "eval.json").read_text())
        tables.append([measures["bits_per_dim"], *(row[k] for row in measures["rows"] for k in ("frechet", "accuracy"))])
    agree(*tables, bound=1e-3)


def test_other_commands_are_the_first_rank_s_alone():
    job = minidit(3, "rungs", "--steps", 2)
    assert job.code == 0 and job.out == minidit(1, "rungs", "--steps", 2).out
