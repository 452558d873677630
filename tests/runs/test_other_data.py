"""What a run remembers of its pictures: with others it does not go on, and nothing is measured."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small import awake, begun, folder_of_pictures, interrupted, resumed, run_config, whole
from small import pictures as pictures_of

from minidit.checkpoint import CheckpointError, read_arrays
from minidit.cli import main
from minidit.cli.train import with_switches
from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.runs.fitting import parts_of
from minidit.runs.gallery import loss_curves
from minidit.runs.phases import resume
from minidit.runs.state import paths_of
from minidit.training.loop import LoopConfig, RunError


@pytest.fixture
def pictures(tmp_path):
    return folder_of_pictures(tmp_path / "pictures")


def one_more(folder):
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(f"{folder}/a/new.png")


def test_a_run_does_not_go_on_with_other_pictures(tmp_path, pictures):
    interrupted(tmp_path / "run", run_config(pictures), 3)
    one_more(pictures)
    with pytest.raises(CheckpointError, match=r"was trained on other pictures \(24 pictures are trained on now, 23 were\)"):
        resumed(tmp_path / "run")


def test_a_run_whose_pictures_were_moved_goes_on(tmp_path, pictures):
    job = interrupted(tmp_path / "run", run_config(pictures), 3)
    shutil.move(pictures, tmp_path / "moved")
    again = resume(job.folder)
    again.config = replace(again.config, data=replace(again.config.data, source=str(tmp_path / "moved")))
    again.fit_to(again.data()[0])
    again.train(*again.data())


def test_an_evaluation_on_other_pictures_is_refused(tmp_path, capsys):
    pictures = folder_of_pictures(tmp_path / "pictures", (30, 30))
    whole(tmp_path / "run", run_config(pictures, held_out=8))
    one_more(pictures)
    assert main(["eval", str(tmp_path / "run"), "-n", "8", "--ddpm-steps", "2", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "was trained on other pictures" in err and err.count("\n") == 1


def test_a_digest_sees_pictures_labels_and_which_part_they_are_in(tmp_path, pictures):
    config = run_config(pictures).data
    first = parts_of(config)
    assert parts_of(config).digest == first.digest != parts_of(replace(config, held_out=5)).digest
    shutil.move(f"{pictures}/a/0.png", f"{pictures}/b/zero.png")
    assert parts_of(config).digest != first.digest


# ------------------------------------------------------------------------------------------------ other runs


@pytest.mark.parametrize("beside", [True, False])
def test_a_file_of_weights_keeps_the_tokenizer_beside_it_or_asks_for_it(tmp_path, beside):
    config = run_config(pixels=False)
    first, _ = whole(tmp_path / "first", replace(config, tokenizer_train=replace(config.tokenizer_train, seed=3)))
    if not beside:
        (first.folder / "tokenizer.safetensors").unlink()
    tuned = replace(config, data=replace(config.data, init=str(first.folder / "model.safetensors")))
    if not beside:
        with pytest.raises(ValueError, match="the tokenizer of its model is not beside it: name it with --autoencoder"):
            whole(tmp_path / "second", tuned)
        return
    second, _ = whole(tmp_path / "second", tuned)
    ours, theirs = (read_arrays(job.folder / "tokenizer.safetensors")[0] for job in (second, first))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_that_was_fine_tuned_goes_on_without_the_one_it_began_from(tmp_path):
    config = run_config(pixels=False)
    first, _ = whole(tmp_path / "first", config)
    interrupted(tmp_path / "second", replace(config, data=replace(config.data, init=str(first.folder))), 3)
    shutil.rmtree(first.folder)
    assert resumed(tmp_path / "second").config.train.steps == 6


def test_a_run_that_diverged_is_told_how_to_begin_again_and_can(tmp_path):
    job = interrupted(tmp_path / "run", run_config(), 3)
    again = resume(job.folder)
    again.fit_to(again.data()[0])

    def ruin(phase, record, steps):
        again.loop.model.blocks[0].mlp.fc2.weight.data[...] = 1e38

    again.tell = ruin
    with np.errstate(all="ignore"), pytest.raises(RunError) as caught:
        again.train(*again.data())
    state = paths_of(job.folder, "model")[0]
    advice = f"the weights of {state} are safe; minidit train --init {job.folder} --out NEW, with another rate, starts from them"
    assert advice in str(caught.value)
    config = run_config(init=str(job.folder))
    whole(tmp_path / "new", replace(config, train=replace(config.train, lr=1e-4)))


def test_ranks_that_read_different_pictures_do_not_train(tmp_path, monkeypatch):
    job, _ = begun(tmp_path / "run")
    monkeypatch.setattr(job.ranks, "all_of", lambda thing: [thing, "another"])
    with pytest.raises(RunError, match="the ranks read different pictures from digits"):
        job.train(*job.data())
    assert not (tmp_path / "run").exists()


def test_a_loop_whose_ranks_have_different_numbers_of_samples_does_not_run(monkeypatch):
    loop = loop_for(awake(), pictures_of(11), Diffusion.on_ladder(Schedule.linear(30)), LoopConfig(steps=1, batch_size=4))
    monkeypatch.setattr(loop.ranks, "all_of", lambda thing: [thing, thing - 1] if isinstance(thing, int) else [thing])
    with pytest.raises(RunError, match="the ranks have different numbers of samples"):
        next(loop.run())


def test_a_line_of_metrics_that_a_kill_cut_short_stops_no_drawing(tmp_path):
    job, _ = whole(tmp_path / "run")
    before = np.asarray(loss_curves(job))
    with open(job.folder / "metrics.jsonl", "a") as f:
        f.write('{"phase": "judge", "st')
    assert np.array_equal(np.asarray(loss_curves(job)), before)


def test_another_cache_counts_also_for_a_run_that_goes_on_by_itself():
    args = SimpleNamespace(threads=None, cache="elsewhere", **{"train.accumulate": 3})
    config = with_switches(run_config(), args)
    assert (config.data.cache, config.train.accumulate) == ("elsewhere", 3)
    assert config.tokenizer_train == run_config().tokenizer_train
