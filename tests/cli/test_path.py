"""The README's path: pictures of one's own, a run that is killed, goes on, is lengthened, sampled, shown, and compared."""

import contextlib
import io
import os
import signal

import numpy as np
import pytest
from PIL import Image
from small import folder_of_pictures, lines, states

from benchmarks.faulty.runs import command
from minidit.cli import main

PROCESSES = {"ddpm": ["--T", "20"], "rectified_flow": ["--times", "logit_normal"], "edm": []}
TINY = [
    "--pixels", "--hidden-size", "32", "--depth", "1", "--num-heads", "2", "--batch-size", "8", "--shards", "2",
    "--sample-steps", "3", "--sample-every", "0", "--sample-save-every", "2", "--quiet",
]  # fmt: skip


def printed(*words):
    """What a command that succeeds prints on stdout."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([str(word) for word in words]) == 0, err.getvalue()
    return out.getvalue()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("process", ["ddpm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rectified_flow", "edm"))])
def test_the_whole_path_from_ones_own_pictures_to_two_runs_compared(tmp_path, monkeypatch, process):
    monkeypatch.chdir(tmp_path)
    pictures = folder_of_pictures(tmp_path / "pictures", (30, 30))
    train = ["train", "--data", pictures, *TINY, "--process", process, *PROCESSES[process], "--steps", "6"]

    def resumed(name, *more):
        return printed("train", "--resume", name, *more, "--quiet")

    killed = command([*train, "--out", str(tmp_path / "one")], tmp_path / "one", {})
    at = next(i for i, line in enumerate(killed.trace) if line == "update model 5") + 1
    two = tmp_path / "two"
    killed = command([*train, "--out", str(two)], two, {"at": at, "do": "kill"})
    assert killed.code == -signal.SIGKILL and states(two) == [4, 2] and not (two / "model.safetensors").exists()
    assert resumed("two") == "two\n" and states(two)[0] == 6
    assert (two / "model.safetensors").read_bytes() == (tmp_path / "one" / "model.safetensors").read_bytes()
    assert lines(two) == lines(tmp_path / "one")

    assert resumed("two", "--steps", "10") == "two\n" and states(two)[0] == 10
    assert printed("sample", "two", "--labels", "a,b", "-n", "6", "--steps", "3", "--out", "grid.png", "--quiet") == "grid.png\n"
    with Image.open("grid.png") as grid:
        assert np.ptp(np.asarray(grid)) > 0
    assert printed("report", "two") == "two/report.html\n"
    assert printed("report", "one", "two") == "compared-one-two.html\n"
    page = (tmp_path / "compared-one-two.html").read_text("utf-8")
    assert "<h1>one and two</h1>" in page and "train.steps" in page and "<code>10</code>" in page and "train.lr" not in page
