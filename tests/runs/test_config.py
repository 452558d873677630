"""config.toml: written resolved, read back exactly, whatever is unknown refused with its place."""

import tomllib
from dataclasses import replace

import pytest
from small import PROCESSES, begun, run_config

from minidit.checkpoint import CheckpointError
from minidit.models.autoencoder import AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.runs.config import read_config, run_config_from, tables_of, to_toml
from minidit.runs.folder import config_of
from minidit.runs.kinds import KINDS, PixelsConfig
from minidit.runs.presets import PRESETS


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_read_back_as_it_was_written(tmp_path, name):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(tables_of(PRESETS[name])))
    assert read_config(path) == PRESETS[name]


@pytest.mark.parametrize("process", PROCESSES)
def test_a_resolved_configuration_is_read_back_as_it_was_written(tmp_path, process):
    job, _ = begun(tmp_path / "run", run_config(pixels=False, process=process))
    assert config_of(job.folder) == job.config
    assert tomllib.loads((job.folder / "config.toml").read_text())["environment"]["device"] == "cpu"


@pytest.mark.parametrize("text", ['a "b" \\c', "two\nlines\ttab\r", "Δ ∇ 日本", "\x01 \x7f", ""])
def test_any_text_survives_toml(text):
    assert tomllib.loads(to_toml({"data": {"source": text}}))["data"]["source"] == text


def test_numbers_lists_and_truth_survive_toml():
    table = {"a": 1, "b": 1e-05, "c": True, "d": [1, 2.5], "e": (3, 4), "f": 1e300, "g": None}
    assert tomllib.loads(to_toml({"x": table}))["x"] == {"a": 1, "b": 1e-05, "c": True, "d": [1, 2.5], "e": [3, 4], "f": 1e300}


@pytest.mark.parametrize("tables, message", [
    ({"train": {"batchsize": 3}}, r"here, section \[train\]: unknown key 'batchsize', did you mean 'batch_size'"),
    ({"trian": {}}, "here: unknown key 'trian', did you mean 'train'"),
    ({"train": 3}, r"here: train must be a section, \[train\]"),
    ({"train": {"steps": "many"}}, r"section \[train\]: steps = 'many' must be a whole number"),
    ({"train": {"steps": True}}, "steps = True must be a whole number"),
    ({"train": {"steps": 0}}, r"section \[train\]: steps = 0 must be at least 1"),
    ({"train": {"lr": "1e-3"}}, "lr = '1e-3' must be a number"),
    ({"train": {"betas": [0.9]}}, "must be a list of 2 numbers"),
    ({"process": {"prediction": "noise"}}, r"section \[process\]: prediction 'noise' is not one of"),
    ({"process": {"kind": "dppm"}}, r"section \[process\]: kind 'dppm' is not one of ddpm, rectified_flow, .*, did you mean 'd"),
    ({"process": {"kind": "edm", "sigma_max": 0.001}}, r"section \[process\]: sigma_max = 0.001 must be above sigma_min"),
    ({"process": {"kind": "rectified_flow", "shift": 0}}, r"section \[process\]: shift = 0 must be above 0"),
    ({"process": {"kind": "rectified_flow", "times": "mode", "times_scale": 2.0}}, "the mode law needs a scale in -1"),
    ({"data": {"pixels": "yes"}}, r"section \[data\]: unknown key 'pixels'"),
    ({"tokenizer": {"kind": "vqq"}}, "kind 'vqq' is not one of pixels, autoencoder, autoencoder_kl"),
    ({"tokenizer": {"kind": 3}}, "kind 3 is not one of"),
    ({"tokenizer": {"kind": ["pixels"]}}, "is not one of pixels"),
    ({"tokenizer": {"kind": "pixels", "widths": [8, 8, 8]}}, "unknown key 'widths'"),
    ({"tokenizer": {"latent_chanels": 3}}, "unknown key 'latent_chanels', did you mean 'latent_channels'"),
    ({"tokenizer": {"kind": "autoencoder_kl", "widths": [8, "8"]}}, "must be a list of numbers"),
    ({"train": {"kind": "adam"}}, "unknown key 'kind'"),
    ({"data": {"size": "8"}}, "size = '8' must be a whole number"),
    ({"model": {"input_size": [8, "8"]}}, "must be a whole number or a list of 2 numbers"),
    ({"model": {"hidden_size": 30, "num_heads": 4}}, "hidden_size 30 must be divisible"),
    ({"sample": {"solver": "euler"}}, "unknown key 'solver'"),
    ({"sample": {"save_every": 0}}, "save_every = 0 must be at least 1"),
])  # fmt: skip
def test_a_wrong_configuration_is_told_with_its_place(tables, message):
    with pytest.raises(CheckpointError, match=message):
        run_config_from(tables, "here")


def test_what_a_file_leaves_out_stays_as_it_was():
    base = PRESETS["quick"]
    config = run_config_from({"train": {"lr": 1}, "model": {"input_size": [8, 16]}}, "here", base)
    assert config.train == replace(base.train, lr=1) and config.model == replace(base.model, input_size=(8, 16))
    assert config.data == base.data


@pytest.mark.parametrize("kind, cls", [
    ("pixels", PixelsConfig), ("autoencoder", AutoencoderConfig), ("autoencoder_kl", AutoencoderKLConfig),
])  # fmt: skip
def test_a_kind_chooses_the_dataclass_and_another_kind_starts_from_its_own_defaults(kind, cls):
    own = PRESETS["own"]  # an autoencoder of other widths than the default's
    config = run_config_from({"tokenizer": {"kind": kind}}, "here", own)
    assert config.tokenizer == (own.tokenizer if cls is AutoencoderConfig else cls())
    assert replace(config, tokenizer=own.tokenizer) == own
    assert tables_of(config)["tokenizer"]["kind"] == kind


def test_every_section_with_kinds_says_its_kind():
    assert all(next(iter(tables_of(PRESETS["demo"])[section])) == "kind" for section in KINDS)
