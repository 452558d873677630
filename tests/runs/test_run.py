"""A run in a folder: written whole, read back exactly, interrupted and resumed to the same bits."""

import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from small import run_config

from minidit.checkpoint import CheckpointError, load_model, read_arrays
from minidit.runs import run as runs
from minidit.runs.config import read_config, run_config_from, tables_of, to_toml
from minidit.runs.presets import PRESETS, SampleConfig
from minidit.runs.run import Run
from minidit.training.loop import RunError


def begun(folder, config=None, **options):
    """A Run with its folder, and its data."""
    job = Run(folder, config or run_config(), **options)
    train, _ = job.data()
    job.fit_to(train)
    job.create()
    return job, train


def whole(folder, config=None):
    """A run from beginning to end."""
    job, train = begun(folder, config)
    return job, job.train_denoiser(*job.source(train))


def interrupted(folder, config, step):
    """The same, stopped after a step as the command stops it."""
    job, train = begun(folder, config)

    def tell(phase, record, steps):
        job.loop.stop = phase == "dit" and record["step"] == step

    source, autoencoder = job.source(train)
    job.tell = tell
    job.train_denoiser(source, autoencoder)
    job.save_state(job.loop)
    return job


def resumed(folder):
    job = runs.resume(folder)
    train, _ = job.data()
    job.fit_to(train)
    job.train_denoiser(*job.source(train))
    return job


