"""The commands on a tiny run: train, sample, eval, report, demo; interrupted by signals and resumed."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small import folder_of_pictures

from minidit.checkpoint import load_model, read_arrays
from minidit.cli import build_parser, main
from minidit.cli.train import configure, usual_name
from minidit.runs.phases import Run, Stopped, resume
from minidit.runs.presets import PRESETS
from minidit.runs.state import paths_of

ROOT = Path(__file__).parents[2]
TINY = [
    "--hidden-size", "32", "--depth", "1", "--num-heads", "2", "--batch-size", "8", "--shards", "2", "--T", "20",
    "--classifier-steps", "5", "--classifier-batch-size", "8", "--sample-steps", "3", "--sample-every", "0",
]  # fmt: skip


def told(*arguments):
    """(exit code, stdout, stderr) of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


def command_line(words):
    """The arguments of a command, as it is called with them."""
    return build_parser(words[0], words).parse_args(words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run, and what the command said."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    code, out, err = told("train", "--data", "digits", *TINY, "--steps", 6, "--out", folder)
    assert code == 0, err
    return SimpleNamespace(folder=folder, out=out, err=err)


# ------------------------------------------------------------------------------------------------ train


def test_training_prints_the_folder_on_stdout_and_all_else_on_stderr(trained):
    assert trained.out == f"{trained.folder}\n"
    lines = trained.err.splitlines()
    assert lines[0] == f"digits: 1500 pictures, 297 held out, into {trained.folder}"
    assert lines[1] == "held out: the set's own test part, 297 pictures" and lines[2].startswith("10 classes: 0 149, 1 152")
    assert any(line.startswith("model: 6/6") for line in lines) and f"open {trained.folder}/report.html" in lines


def test_training_leaves_everything_that_a_reader_wants(trained):
    names = {str(p.relative_to(trained.folder)) for p in trained.folder.rglob("*") if p.is_file()}
    assert names == {
        "config.toml", "metrics.jsonl", "model.safetensors", "states/model-00000006.safetensors",
        "trace.npz", "report.html",
        "pictures/ddim.png", "pictures/ddpm.png", "pictures/denoising.gif", "pictures/loss.png", "pictures/x0_strip.png",
    }  # fmt: skip


def test_a_run_is_not_replaced_unasked(trained):
    code, out, err = told("train", "--data", "digits", *TINY, "--out", trained.folder)
    assert (code, out) == (1, "") and "holds a run already" in err and err.count("\n") == 1


def test_resuming_a_finished_run_draws_its_pictures_again(trained, tmp_path):
    before = (trained.folder / "pictures" / "ddim.png").read_bytes()
    code, out, _ = told("train", "--resume", trained.folder, "--quiet")
    assert code == 0 and out == trained.out and (trained.folder / "pictures" / "ddim.png").read_bytes() == before


def test_a_stop_between_two_phases_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "tokenizer", lambda self, *data: signal.raise_signal(signal.SIGTERM))
    code, out, err = told("train", "--data", "digits", *TINY, "--out", tmp_path / "run")
    end = f"minidit: stopped, no update is lost; continue with: minidit train --resume {tmp_path}/run\n"
    assert (code, out) == (143, "") and err.endswith(end)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and signal.getsignal(signal.SIGINT) == signal.default_int_handler


LONG = 1000000  # updates: a phase that would take hours
PHASES = {  # the command that is interrupted, and the one that goes on
    "tokenizer": (["train", "--data", "digits", "--tokenizer", "autoencoder", "--ae-steps", LONG], "train --resume"),
    "model": (["train", "--data", "digits", "--steps", LONG], "train --resume"),
    "judge": (["eval"], "eval"),
}


