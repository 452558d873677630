"""Runs of an earlier version are read, measured and gone on with. The folder `former/` was made by it: an interrupted run."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from small import resumed
from support import agree

from minidit.checkpoint import CheckpointError, load_model
from minidit.html.folder import read_run
from minidit.models.autoencoder import AutoencoderConfig
from minidit.runs import former
from minidit.runs.config import read_config, run_config_from, tables_of
from minidit.runs.export import csv_of
from minidit.runs.folder import metrics_of
from minidit.runs.kinds import DDPMConfig, PixelsConfig
from minidit.runs.loading import load
from minidit.runs.phases import resume
from minidit.runs.presets import PRESETS, RunConfig, SampleConfig

FORMER = Path(__file__).parent / "former"


@pytest.fixture
def run(tmp_path):
    """A copy of the interrupted run, in the files of that version."""
    shutil.copytree(FORMER, tmp_path / "run")
    (tmp_path / "run" / "finished.safetensors").unlink()
    return tmp_path / "run"


@pytest.fixture
def finished(run):
    """The same run as that version finished it."""
    shutil.copy(FORMER / "finished.safetensors", run / "dit.safetensors")
    return run


def test_its_configuration_is_read_in_todays_words(run):
    config = read_config(run / "config.toml")
    assert config.tokenizer == AutoencoderConfig(latent_channels=2, widths=(4, 4, 4), groups=2, size=(8, 8))
    assert config.process == DDPMConfig("v", "cosine", 20, "min_snr") and config.train.ema == 0.9
    assert (config.model.hidden_size, config.model.in_channels) == (8, 2)
    assert (config.tokenizer_train.steps, config.judge_train.steps, config.sample.guidance) == (6, 6, 3.0)
    assert run_config_from(tables_of(config), "here") == config


def test_settings_of_samples_that_no_run_used_are_left_out():
    assert run_config_from({"sample": {"sampler": "ddpm", "eta": 1.0, "steps": 3}}, "here").sample == SampleConfig(steps=3)


def test_it_goes_on_to_the_weights_that_the_earlier_version_reached(run):
    autoencoder = load_model(run / "autoencoder.safetensors")[0]
    job = resumed(run)
    there, here = (load_model(path)[0] for path in (FORMER / "finished.safetensors", run / "model.safetensors"))
    agree(here.flat, there.flat, bound=1e-5)
    assert np.array_equal(load_model(run / "tokenizer.safetensors")[0].flat, autoencoder.flat)
    assert '"phase": "model", "step": 6' in (run / "metrics.jsonl").read_text()
    assert job.config.process.T == 20


def test_a_finished_one_draws_its_pictures_and_is_judged(finished):
    pipeline = load(finished)
    assert pipeline.ladder.T == 20 and pipeline.prediction.name == "v" and pipeline.tokenizer.limit is None
    assert (pipeline.guidance, pipeline.interval, pipeline.class_names) == (3.0, (0.2, 0.7), tuple("0123456789"))
    assert pipeline.sample("3,1", steps=3).shape == (2, 1, 8, 8)
    job = resume(finished)
    assert job.judge(job.data()[0]).config.num_classes == 10
    before = (finished / "dit.safetensors").read_bytes()
    resumed(finished)
    assert (finished / "dit.safetensors").read_bytes() == before and not (finished / "model.safetensors").exists()


def test_what_was_measured_after_an_update_joins_its_line(run):
    with open(run / "metrics.jsonl", "a") as f:  # earlier versions gave it a line of its own
        f.write('{"phase": "dit", "step": 1, "held_out_loss": 0.25}\n{"phase": "dit", "step": 2, "held_out_loss": 0.125}\n')
    expected = [("tokenizer", 1, None), ("tokenizer", 6, None), ("model", 1, 0.25), ("model", 2, 0.125)]
    for lines in (metrics_of(run), read_run(run).metrics):
        assert [(line["phase"], line["step"], line.get("held_out_loss")) for line in lines] == expected
        assert lines[2]["loss"] == 0.19426223635673523
    assert csv_of({"run": read_run(run).metrics}).count("\n") == 1 + len(expected)


def test_its_state_is_refused_under_another_configuration(run):
    path = run / "config.toml"
    path.write_text(path.read_text().replace('prediction = "v"', 'prediction = "eps"'))
    with pytest.raises(CheckpointError, match=r"state\.safetensors: was .* another configuration: prediction is eps, was v"):
        resumed(run)


@pytest.mark.parametrize("tables, section, value", [
    ({"data": {"pixels": True}, "autoencoder": {"widths": [4, 4, 4]}}, "tokenizer", PixelsConfig()),
    ({"data": {"pixels": False}}, "tokenizer", AutoencoderConfig()),
    ({"autoencoder": {"latent_channels": 3}}, "tokenizer", AutoencoderConfig(latent_channels=3)),
    ({"train": {"T": 50, "lr": 0.5}}, "process", DDPMConfig(T=50)),
    ({"train": {"T": 50}, "process": {"T": 60}}, "process", DDPMConfig(T=60)),
])  # fmt: skip
def test_its_keys_and_sections_mean_what_they_meant(tables, section, value):
    assert getattr(run_config_from(tables, "here"), section) == value


def test_an_autoencoder_is_named_in_the_data():
    config = run_config_from({"data": {"autoencoder": "runs/a"}}, "here")
    assert config.data.tokenizer == "runs/a" and config.tokenizer == RunConfig().tokenizer


def test_todays_words_pass_unchanged():
    for preset in PRESETS.values():
        assert former.sections(tables_of(preset)) == tables_of(preset)


def test_the_demos_configuration_in_the_documents_is_read():
    path = Path(__file__).parents[2] / "docs" / "demo-config.toml"
    config = read_config(path)
    assert config.train.steps == PRESETS["demo"].train.steps
    assert {"data", "train", "sample"} <= set(tomllib.loads(path.read_text()))