def lines(folder):
    """metrics.jsonl without what a clock says."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("wall_s", "img_per_s")} for line in read]


# ------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("pixels", [True, False])
def test_an_interrupted_run_ends_with_the_bits_of_one_that_was_not(tmp_path, pixels):
    config = run_config(pixels=pixels)
    whole(tmp_path / "whole", config)
    interrupted(tmp_path / "cut", config, 3)
    assert not (tmp_path / "cut" / "dit.safetensors").exists()
    resumed(tmp_path / "cut")
    for name in ("dit.safetensors", "state.safetensors") + (() if pixels else ("autoencoder.safetensors",)):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_a_run_that_was_killed_goes_on_from_its_last_saved_state(tmp_path):
    """Saved at step 20, killed at 21 in the middle of a line: what comes after 20 is done again and told once."""
    config = replace(run_config(steps=22), sample=SampleConfig(steps=3, save_every=20))
    whole(tmp_path / "whole", config)
    job = interrupted(tmp_path / "cut", config, 20)
    with open(job.folder / "metrics.jsonl", "a") as f:
        f.write('{"phase": "dit", "step": 21, "loss": 0.5}\n{"phase": "dit", "st')
    resumed(job.folder)
    assert lines(job.folder) == lines(tmp_path / "whole")
    assert (job.folder / "dit.safetensors").read_bytes() == (tmp_path / "whole" / "dit.safetensors").read_bytes()


def test_a_run_that_stopped_in_the_autoencoder_trains_it_anew(tmp_path):
    config = run_config(pixels=False)
    whole(tmp_path / "whole", config)
    job, _ = begun(tmp_path / "cut", config)
    (job.folder / "metrics.jsonl").write_text('{"phase": "autoencoder", "step": 1, "loss": 0.5}\n')
    resumed(job.folder)
    assert lines(job.folder) == lines(tmp_path / "whole")


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path):
    job, _ = whole(tmp_path / "run")
    before = (job.folder / "dit.safetensors").read_bytes(), lines(job.folder)
    resumed(job.folder)
    assert ((job.folder / "dit.safetensors").read_bytes(), lines(job.folder)) == before


def test_another_configuration_is_refused_with_what_differs(tmp_path):
    job = interrupted(tmp_path / "run", run_config(), 3)
    path = job.folder / "config.toml"
    path.write_text(path.read_text().replace("lr = 0.01", "lr = 0.02"))
    with pytest.raises(CheckpointError, match=r"another configuration: lr is 0\.02, was 0\.01"):
        resumed(job.folder)


def test_a_damaged_state_is_named(tmp_path):
    job = interrupted(tmp_path / "run", run_config(), 3)
    state = job.folder / "state.safetensors"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"state\.safetensors: not a readable safetensors file"):
        resumed(job.folder)


@pytest.mark.parametrize("text, message", [(None, "no run there"), ("a = ", "config.toml: not TOML"), ("\xff", "not TOML")])
def test_a_folder_that_is_no_run_is_told(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message):
        runs.resume(tmp_path)


# ------------------------------------------------------------------------------------------------ the folder


def test_a_run_leaves_what_its_page_promises(tmp_path):
    config = replace(run_config(), sample=SampleConfig(steps=3, every=2, save_every=4))
    job, pipeline = whole(tmp_path / "run", config)
    assert {p.name for p in job.folder.iterdir()} == {
        "config.toml", "metrics.jsonl", "dit.safetensors", "state.safetensors", "samples",
    }  # fmt: skip
    assert [p.name for p in sorted((job.folder / "samples").iterdir())] == ["step_00000002.png", "step_00000004.png"]
    arrays, meta = read_arrays(job.folder / "state.safetensors")
    assert meta["step"] == 6 and set(arrays) == {"theta", "m", "v", "ema"}
    model, meta = load_model(job.folder / "dit.safetensors")
    assert np.array_equal(model.flat, job.loop.optimiser.average) and np.array_equal(pipeline.model.flat, model.flat)
    assert meta["data"]["class_names"] == [str(i) for i in range(10)] and meta["train"]["prediction"] == "v"
    assert [line["step"] for line in lines(job.folder)] == [1, 6]


def test_a_run_never_replaces_another_unasked(tmp_path):
    job, _ = begun(tmp_path / "run")
    with pytest.raises(RunError, match="holds a run already: choose another --out, --resume it, or --overwrite"):
        job.create()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_is_never_put_among_other_files(tmp_path, overwrite):
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(RunError, match="holds something that is no run"):
        begun_in = Run(tmp_path, run_config())
        begun_in.fit_to(begun_in.data()[0])
        begun_in.create(overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]


def test_overwriting_leaves_nothing_of_the_old_run_and_nothing_else_is_touched(tmp_path):
    job, _ = whole(tmp_path / "run", replace(run_config(), sample=SampleConfig(steps=3, every=2)))
    own = ("classifier.safetensors", "eval.json", "report.html", "trace.npz", "pictures/ddim.png")
    for name in (*own, "notes.txt", "mine/photo.png"):
        (job.folder / name).parent.mkdir(exist_ok=True)
        (job.folder / name).write_text("old")
    job.create(overwrite=True)
    left = {str(p.relative_to(job.folder)) for p in job.folder.rglob("*") if p.is_file()}
    assert left == {"config.toml", "notes.txt", "mine/photo.png"}


# ------------------------------------------------------------------------------------------------ config.toml


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_read_back_as_it_was_written(tmp_path, name):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(tables_of(PRESETS[name])))
    assert read_config(path) == PRESETS[name]


def test_a_resolved_configuration_is_read_back_as_it_was_written(tmp_path):
    job, _ = begun(tmp_path / "run", run_config(pixels=False))
    assert runs.resume(job.folder).config == job.config
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
    ({"train": {"prediction": "noise"}}, "prediction 'noise' is not one of"),
    ({"data": {"pixels": "yes"}}, "pixels = 'yes' must be true or false"),
    ({"data": {"size": "8"}}, "size = '8' must be a whole number"),
    ({"dit": {"input_size": [8, "8"]}}, "must be a whole number or a list of 2 numbers"),
    ({"dit": {"hidden_size": 30, "num_heads": 4}}, "hidden_size 30 must be divisible"),
    ({"sample": {"sampler": "euler"}}, "sampler 'euler' is not one of ddim, ddpm"),
    ({"sample": {"save_every": 0}}, "save_every = 0 must be at least 1"),
])  # fmt: skip
def test_a_wrong_configuration_is_told_with_its_place(tables, message):
    with pytest.raises(CheckpointError, match=message):
        run_config_from(tables, "here")


def test_what_a_file_leaves_out_stays_as_it_was():
    base = PRESETS["quick"]
    config = run_config_from({"train": {"lr": 1}, "dit": {"input_size": [8, 16]}}, "here", base)
    assert config.train == replace(base.train, lr=1) and config.dit == replace(base.dit, input_size=(8, 16))
    assert config.data == base.data


# ------------------------------------------------------------------------------------------------ data that decide


def folder_of_pictures(folder, each=(12, 13), size=8):
    """Two classes of random pictures."""
    rng = np.random.default_rng(0)
    for name, n in zip("ab", each, strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / name / f"{i}.png")
    return str(folder)


def test_a_tenth_of_the_pictures_is_held_out_and_stays_so(tmp_path):
    source = folder_of_pictures(tmp_path / "pictures", (30, 20))
    job, train = begun(tmp_path / "run", run_config(source))
    (again, held_out), first = job.data(), job.data()[1]
    assert (len(train), len(held_out)) == (45, 5) and np.bincount(held_out.labels).tolist() == [3, 2]
    assert np.array_equal(first.images, held_out.images) and np.array_equal(again.images, train.images)
    assert job.config.dit.num_classes == 2 and job.config.dit.in_channels == 3


def test_very_few_pictures_are_all_trained_on(tmp_path):
    train, held_out = Run(tmp_path, run_config(folder_of_pictures(tmp_path / "p", (3, 2)))).data()
    assert len(train) == len(held_out) == 5


def test_an_embedded_set_brings_its_own_held_out_part_in_the_wanted_form(tmp_path):
    train, held_out = Run(tmp_path, run_config(size=16, channels=3)).data()
    assert (len(train), len(held_out)) == (1500, 297)
    assert train.images.shape[1:] == held_out.images.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize("pixels, patch, size, message", [
    (True, 4, 10, r"pictures of 10 x 10 do not fit patches of 4: give --size, a multiple of 4"),
    (False, 2, 12, r"do not fit an autoencoder of factor 4 and patches of 2: give --size, a multiple of 8"),
])  # fmt: skip
def test_a_size_that_does_not_fit_is_told_with_the_sizes_that_do(tmp_path, pixels, patch, size, message):
    config = run_config(pixels=pixels, size=size)
    job = Run(tmp_path, replace(config, dit=replace(config.dit, input_size=patch, patch_size=patch)))
    with pytest.raises(ValueError, match=message):
        job.fit_to(job.data()[0])


# ------------------------------------------------------------------------------------------------ starting from other runs


def test_fine_tuning_takes_all_weights_and_a_label_table_only_of_the_same_classes(tmp_path):
    first, _ = whole(tmp_path / "first", run_config(channels=3))
    model, _ = load_model(first.folder / "dit.safetensors")
    frozen = replace(run_config(steps=1).train, lr=1e-30)
    for source, same in (("digits", True), (folder_of_pictures(tmp_path / "pictures"), False)):
        config = replace(run_config(source, channels=3, init=str(first.folder)), train=frozen)
        job, _ = whole(tmp_path / f"second{same}", config)
        for (name, p), (_, q) in zip(job.loop.model.named_parameters(), model.named_parameters(), strict=True):
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
    (first.folder / "dit.safetensors").unlink()
    resumed(tmp_path / "second")


def test_a_given_autoencoder_is_used_as_it_is_whatever_its_widths(tmp_path):
    config = run_config(pixels=False)
    first, _ = whole(tmp_path / "first", replace(config, autoencoder=replace(config.autoencoder, latent_channels=3)))
    second, pipeline = whole(tmp_path / "second", run_config(pixels=False, autoencoder=str(first.folder)))
    assert second.config.dit.in_channels == 3 and pipeline.autoencoder.config == first.config.autoencoder
    own, theirs = (load_model(job.folder / "autoencoder.safetensors")[0] for job in (second, first))
    assert np.array_equal(own.flat, theirs.flat) and own.scale == theirs.scale
    assert {line["phase"] for line in lines(second.folder)} == {"dit"}


def test_an_autoencoder_for_other_pictures_is_refused(tmp_path):
    first, _ = whole(tmp_path / "first", run_config(pixels=False))
    for wrong, message in (("autoencoder", "not an autoencoder for pictures of 3 channels"), ("dit", "not an autoencoder")):
        given = str(first.folder / f"{wrong}.safetensors")
        with pytest.raises(CheckpointError, match=message):
            begun(tmp_path / "second", run_config(pixels=False, channels=3, autoencoder=given))
