"""Which states a run keeps, which it goes on from, and what becomes of it when it is given more updates."""

import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import PROCESSES, begun, interrupted, lines, resumed, run_config, states, whole

from minidit.checkpoint import CheckpointError, read_arrays, write_arrays
from minidit.runs import trainer
from minidit.runs.loading import load
from minidit.runs.phases import resume
from minidit.runs.presets import SampleConfig
from minidit.runs.process_config import Learner
from minidit.runs.state import best_of, paths_of, prune
from minidit.training.loop import RunError
from minidit.training.source import source_of

OFTEN = replace(run_config(), sample=SampleConfig(steps=3, save_every=2))
ALL = {name: replace(OFTEN, process=process) for name, process in PROCESSES.items()}


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, None]), min_size=1, max_size=7), st.integers(1, 3), st.integers(1, 3))
def test_the_last_ones_and_the_best_are_kept_and_nothing_else(tmp_path_factory, losses, keep, every):
    folder = tmp_path_factory.mktemp("run")
    sample = SampleConfig(keep=keep, save_every=every)
    for k, loss in enumerate(losses):
        done = (k + 1) * every
        write_arrays(folder / "states" / f"model-{done:08d}.safetensors", {"ema": np.zeros(1)}, {"step": done, "held_out": loss})
        write_arrays(folder / "states" / f"judge-{done:08d}.safetensors", {"ema": np.zeros(1)}, {"step": done, "held_out": 0.0})
        prune(folder, "model", sample, done)
    measured = [((k + 1) * every, loss) for k, loss in enumerate(losses)]
    last = [done for done, _ in measured[-keep:]]
    best = min((m for m in measured if m[1] is not None), key=lambda m: (m[1], -m[0]), default=None)
    kept = states(folder)
    assert set(kept) >= set(last) and kept == sorted(kept, reverse=True) and len(kept) <= keep + 1
    if best is not None:  # of equals the latest that was there when it was compared
        assert min(dict(measured)[n] for n in kept if dict(measured)[n] is not None) == best[1]
    assert len(states(folder, "judge")) == len(losses)


def test_the_best_state_is_the_one_with_the_lowest_loss_on_held_out_pictures(tmp_path, monkeypatch):
    measured = iter([0.7, 0.2, 0.4, 0.3])
    monkeypatch.setattr(trainer, "held_out_loss", lambda loop, source: next(measured))
    config = replace(OFTEN, train=replace(OFTEN.train, steps=8), sample=replace(OFTEN.sample, keep=1))
    job, _ = whole(tmp_path / "run", config)
    assert states(job.folder) == [8, 4] and best_of(job.folder, "model") == paths_of(job.folder, "model")[1]
    told = {line["step"]: line["held_out_loss"] for line in lines(job.folder) if "held_out_loss" in line}
    assert told == {2: 0.7, 4: 0.2, 6: 0.4, 8: 0.3}
    for name, done in (("best", 4), ("4", 4), ("latest", 8), ("8", 8)):
        path = job.folder / "states" / f"model-{done:08d}.safetensors"
        assert np.array_equal(load(job.folder, state=name).model.flat, read_arrays(path)[0]["ema"]), name
    with pytest.raises(CheckpointError, match=r"the model has no state '5'; there are latest, best, 8, 4$"):
        load(job.folder, state="5")
    with pytest.raises(CheckpointError, match="is no run folder: it has no states"):
        load(job.folder / "model.safetensors", state="best")


@pytest.mark.parametrize("process", PROCESSES)
def test_the_held_out_loss_is_that_of_the_average_and_changes_nothing(tmp_path, process):
    job, train = begun(tmp_path / "run", ALL[process])
    losses = []

    def tell(name, record, steps):
        loop, source = job.loop, job.config.process.source(source_of(job.data()[1]), Learner(job.loop.model))
        before = loop.model.flat.copy()
        losses.append([trainer.held_out_loss(loop, source) for _ in range(2)])
        assert np.array_equal(loop.model.flat, before)
        loop.model.flat[...] = loop.optimiser.average
        losses[-1].append(trainer.held_out_loss(loop, source))
        loop.model.flat[...] = before

    job.tell = tell
    job.train(train, job.data()[1])
    assert all(len(set(row)) == 1 for row in losses) and len({row[0] for row in losses}) == 6
    assert [line["held_out_loss"] for line in lines(job.folder) if "held_out_loss" in line] == [losses[k][0] for k in (1, 3, 5)]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("damage", [lambda data: data[:200], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b""])
