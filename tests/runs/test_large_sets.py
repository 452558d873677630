"""Whole runs on sets that stay on disk, with augmentation, and with files that cannot be read."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from small import begun, folder_of_pictures, interrupted, lines, resumed, run_config, whole

from minidit.checkpoint import CheckpointError, read_arrays
from minidit.data import cache
from minidit.data.cache import Cache
from minidit.data.rows import Rows
from minidit.runs import evaluate
from minidit.runs.evaluate import Evaluation
from minidit.runs.phases import resume
from minidit.runs.state import paths_of


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """A switch: from now on every set is cached."""
    return lambda: monkeypatch.setattr(cache, "named", lambda text: Cache(tmp_path / "cache", least=0))


def config_of(tmp_path, **data):
    return run_config(folder_of_pictures(tmp_path / "p"), pixels=False, **data)


@pytest.mark.parametrize("augmentation", [{}, {"flip": True, "crop": 1}])
def test_a_run_from_the_disk_has_the_bits_of_a_run_from_memory(tmp_path, on_disk, augmentation):
    config = config_of(tmp_path, **augmentation)
    here, _ = whole(tmp_path / "here", config)
    on_disk()
    job = interrupted(tmp_path / "there", config, 3)
    assert isinstance(job.parts.train.images, Rows) and len(list((tmp_path / "cache").iterdir())) == 4  # pixels, latents, locks
    resumed(tmp_path / "there")
    for name in ("tokenizer", "model"):
        files = [here.folder / f"{name}.safetensors", paths_of(here.folder, name)[0]]
        for file in files:
            assert (tmp_path / "there" / file.relative_to(here.folder)).read_bytes() == file.read_bytes(), file
    assert lines(tmp_path / "there") == lines(here.folder)


def test_augmentation_changes_what_both_networks_learn_and_not_what_is_held_out(tmp_path):
    config = config_of(tmp_path)
    plain, _ = whole(tmp_path / "plain", config)
    other, _ = whole(tmp_path / "other", replace(config, data=replace(config.data, flip=True, crop=1)))
    assert np.array_equal(plain.parts.held_out.images, other.parts.held_out.images)
    for name in ("tokenizer", "model"):
        one, two = (read_arrays(paths_of(job.folder, name)[0])[0]["theta"] for job in (plain, other))
        assert not np.array_equal(one, two), name
    one, two = (job.judge_phase(job.parts.train).source.x_0 for job in (plain, other))
    assert np.array_equal(one, two)  # the judge measures: its pictures are not augmented


@pytest.mark.parametrize("stored", [False, True])
def test_an_evaluation_reads_a_set_in_blocks(tmp_path, on_disk, stored, monkeypatch):
    job, _ = whole(tmp_path / "run", run_config(folder_of_pictures(tmp_path / "p")))
    judge, train = job.judge(job.parts.train), job.parts.train
    reference, near = Evaluation(judge, train, job.parts.held_out), train.x_0([3, 9])
    if stored:
        on_disk()
        train, _ = job.data()
    monkeypatch.setattr(evaluate, "BLOCK", 5)
    blocks = Evaluation(judge, train, job.parts.held_out)
    assert np.allclose(blocks.reference, reference.reference, rtol=1e-5, atol=1e-6)
    a, b = blocks.neighbours(near), reference.neighbours(near)
    assert a["index"] == b["index"] == [3, 9] and a["sample_distance"]["q95"] == 0
    assert a["held_out_distance"] == pytest.approx(b["held_out_distance"])


# ------------------------------------------------------------------------------------------------ bad files


def with_bad_files(tmp_path):
    source = folder_of_pictures(tmp_path / "p")
    for name in ("a/3.png", "b/7.png"):
        (tmp_path / "p" / name).write_bytes(b"nothing")
    return run_config(source, skip_bad=True)


@pytest.mark.parametrize("stored", [False, True])
def test_a_resumed_run_leaves_out_the_files_that_it_left_out_before(tmp_path, stored, on_disk):
    if stored:
        on_disk()
    config = with_bad_files(tmp_path)
    reference, _ = whole(tmp_path / "whole", config)
    assert reference.facts["skipped"] == 2 and reference.facts["images"] == 21
    told = [json.loads(line) for line in (tmp_path / "whole" / "skipped.jsonl").read_text().splitlines()]
    assert [line["file"] for line in told] == ["a/3.png", "b/7.png"] and all("not a picture" in line["why"] for line in told)
    interrupted(tmp_path / "cut", config, 3)
    shutil.copy(tmp_path / "p" / "a" / "1.png", tmp_path / "p" / "a" / "3.png")  # repaired meanwhile
    resumed(tmp_path / "cut")
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    (tmp_path / "p" / "b" / "2.png").write_bytes(b"broken since")
    with pytest.raises(ValueError, match=r"b/2\.png: not a picture"):
        resume(tmp_path / "cut").data()


def test_a_damaged_list_of_skipped_files_is_named(tmp_path):
    job, _ = begun(tmp_path / "run", with_bad_files(tmp_path))
    for text in ("{", "[]\n", '{"path": 1}\n'):
        (job.folder / "skipped.jsonl").write_text(text)
        with pytest.raises(CheckpointError, match=r"skipped\.jsonl: a damaged list of skipped files"):
            resume(job.folder)


def test_an_overwritten_run_takes_its_list_along(tmp_path):
    job, _ = whole(tmp_path / "run", with_bad_files(tmp_path))
    for name in ("a/3.png", "b/7.png"):
        shutil.copy(tmp_path / "p" / "a" / "1.png", tmp_path / "p" / name)
    again = type(job)(job.folder, run_config(str(tmp_path / "p")))
    again.fit_to(again.data()[0])
    again.create(overwrite=True)
    assert not (job.folder / "skipped.jsonl").exists() and again.facts["skipped"] == 0
