"""Real ranks: training and sampling have the same bits on any number of them, and none waits for one that is gone."""

import json
import os
import sys

import pytest
from several import environment, minidit, needs_mpi, run

from minidit.training import ranks as module
from minidit.training.launch import ALONE, Launch, launch

BEGIN = """
import hashlib, json, os, signal, sys
import numpy as np
from dataclasses import replace
from small import awake, pictures
from minidit.diffusion.schedule import Schedule
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.processes.classify import judge
from minidit.processes.diffusion import Diffusion
from minidit.processes.sample import sample
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.loop import LoopConfig
from minidit.training.ranks import ranks
R, PATH = ranks(), Schedule.linear(30)
CONFIG = LoopConfig(steps=5, batch_size=10, lr=1e-2, clip=0.5, weight_decay=0.1, ema=0.9, shards=5)
def loop(model=None, **changes):
    return loop_for(model or awake(), pictures(), Diffusion.on_ladder(PATH), replace(CONFIG, **changes))
def told(*things):
    hashes = [hashlib.sha256(a).hexdigest() if isinstance(a, (bytes, np.ndarray)) else a for a in things]
    everybody = [hashes] if R.alone else R.comm.allgather(hashes)
    if R.first:
        print(json.dumps(everybody))
"""


def told(n, code):
    """What every one of n ranks reported by `told`."""
    job = run(n, "-c", BEGIN + code)
    assert job.code == 0, job.err
    return json.loads(job.out)


def same_on_any_number(code, *counts):
    (expected,) = told(1, code)
    for n in counts:
        assert told(n, code) == [expected] * n, f"{n} ranks"
    return expected


# ------------------------------------------------------------------------------------------------ the same bits

TRAIN = """
l = loop(steps={steps}, shards={shards})
records = list(l.run())
told(l.model.flat, *l.optimiser.state_dict().values(), records, l.shards, l.kind)
"""


@needs_mpi
def test_one_two_and_four_ranks_train_the_same_weights_bit_for_bit():
    """Moments, average, losses and norms too; five shards on two and three ranks are not dealt out evenly."""
    expected, *others = (told(n, TRAIN.format(steps=5, shards=5)) for n in (1, 2, 3, 4))
    for everybody in others:
        assert all(rank[:6] == expected[0][:6] for rank in everybody)
    kinds = [{rank[6] for rank in everybody} for everybody in others]
    assert kinds == [{"thread"}, {"serial", "thread"}, {"serial", "thread"}]  # a rank never forks


@needs_mpi
def test_all_ranks_start_with_the_weights_of_the_first():
    code = "l = loop(awake(seed=1 + R.me)); l.done = 2 * R.first; records = list(l.run()); told(l.model.flat, records)"
    assert len(same_on_any_number(code, 2)[1]) == 3


@needs_mpi
def test_samples_and_features_do_not_depend_on_the_number_of_ranks():
    """Seven samples in four shards; 150 pictures, more than one pass takes."""
    same_on_any_number(
        """
        x = sample(awake(), PATH, np.arange(7) % 3, shards=4, steps=4, guidance=2.0)
        judged = judge(Classifier(ClassifierConfig(1, (8, 8), 3), Philox(3)), Philox(2).normal((150, 1, 8, 8)))
        told(x, *judged, sample(awake(), PATH, [0], shards=4, steps=2))
        """.replace("\n        ", "\n"),
        2, 4,
    )  # fmt: skip


@needs_mpi
def test_a_stop_that_one_rank_asks_for_ends_all_of_them_after_the_same_update():
    code = """
l = loop()
for record in l.run():
    l.stop = R.me == R.count - 1 and record["step"] == 2
first = l.done
l.stop = False
told(first, len(list(l.run())), l.model.flat)
"""
    assert same_on_any_number(code, 3)[:2] == [2, 3]


# ------------------------------------------------------------------------------------------------ failures


@needs_mpi
def test_a_rank_that_raises_ends_the_job_and_its_message_is_shown_once():
    code = BEGIN + "l = loop()\nfor record in l.run():\n    if R.me == 2 and record['step'] == 2: raise ValueError('no more ink')"
    job = run(4, "-c", code)
    assert job.code != 0 and job.err.count("ValueError: no more ink") == 1


@needs_mpi
def test_an_error_of_all_ranks_is_shown_once():
    job = minidit(4, "sample", "/nowhere/to/be/found")
    assert job.code == 2 and job.out == "" and job.err.count("minidit: ") == 1 and "/nowhere/to/be/found" in job.err
    job = minidit(4, "sample", "--stepz", "3")
    assert job.code == 2 and job.err.count("did you mean --steps?") == 1


@needs_mpi
def test_an_error_of_one_rank_is_a_line_that_names_it():
    code = """
import minidit.cli.sample as command
from minidit.cli import main
from minidit.training.ranks import ranks
def fails(args):
    if ranks().me == 2: raise RuntimeError("the disk is on fire")
    ranks().wait()
command.run = fails
sys.exit(main(["sample"]))
"""
    job = run(3, "-c", "import sys" + code)
    assert job.code == 1 and job.err.count("minidit: rank 2: the disk is on fire\n") == 1 and "Traceback" not in job.err


@needs_mpi
@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_rank_ends_the_job(who):
    code = (
        BEGIN
        + f"""
for record in loop(steps=10**6).run():
    if R.me == {who} and record["step"] == 3: os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    job = run(2, "-c", code)
    said = job.out + job.err  # by the launcher: Open MPI names the rank, MPICH the process
    assert job.code != 0 and "signal 9" in said and "Traceback" not in said and (f"rank {who}" in said or "PID" in said)


@needs_mpi
def test_more_ranks_than_pieces_of_a_batch_are_refused():
    job = run(3, "-c", BEGIN + "loop(shards=2)")
    assert job.code != 0 and job.err.count("ValueError: 3 ranks share 2 shards of a batch of 10") == 1


# ------------------------------------------------------------------------------------------------ who is launched


def test_a_process_alone_never_imports_mpi():
    code = "import sys; from minidit.cli import main; main(['train', '--print-config']); sys.exit('mpi4py' in sys.modules)"
    assert run(1, "-c", code).code == 0
    code = BEGIN + "list(loop().run()); sys.exit('mpi4py' in sys.modules)"
    assert run(1, "-c", code).code == 0


@pytest.mark.parametrize("variables, place", [
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, Launch(4, 3, 1)),
    ({"PMI_SIZE": "2", "PMI_RANK": "1"}, Launch(2, 1, 1)),
    ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}, Launch(8, 5, 0)),
    ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, ALONE),  # the script of sbatch itself
    ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, ALONE),
    ({}, ALONE),
])  # fmt: skip
def test_a_launcher_is_known_by_its_variables(monkeypatch, variables, place):
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert launch() == place


def test_without_mpi4py_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(RuntimeError, match=r"4 processes .* pip install 'minidit\[mpi\]'") as caught:
        module.ranks.__wrapped__()
    assert "\n" not in str(caught.value)


@needs_mpi
def test_the_mpi_of_another_launcher_is_refused():
    code = "import os; os.environ.update(PMI_SIZE='4', PMI_RANK='0'); from minidit.training.ranks import ranks; ranks()"
    job = run(1, "-c", code)
    assert "4 processes were started by an MPI launcher, but mpi4py connects 1" in job.err
