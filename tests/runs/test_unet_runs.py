"""Runs whose model is a U-Net: on pixels and on latents, stopped and gone on, from the command line."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from small import interrupted, resumed, run_config, whole

from minidit.checkpoint import read_arrays
from minidit.cli import main
from minidit.models.unet import UNet, UNetConfig
from minidit.runs.kinds import KINDS, kind_of, network_of
from minidit.runs.loading import load

NET = UNetConfig(widths=(8, 16), blocks=1, groups=4)


def weights(folder):
    return read_arrays(folder / "model.safetensors")[0]


@pytest.mark.parametrize("pixels", [True, False])
def test_a_run_of_a_u_net_that_was_stopped_is_the_run_that_was_not(tmp_path, pixels):
    config = replace(run_config(pixels=pixels), model=NET)
    _, pipeline = whole(tmp_path / "whole", config)
    interrupted(tmp_path / "stopped", config, 3)
    resumed(tmp_path / "stopped")
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert set(a) == set(b) == {name for name, _ in pipeline.model.named_parameters()}
    assert all(np.array_equal(a[name], b[name]) for name in a)
    again = load(tmp_path / "stopped")
    assert isinstance(again.model, UNet) and again.model.config.shape == ((1, 8, 8) if pixels else (4, 2, 2))
    assert np.array_equal(again.sample([0, 1], steps=2), pipeline.sample([0, 1], steps=2))


def test_the_word_unet_is_a_kind_of_model():
    assert KINDS["model"]["unet"] is UNetConfig and kind_of("model", NET) == "unet" and type(network_of(NET)) is UNet


def said(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in words])
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("process", ["ddpm", "rectified_flow"])
def test_the_command_trains_a_u_net_and_goes_on_with_it(tmp_path, process):
    folder = tmp_path / "run"
    sizes = ["--widths", 8, 16, "--groups", 4, "--blocks", 1, "--batch-size", 8, "--threads", 1, "--sample-steps", 2]
    code, out, err = said("train", "--data", "digits", "--pixels", "--model", "unet", "--process", process, *sizes, "--steps", 3,
                          "--sample-every", 0, "--out", folder)  # fmt: skip
    assert (code, out) == (0, f"{folder}\n"), err
    assert 'kind = "unet"' in (folder / "config.toml").read_text()
    assert said("train", "--resume", folder, "--steps", 5)[0] == 0
    assert said("sample", folder, "-n", 2, "--steps", 2, "--out", tmp_path / "x.png")[0] == 0 and (tmp_path / "x.png").exists()
    code, _, err = said("train", "--data", "digits", "--hidden-size", 8, "--model", "unet", "--out", tmp_path / "no")
    assert code == 2 and err.count("--hidden-size") >= 1


def test_the_tables_of_info_show_u_nets(capsys):
    assert main(["info", "--no-speed"]) == 0 and "unet-cifar    3x32x32" in capsys.readouterr().out
    assert main(["info", "--memory", "--network", "unet-fashion", "--device", "cpu"]) == 0
    assert "unet-fashion" in capsys.readouterr().out