@pytest.mark.parametrize("phase, number, code", [
    ("tokenizer", signal.SIGINT, 130), ("model", signal.SIGINT, 130), ("judge", signal.SIGINT, 130),
    ("model", signal.SIGTERM, 143),
])  # fmt: skip
def test_the_real_command_stops_gently_and_goes_on_to_the_same_bits(tmp_path, trained, phase, number, code):
    """The signal goes to the whole group, as a terminal sends it: the workers leave the decision to the command."""
    folder, (words, again) = tmp_path / "run", PHASES[phase]
    if phase == "judge":
        shutil.copytree(trained.folder, folder)
        config = folder / "config.toml"
        config.write_text(re.sub(r"(?s)(\[judge_train\].*?\nsteps = )\d+", rf"\g<1>{LONG}", config.read_text()))
        words = [*words, folder]
    else:
        words = [*words, *TINY, "--out", folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "minidit", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                          start_new_session=True) as process:  # fmt: skip
        while not (line := process.stderr.readline()).startswith(f"{phase}: ") and line:
            pass
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    (state,) = paths_of(folder, phase)
    done = read_arrays(state)[1]["step"]
    assert err.endswith(f"minidit: stopped at update {done} of the {phase}; continue with: minidit {again} {folder}\n")
    assert "Traceback" not in err

    ends = []
    for first in (done, 0):  # on from the state, and all from the beginning
        if not first:
            for state in paths_of(folder, phase):
                state.unlink()
        job = resume(folder)
        job.tell = lambda name, record, steps, job=job: setattr(job.loop, "stop", record["step"] == done + 2)
        train, _ = job.data()
        job.fit_to(train)
        with pytest.raises(Stopped, match=f"stopped at update {done + 2} of the {phase}"):
            job.judge(*job.data()) if phase == "judge" else job.train(*job.data())
        ends.append(paths_of(folder, phase)[0].read_bytes())
    assert ends[0] == ends[1]


def test_training_says_what_it_trains_on_and_leaves_bad_files_out_when_asked(tmp_path):
    source, folder, words = folder_of_pictures(tmp_path / "p"), tmp_path / "run", [*TINY, "--pixels", "--steps", 2]
    (tmp_path / "p" / "a" / "notes.txt").write_text("hello")
    code, out, err = told("train", "--data", source, *words, "--out", folder)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.endswith("(or --skip-bad: leave out files that cannot be read)\n")
    words += ["--held-out", 5, "--skip-bad", "--flip", "--crop", 1]
    code, _, err = told("train", "--data", source, *words, "--out", folder)
    lines = err.splitlines()
    assert code == 0 and lines[:4] == [
        f"{source}: 20 pictures, 5 held out, into {folder}",
        "held out: 5 of 25 pictures, drawn from all classes alike, never trained on",
        "2 classes of 10 pictures each",
        "augmentation: training pictures are mirrored with probability 1/2 and shifted by up to 1 pixels",
    ]
    assert lines[4].startswith(f"left out: 1 of 26 files, listed in {folder}/skipped.jsonl: a/notes.txt (not a picture")
    code, _, err = told("eval", folder, "--ddpm-steps", 2)
    assert code == 0, err
    assert "held out: 5 of 25 pictures" in err and "Held out: 5 of 25 pictures" in (folder / "report.html").read_text()
    code, out, err = told("eval", folder, "-n", 3, "--quiet")
    assert (code, out) == (2, "")
    assert err.endswith("measures need at least 4 pictures; -n is 3, 20 are trained on, and 5 are held out\n")
    for flag in (["--no-flip"], ["--crop", 0], ["--held-out", 0], ["--no-skip-bad"]):
        code, _, err = told("train", "--resume", folder, *flag)
        assert code == 2 and err.endswith(f"leave out {flag[0][2:].removeprefix('no-')}\n")


def test_a_run_that_goes_on_by_itself_leaves_out_the_files_that_it_left_out_before(tmp_path):
    source, bad = folder_of_pictures(tmp_path / "p"), tmp_path / "p" / "a" / "bad.png"
    bad.write_bytes(b"nothing")
    words = ["train", "--data", source, *TINY, "--pixels", "--skip-bad", "--out", tmp_path / "run", "--resume", "auto"]
    assert told(*words, "--steps", 2)[0] == 0
    shutil.copy(tmp_path / "p" / "a" / "1.png", bad)
    code, _, err = told(*words, "--steps", 4)
    assert code == 0 and f"{source}: 23 pictures, 2 held out" in err and "a/bad.png (was left out before)" in err


def test_a_run_without_held_out_pictures_is_not_measured(tmp_path):
    source = folder_of_pictures(tmp_path / "p", (1, 1))
    code, _, err = told("train", "--data", source, *TINY, "--pixels", "--steps", 2, "--out", tmp_path / "run")
    assert code == 0 and "held out: nothing, there are too few" in err and "warning: 2 classes with fewer than 10" in err
    code, out, err = told("eval", tmp_path / "run")
    assert (code, out) == (2, "") and "no picture is held out, so nothing can be measured" in err and err.count("\n") == 1


