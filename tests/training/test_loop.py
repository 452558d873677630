"""One step, however it is cut into shards and whoever runs them; and what happens when something goes wrong."""

import contextlib
import math
import os
import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import awake, losses_of, pictures
from support import agree

from minidit.autograd import Gradients, value
from minidit.backend import flat_buffer
from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import fitted_source, loop_for
from minidit.training.loop import Loop, LoopConfig, RunError
from minidit.training.source import source_of
from minidit.training.workers import Workers, _pickled, shard_of

KINDS = ("serial", "thread", "process")
CONFIG = LoopConfig(steps=4, batch_size=10, lr=1e-2, clip=0.5, weight_decay=0.1, ema=0.9)
DDPM = Diffusion.on_ladder(Schedule.linear(30))


def trained(kind="serial", dtype=np.float32, **changes):
    """A Loop that has run to its end, and its records."""
    loop = loop_for(awake(dtype=dtype), pictures(dtype=dtype), DDPM, replace(CONFIG, **changes), kind=kind)
    return loop, list(loop.run())


def every_child():
    """The processes whose parent is this one, alive or dead and not waited for."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended in the meantime
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


OTHERS = set()  # children that were there before the test: a browser of other tests


@pytest.fixture(autouse=True)
def remember_the_children_of_others():
    OTHERS.clear()
    OTHERS.update(every_child())


def children():
    """Whether the test has left a child, alive or dead and not waited for."""
    return bool(every_child() - OTHERS)


# ------------------------------------------------------------------------------------------------ what a step computes


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_who_runs_the_shards_changes_nothing_not_even_the_last_bit(shards):
    runs = [trained(kind, shards=shards) for kind in KINDS]
    first, records = runs[0]
    for loop, others in runs[1:]:
        assert loop.model.flat.tobytes() == first.model.flat.tobytes()
        assert loop.optimiser.average.tobytes() == first.optimiser.average.tobytes()
        assert others == records


def test_a_run_repeats_itself_to_the_last_bit():
    assert trained(shards=2)[0].model.flat.tobytes() == trained(shards=2)[0].model.flat.tobytes()


@pytest.mark.parametrize("shards, accumulate", [(1, 3), (2, 1), (3, 2), (10, 1), (64, 1), (2, 50)])
def test_pieces_are_a_matter_of_rounding_only(shards, accumulate):
    whole, _ = trained(dtype=np.float64, shards=1)
    cut, _ = trained(dtype=np.float64, shards=shards, accumulate=accumulate)
    agree(cut.model.flat, whole.model.flat, bound=1e-9)  # Adam divides by √v̂: rounding of tiny gradients is enlarged
    agree(cut.optimiser.m, whole.optimiser.m, bound=1e-12)


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_the_gradients_of_the_shards_add_up_to_that_of_the_whole_batch(shards):
    def gradient(n):
        loop = loop_for(awake(dtype=np.float64), pictures(dtype=np.float64), DDPM, replace(CONFIG, shards=n), kind="serial")
        for phase in (0, 1):  # gradients, sum; no update
            for i in range(n):
                loop._body(i, phase, 2)
        return loop.buffers[0]

    model = awake(dtype=np.float64)
    losses, _ = losses_of(loop_for(model, pictures(dtype=np.float64), DDPM, CONFIG), 2)
    losses.mean().backward()
    for p, view in zip(model.parameters(), model.views(gradient(shards)), strict=True):
        agree(view, p.grad, bound=1e-12)


def test_the_sum_over_shards_has_one_order():
    """Shard 0 first, then 1, 2, …: floats that would add up to something else in any other order."""
    loop = loop_for(awake(), pictures(), DDPM, replace(CONFIG, shards=3), kind="serial")
    for buffer, number in zip(loop.buffers, (1e8, -1e8, 1.0), strict=True):
        buffer[...] = number
    for i in range(3):
        loop._body(i, 1, 0)
    assert (loop.buffers[0] == np.float32(np.float32(1e8) - np.float32(1e8)) + 1).all()


def test_the_norm_that_is_told_is_that_of_the_whole_gradient_before_clipping():
    loop = loop_for(awake(dtype=np.float64), pictures(dtype=np.float64), DDPM, replace(CONFIG, shards=3), kind="serial")
    seen = []
    step = loop.optimiser.step

    def spy(g, n, *, factor, part):
        seen.append((g[part].copy(), factor))
        step(g, n, factor=factor, part=part)

    loop.optimiser.step = spy
    record = next(loop.run())
    g = np.concatenate([piece for piece, _ in seen])
    norm = float(np.sqrt(g @ g))
    agree(record["grad_norm"], norm, bound=1e-12)
    assert norm > CONFIG.clip
    agree(np.array([f for _, f in seen]), np.full(3, CONFIG.clip / norm), bound=1e-12)


def test_a_gradient_that_nobody_sends_is_zero():
    """Rows of the label table that no sample asks for, and all weights where a shard's loss does not reach them."""
    model = awake()
    buffer = flat_buffer(model.layout.size)
    buffer[...] = np.nan
    with Gradients([p.data for p in model.parameters()], model.views(buffer)):
        pass
    assert all((view == 0).all() for view in model.views(buffer))