def test_a_damaged_state_is_named_and_the_one_before_is_gone_on_from(tmp_path, damage, process):
    reference, _ = whole(tmp_path / "whole", ALL[process])
    job = interrupted(tmp_path / "run", ALL[process], 4)
    path = paths_of(job.folder, "model")[0]
    assert states(job.folder) == [4, 2]
    path.write_bytes(damage(path.read_bytes()))
    notes = []
    again = resume(job.folder, note=notes.append)
    again.fit_to(again.data()[0])
    again.train(*again.data())
    damaged, resumed = notes
    assert str(path) in damaged and damaged.endswith("going on from update 2")
    assert resumed == "going on after update 2 of 6 of the model"
    for file in ("model.safetensors", "states/model-00000006.safetensors", "states/model-00000004.safetensors"):
        assert (job.folder / file).read_bytes() == (reference.folder / file).read_bytes()
    assert lines(job.folder) == lines(reference.folder) and states(job.folder) == states(reference.folder)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_run_that_has_not_ended_draws_with_the_average_of_its_latest_state(tmp_path, process):
    job = interrupted(tmp_path / "run", ALL[process], 3)
    pipeline = load(job.folder)
    assert np.array_equal(pipeline.model.flat, read_arrays(paths_of(job.folder, "model")[0])[0]["ema"])
    assert pipeline.class_names == tuple("0123456789") and pipeline.sample("3,1", steps=2).shape == (2, 1, 8, 8)


# ------------------------------------------------------------------------------------------------ more updates


def lengthened(folder, **lengths):
    job = resume(folder)
    job.fit_to(job.data()[0])
    job.lengthen(lengths)
    job.train(*job.data())
    return job


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("finished", [True, False])
def test_with_a_constant_rate_more_updates_give_the_bits_of_a_run_that_had_them_from_the_start(tmp_path, finished, process):
    twelve = replace(ALL[process], train=replace(OFTEN.train, steps=12))
    reference, _ = whole(tmp_path / "whole", twelve)
    short = ALL[process]
    job = whole(tmp_path / "run", short)[0] if finished else interrupted(tmp_path / "run", short, 3)
    lengthened(job.folder, model=12)
    for file in ("model.safetensors", "states/model-00000012.safetensors"):
        ours, theirs = (read_arrays(folder / file)[0] for folder in (job.folder, reference.folder))
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    steps = [line["step"] for line in lines(job.folder)]
    assert steps == sorted(steps) and steps[-1] == 12
    history = tomllib.loads((job.folder / "config.toml").read_text())["history"]
    assert history == {"model": [f"6 updates until update {6 if finished else 3}, then 12"]}
    assert resume(job.folder).config.train.steps == 12


def test_an_evaluation_of_fewer_updates_is_set_aside_when_the_weights_are_replaced(tmp_path):
    job, _ = whole(tmp_path / "run", OFTEN)
    (job.folder / "eval.json").write_text(json.dumps({"rows": []}))
    lengthened(job.folder, model=8)
    assert not (job.folder / "eval.json").exists() and (job.folder / "eval-00000006.json").read_text() == '{"rows": []}'


def test_a_number_of_updates_that_cannot_be_is_refused(tmp_path):
    latent = replace(run_config(pixels=False), sample=OFTEN.sample)
    job, _ = whole(tmp_path / "run", latent)
    for lengths, message in (
        ({"model": 5}, "the model has made 6 updates, 5 is not possible: an update cannot be taken back"),
        ({"tokenizer": 9}, "its model has been trained on this tokenizer's latents: make a new run"),
    ):
        with pytest.raises(RunError, match=message):
            job.lengthen(lengths)
    for path in paths_of(job.folder, "model"):
        path.unlink()
    with pytest.raises(RunError, match="it kept no state to go on from"):
        job.lengthen({"model": 9})
    assert resume(job.folder).config.train.steps == 6


def test_a_judge_may_be_trained_further_alone(tmp_path):
    job, _ = begun(tmp_path / "run", OFTEN)
    job.train(*job.data())
    job.judge(*job.data())
    model = (job.folder / "model.safetensors").read_bytes()
    job = lengthened(job.folder, judge=8)
    job.judge(*job.data())
    assert states(job.folder, "judge")[0] == 8 and (job.folder / "model.safetensors").read_bytes() == model
    assert resumed(job.folder).config.judge_train.steps == 8


# ------------------------------------------------------------------------------------------------ fine-tuning


def test_a_model_that_is_fine_tuned_keeps_the_tokenizer_whose_latents_it_knows(tmp_path):
    config = run_config(pixels=False)
    first, _ = whole(tmp_path / "first", replace(config, tokenizer_train=replace(config.tokenizer_train, seed=3)))
    second, pipeline = whole(tmp_path / "second", replace(config, data=replace(config.data, init=str(first.folder))))
    ours, theirs = (read_arrays(job.folder / "tokenizer.safetensors")[0] for job in (second, first))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert {line["phase"] for line in lines(second.folder)} == {"model"} and pipeline.tokenizer.limit is None


@pytest.mark.parametrize("theirs", [True, False])
def test_pixels_and_latents_do_not_mix(tmp_path, theirs):
    first, _ = whole(tmp_path / "first", run_config(pixels=theirs))
    with pytest.raises(ValueError, match=r"its model works on (pixels|latents), this run on (latents|pixels): add its --tok"):
        begun(tmp_path / "second", run_config(pixels=not theirs, init=str(first.folder)))
    assert not (tmp_path / "second").exists()
