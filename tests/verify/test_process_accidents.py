"""Programs that mean harm: whatever they do is one line within stated bounds, and nothing of them is left."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidit.cli import main
from minidit.verify.borders import process, talk
from minidit.verify.borders.process import Program, ProgramError
from minidit.verify.borders.talk import Talk
from minidit.verify.core.values import ValueFormError, unpacked

ROOT = Path(__file__).parents[2]
HELLO = '{"protocol": 1, "topics": ["ddim_step"]}'
TWO = '{"protocol": 1, "topics": ["ddim_step", "ddpm_step", "cosine_alpha_bar", "linear_betas", "guide"], "inline": 1000000}'


def python(tmp_path, body, hello=HELLO):
    """A program that greets and then does what body says; `q` is its first question."""
    path = tmp_path / "program.py"
    path.write_text(
        "import json, os, sys, time, subprocess, tempfile\nsay = lambda line: print(line, flush=True)\n"
        "ask = lambda: json.loads(sys.stdin.readline() or sys.exit(0))\n"
        f"answer = lambda value: say(json.dumps({{'id': q['id'], 'answer': value}}))\nask()\nsay('{hello}')\n{body}"
    )
    return f"{sys.executable} {path}"


def alive(pid):
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids, seconds=10):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(alive, pids))


# ------------------------------------------------------------------------------------------------ nothing is left

DAEMON = """
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(3):
                os.close(fd)
            os.execve("/bin/sleep", ["sleep", "600"], {})
        os._exit(0)
for _ in range(3):
    daemon()
