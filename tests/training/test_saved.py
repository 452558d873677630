"""A training in Python that is stopped goes on from its file with the same bits, and the file is never that of half an update."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import DIT

import minidit as md
from minidit.checkpoint import CheckpointError, write_arrays
from minidit.outgoing import WriteError
from minidit.training import saved
from minidit.training.loop import Loop
from minidit.training.saved import whole_updates

X_0, Y = np.random.default_rng(0).normal(size=(12, *DIT.shape)).astype(np.float32), np.arange(12) % DIT.num_classes
PROCESS = md.Diffusion(md.Straight(), md.U, md.drawn(md.times.uniform))
HOW = {"steps": 9, "batch_size": 4, "lr": 1e-2, "warmup": 3, "final_lr": 0.1, "ema": 0.9, "clip": 1.0}


def network():
    return md.DiT(DIT, md.Philox(1))


def training(model, path=None, **changes):
    return md.train(model, (X_0, Y), PROCESS, state=path, **{**HOW, "save_every": 4, **changes})


def whole(**changes):
    """The records and the weights of a training that was never stopped."""
    model = network()
    return list(training(model, **changes)), model.flat


@pytest.mark.parametrize("updates", [1, 4, 5, 8])
def test_a_training_that_was_left_goes_on_bit_for_bit(tmp_path, updates):
    records, weights = whole()
    first = training(network(), tmp_path / "x.state")
    begun = [next(first) for _ in range(updates)]
    first.close()  # what `break` does
    model = network()
    rest = list(training(model, tmp_path / "x.state"))
    assert begun + rest == records and np.array_equal(model.flat, weights)


def test_a_training_that_was_killed_goes_on_from_the_last_state(tmp_path):
    records, weights = whole()
    script = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_saved import network, training
        for record in training(network(), {str(tmp_path / "x.state")!r}):
            if record["step"] == 7:
                os.kill(os.getpid(), 9)
    """
    places = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(md.__file__).parents[1])])
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, "PYTHONPATH": places}, check=False)
    assert ended.returncode == -signal.SIGKILL
    model = network()
    rest = list(training(model, tmp_path / "x.state"))
    assert rest == records[4:] and np.array_equal(model.flat, weights)


@pytest.mark.parametrize("at", [1, 3, 6, 9])
def test_ctrl_c_in_the_middle_of_an_update_finishes_it_and_loses_nothing(tmp_path, monkeypatch, at):
    records, weights = whole(shards=1)
    body = Loop._body

    def interrupted(self, i, stage, update):
        if update + 1 == at and stage == 2 and i == 0:  # while the weights change
            signal.raise_signal(signal.SIGINT)
        body(self, i, stage, update)

    seen = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Loop, "_body", interrupted)
        for record in training(network(), tmp_path / "x.state", shards=1):
            seen.append(record)
    assert len(seen) == at and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = network()
    rest = list(training(model, tmp_path / "x.state", shards=1))
    assert seen + rest == records and np.array_equal(model.flat, weights)


def test_ctrl_c_while_the_file_is_written_loses_nothing_either(tmp_path, monkeypatch):
    records, weights = whole()

    def interrupted(path, arrays, header):
        signal.raise_signal(signal.SIGINT)
        write_arrays(path, arrays, header)

    seen = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saved, "write_arrays", interrupted)
        for record in training(network(), tmp_path / "x.state"):
            seen.append(record)
    model = network()
    rest = list(training(model, tmp_path / "x.state"))
    assert len(seen) == 4 and seen + rest == records and np.array_equal(model.flat, weights)


def test_a_place_that_cannot_be_written_to_is_refused_before_the_first_update(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"x\.state: .*one of its folders is a file"):
        next(training(network(), tmp_path / "file" / "x.state"))


def test_a_second_ctrl_c_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), whole_updates() as noted:
        signal.raise_signal(signal.SIGINT)
        assert noted == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)


def test_a_handler_of_the_callers_own_stays(tmp_path):
    before, seen = signal.getsignal(signal.SIGINT), []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with whole_updates() as noted:
            signal.raise_signal(signal.SIGINT)
        assert seen == [1] and noted == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_finished_training_has_nothing_left_to_do_and_can_be_lengthened(tmp_path):
    model = network()
    list(training(model, tmp_path / "x.state"))
    again = network()
    assert list(training(again, tmp_path / "x.state")) == [] and np.array_equal(again.flat, model.flat)
    assert [r["step"] for r in training(network(), tmp_path / "x.state", steps=11)] == [10, 11]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"lr": 2e-2}, "lr is 0.02, was 0.01"), ({"batch_size": 3}, "batch_size is 3, was 4"),
     ({"steps": 5}, "has made 9 updates already, more than steps = 5")],
)  # fmt: skip
def test_a_state_of_other_settings_is_refused(tmp_path, changes, reason):
    list(training(network(), tmp_path / "x.state"))
    model = network()
    before = model.flat.copy()
    with pytest.raises(CheckpointError, match=reason):
        list(training(model, tmp_path / "x.state", **changes))
    assert np.array_equal(model.flat, before)


def test_a_state_of_another_network_or_process_and_a_damaged_one_are_refused(tmp_path):
    path = tmp_path / "x.state"
    list(training(network(), path, steps=2))
    wider = md.DiT(replace(DIT, hidden_size=2 * DIT.hidden_size), md.Philox(1))
    with pytest.raises(CheckpointError, match=r"x.state: was trained with another network: x_embedder.proj.weight is \("):
        list(training(wider, path))
    for other in (md.Diffusion(md.Straight(shift=3), md.U, PROCESS.times), md.Diffusion.on_ladder(md.Schedule.cosine(), md.V)):
        with pytest.raises(CheckpointError, match=r"process is Diffusion\(path=.*, was Diffusion\(path=Straight\("):
            list(md.train(network(), (X_0, Y), other, state=path, **HOW))
    with pytest.raises(CheckpointError, match=r"x.state: belongs to another training: dtype is float64, was float32"):
        list(training(md.DiT(DIT, md.Philox(1), dtype=np.float64), path))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        list(training(network(), path))
    md.save(path, network())
    with pytest.raises(CheckpointError, match="not the state of a training that was saved in Python"):
        list(training(network(), path))


def test_a_state_by_hand_is_that_of_the_loop(tmp_path):
    records, weights = whole()
    one = md.loop_for(network(), (X_0, Y), PROCESS, md.LoopConfig(**HOW))
    run = one.run()
    begun = [next(run) for _ in range(3)]
    run.close()
    md.save_state(tmp_path / "x.state", one)
    other = md.loop_for(network(), (X_0, Y), PROCESS, md.LoopConfig(**HOW))
    md.load_state(tmp_path / "x.state", other)
    assert begun + list(other.run()) == records and np.array_equal(other.model.flat, weights)


def test_a_network_may_end_with_its_average(tmp_path):
    loop = md.loop_for(network(), (X_0, Y), PROCESS, md.LoopConfig(**HOW))
    list(loop.run())
    for path in (None, tmp_path / "x.state"):
        model = network()
        list(training(model, path, average=True))
        assert np.array_equal(model.flat, loop.optimiser.average)
    assert list(training(model, tmp_path / "x.state", average=True)) == []
    assert np.array_equal(model.flat, loop.optimiser.average)  # also of a training that had ended before
