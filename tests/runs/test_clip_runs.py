"""Clips through the house: trained, drawn, shown and measured, frame by frame where something knows pictures only."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import small
from PIL import Image

from minidit.checkpoint import load_model
from minidit.cli import main
from minidit.data.clips import clips, moving
from minidit.data.embedded import digits
from minidit.html.measures import SOURCES
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.spacetime import SpacetimeConfig, SpacetimeDiT
from minidit.pictures import grid
from minidit.processes.tokenizer import Latent, Pixels, decode, latents_of, posterior_of
from minidit.random import Philox
from minidit.runs.evaluate import judge
from minidit.runs.fitting import fitted
from minidit.runs.show import class_grid, playing
from minidit.training.augment import Augment
from minidit.training.draws import Draws

SPACETIME = SpacetimeConfig(patch_size=4, hidden_size=32, depth=2, num_heads=2)


def config(*, pixels=True, **more):
    """A run on clips of three frames, in a second."""
    base = small.run_config("clips", pixels=pixels, frames=3, **more)
    return replace(base, model=replace(SPACETIME, patch_size=4 if pixels else 2))


@pytest.mark.parametrize("pixels", [True, False])
def test_a_run_on_clips_draws_clips(tmp_path, pixels):
    job, pipeline = small.whole(tmp_path / "run", config(pixels=pixels))
    assert job.config.model.shape == pipeline.model.shape == ((1, 3, 16, 16) if pixels else (4, 3, 4, 4))
    x = pipeline.sample([3, 7], steps=2)
    assert x.shape == (2, 1, 3, 16, 16) and np.abs(x).max() <= 1


def test_a_stopped_run_on_clips_ends_as_one_that_was_not(tmp_path):
    straight, _ = small.whole(tmp_path / "a", config())
    small.interrupted(tmp_path / "b", config(), 3)
    small.resumed(tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes()[-4096:] == (tmp_path / "b" / "model.safetensors").read_bytes()[
        -4096:
    ]
    assert small.lines(tmp_path / "a") == small.lines(tmp_path / "b") and straight.config.data.frames == 3


def test_commands_train_draw_and_measure_clips(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "train --data clips --model spacetime --pixels --preset digits --frames 3 --steps 2 --hidden-size 32 --depth 2"
    assert main([*words.split(), "--patch-size", "4", "--time-attention", "factorised", "--sample-steps", "2", "--out", "r"]) == 0
    err = capsys.readouterr().err
    assert "12000 clips of 3 frames, 600 held out" in err and "held out: the set's own test part, 600 clips\n" in err
    assert "12,000 clips are trained on" in (tmp_path / "r" / "report.html").read_text()
    for name in ("ddim.gif", "ddim.png", "denoising.gif", "x0_strip.png"):
        assert (tmp_path / "r" / "pictures" / name).stat().st_size > 0
    assert "ddim.gif" in (tmp_path / "r" / "report.html").read_text()
    for out in ("a.gif", "a.png", "a.npz"):
        assert main(["sample", "r", "-n", "2", "--steps", "2", "--out", out]) == 0
        assert "2 clips" in capsys.readouterr().err
    with Image.open("a.gif") as film:
        assert film.n_frames == 3
    assert np.load("a.npz")["arr_0"].shape == (2, 3, 16, 16, 1)
    assert main(["eval", "r", "-n", "20"]) == 0
    rows = json.loads((tmp_path / "r" / "eval.json").read_text())["rows"]
    assert [row["name"] in SOURCES for row in rows] == [True] * 3 + [False]
    assert [r["name"] for r in rows][:3] == ["held-out real clips", "their frames shuffled", "frames of other clips"]
    assert rows[0]["steady"] == 1 and rows[0]["error"] == 0 and rows[-1]["steady"] < 0.5 and "frechet" not in rows[-1]
    assert not (tmp_path / "r" / "judge.safetensors").exists()
    assert "1.000" in capsys.readouterr().out and "steady" in (tmp_path / "r" / "report.html").read_text()


def test_a_run_with_a_share_of_pictures_draws_both_and_goes_on_to_the_same_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both = replace(config(), data=replace(config().data, pictures=0.25))
    small.whole(tmp_path / "a", both)
    small.interrupted(tmp_path / "b", both, 3)
    small.resumed(tmp_path / "b")
    alone, _ = small.whole(tmp_path / "c", config())
    a, b, c = (load_model(tmp_path / name / "model.safetensors")[0].flat for name in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert "pictures" in small.lines(tmp_path / "a")[0] and "pictures" not in small.lines(alone.folder)[0]
    for frames, noun, shape in (("1", "picture", (2, 16, 16, 1)), ("5", "clip", (2, 5, 16, 16, 1))):
        assert main(["sample", "a", "-n", "2", "--steps", "2", "--frames", frames, "--out", f"{frames}.npz"]) == 0
        assert f"2 {noun}s" in capsys.readouterr().err and np.load(f"{frames}.npz")["arr_0"].shape == shape


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("train --data digits --preset digits --pictures 0.2", "--pictures 0.2: the data are pictures"),
        ("train --data clips --pictures 1.5", "must be 0 or more, and below 1"),
        ("sample r --frames 0", "--frames 0 must be at least 1"),
        ("sample r --frames 2", "--frames 2: this model draws pictures only"),
    ],
)
def test_shares_and_lengths_that_mean_nothing_are_refused_in_one_line(tmp_path, capsys, monkeypatch, words, error):
    monkeypatch.chdir(tmp_path)
    if words.startswith("sample"):
        small.whole(tmp_path / "r")
    assert main([*words.split(), *(["--quiet"] if "train" in words else [])]) == 2
    message = capsys.readouterr().err
    assert error in message and message.count("\n") == 1


def test_networks_of_pictures_refuse_clips_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in ("dit", "unet"):
        assert main(["train", "--data", "clips", "--model", model, "--pixels", "--preset", "digits", "--quiet"]) == 2
        error = capsys.readouterr().err
        assert "the data are clips of 1 x 6 x 16 x 16: add --model spacetime" in error and error.count("\n") == 1
    assert main(["train", "--data", "clips", "--model", "spacetime", "--pixels", "--frames", "1"]) == 2
    assert "a clip has at least two" in capsys.readouterr().err


def test_two_frames_have_no_motion_to_measure(tmp_path, capsys):
    small.whole(tmp_path / "run", replace(config(), data=replace(config().data, frames=2)))
    assert main(["eval", str(tmp_path / "run"), "-n", "9"]) == 2
    assert "clips of 2 frames have no motion to measure" in capsys.readouterr().err


def test_a_network_for_clips_is_trained_on_pictures_as_well():
    run = fitted(replace(small.run_config(), model=replace(SPACETIME, patch_size=2)), digits())
    assert run.model.shape == (1, 8, 8) and run.model.tokens == 16


# ------------------------------------------------------------------------------------------------ frame by frame


def test_an_autoencoder_takes_clips_frame_by_frame():
    net = Autoencoder(AutoencoderConfig(widths=(8, 8, 16), channels=1, size=(16, 16)), Philox(0))
    data = clips("test", frames=3).take(slice(5))
    latents, tokenizer = latents_of(net, data), Latent(net)
    x = data.x_0()
    assert latents.mean.shape == (5, *tokenizer.shape(1, 3, 16, 16)) == (5, 4, 3, 4, 4)
    for k in range(3):
        mean, std = posterior_of(net, np.ascontiguousarray(x[:, :, k]))  # another batch: equal up to rounding
        assert np.allclose(latents.mean[:, :, k], mean, atol=1e-4) and np.allclose(latents.std[:, :, k], std, atol=1e-4)
    z = tokenizer.encode(x)
    assert np.allclose(z, latents.scale * latents.mean, atol=1e-4)
    assert np.allclose(tokenizer.decode(z)[:, :, 1], decode(net, np.ascontiguousarray(z[:, :, 1])), atol=1e-4)
    assert np.array_equal(Pixels().decode(Pixels().encode(x)), x) and Pixels().shape(1, 3, 16, 16) == (1, 3, 16, 16)
    flipped = latents_of(net, data, flip=True)
    draws = Draws(0, 1, np.arange(5), per=4, batch_size=5)
    assert flipped.draw(np.arange(5), draws)[0].shape == z.shape


def test_augmentation_changes_all_frames_of_a_clip_alike():
    data = clips("test", frames=3).take(slice(8))
    x, draws = data.x_0(), Draws(0, 1, np.arange(8), batch_size=8)
    changed = Augment(flip=True, crop=2)(x, draws.at(0))
    assert changed.shape == x.shape and not np.array_equal(changed, x)
    for k in range(3):
        assert np.array_equal(changed[:, :, k], Augment(flip=True, crop=2)(np.ascontiguousarray(x[:, :, k]), draws.at(0)))


def test_the_judge_of_a_run_learns_single_frames(tmp_path):
    job, _ = small.begun(tmp_path / "run", config())
    network = job.judge(*job.data())
    assert judge(network, clips("test", frames=3).pictures().x_0(slice(4)))[0].shape == (4, 10)


def test_a_sheet_of_clips_has_a_row_per_clip_and_a_film_a_picture_per_frame():
    x = moving(digits(), 3, frames=4).x_0()
    frames = x.swapaxes(1, 2).reshape(12, 1, 16, 16)
    assert np.array_equal(np.asarray(grid(x, 1)), np.asarray(grid(frames, 4)))
    assert np.array_equal(np.asarray(class_grid(x, None)), np.asarray(grid(frames, 4)))
    film = playing(x, None, SimpleNamespace(vocabulary=None, class_names=()))
    assert len(film) == 4 and np.array_equal(np.asarray(film[2]), np.asarray(class_grid(x[:, :, 2], None)))


def test_a_network_made_for_clips_draws_each_from_its_own_noise():
    import minidit as md

    network = small_network()
    process = md.Diffusion.on_ladder(md.Schedule.cosine(20), md.V)
    both = md.sample(network, process, labels=[1, 2], steps=3)
    assert both.shape == (2, 1, 3, 16, 16)
    assert np.allclose(md.sample(network, process, labels=[1, 2, 0], steps=3)[:2], both, atol=1e-5)


def small_network():
    network = SpacetimeDiT(replace(SPACETIME, frames=3), Philox(1))
    for k, p in enumerate(network.parameters()):
        p.data[...] += 0.1 * Philox(1, 7, state=k).normal(p.shape)
    return network
