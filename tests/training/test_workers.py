"""Workers end when their loop ends, whoever else forks; they never make anybody wait who wants to stop."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from small import awake, pictures

from minidit.backend import flat_buffer
from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.training import workers as module
from minidit.training.loop import LoopConfig
from minidit.training.workers import Workers, kind_of_workers

CONFIG = LoopConfig(steps=3, batch_size=8, shards=2, lr=1e-2)
PROCESS = Diffusion.on_ladder(Schedule.linear(30))


def loop():
    return loop_for(awake(), pictures(), PROCESS, CONFIG, kind="process")


@pytest.fixture(autouse=True)
def watchdog():
    """A deadlock is a failure, not a wait."""
    old = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def test_two_loops_of_one_process_run_side_by_side_and_end_in_any_order():
    alone = [r["loss"] for r in loop().run()]
    first, second = loop().run(), loop().run()
    pairs = list(zip(first, second, strict=True))
    assert [a["loss"] for a, _ in pairs] == [b["loss"] for _, b in pairs] == alone
    first, second = loop().run(), loop().run()
    next(first), next(second)
    first.close()
    assert len(list(second)) == 2


def test_a_fork_of_somebody_else_that_outlives_a_loop_holds_nothing_up():
    records = loop().run()
    next(records)
    pid = os.fork()
    if not pid:  # holds copies of all pipes
        signal.alarm(0)
        signal.pause()
        os._exit(0)
    try:
        assert len(list(records)) == 2
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_where_no_process_may_be_made_threads_compute_the_same(monkeypatch):
    expected = [r["loss"] for r in loop().run()]

    def refused():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    assert [r["loss"] for r in loop().run()] == expected


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_ctrl_c_does_not_wait_for_a_shard_that_takes_long(kind):
    def body(i, phase, n):
        if i == 0:
            raise KeyboardInterrupt
        time.sleep(20)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2, body, kind) as workers:
        workers.run(0)
    assert time.monotonic() - began < 10 * module.LEAVE


def test_a_worker_leaves_every_stop_to_its_caller():
    numbers = flat_buffer(2 * len(module.STOPS), np.float64).reshape(2, len(module.STOPS))

    def body(i, stage, n):
        numbers[i] = [signal.getsignal(s) is signal.SIG_IGN for s in module.STOPS]

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with Workers(2, body, "process") as workers:
            workers.run(0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert numbers[1].all() and not numbers[0][module.STOPS.index(signal.SIGUSR1)]


# ------------------------------------------------------------------------------------------------ who may fork


def test_processes_only_where_a_fork_is_safe(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert kind_of_workers(1, "cpu") == "serial"
    assert kind_of_workers(4, "cuda") == "serial"
    if threading.active_count() == 1:
        assert kind_of_workers(2, "cpu") == "process"
    gate = threading.Event()
    other = threading.Thread(target=gate.wait)
    other.start()
    try:
        assert kind_of_workers(2, "cpu") == "thread"
    finally:
        gate.set()
        other.join()


def test_where_cupy_is_imported_nothing_forks():
    assert "cupy" in sys.modules  # the stand-in counts
    assert kind_of_workers(2, "cpu") == "thread"
