"""No wait is silent, the numbers shown are those recorded, and Ctrl-C ends every wait with nothing lost."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minidit.cli import main
from minidit.cli.eval import how_to_read
from minidit.cli.progress import SECONDS, SHORT, Progress
from minidit.cli.train import labels_of
from minidit.data import parse_labels
from minidit.runs.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
TINY = [
    "--data", "digits", "--hidden-size", "32", "--depth", "1", "--num-heads", "2", "--batch-size", "8", "--shards", "2",
    "--sample-every", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few updates on a ladder of 1000 rungs, so that all that is drawn from it can take long."""
    folder = tmp_path_factory.mktemp("waits") / "run"
    assert main(["train", *TINY, "--steps", "3", "--no-gallery", "--quiet", "--out", str(folder)]) == 0
    assert not (folder / "pictures").exists() and (folder / "report.html").exists()  # nothing was drawn
    return folder


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("minidit.cli.progress.time.monotonic", lambda: self.now)


# ------------------------------------------------------------------------------------------------ what is shown


def test_the_numbers_on_the_line_are_those_that_were_recorded(minidit, tmp_path, monkeypatch):
    """Loss, norm of the gradient and speed of an update, and the loss on held-out pictures, to the last digit shown."""
    monkeypatch.setattr("minidit.cli.progress.SECONDS", 0.0)
    words = ["--steps", 40, "--T", 20, "--sample-steps", 3, "--sample-save-every", 20, "--no-gallery", "--out", tmp_path / "run"]
    code, _, err = minidit("train", *TINY, *words)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    records = {line["step"]: line for line in lines if "loss" in line}
    held_out = {line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line}
    pattern = r"model: (\d+)/40, loss (\S+), gradient (\S+), (\S+) pictures/s"
    shown = {int(step): numbers for step, *numbers in re.findall(pattern, err) if int(step) in records}
    assert code == 0 and set(shown) == {1, 10, 20, 30, 40} and set(held_out) == {20, 40}
    for step, (loss, norm, speed) in shown.items():
        r = records[step]
        assert (loss, norm, speed) == (f"{r['loss']:.4f}", f"{r['grad_norm']:.3g}", f"{r['img_per_s']:,.0f}")
    assert [f"held out {loss:.4f}" in err for loss in held_out.values()] == [True, True]


def test_other_work_is_named_once_it_is_long(capsys, monkeypatch):
    clock, progress = Clock(monkeypatch), Progress()
    for done in range(1, 5):
        progress.steps("short")(done, 4)
        clock.now += SHORT / 5
    for done in range(1, 31):
        progress.steps("long")(done, 30)
        clock.now += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("long: 4/30, 3 seconds, 26 seconds to go") and lines[-1] == "long: 30/30, 29 seconds"
    assert len(lines) == 2 + int((30 - 4) / (SECONDS + 1))


def test_a_remark_does_not_begin_the_line_anew(capsys, monkeypatch):
    clock, progress = Clock(monkeypatch), Progress()
    for step in range(1, 41):
        progress.tell("model", {"step": step, "loss": 1.0}, 40)
        clock.now += 1
        if step == 20:
            progress.note("a remark")
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "model: 1/40", "model: 12/40", "a remark", "model: 23/40", "model: 34/40", "model: 40/40",
    ]  # fmt: skip


def test_a_bar_ends_full_and_the_same_work_once_more_has_a_bar_of_its_own(capsys, monkeypatch):
    """54 latents of the training part, then 6 of the held-out one, whatever the terminal drew last."""
    progress = Progress()
    progress.terminal = True
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for total in (54, 6, 6):
        for done in range(1, total + 1):
            progress.part("latents", done, total)
    drawn = re.split(r"[\r\n]+", capsys.readouterr().err.replace("\x1b[A", ""))
    ends = [line for line in drawn if "100% " in line]
    assert sum("54/54" in line for line in ends) >= 1 and not [line for line in drawn if "6/54" in line or "-" in line]
    assert len([line for line in drawn if " 0% " in line and "0/6" in line]) == 2
    progress.close()


