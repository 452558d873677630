"""A run that begins with the weights of another."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from small import begun, folder_of_pictures, interrupted, lines, resumed, run_config, whole
from support import agree

from minidit.checkpoint import CheckpointError, load_model, read_arrays
from minidit.runs.presets import SHIPPED
from minidit.runs.state import paths_of


def test_fine_tuning_takes_all_weights_and_a_label_table_only_of_the_same_classes(tmp_path):
    first, _ = whole(tmp_path / "first", run_config(channels=3))
    model, _ = load_model(first.folder / "model.safetensors")
    frozen = replace(run_config(steps=1).train, lr=1e-30)
    for source, same in (("digits", True), (folder_of_pictures(tmp_path / "pictures"), False)):
        config = replace(run_config(source, channels=3, init=str(first.folder)), train=frozen)
        job, pipeline = whole(tmp_path / f"second{same}", config)
        theta = read_arrays(paths_of(job.folder, "model")[0])[0]["theta"]
        agree(pipeline.model.flat, theta, bound=1e-6)  # the average begins with these weights as well
        pipeline.model.flat[...] = theta
        for (name, p), (_, q) in zip(pipeline.model.named_parameters(), model.named_parameters(), strict=True):
            if name.startswith("y_embedder") and not same:
                assert p.shape == (3, 32)
            else:
                assert np.array_equal(p.data, q.data), name


@pytest.mark.parametrize("init, message", [
    ("nowhere", "nowhere: there is no such file"),
    ("first", "cannot start from it, .* is .*, not"),
    ("first/config.toml", "config.toml: not a readable safetensors file"),
])  # fmt: skip
def test_a_start_that_does_not_fit_is_refused(tmp_path, init, message):
    whole(tmp_path / "first", run_config(channels=3))
    with pytest.raises(CheckpointError, match=message):
        whole(tmp_path / "second", run_config(init=str(tmp_path / init)))


def test_a_run_resumes_without_what_it_was_started_from(tmp_path):
    first, _ = whole(tmp_path / "first")
    interrupted(tmp_path / "second", run_config(init=str(first.folder)), 3)
    shutil.rmtree(first.folder)  # its states as well, which would do for its weights
    resumed(tmp_path / "second")


def test_a_given_autoencoder_is_used_as_it_is_whatever_its_widths(tmp_path):
    config = run_config(pixels=False)
    first, _ = whole(tmp_path / "first", replace(config, tokenizer=replace(config.tokenizer, latent_channels=3)))
    second, pipeline = whole(tmp_path / "second", run_config(pixels=False, tokenizer=str(first.folder)))
    assert second.config.model.in_channels == 3 and pipeline.tokenizer.autoencoder.config == first.config.tokenizer
    own, theirs = (load_model(job.folder / "tokenizer.safetensors")[0] for job in (second, first))
    assert np.array_equal(own.flat, theirs.flat) and own.scale == theirs.scale
    assert {line["phase"] for line in lines(second.folder)} == {"model"}


def test_an_autoencoder_for_other_pictures_is_refused(tmp_path):
    first, _ = whole(tmp_path / "first", run_config(pixels=False))
    other = r"the tokenizer in \S+ is for pictures of 1 channel, these have 3: give --channels 1, or train another"
    for wrong, message in (("tokenizer", other), ("model", "a DiT, not a tokenizer")):
        given = str(first.folder / f"{wrong}.safetensors")
        with pytest.raises(CheckpointError, match=message):
            begun(tmp_path / "second", run_config(pixels=False, channels=3, tokenizer=given))
    with pytest.raises(CheckpointError, match=r"^the tokenizer that comes with minidit is for pictures of 1 channel"):
        begun(tmp_path / "second", run_config(pixels=False, channels=3, tokenizer=str(SHIPPED / "fashion")))
