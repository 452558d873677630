"""Run folders and pipelines of others: a scheduler without a ladder, tables without end, pipes, names that print."""

import os

import numpy as np
import pytest
import small

from minidit.checkpoint import CheckpointError, write_arrays
from minidit.checkpoint.files import read_arrays
from minidit.runs.config import read_config
from minidit.runs.diffusers_folder import process_from
from minidit.runs.loading import load


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "a FlowMatchEulerDiscreteScheduler has no ladder"),
        ({"_class_name": "DDIMScheduler", "clip_sample": "False"}, "must be true or false"),
        ({"num_train_timesteps": 2**31}, "at most 1000000 are walked"),
        ({"num_train_timesteps": "1000"}, "positive whole number"),
    ],
)
def test_a_scheduler_that_cannot_be_done_is_refused(settings, words):
    with pytest.raises(CheckpointError, match=rf"s\.json: .*{words}"):
        process_from(settings, "s.json")


def test_a_configuration_is_a_regular_file_of_a_ladder_that_can_be_made(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[process]\nT = 2147483648\n")
    with pytest.raises(CheckpointError, match=r"config\.toml.*at most 1000000"):
        read_config(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="a pipe, not a file"):
        read_config(path)


@pytest.mark.parametrize("facts", [3, {"class_names": 3}, {"class_names": ["\x1b[2J"] * 10}, {"crop": "2"}])
def test_facts_of_the_data_that_are_damaged_are_named(tmp_path, facts):
    small.whole(tmp_path / "run", small.run_config(steps=2))
    path = tmp_path / "run" / "model.safetensors"
    arrays, meta = read_arrays(path)
    write_arrays(path, arrays, {**meta, "data": facts})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: ") as caught:
        load(tmp_path / "run")
    assert str(caught.value).isprintable() and np.isfinite(arrays["pos_embed"]).all()
