"""What the doors of training and sampling take, refuse and say: networks of somebody's own, ladders, limits, traces."""

import gc

import numpy as np
import pytest
from small import DIT, UNCONDITIONAL, awake, pictures
from support import host

import minidit as md
from minidit import backend
from minidit.autograd import recording
from minidit.diffusion.fresh import DDPM, DDPM_LEARNED, Fresh, ddim, posterior_std
from minidit.diffusion.row import row_of
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.models.condition import Nothing
from minidit.nn import Linear, Module
from minidit.processes.tokenizer import Pixels
from minidit.runs.pipeline import Pipeline

SCH = Schedule.cosine(30)
GRID = [(30, 20), (20, 7), (7, 0)]


class Own(Module):
    """A backbone of a few lines that knows nothing of labels."""

    condition, second_half, config = Nothing(), False, None

    def __init__(self):
        self.shape = (1, 2, 2)
        self.line = Linear(4, 4)
        self.build(md.Philox(3))

    def forward(self, x, t, y=None):
        return self.line(x.reshape(len(x), 4)).reshape(len(x), 1, 2, 2)

    def null(self, y):
        return self.condition.left_out(y)


def test_a_network_of_a_few_lines_trains_and_samples():
    model, x_0 = Own(), np.random.default_rng(0).normal(size=(6, 1, 2, 2)).astype(np.float32)
    process = md.Diffusion.on_ladder(SCH, md.V)
    losses = [r["loss"] for r in md.train(model, (x_0, np.arange(6) % 2), process, steps=60, batch_size=16, lr=3e-2)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert md.sample(model, process, n=3, steps=4).shape == (3, 1, 2, 2)


def test_a_thing_that_is_no_backbone_is_told_all_that_it_lacks():
    x_0, lacking = np.zeros((2, 1, 2, 2), np.float32), "has no shape, condition, second_half, device, dtype, null"
    for call, more in ((lambda: next(md.train(Linear(2, 2), x_0)), ", config"), (lambda: md.sample(Linear(2, 2), SCH, n=1), "")):
        with pytest.raises(TypeError, match=f"Linear is not a backbone: it {lacking}{more} "):
            call()


def test_sampling_by_the_process_reads_the_answer_that_was_trained():
    model, labels = awake(), np.arange(3)
    process = md.Diffusion.on_ladder(SCH, md.V)
    assert np.array_equal(md.sample(model, process, labels, grid=GRID), md.sample(model, SCH, labels, grid=GRID, prediction=md.V))


def test_an_answer_that_says_nothing_at_the_noisy_end_is_refused_before_training():
    with pytest.raises(ValueError, match="let the network predict v or x_0"):
        md.Diffusion.on_ladder(zero_terminal_snr(SCH))
    md.Diffusion.on_ladder(zero_terminal_snr(SCH), md.V)


def test_a_learned_variance_needs_a_network_that_learned_one():
    with pytest.raises(ValueError, match="learn_sigma"):
        md.sample(awake(), SCH, np.arange(3), fresh=DDPM_LEARNED)


def test_a_short_ladder_is_walked_whole_and_a_grid_may_hold_numpys_numbers():
    model = awake(UNCONDITIONAL)
    assert len(list(md.sample(model, SCH, n=1, trace=True))) == 31
    numbers = [(np.int64(t), np.int32(s)) for t, s in GRID]
    assert np.array_equal(*(md.sample(model, SCH, n=2, grid=grid, fresh=DDPM) for grid in (GRID, numbers)))
    with pytest.raises(ValueError, match="31"):
        md.sample(model, SCH, n=1, steps=31)


def test_no_law_adds_noise_in_the_last_step():
    everywhere = Fresh(posterior_std, lambda t, s: 1.0)
    assert row_of(md.EPS, SCH.level(3), SCH.level(0), everywhere).std == 0.0
    assert row_of(md.EPS, SCH.level(3), SCH.level(1), everywhere).std == 1.0


def test_a_limit_of_ones_own_holds_on_both_homes_whatever_its_name(device):
    def static(x_0_hat):
        return x_0_hat * 0 + 0.25

    x = md.sample(awake(UNCONDITIONAL, device=device), SCH, n=2, grid=GRID, limit=static)
    assert (host(x) == np.float32(0.25)).all()


def test_a_pipeline_keeps_to_the_limit_of_its_tokenizer():
    pipeline = Pipeline(awake(UNCONDITIONAL), Pixels(limit=lambda x: x * 0 + 0.5), md.Diffusion.on_ladder(SCH))
    assert (pipeline.sample(n=1, steps=3) == 0.5).all()


def test_between_two_moments_the_callers_tape_records():
    for _ in md.sample(awake(), SCH, np.arange(3), grid=GRID, trace=True):
        assert recording()


def test_the_table_of_a_walk_leaves_the_device_with_the_walk():
    model = awake(UNCONDITIONAL, device="cuda")
    md.sample(model, SCH, n=1, grid=GRID)
    gc.collect()
    before = len(backend._residents)
    for seed in range(3):
        md.sample(model, SCH, n=1, grid=GRID, seed=seed, fresh=ddim(1.0))
    gc.collect()
    assert len(backend._residents) == before


def test_networks_without_label_dropout_and_without_labels_see_the_same_noise():
    """Number 1 of an update's draws belongs to label dropout, whether or not somebody drops labels."""
    from dataclasses import replace

    data, config = pictures(), md.LoopConfig(steps=2, batch_size=8, shards=1)
    fresh = {k: md.DiT(replace(DIT, class_dropout_prob=p), md.Philox(0)) for k, p in (("dropped", 0.3), ("kept", 0.0))}
    losses = {k: next(md.train(model, data, md.Diffusion.on_ladder(SCH), config))["loss"] for k, model in fresh.items()}
    assert losses["dropped"] == losses["kept"]  # a fresh network answers 0: the loss is that of the noise alone
