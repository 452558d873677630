"""Training steps and sampling steps on a GPU as graphs: bit for bit the steps that were not recorded, and nobody waits."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import standin
from small import DIT, UNCONDITIONAL, awake, pictures
from support import agree, host

from minidit.autograd import plain_text
from minidit.diffusion.fresh import DDPM, DDPM_LARGE, DDPM_LEARNED, ddim
from minidit.diffusion.loss import min_snr
from minidit.diffusion.prediction import V
from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.sample import sample
from minidit.processes.train import loop_for
from minidit.training import draws
from minidit.training.loop import LoopConfig
from minidit.training.source import Latents

CUPY = standin.install()
pytestmark = pytest.mark.usefixtures("gpu")
CONFIG = LoopConfig(steps=6, batch_size=6, lr=1e-2, warmup=3, final_lr=0.1, clip=0.5, weight_decay=0.1, ema=0.9, eps=1e-3)
PROCESS = Diffusion.on_ladder(Schedule.linear(30))
PATH = Schedule.linear(50)


def trained(config=DIT, source=None, process=PROCESS, **changes):
    source = pictures(config=config) if source is None else source
    loop = loop_for(awake(config, device="cuda"), source, process, replace(CONFIG, **changes))
    records = list(loop.run())
    numbers = {k: [float(host(r[k])) for r in records] for k in records[0]}
    return numbers, {"theta": host(loop.model.flat), **{k: host(a) for k, a in loop.optimiser.state_dict().items()}}


def latents():
    x, labels = pictures()
    return Latents(CUPY.asarray(x), CUPY.asarray(abs(x)), 0.5, CUPY.asarray(labels))


@pytest.mark.parametrize("config, changes", [
    (DIT, {}),
    (replace(DIT, learn_sigma=True), {"process": Diffusion.on_ladder(Schedule.linear(30), V, min_snr)}),
    (UNCONDITIONAL, {"accumulate": 2}),
    (replace(DIT, depth=2), {"checkpoint_blocks": True}),
    (replace(DIT, conditioning="in_context"), {}),
    (DIT, {"precision": "bf16"}),
    (DIT, {"source": latents}),
])  # fmt: skip
def test_the_recorded_step_is_the_step_bit_for_bit(config, changes, caplog):
    if changes.get("precision") == "bf16":
        pytest.importorskip("ml_dtypes")
    changes = {k: v() if k == "source" else v for k, v in changes.items()}
    recorded, eager = trained(config, steps=4, **changes), trained(config, steps=4, graph=False, **changes)
    assert caplog.messages == []
    assert recorded[0] == eager[0]
    for name, a in recorded[1].items():
        assert np.array_equal(a, eager[1][name]), name


def test_an_update_with_many_numbers_is_recorded_as_well(caplog, monkeypatch):
    loss = Diffusion.loss

    def talkative(self, *args):
        losses, more = loss(self, *args)
        return losses, {**more, **{f"{k} losses": losses.data * k for k in range(2, 14)}}

    monkeypatch.setattr(Diffusion, "loss", talkative)
    numbers, _ = trained()
    assert caplog.messages == [] and numbers["13 losses"] == pytest.approx([13 * n for n in numbers["loss"]], rel=1e-6)


def test_a_step_counted_on_the_device_is_that_of_the_host_s_count():
    """Its rungs, labels, noise, images and rates are read from the device; the plain text is told the number of the step."""
    recorded, state = trained()
    with plain_text():
        plain, expected = trained()
    for name, numbers in plain.items():
        agree(recorded[name], numbers, bound=1e-5)
    for name, a in state.items():
        agree(a, expected[name], bound=1e-5)


def test_a_replayed_step_is_one_launch_and_nobody_waits():
    for graph, most in ((True, 2), (False, 250)):  # the graph, and the copy of its numbers
        loop = loop_for(awake(device="cuda"), pictures(), PROCESS, replace(CONFIG, graph=graph))
        steps = loop.run()
        next(steps)
        with standin.counting() as spent:
            next(steps)
        assert spent.syncs == spent.uploads == 0
        with standin.counting() as spent:
            record = next(steps)
        assert spent.syncs == spent.uploads == 0 and 0 < spent.launches <= most
        with standin.counting() as spent:
            assert float(record["loss"]) > 0
        assert spent.syncs == 1


def test_a_run_that_goes_on_elsewhere_is_the_run_that_never_stopped():
    def part(loop, stop):
        for record in loop.run():
            losses.append(float(host(record["loss"])))
            loop.stop = record["step"] == stop

    losses = []
    first = loop_for(awake(device="cuda"), pictures(), PROCESS, CONFIG)
    part(first, 4)
    second = loop_for(awake(device="cuda"), pictures(), PROCESS, CONFIG)
    second.model.flat[...] = first.model.flat
    second.optimiser.load_state_dict(first.optimiser.state_dict())
    second.done = first.done
    part(second, None)
    expected, state = trained()
    assert losses == expected["loss"] and np.array_equal(host(second.model.flat), state["theta"])
    assert second.done == 6


def test_the_batches_of_many_steps_are_sent_now_and_then(monkeypatch):
    rows = 16
    monkeypatch.setattr(draws, "ROWS", rows)
    loop, other = (loop_for(awake(device="cuda"), pictures(), PROCESS, replace(CONFIG, steps=rows + 3)) for _ in range(2))
    with plain_text():
        plain = [float(host(r["loss"])) for r in other.run()]
    fast, uploads = [], []
    steps = loop.run()
    for _ in range(rows + 3):
        with standin.counting() as spent:
            record = next(steps)
        uploads.append(spent.uploads)
        fast.append(float(host(record["loss"])))
    agree(fast[-4:], plain[-4:], bound=1e-4)
    assert not any(uploads[1:rows]) and uploads[rows] == 1 and not any(uploads[rows + 1 :])


def test_an_old_record_keeps_its_numbers():
    loop = loop_for(awake(device="cuda"), pictures(), PROCESS, CONFIG)
    records, at_once = [], []
    for record in loop.run():
        records.append(record)
        at_once.append(float(host(record["loss"])))
    assert [float(host(r["loss"])) for r in records] == at_once and len(set(at_once)) == 6


class Curious:
    """A process that looks at its losses on the host, which no recording can do."""

    def __init__(self, process):
        self.process, self.stream, self.per, self.seen = process, process.stream, process.per, []

    def loss(self, *question):
        losses, more = self.process.loss(*question)
        self.seen.append(None)
        self.seen[-1] = float(losses.data.sum())
        return losses, more


def test_what_cannot_be_recorded_trains_all_the_same_and_says_why(caplog):
    with plain_text():
        losses, _ = trained(steps=3)
    assert caplog.messages == ["the update is not recorded as a CUDA graph: the kernels are switched off"]
    loop = loop_for(awake(device="cuda"), pictures(), PROCESS, replace(CONFIG, steps=3))
    loop.process = Curious(loop.process)
    agree([float(host(r["loss"])) for r in loop.run()], losses["loss"], bound=1e-5)
    (message,) = caplog.messages[1:]
    assert message.startswith("the update is not recorded as a CUDA graph: ")
    assert len(loop.process.seen) == 3 + 1  # the attempt to record asked as well


# ------------------------------------------------------------------------------------------------ sampling

WALKS = {
    "ddim": {},
    "guided": {"guidance": 2.0, "clip": True},
    "interval": {"guidance": 2.0, "interval": (0.2, 0.7), "fresh": ddim(0.5)},
    "ddpm": {"fresh": DDPM, "guidance": 1.5},
    "large variance": {"fresh": DDPM_LARGE, "prediction": V},
}


@pytest.mark.parametrize("name", WALKS)
def test_the_recorded_walk_is_the_walk_bit_for_bit_and_that_of_the_plain_text(name, caplog):
    """In seven steps: each kind is run, recorded, and replayed at another time, where a recorded number is wrong."""
    model, labels = awake(device="cuda"), np.array([0, 1, 2])
    walk = lambda **more: host(sample(model, PATH, labels, steps=7, **WALKS[name], **more))
    recorded, eager, trace = walk(), walk(graph=False), list(sample(model, PATH, labels, steps=7, trace=True, **WALKS[name]))
    assert caplog.messages == []
    assert np.array_equal(recorded, eager) and np.array_equal(recorded, host(trace[-1])) and len(trace) == 8
    with plain_text():
        plain = list(sample(model, PATH, labels, steps=7, trace=True, **WALKS[name]))
    agree(recorded, plain[-1], bound=1e-4)
    for a, b in zip(trace[:-1], plain[:-1], strict=True):
        assert (a.t, a.s) == (b.t, b.s)
        agree(a.x_t, b.x_t, bound=1e-4)
        agree(a.x_0_hat, b.x_0_hat, bound=1e-4)


def test_a_replayed_sampling_step_is_one_launch_and_nobody_waits():
    model, spent = awake(device="cuda"), []

    def count(done, total):
        spent.append(standin.COUNTS.copy())

    sample(model, PATH, np.array([0, 1]), steps=8, fresh=DDPM, guidance=2.0, progress=count)
    assert [b.launches - a.launches for a, b in pairwise(spent[1:])] == [1] * 6
    assert spent[0].syncs == spent[-1].syncs and spent[0].uploads == spent[-1].uploads


@pytest.mark.parametrize("name", WALKS)
def test_a_longer_walk_costs_one_launch_more_per_step(name):
    model, launches = awake(device="cuda"), []
    for steps in (4, 4, 8, 8):  # the first compiles; a walk of another length is recorded anew, and the next one replays it
        with standin.counting() as spent:
            sample(model, PATH, np.array([0, 1]), steps=steps, **WALKS[name])
        launches.append(spent.launches)
    assert launches[3] - launches[1] == 4


def test_noise_that_is_given_stays_as_it_is():
    x_T = CUPY.asarray(np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32))
    before = host(x_T).copy()
    sample(awake(device="cuda"), PATH, np.array([0, 1]), steps=4, x_T=x_T)
    assert np.array_equal(host(x_T), before)


def test_a_variance_that_the_network_chooses_is_recorded_too(caplog):
    model, labels = awake(replace(DIT, learn_sigma=True), device="cuda"), np.array([0, 1])
    recorded, eager = (
        host(sample(model, PATH, labels, steps=6, fresh=DDPM_LEARNED, guidance=2.0, graph=on)) for on in (True, False)
    )
    assert caplog.messages == [] and np.array_equal(recorded, eager)
    with plain_text():
        agree(recorded, sample(model, PATH, labels, steps=6, fresh=DDPM_LEARNED, guidance=2.0), bound=1e-4)