# ------------------------------------------------------------------------------------------------ sample


def test_the_same_seed_gives_the_same_bytes_and_stdout_is_the_path(trained, tmp_path):
    one, two, other = (tmp_path / f"{name}.png" for name in ("one", "two", "other"))
    for path, seed in ((one, 4), (two, 4), (other, 5)):
        code, out, err = told("sample", trained.folder, "--labels", "0-9", "--steps", 3, "--seed", seed, "--out", path)
        assert (code, out) == (0, f"{path}\n") and f"10 pictures, 3 steps of ddim, guidance 2, seed {seed}" in err
    assert one.read_bytes() == two.read_bytes()
    with Image.open(one) as x, Image.open(other) as y:
        assert x.tobytes() != y.tobytes()
        said = f"minidit sample: 10 pictures, 3 steps of ddim, guidance 2, seed 4, by the run {trained.folder.name}"
        assert x.info["Description"].startswith(f"{said}: {'; '.join('0123456789')}\nagain: minidit sample {trained.folder} ")


def test_where_nothing_is_said_about_the_walk_it_takes_eight_rungs_of_adams_bashforth(trained, tmp_path):
    quick, walks = "8 steps of ddim with ab2_arc", {"--solver euler": "20 steps of ddim", "--steps 4": "4 steps of ddim"}
    for words, walk in {"": quick, "--guidance 1": quick, **walks}.items():
        code, _, err = told("sample", trained.folder, "--labels", "0", *words.split(), "--out", tmp_path / "x.png")
        assert code == 0 and f"1 picture, {walk}, guidance" in err
    code, _, err = told("sample", trained.folder, "--labels", "0", "--out", tmp_path / "x.gif")
    assert code == 0 and "1 picture, 20 steps of ddim with ab2_arc, guidance" in err  # a film has 24, and this ladder 20 rungs


def test_an_npz_holds_what_the_usual_tools_expect(trained, tmp_path):
    path = tmp_path / "samples.npz"
    code, _, err = told("sample", trained.folder, "--labels", "3,5", "-n", 5, "--steps", 2, "--out", path, "--quiet")
    assert code == 0 and err == ""
    with np.load(path) as found:
        assert found["arr_0"].shape == (5, 8, 8, 1) and found["arr_0"].dtype == np.uint8
        assert found["labels"].tolist() == [3, 5, 3, 5, 3] and found["class_names"].tolist() == list("0123456789")


def test_a_gif_shows_the_walk(trained, tmp_path):
    path = tmp_path / "walk.gif"
    assert told("sample", trained.folder, "-n", 4, "--steps", 4, "--sampler", "ddpm", "--out", path)[0] == 0
    with Image.open(path) as film:
        assert film.n_frames == 5


def test_labels_that_do_not_exist_are_told_with_those_that_do(trained):
    code, out, err = told("sample", trained.folder, "--labels", "shirt")
    assert (code, out) == (2, "") and "no class 'shirt'" in err and "are: 0, 1, 2" in err and err.count("\n") == 1


def test_a_network_alone_is_no_run(trained):
    code, _, err = told("sample", trained.folder / "model.safetensors")
    assert code == 2 and "give the run's folder" in err


