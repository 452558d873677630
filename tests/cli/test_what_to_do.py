"""What commands and functions say where something is taken, unfinished, left out or of another kind: always what to do."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from run_folder import write_run
from small import begun, interrupted, run_config

import minidit as md
from minidit.checkpoint import CheckpointError
from minidit.cli.demo import stopped_before
from minidit.cli.sample import so_far
from minidit.data import DataError, load
from minidit.data.captions import Vocabulary, likely, mistakes_in
from minidit.html.comparison import incomparable
from minidit.html.folder import read_run
from minidit.html.moments import progress
from minidit.training.loop import LoopConfig, diverged

ROOT = Path(__file__).parents[2]


def test_a_dry_run_refuses_a_taken_folder_as_the_start_would(minidit, tmp_path):
    job, _ = begun(tmp_path / "run", run_config())
    before = {p: p.stat().st_mtime_ns for p in job.folder.rglob("*")}
    starts = [minidit("train", "--data", "digits", "--out", job.folder, *more) for more in ((), ("--dry-run",))]
    assert starts[0] == starts[1] and "holds a run already: choose another --out" in starts[0][2]
    assert before == {p: p.stat().st_mtime_ns for p in job.folder.rglob("*")}


def test_sampling_from_a_stopped_run_says_how_far_it_is_and_how_it_goes_on(tmp_path):
    job = interrupted(tmp_path / "run", run_config(), 3)
    args = SimpleNamespace(run=str(job.folder), state="")
    steps = job.config.train.steps
    assert so_far(args) == f"this run has made 3 of {steps} updates; minidit train --resume {job.folder} goes on"
    (job.folder / "model.safetensors").touch()
    assert so_far(args) == ""


def test_a_demo_that_was_stopped_is_named_and_a_finished_one_is_not(minidit, tmp_path):
    job, _ = begun(tmp_path / "demo", run_config())
    assert stopped_before(tmp_path / "demo-2", "demo") == [job.folder]
    (job.folder / "model.safetensors").touch()
    assert stopped_before(tmp_path / "demo-2", "demo") == []
    said = minidit("demo", "--resume", "runs/demo")
    assert said[0] == 2 and "minidit train --resume runs/demo goes on" in said[2] and "minidit eval runs/demo" in said[2]


@pytest.mark.parametrize("classes", ["", "a/"])
def test_a_caption_in_a_file_of_its_own_is_answered_with_its_line_of_metadata(tmp_path, classes):
    (tmp_path / "set" / classes).mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / f"set/{classes}0.png")
    (tmp_path / f"set/{classes}0.txt").write_text('a "blue"\nthing\n')
    with pytest.raises(DataError) as caught:
        load(tmp_path / "set")
    message = str(caught.value)
    line = json.loads(message[message.index("{") :])
    assert "captions belong in" in message and line == {"file_name": f"{classes}0.png", "text": 'a "blue" thing'}
    assert len(load(tmp_path / "set", skip_bad=True)) == 1


def test_a_picture_is_not_weights_and_its_error_says_what_it_is(minidit, tmp_path):
    for suffix, name in (("png", "PNG"), ("gif", "GIF"), ("jpg", "JPEG")):
        Image.new("L", (8, 8)).save(tmp_path / f"x.{suffix}")
        code, _, err = minidit("sample", tmp_path / f"x.{suffix}", "--out", tmp_path / "out.png")
        assert code == 2 and f"this is a {name}, not weights" in err and err.count("\n") == 1


def test_nothing_is_converted_over_what_is_there_unless_that_is_asked_for(minidit, tmp_path):
    first = ("convert", "fashion", tmp_path / "w.safetensors", "--to", "official")
    assert minidit(*first)[0] == 0
    before = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(b"mine")
    code, _, err = minidit(*first)
    assert code == 2 and "exists already: choose another name, or add --overwrite" in err
    assert (tmp_path / "w.safetensors").read_bytes() == b"mine"
    code, out, _ = minidit(*first, "--overwrite")
    assert code == 0 and (tmp_path / "w.safetensors").read_bytes() == before
    assert "not converted: its tokenizer" in out
    code, _, err = minidit("convert", "words", tmp_path / "v.safetensors", "--to", "official")
    assert code == 2 and "a DiT with captions" in err and "no classes" not in err


def test_a_network_says_what_one_call_of_it_is(minidit):
    assert re.search(r"a call +one sample of 16 x 128 x 128 and 512 words\n", minidit("info", "FLUX.1-dev")[1])


def test_runs_on_different_pictures_are_not_compared_by_their_losses_and_a_run_beside_itself_is_noticed(minidit, tmp_path):
    one, two = (read_run(write_run(tmp_path / name)) for name in ("one", "two"))
    assert incomparable([one, two]) == []
    two.config["data"]["source"] = "elsewhere"
    assert incomparable([one, two]) == ["The runs were trained on different pictures, so their losses cannot be compared."]
    code, _, err = minidit("report", tmp_path / "one", tmp_path / "one", "--out", tmp_path / "page.html")
    assert code == 0 and err == f"note: {tmp_path / 'one'} is named twice, so a run is compared with itself\n"


def test_the_likely_word_is_the_one_of_fewest_mistakes_and_a_far_one_is_none():
    words = ("dango", "dizzy", "dog", "face", "fast", "grade", "hat", "heart", "red", "zzz")
    meant = {"fase": "face", "dgo": "dog", "rde": "red", "hart": "heart", "xyzzy": ""}
    assert {word: likely(word, words) for word in meant} == meant
    assert mistakes_in("dgo", "dog") == 1 and mistakes_in("fase", "face") == 0.5 and mistakes_in("", "ab") == 2
    assert "did you mean" not in Vocabulary(words, 3).unknown("xyzzy")


def test_functions_in_python_say_what_goes_where(tmp_path):
    x = np.zeros((1, 1, 4, 4))
    with pytest.raises(TypeError, match="path first, then the network"):
        md.save(x, str(tmp_path / "x.png"))
    with pytest.raises(TypeError, match=r"this is of the type ndarray; pictures: md\.pictures\.save_png"):
        md.save(tmp_path / "x.png", x)
    with pytest.raises(CheckpointError, match=r"md\.load\(weights='words'\)"):
        md.load("words")
    with pytest.raises(TypeError, match="seed must be a whole number, got 'a'"):
        md.Philox("a")
    assert not list(tmp_path.iterdir())


def test_a_ctrl_c_while_the_command_is_imported_is_one_line():
    script = ("import sys, runpy\n"
              "class Early:\n"
              "    def find_spec(self, name, *rest):\n"
              "        if name == 'minidit.cli': raise KeyboardInterrupt\n"
              "sys.meta_path.insert(0, Early()); runpy.run_module('minidit', run_name='__main__')")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nminidit: interrupted\n")


def test_the_command_that_is_installed_is_the_one_that_python_m_runs():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts == {"minidit": "minidit.__main__:main"}


def test_a_set_of_one_picture_is_one_picture(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    assert load(tmp_path).words == "picture"


def test_samples_of_one_moment_have_no_slider(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "step_00000100.png")
    Image.new("L", (8, 8)).save(tmp_path / "step_00000200.png")
    first, second = sorted(tmp_path.glob("*.png"))
    assert "<input" not in progress([first]) and "<img" in progress([first]) and "<input" in progress([first, second])


@pytest.mark.parametrize("clip, advice", [(0.0, ", or --clip 1"), (5.0, ", or --clip 1"), (1.0, ""), (0.5, "")])
@pytest.mark.parametrize("watched", [False, True])
def test_the_advice_to_a_training_that_diverged_names_nothing_that_is_in_force(clip, advice, watched):
    message = diverged("the loss is nan", 4, LoopConfig(lr=0.01, clip=clip, detect_anomaly=watched))
    watch = "" if watched else "; --detect-anomaly finds the first"
    assert message == f"the loss is nan at update 4{watch}: try a lower --lr than 0.01{advice}"