def test_shards_are_equal_to_within_one_sample_and_together_everything():
    for total in (0, 1, 7, 64):
        for shards in (1, 2, 3, 8):
            parts = [range(total)[shard_of(total, shards, i)] for i in range(shards)]
            assert [i for p in parts for i in p] == list(range(total))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_is_never_cut_into_more_shards_than_samples():
    assert LoopConfig(batch_size=3, shards=8).pieces("cpu") == 3
    assert LoopConfig(batch_size=3, shards=8).pieces("cuda") == 1
    assert 1 <= LoopConfig(batch_size=64).pieces("cpu") <= 64


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch_size": 0}, {"accumulate": 0}, {"shards": -1}, {"lr": 0.0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LoopConfig(**bad)


# ------------------------------------------------------------------------------------------------ stopping


@pytest.mark.parametrize("kind", KINDS)
def test_stop_ends_after_the_step_and_a_second_run_goes_on_exactly(kind):
    loop = loop_for(awake(), pictures(), DDPM, replace(CONFIG, shards=2), kind=kind)
    for record in loop.run():
        loop.stop = record["step"] == 2
    assert loop.done == 2 and not children()
    loop.stop = False
    assert [r["step"] for r in loop.run()] == [3, 4]
    assert loop.model.flat.tobytes() == trained(shards=2)[0].model.flat.tobytes()


def test_a_run_that_is_left_early_leaves_no_process_behind():
    loop = loop_for(awake(), pictures(), DDPM, replace(CONFIG, shards=3), kind="process")
    records = loop.run()
    next(records)
    assert children()
    records.close()
    assert not children()


def test_ctrl_c_between_two_steps_leaves_no_process_behind():
    loop = loop_for(awake(), pictures(), DDPM, replace(CONFIG, shards=2), kind="process")
    with pytest.raises(KeyboardInterrupt):
        for _ in loop.run():
            signal.raise_signal(signal.SIGINT)
    assert not children() and loop.done == 1


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_inside_a_step_leaves_no_process_behind(kind):
    def body(i, phase, n):
        if i == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Workers(3, body, kind) as workers:
        workers.run(0)
    assert not children()


def test_the_workers_leave_a_ctrl_c_of_the_whole_terminal_to_the_caller():
    def body(i, phase, n):
        if i:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)

    with Workers(2, body, "process") as workers:
        workers.run(0)
        workers.run(1)


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", [0, 1, 2])
def test_an_exception_of_any_shard_reaches_the_caller(kind, who):
    def body(i, phase, n):
        if i == who and phase == 1:
            raise ValueError(f"shard {i} at step {n}")

    with pytest.raises(ValueError, match=f"shard {who} at step 7"), Workers(3, body, kind) as workers:
        workers.run(0, 5)
        workers.run(1, 7)
    assert not children()


def test_a_failed_phase_does_not_spoil_the_next_one():
    numbers = flat_buffer(3)

    def body(i, phase, n):
        if phase == 0:
            raise ValueError(str(i))
        numbers[i] = n + i

    with Workers(3, body, "process") as workers:
        with pytest.raises(ValueError, match="0"):
            workers.run(0)
        workers.run(1, 10)
    assert numbers.tolist() == [10, 11, 12]


class Stubborn(Exception):
    """It cannot be pickled: what it needs is not in its args."""

    def __init__(self, a, b):
        super().__init__(a)


def test_an_exception_that_cannot_travel_is_told_in_words():
    def body(i, phase, n):
        if i:
            raise Stubborn("a heavy heart", 2)

    with pytest.raises(RuntimeError, match="Stubborn: a heavy heart"), Workers(2, body, "process") as workers:
        workers.run(0)


