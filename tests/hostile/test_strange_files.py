"""What is no file where one is expected, and files that change while they are read: one line from every reader, and no wait."""

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import small
from hostile.bounds import measured, measured_each, refusal, refused

import minidit.html.report  # what the commands import, once and not in every process
import minidit.runs.evaluate
import minidit.runs.loading
import minidit.verify.vectors  # noqa: F401
from minidit.cli import main
from tools.fuzz_targets import targets

READ_BY_THE_TEST = ("talk", "process", "vectors-answers")  # these open the file themselves, before any reader
TARGETS = {t.name: t for t in targets() if t.name not in READ_BY_THE_TEST and not t.in_memory}
KINDS = ["a pipe", "a socket", "a device", "a device that is empty", "a folder", "a link to itself", "a link to nothing"]


def put(kind, path):
    """Something that is no file."""
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a socket":
            before = os.getcwd()
            os.chdir(path.parent)  # the address of a socket is short
            try:
                with socket.socket(socket.AF_UNIX) as end:
                    end.bind(path.name)
            finally:
                os.chdir(before)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a device that is empty":
            path.symlink_to("/dev/null")
        case "a folder":
            path.mkdir()
        case "a link to itself":
            path.symlink_to(path)
        case _:
            path.symlink_to("nothing")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_no_file_is_refused_by_every_reader(tmp_path, name):
    target, paths = TARGETS[name], {}
    for kind in KINDS:
        paths[kind] = target.prepare(made(tmp_path / kind.replace(" ", "-") / "input"))
        put(kind, paths[kind])
    for (kind, path), seen in zip(paths.items(), measured_each(target.read, list(paths.values())), strict=True):
        if seen["error"] is None:  # a report leaves out what a run does not have, and another file may stand for this one
            assert name.startswith("report") or (kind.startswith("a link") and name.startswith(("index", "config", "run"))), kind
        else:
            refusal(seen, path, name="input")


CHANGES = {  # of the file at a path with this content
    "cut to nothing": lambda path, seeds: path.write_bytes(b""),
    "cut to half": lambda path, seeds: os.truncate(path, len(seeds[0]) // 2),
    "longer": lambda path, seeds: path.write_bytes(seeds[0] + bytes(10**5)),
    "gone": lambda path, seeds: path.unlink(),
    "another": lambda path, seeds: path.write_bytes(seeds[-1][::-1]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_a_file_that_changes_after_its_size_was_looked_at_is_read_or_refused(tmp_path, monkeypatch, name):
    target, changes, real = TARGETS[name], {}, os.stat
    for change in CHANGES:
        path = target.prepare(made(tmp_path / change.replace(" ", "-") / "input"))
        path.write_bytes(target.seeds[0])
        changes[path] = CHANGES[change]

    def read(path):
        def stat(place, *args, **options):
            answer = real(place, *args, **options)
            if not isinstance(place, int) and Path(place).name == path.name and os.path.lexists(path):
                changes[path](path, target.seeds)
            return answer

        monkeypatch.setattr(os, "stat", stat)
        target.read(path)

    for path, seen in zip(changes, measured_each(read, list(changes)), strict=True):
        if seen["error"] is not None:
            assert "ValueError" in seen["kinds"] and seen["error"].isprintable(), (path, seen)
        assert seen["seconds"] < 1 and seen["bytes"] < 64 * 2**20, (path, seen)


@pytest.mark.parametrize("kind", KINDS[:5])
@pytest.mark.parametrize(
    "words",
    ["train --config X", "train --data X", "train --data digits --init X", "train --data digits --autoencoder X", "sample X",
     "eval X", "report X", "convert X", "verify mine.py --expect X", "vectors check X", "vectors list X", "train --resume X",
     "verify X.py"],
)  # fmt: skip
def test_no_command_waits_for_a_pipe_or_reads_a_device_to_its_end(tmp_path, monkeypatch, capfd, words, kind):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def ddim_step(*args):\n    return 0\n")
    name = "X.py" if words.endswith("X.py") else "X"
    put(kind, tmp_path / name)

    def command(_):
        if code := main(words.split()):
            raise ValueError(f"{name} {code}")

    seen = measured(command, tmp_path / name)
    err = capfd.readouterr().err
    assert seen["error"] in (f"{name} 2", f"{name} 1") and err.count("\n") == 1 and "X" in err, (seen, err)
    assert seen["seconds"] < 3 and seen["bytes"] < 160 * 2**20  # with what the command itself imports


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.toml", "train --quiet --data digits --out run --steps 1"),
        ("config.toml", "eval run"),
        ("metrics.jsonl", "train --quiet --resume run"),
        ("metrics.jsonl", "report run"),
    ],
)
@pytest.mark.parametrize("kind", KINDS[:4])
def test_no_command_waits_for_a_pipe_in_a_run(tmp_path, monkeypatch, capfd, name, words, kind):
    monkeypatch.chdir(tmp_path)
    small.begun(tmp_path / "run", small.run_config(steps=2))
    (tmp_path / "run" / name).unlink(missing_ok=True)
    put(kind, tmp_path / "run" / name)

    def command(_):
        if code := main(words.split()):
            raise ValueError(f"{code}")

    seen = measured(command, tmp_path)
    err = capfd.readouterr().err
    assert seen["error"] in ("1", "2") and len(err.splitlines()) <= 2 and "run" in err and "Traceback" not in err, (seen, err)


def made(folder):
    folder.mkdir(parents=True)
    return folder


def hungry(path):
    raise ValueError(f"{path} {np.ones(10**7).sum()}")


def slow(path):
    end = time.process_time() + 1.1
    while time.process_time() < end:
        pass
    raise ValueError(f"{path}")


def fine(path):
    raise ValueError(f"{path}")


@pytest.mark.parametrize(("reader", "words"), [(hungry, r"7\d MB"), (slow, " s: "), (print, "was read"), (fine, None)])
def test_the_bounds_bite(tmp_path, reader, words):
    if words is None:
        refused(reader, tmp_path / "x")
        return
    with pytest.raises(AssertionError, match=words):
        refused(reader, tmp_path / "x")