children = [subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; sleep 600 & sleep 600"]) for _ in range(2)]
tempfile.mkdtemp(); tempfile.mkstemp()
"""
ENDS = ["sys.exit(0)", "os._exit(7)", "os.kill(os.getpid(), 11)", "ask(); time.sleep(600)", "os.close(1); time.sleep(600)"]


def descendants_note(tmp_path):
    """What a program runs to note the processes of its family once they all run."""
    return f"""
def words(p):
    try:
        return open(f"/proc/{{p}}/cmdline", "rb").read()
    except OSError:
        return b""
family = []
while len(family) < 6:
    family = [p for p in os.listdir("/proc") if p.isdecimal() and all(w in words(p) for w in (b"sleep", b"600"))]
open(r"{tmp_path}/pids.part", "w").write(" ".join([*family, str(os.getpid())]))
os.rename(r"{tmp_path}/pids.part", r"{tmp_path}/pids")
"""


def pids_in(tmp_path):
    return [int(p) for p in (tmp_path / "pids").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes as Linux lists them")
@pytest.mark.parametrize("end", ENDS)
def test_no_process_and_no_file_outlives_the_program(tmp_path, monkeypatch, end):
    """Daemons that left the group and the session, children that ignore signals, temporary folders."""
    monkeypatch.setattr(process, "LEAVE", 0.3)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    command = python(tmp_path, DAEMON + descendants_note(tmp_path) + end)
    with Program(command, timeout=5) as program, pytest.raises(ProgramError):
        program.functions["ddim_step"](1)
    assert len(pids_in(tmp_path)) >= 6 and gone(pids_in(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["pids", "program.py"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes as Linux lists them")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_nothing_outlives_the_kit_either(tmp_path, number, code):
    """Ctrl-C, SIGTERM, a terminal that is closed, and even SIGKILL, after which only the guard can clean up."""
    command = python(tmp_path, DAEMON + descendants_note(tmp_path) + "ask(); time.sleep(600)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    kit = subprocess.Popen([sys.executable, "-m", "minidit", "verify", "--exec", command], env=environment, cwd=tmp_path,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    end = time.monotonic() + 30
    while not (tmp_path / "pids").exists() and time.monotonic() < end:
        time.sleep(0.01)
    kit.send_signal(number)
    _, err = kit.communicate(timeout=30)
    assert kit.returncode == code and "Traceback" not in err and len(err.splitlines()) <= 2
    assert gone(pids_in(tmp_path))
    end = time.monotonic() + 10
    while len(os.listdir(tmp_path)) > 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert sorted(os.listdir(tmp_path)) == ["pids", "program.py"]


# ------------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("ask(); sys.stdout.write('{\"id\": 1, \"'); sys.stdout.flush(); os._exit(1)", "ended with exit status 1 at ddim_step"),
        ("os.close(0); os.close(1); time.sleep(600)", "program.py|closed its output"),
        ("os.close(1); ask(); time.sleep(600)", "closed its output at ddim_step"),
        ("ask()\nwhile True: say('')", "not a JSON object at ddim_step: ''"),
        ("q = ask()\nwhile True: answer(1)", "answered question 1 when asked 2"),
        ("q = ask(); answer({'shape': [1], 'file': 0, 'name': 'a'})", "its file and name are texts"),
        ("q = ask(); answer({'shape': [-1], 'data': [1]})", "a list of whole numbers is read"),
        ("q = ask(); answer({'shape': [1], 'data': ['x' * 10**6]})", "numbers or short texts"),
        ("q = ask(); answer({'shape': [2**30], 'data': [1], 'dtype': 'float64'})", "take more than 67108864 bytes"),
        ("q = ask(); answer({'shape': [1], 'data': [[[[[1]]]]], 'dtype': {}})", "an array that cannot be read"),
        ("q = ask(); f = sys.argv[0] + '.f'; open(f, 'w').truncate(2**40); answer({'shape': [1], 'file': f, 'name': 'a'})",
         "holds more than 268435456 bytes"),
        ("q = ask(); say(json.dumps({'id': 1, 'call': {}, 'args': 3}))", "which the question does not hold"),
        ("q = ask(); say('{\"id\": 1' + '1' * 10**6 + '}')", "not a JSON object"),
        ("q = ask(); say('{\"id\": ' + '[' * 900 + ']' * 900 + '}')", "answered question [[["),
        ("q = ask(); say(json.dumps({'id': 1, 'answer': eval('[' * 90 + ']' * 90)}))", ""),
    ],
)  # fmt: skip
def test_harm_of_every_kind_is_one_short_line(tmp_path, monkeypatch, body, says):
    monkeypatch.setattr(process, "LEAVE", 0.3)
    began = time.monotonic()
    with Program(python(tmp_path, body), timeout=20) as program:
        (finding,) = program.check().findings
    assert not finding.passed and re.search(re.escape(says) if "|" not in says else says, finding.note), finding.note
    assert finding.note.isprintable() and len(finding.note) < 1000 and time.monotonic() - began < 19


def test_a_flood_of_messages_is_cut_and_holds_nobody_up(tmp_path, capfd):
    body = "q = ask()\nsys.stderr.write('\\x1b[2Jharm\\n' * 10**6); sys.stderr.flush(); answer(3)\nask()"
    with Program(python(tmp_path, body), timeout=20) as program:
        assert program.functions["ddim_step"](1) == 3
    err = capfd.readouterr().err
    assert len(err) < 2 * talk.MAX_ASIDE and "\x1b" not in err and "more than 65536 bytes, the rest is not shown" in err


def test_a_program_that_reads_nothing_or_says_nothing_costs_three_times_its_time(tmp_path, monkeypatch):
    """A question of megabytes is not read; after three silences the other topics are not asked."""
    monkeypatch.setattr(process, "LEAVE", 0.1)
    with Program(python(tmp_path, "time.sleep(600)", TWO), timeout=20) as program:
        program._talk.timeout = 0.7  # a greeting takes what it takes on a busy machine
        with pytest.raises(ProgramError, match=r"did not read its input within 0\.7 s"):
            program.functions["ddim_step"](np.zeros(10**6))
        for name in ("ddpm_step", "cosine_alpha_bar"):
            with pytest.raises(ProgramError, match="said nothing about"):
                program.functions[name](1)
        monkeypatch.setattr(Talk, "say", lambda *question: pytest.fail("it was asked"))
        for name in ("linear_betas", "guide"):
            with pytest.raises(ProgramError, match="is not asked any more: it kept silent at 3 topics"):
                program.functions[name](1)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("while True:\n    say(json.dumps({'id': 1, 'call': 'f0', 'args': []})); ask()", "within 50 calls"),
        ("while True:\n    say(json.dumps({'id': 1, 'call': 'f0', 'args': [{'shape': [9], 'data': [0] * 9}]})); ask()",
         "passes more than 100 numbers"),
    ],
)  # fmt: skip
def test_calls_back_are_counted_and_so_is_what_they_pass(tmp_path, monkeypatch, body, says):
    monkeypatch.setattr(talk, "MAX_CALLS", 50)
    monkeypatch.setattr(talk, "MAX_CALLED", 100)
    seen = []
    with Program(python(tmp_path, f"q = ask()\n{body}"), timeout=20) as program, pytest.raises(ProgramError, match=says):
        program.functions["ddim_step"](lambda *args: seen.append(args))
    assert len(seen) <= 50


def test_files_of_the_questions_are_bounded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(talk, "MAX_FOLDER", 200_000)
    body = "q = ask()\nwhile True:\n    say(json.dumps({'id': 1, 'call': 'f0', 'args': []})); ask()"
    hello = HELLO.replace("}", ', "inline": 0}')
    with Program(python(tmp_path, body, hello), timeout=20) as program, pytest.raises(ProgramError, match="without an answer"):
        monkeypatch.setattr(talk, "MAX_CALLS", 100)
        program.functions["ddim_step"](lambda: np.zeros(5000))
        assert sum(p.stat().st_size for p in Path(program._folder.name).rglob("*") if p.is_file()) < 300_000


@pytest.mark.parametrize("key", ["name", "precision", "dialect"])
def test_a_long_name_in_a_greeting_is_not_taken(tmp_path, capsys, key):
    hello = HELLO.replace("}", f', "{key}": "{"x" * 10_000}"}}')
    assert main(["verify", "--exec", python(tmp_path, "ask()", hello)]) == 2
    err = capsys.readouterr().err
    assert "in its greeting" in err and err.count("\n") == 1 and len(err) < 1000


# ------------------------------------------------------------------------------------------------ any message

leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
keys = st.sampled_from(["id", "answer", "call", "args", "error", "shape", "data", "dtype", "file", "name", "x"])
values = st.recursive(leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(keys, v, max_size=5), max_leaves=12)
arrays = st.fixed_dictionaries({"shape": values, "data": values}, optional={"dtype": values, "file": values, "name": values})


@given(values | arrays)
def test_any_value_is_read_or_refused_by_the_kits_own_error(value):
    try:
        unpacked(value, lambda file, name: np.zeros(2))
    except ValueFormError as error:
        assert str(error).isprintable()


calls = st.fixed_dictionaries({"id": st.just(1), "call": st.just("f0"), "args": values})


@given(st.dictionaries(keys, values, max_size=6) | calls)
def test_any_message_is_an_answer_a_refusal_or_a_breach(tmp_path, message):
    (tmp_path / "lines").write_text(f"{HELLO}\n{json.dumps(message)}\n")
    source, nothing = os.open(tmp_path / "lines", os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)
    try:
        conversation = Talk("mine", nothing, source, tmp_path, 0.5)
        assert conversation.greeting()["topics"] == ["ddim_step"]
        conversation.ask("ddim_step", (lambda *args: args[0], 1))
    except (ValueError, ProgramError) as error:
        assert str(error).isprintable()
    finally:
        os.close(source)
        os.close(nothing)