@pytest.mark.parametrize("damage", [b"", b"\xff" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00{}              "])
def test_a_damaged_run_folder_is_one_line(trained, tmp_path, damage):
    (tmp_path / "model.safetensors").write_bytes(damage)
    code, out, err = told("sample", tmp_path)
    assert (code, out) == (2, "") and "model.safetensors: not a" in err and err.count("\n") == 1


# ------------------------------------------------------------------------------------------------ eval, report, demo


def test_an_evaluation_prints_its_table_and_keeps_the_classifier(trained):
    for _ in range(2):
        code, out, err = told("eval", trained.folder, "-n", 20, "--ddpm-steps", 2)
        rows = out.splitlines()
        assert code == 0 and len(rows) == 7 and rows[0].split()[:3] == ["held-out", "real", "images"]
        assert all("accuracy" in row and "recall" in row for row in rows[:6]) and "straightness" in rows[6]
        assert load_model(trained.folder / "judge.safetensors")[0].config.num_classes == 10
        drawn = "each other row, such as “DDIM 3, w = 2”: drawn by this run"
        assert "rows: “held-out real images”: real, not trained on; “noise”: noise, as" in err and drawn in err
        assert drawn in (trained.folder / "report.html").read_text("utf-8")
    assert "rows:" not in told("eval", trained.folder, "-n", 20, "--ddpm-steps", 2, "--quiet")[2]


def test_an_evaluation_refuses_pictures_of_other_classes(trained):
    code, out, err = told("eval", trained.folder, "--data", "fashion", "--quiet")
    assert (code, out) == (2, "") and "fashion has the classes T-shirt/top" in err and "the run was trained on 0, 1" in err


def test_a_report_is_written_beside_the_run(trained):
    path = trained.folder / "report.html"
    path.unlink()
    assert told("report", trained.folder) == (0, f"{path}\n", "") and path.stat().st_size > 10000


def test_the_quick_demo_goes_the_whole_road(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = PRESETS["quick"]
    quick = replace(quick, judge_train=replace(quick.judge_train, steps=5), sample=replace(quick.sample, steps=3))
    monkeypatch.setitem(PRESETS, "quick", quick)
    code, out, err = told("demo", "--quick", *TINY[: TINY.index("--classifier-steps")], "--steps", 3)
    assert (code, out) == (0, "runs/quick\n") and "open runs/quick/report.html" in err
    assert "runs/quick/pictures/denoising.gif" in err and Path("runs/quick/pictures/denoising.gif").stat().st_size > 0
    assert "tokenizer:" not in err  # nothing was trained but the model and the judge
    assert {"eval.json", "report.html", "trace.npz"} <= {p.name for p in Path("runs/quick").iterdir()}


def test_a_demo_that_is_stopped_while_its_judge_is_trained_goes_on_as_an_evaluation(tmp_path, monkeypatch):
    def stopped(self, *data):
        raise Stopped("judge", 3)

    monkeypatch.setattr(Run, "judge", stopped)
    tiny = TINY[: TINY.index("--classifier-steps")]
    code, out, err = told("demo", "--quick", *tiny, "--T", 50, "--steps", 2, "--out", tmp_path / "run")
    assert (code, out) == (130, "")
    assert err.endswith(f"minidit: stopped at update 3 of the judge; continue with: minidit eval {tmp_path}/run\n")


@pytest.mark.parametrize("words, name, why", [
    ("--data pics", "pics", "the pictures"), ("--data pics --preset words", "pics", "the pictures"),
    ("--data pics --preset own --process raster", "pics", "the pictures"),
    ("--data sub/pics/ --preset digits", "pics", "the pictures"),
    ("--data digits", "digits", "the pictures"), ("", "fashion", "the pictures"), ("--preset digits", "digits", "--preset"),
    ("--data digits --preset digits-edm", "digits-edm", "--preset"), ("--preset demo --data digits", "demo", "--preset"),
    ("--process scales", "scales", "--process"), ("--data digits --process raster", "raster", "--process"),
    ("--data digits --process edm", "digits", "the pictures"),
])  # fmt: skip
def test_a_run_on_ones_own_pictures_has_their_name_and_one_on_an_embedded_set_that_of_its_preset(words, name, why):
    args = command_line(["train", *words.split()])
    assert usual_name(args, configure(args)) == (name, why)


def test_the_line_that_names_the_folder_says_why_it_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_pictures(tmp_path / "pics")
    words = ["train", "--data", "pics", "--preset", "digits", *TINY]
    why = "into runs/pics (named after the pictures; --out chooses another)"
    code, out, _ = told(*words, "--dry-run")
    assert code == 0 and why in out.splitlines()[0] and not (tmp_path / "runs").exists()
    code, out, err = told(*words, "--steps", 1, "--no-gallery")
    assert (code, out) == (0, "runs/pics\n") and why in err.splitlines()[0]
    for more in (["--resume", "runs/pics"], [*words[1:], "--out", "runs/pics", "--overwrite", "--steps", 1]):
        code, _, err = told("train", *more, "--no-gallery")
        assert code == 0 and "named after" not in err and "into runs/pics\n" in err