def test_the_loss_on_held_out_pictures_fits_a_line_of_a_hundred_letters(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    progress = Progress()
    progress.terminal = True
    record = {"loss": 0.51234, "held_out_loss": 0.61234, "grad_norm": 1.2345, "img_per_s": 12345.6}
    progress.tell("tokenizer", {"step": 1499, "loss": 1.0}, 30000)
    progress.tell("tokenizer", {"step": 1500, **record}, 30000)
    progress.bar.refresh()
    last = re.split(r"[\r\n]+", capsys.readouterr().err)[-1]
    assert "loss 0.5123, held out 0.6123, 12,346 pictures/s]" in last and len(last) <= 100
    progress.close()


@pytest.mark.parametrize("words, names", [
    (["train", "--resume", "RUN"], ["pictures by ddim", "pictures by ddpm", "from noise to picture",
                                   "pictures of the walk", "film of the walk"]),
    (["eval", "RUN", "-n", "8", "--ddpm-steps", "9", "--judge-steps", "2"],
     ["judge", "features", "DDIM 50, w = 2", "DDPM 9, w = 2", "nearest pictures", "trajectories"]),
    (["sample", "RUN", "-n", "4", "--out", "film.gif"], ["from noise to picture"]),
    (["sample", "RUN", "-n", "4", "--out", "grid.png"], ["sampling"]),
])  # fmt: skip
def test_every_wait_has_a_name(minidit, run, monkeypatch, tmp_path, words, names):
    """Were every wait longer than two seconds, all of these would be on the screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minidit.cli.progress.SHORT", -1.0)
    monkeypatch.setattr("minidit.cli.progress.SECONDS", 0.0)
    code, _, err = minidit(*(run if word == "RUN" else word for word in words))
    assert code == 0 and not [name for name in names if f"{name}: " not in err], err


# ------------------------------------------------------------------------------------------------ before and after a training


def test_a_dry_run_says_what_a_run_costs_and_writes_nothing(minidit, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = minidit("train", *TINY, "--steps", 10, "--dry-run")
    assert code == 0 and not list(tmp_path.iterdir())
    assert err == "measuring how fast a few updates and a few pictures are …\n"  # before the wait
    assert "10 classes: 0 149, 1 152" in out and "parameters, samples of 1 x 8 x 8, 16 tokens each" in out
    assert re.search(r"^model: 10 updates of 8, [\d,]+ pictures per second: about \d+ seconds$", out, re.M)
    assert "memory: about" in out and "disk: up to" in out and "297 pictures" in out
    numbers = [int(n) for n in re.findall(r"about (\d+) seconds", out)]
    assert len(numbers) == 3 and abs(numbers[-1] - sum(numbers[:-1])) <= 1 and "pictures of the report: about" in out
    assert "pictures of the report" not in minidit("train", *TINY, "--steps", 10, "--dry-run", "--no-gallery")[1]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert "model: trained already" in minidit("train", "--resume", run, "--dry-run")[1]
    assert "model: 4 updates of 8, " in minidit("train", "--resume", run, "--dry-run", "--steps", 7)[1]
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert minidit("train", *TINY, "--dry-run", "--size", 9)[0] == 2  # what the run would refuse is refused


def test_the_end_says_where_everything_is_and_what_comes_next(minidit, run, tmp_path):
    code, out, err = minidit("train", "--resume", run, "--no-gallery")
    assert code == 0 and out == f"{run}\n" and f"{run} has made its 3 updates: for more, add --steps" in err
    for line in (f"open {run}/report.html", f"minidit sample {run} --labels 0-9  ", f"minidit eval {run}",
                 f"minidit train --resume {run} --steps 6"):  # fmt: skip
        assert line in err


@pytest.mark.parametrize("names, flag", [
    ((), ""), (("a",), "--labels a"), (("blue", "red"), "--labels blue,red"), (("sky blue", "red"), "--labels 'sky blue,red'"),
    (("0", "1", "2"), "--labels 0-2"), (("a, b", "c"), "--labels 0-1"), (tuple(f"class {k}" for k in range(9)), "--labels 0-8"),
])  # fmt: skip
def test_a_command_that_is_proposed_names_the_classes_where_they_are_few(names, flag):
    """It means all of them, also to a shell."""
    pipeline = Pipeline(None, None, None, names)
    assert labels_of(pipeline) == flag
    if flag:
        assert parse_labels(shlex.split(flag)[1], names) == list(range(len(names)))


def test_a_name_that_nobody_chose_replaces_nothing(minidit, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.png").write_text("mine")
    assert minidit("sample", run, "-n", 1, "--steps", 1)[1] == "grid-2.png\n"
    assert minidit("sample", run, "-n", 1, "--steps", 1, "--out", "GRID.PNG")[1] == "GRID.PNG\n"
    assert (tmp_path / "grid.png").read_text() == "mine"
    assert minidit("sample", run, "-n", 1, "--steps", 1, "--out", "grid.png")[0] == 0
    assert (tmp_path / "grid.png").stat().st_size > 9


# ------------------------------------------------------------------------------------------------ Ctrl-C


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("words, wait", [
    (["train", "--resume", "RUN"], "pictures are drawn in 8 steps instead of 1000"),
    (["sample", "RUN", "--steps", 1000, "-n", 40, "--out", "film.gif"], "from noise to picture"),
    (["eval", "RUN", "--ddpm-steps", 1000], "DDPM 1000"),
    (["eval", "RUN", "--judge-steps", 10**6], "judge"),
    (["train", *TINY, "--steps", 10**6, "--out", "new"], "model"),
])  # fmt: skip
def test_ctrl_c_ends_every_wait_and_loses_nothing(run, tmp_path, words, wait):
    """The run is whole afterwards, nothing half written lies beside it, and the last line says how to go on."""
    import shutil

    shutil.copytree(run, tmp_path / "run")
    config = (tmp_path / "run" / "config.toml").read_text().replace("steps = 50\n", "steps = 1000\n", 1)
    if words[0] == "train":
        (tmp_path / "run" / "config.toml").write_text(config)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "minidit", *("run" if word == "RUN" else str(word) for word in words)]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:  # fmt: skip
        while (line := process.stderr.readline()) and wait not in line:
            pass
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.rglob(".*.tmp")) and not (tmp_path / "film.gif").exists()
    if words[0] == "train":
        assert "minidit train --resume" in err.splitlines()[-1]


def test_an_evaluation_says_what_its_columns_mean_and_how_far_they_can_be_trusted():
    """Why a row has fewer pictures than were asked for, and that few of them measure little."""
    assert len(how_to_read(500, 500)) == 3 and not [line for line in how_to_read(500, 500) if "n is" in line]
    assert "n is 6, not 20: a row has no more pictures than are held out" in how_to_read(20, 6)
    assert how_to_read(99, 99)[-1].startswith("of 99 pictures a Fréchet distance says little") and len(how_to_read(100, 100)) == 3
