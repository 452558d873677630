"""stdout and stderr may be closed, full, gone or ASCII only: no command ends in a traceback, and no work is lost."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small

from minidit.cli import main

ROOT = Path(__file__).parents[2]
ASCII = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COMMANDS = {  # every command that prints without training
    "--help": "--help", "--version": "--version", "info": "info --no-speed", "memory": "info --memory --device cpu",
    "rungs": "rungs", "verify": "verify mine.py", "list": "verify --list", "M02": "verify M02", "vectors": "vectors list",
    "spec": f"spec --root {ROOT}", "one": f"spec D.7 --root {ROOT}",
    "sample": "sample --quiet --labels 0 -n 1 --steps 1 --out g.png",
    "convert": "convert m.safetensors n.safetensors", "report": "report run", "train": "train --data digits --print-config",
    "wrong": "no-such-command", "usage": "sample --out g.bmp",
}  # fmt: skip
WRITES = {"sample": "g.png", "convert": "n.safetensors", "report": "run/report.html"}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run, and its model's file."""
    folder = tmp_path_factory.mktemp("streams") / "run"
    small.whole(folder, small.run_config(steps=2))
    return folder


@pytest.fixture
def place(tmp_path, run_folder):
    (tmp_path / "run").symlink_to(run_folder)
    (tmp_path / "m.safetensors").symlink_to(run_folder / "model.safetensors")
    (tmp_path / "mine.py").write_text("def ddim_step(*args):\n    return 0\n")
    return tmp_path


def shell(place, command, **environment):
    """A command line in a shell where `minidit` is the command."""
    function = f'minidit() {{ {sys.executable} -m minidit "$@"; }}; set -o pipefail'
    return subprocess.run(
        ["bash", "-c", f"{function}; {command}"], cwd=place, capture_output=True, text=True, timeout=300, errors="replace",
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **environment},
    )  # fmt: skip


FEW = {"--help", "verify", "M02", "one", "sample", "report", "wrong", "usage"}  # one of every way to print and to write
OTHERS = [">&-", "", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2> /dev/full", "| head -1"]


@pytest.mark.parametrize(("end", "names"), [
    ("> /dev/full", FEW), *(pytest.param(end, {*COMMANDS}, marks=pytest.mark.slow) for end in ["> /dev/full", *OTHERS]),
])  # fmt: skip
def test_no_command_minds_its_output(place, end, names):
    lines = [f"{{ minidit {COMMANDS[k]} {end}; }} > '{k}.out' 2> '{k}.err'; echo $? > '{k}.rc'" for k in names]
    shell(place, "\n".join(lines), **(ASCII if not end else {}))
    for k in names:
        err, code = (place / f"{k}.err").read_text(errors="replace"), int((place / f"{k}.rc").read_text())
        assert "Traceback" not in err and "Exception ignored" not in err and err.count("\n") <= 2, (k, err)
        usual = {"wrong": 2, "usage": 2, "verify": 1}.get(k, 0)
        lost = end == "> /dev/full" or (end == "| head -1" and usual == 0)
        assert code in ({usual or 1, usual} if lost else {usual}), (k, code, err)
        if end == "> /dev/full" and usual < 2:
            assert err.splitlines()[-1] == "minidit: not everything could be printed: No space left on device", (k, err)
        if not end:
            assert (place / f"{k}.out").read_bytes().isascii() and err.isascii()
    assert all((place / file).stat().st_size > 0 for k, file in WRITES.items() if k in names)


def test_what_is_not_ascii_is_escaped_where_the_terminal_has_nothing_else(place):
    done = shell(place, "minidit rungs --steps 2 --spacing trailing", **ASCII)
    assert done.returncode == 0 and "\\u2192" in done.stdout


@pytest.mark.parametrize("end", [pytest.param("> /dev/full 2> /dev/full", marks=pytest.mark.slow), ">&- 2>&-",
                                 pytest.param("| true", marks=pytest.mark.slow)])  # fmt: skip
def test_an_evaluation_whose_rows_nobody_can_read_keeps_its_numbers(place, run_folder, end):
    (run_folder / "eval.json").unlink(missing_ok=True)
    done = shell(place, f"minidit eval run -n 20 --ddpm-steps 3 {end}")
    assert "Traceback" not in done.stderr, done.stderr
    assert b'"rows"' in (run_folder / "eval.json").read_bytes()


def test_a_file_never_takes_the_number_of_a_closed_stream(place):
    """Otherwise what a library prints on number 1 or 2 while a picture is written would stand in the picture."""
    (place / "go.py").write_text(
        "import os, sys\nfrom minidit.cli import main\nfsync = os.fsync\n"
        "def noisy(number):\n    [os.write(stream, b'noise') for stream in (1, 2)]\n    fsync(number)\n"
        "os.fsync = noisy\nsys.exit(main(['sample', '--labels', '0', '-n', '1', '--steps', '1', '--out', sys.argv[1]]))\n"
    )
    assert shell(place, f"{sys.executable} go.py g.png <&- >&- 2>&-").returncode == 0
    assert shell(place, f"{sys.executable} go.py h.png").returncode == 0
    assert (place / "g.png").read_bytes() == (place / "h.png").read_bytes()


def test_the_streams_of_the_caller_come_back(capsys):
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)
    assert main(["--version"]) == 0 and main(["nonsense"]) == 2
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)) == before
    assert re.fullmatch(r"minidit .*\n", capsys.readouterr().out)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_command_that_is_stopped_while_it_writes_leaves_no_temporary_file(tmp_path, number, code):
    (tmp_path / "go.py").write_text(
        "import os, sys, time\nfrom minidit.cli import main\n"
        "def slow(number):\n    print('writing', flush=True)\n    time.sleep(60)\n"
        "os.fsync = slow\nsys.exit(main(['sample', '--labels', '0', '-n', '1', '--steps', '1', '--out', 'g.png']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "go.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code and "Traceback" not in err
    assert os.listdir(tmp_path) == ["go.py"]