def test_a_very_long_message_arrives_cut():
    assert len(_pickled(ValueError("x" * 10**6))) < 60000
    with pytest.raises(RuntimeError, match="ValueError: xxx"), Workers(2, too_long, "process") as workers:
        workers.run(0)


def too_long(i, phase, n):
    if i:
        raise ValueError("x" * 10**6)


@pytest.mark.parametrize("when", ["while it works", "while it waits"])
def test_a_killed_worker_gives_one_clear_error(when):
    def body(i, phase, n):
        if i == 1 and when == "while it works" and phase == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="a worker process died"), Workers(3, body, "process") as workers:
        workers.run(0)
        if when == "while it waits":
            os.kill(workers.pids[0], signal.SIGKILL)
            os.waitid(os.P_PID, workers.pids[0], os.WEXITED | os.WNOWAIT)
        workers.run(1)
    assert not children()


@dataclass
class Ruined:
    """A source that gives what no number is from an update on."""

    source: Any
    labels: Any
    levels: Any = None

    def __len__(self):
        return len(self.source)

    def draw(self, index, draws):
        x_0, y = self.source.draw(index, draws)
        if draws.when == 2:
            x_0[1, 0, 0, 0] = np.nan
        return x_0, y


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_are_no_numbers_are_blamed_and_not_the_rate(kind):
    x_0, labels = pictures()
    x_0[7, 0, 1, 1] = np.inf
    with pytest.raises(ValueError, match="the data are not finite: picture 7 holds nan or inf"):
        loop_for(awake(), (x_0, labels), DDPM, replace(CONFIG, shards=2), kind=kind)
    source = source_of(pictures())
    loop = loop_for(awake(), Ruined(source, source.labels), DDPM, replace(CONFIG, shards=2), kind=kind)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"the data are not finite: picture \d+ holds nan"):
        list(loop.run())
    assert loop.done == 2 and not children()


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_diverges_names_update_layer_and_primitive_and_keeps_the_weights_of_before(kind, watched):
    loop = loop_for(awake(), pictures(), DDPM, replace(CONFIG, shards=2, steps=9, detect_anomaly=watched), kind=kind)
    before = None
    with np.errstate(all="ignore"), pytest.raises(RunError) as caught:
        for record in loop.run():
            before = loop.model.flat.copy()
            if record["step"] == 3:
                loop.model.blocks[0].mlp.fc2.weight.data[...] = 1e38
                before = loop.model.flat.copy()
    message = str(caught.value)
    assert re.match(r"(the loss is|numbers are not finite)", message) and "at update 4 (" in message, message
    assert re.search(r"\(\w+ in blocks\.0\.\S+ gives -?(inf|nan)\): try a lower --lr than 0\.01$", message), message
    assert np.array_equal(loop.model.flat, before) and loop.done == 3 and not children()


@dataclass
class Steep:
    """A process whose loss is finite and whose gradient is not: + √(loss - itself)."""

    process: Any
    stream: int = 5
    per: int = 4

    def loss(self, network, x_0, y, draws):
        losses, more = self.process.loss(network, x_0, y, draws)
        return losses + (losses - value(losses)) ** 0.5, more


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_overflows_is_seen_before_it_reaches_the_weights(kind):
    loop = Loop(awake(), Steep(DDPM), fitted_source(awake(), pictures()), replace(CONFIG, shards=2), kind=kind)
    before = loop.model.flat.copy()
    told = r"the gradient is not finite at update 1 \(the adjoint of \w+ in"
    with np.errstate(all="ignore"), pytest.raises(RunError, match=told):
        list(loop.run())
    assert np.array_equal(loop.model.flat, before)


def test_weights_that_are_no_numbers_are_named():
    loop = loop_for(awake(), pictures(), DDPM, CONFIG)
    loop.model.blocks[0].mlp.fc1.bias.data[2] = np.nan
    with np.errstate(all="ignore"), pytest.raises(RunError, match=r"the weights blocks\.0\.mlp\.fc1\.bias are not finite"):
        list(loop.run())


def test_progress_of_the_loss_is_a_mean_over_the_batch():
    """The loss of a network that answers 0 is the mean square of what it should have said, ε: near 1."""
    from small import DIT

    from minidit.models.dit import DiT
    from minidit.random import Philox

    config = LoopConfig(steps=1, batch_size=200, shards=3)
    loop = loop_for(DiT(DIT, Philox(0)), pictures(), DDPM, config, kind="serial")
    record = next(loop.run())
    assert math.isclose(record["loss"], 1.0, abs_tol=0.1)
