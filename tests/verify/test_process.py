"""Programs in other languages: the examples build, run and are judged; every way of breaking the protocol is one sentence."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minidit.cli import main
from minidit.verify import TOPICS
from minidit.verify.borders import talk
from minidit.verify.borders.process import Program, ProgramError

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "process"


@pytest.fixture(scope="module")
def cpp(tmp_path_factory):
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed")
    program = tmp_path_factory.mktemp("cpp") / "mine"
    subprocess.run(
        ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, EXAMPLES / "mine.cpp"], check=True, timeout=120
    )
    return str(program)


@pytest.fixture(scope="module")
def javascript():
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    return f"node {EXAMPLES / 'mine.mjs'}"


@pytest.fixture(params=["cpp", "javascript"])
def example(request):
    return request.getfixturevalue(request.param)


def test_an_example_in_another_language_is_right(example):
    with Program(example) as program:
        report = program.check()
    assert report.ok, str(report)


def test_its_deliberate_mistake_is_named(example):
    with Program(f"{example} --wrong") as program:
        report = program.check(topics=["ddim_step"])
    assert report.mistakes == ["M02"]


# ------------------------------------------------------------------------------------------------ a program for every accident

HELLO = '{"protocol": 1, "topics": ["ddim_step"]}'


def python(tmp_path, body):
    """A program: `say` writes a line, `ask` reads one; body runs after the kit's greeting was read."""
    path = tmp_path / "program.py"
    path.write_text(
        "import json, os, sys\n"
        "say = lambda line: print(line, flush=True)\n"
        "ask = lambda: json.loads(sys.stdin.readline() or sys.exit(0))\n"
        "answer = lambda value: say(json.dumps({'id': q['id'], 'answer': value}))\n"
        f"ask()\n{body}"
    )
    return f"{sys.executable} {path}"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("sys.exit(3)", "ended with exit status 3 at the greeting"),
        ("say('hello')", "not a JSON object at the greeting: 'hello'"),
        ("say('[1]')", "not a JSON object at the greeting"),
        ("say('{\"protocol\": 2}')", "speaks protocol 2, this is 1"),
        ('say(\'{"protocol": 1, "topics": []}\')', "names no topics"),
        ('say(\'{"protocol": 1, "topics": ["ddim_stepp"]}\')', "there is no topic 'ddim_stepp', did you mean 'ddim_step'?"),
        ("ask()", "said nothing about the greeting within 0.3 s"),
    ],
)
def test_a_wrong_greeting_is_a_usage_error_of_one_line(tmp_path, capsys, body, says):
    timeout = "0.3" if "within" in says else "20"
    assert main(["verify", "--exec", python(tmp_path, body), "--timeout", timeout]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("ask(); os._exit(7)", "ended with exit status 7 at ddim_step"),
        ("ask(); os.kill(os.getpid(), 11)", "ended with SIGSEGV at ddim_step"),
        ("ask(); say('oops')", "not a JSON object at ddim_step: 'oops'"),
        ("q = ask(); say(json.dumps({'id': q['id'] + 1, 'answer': 1}))", "answered question 2 when asked 1"),
        ("q = ask(); say(json.dumps({'id': q['id']}))", "a line without answer, error or call"),
        ("q = ask(); say(json.dumps({'id': q['id'], 'call': 'f9'}))", "calls 'f9', which the question does not hold"),
        ("q = ask(); say(json.dumps({'id': q['id'], 'answer': {'shape': [2], 'data': [1]}}))", "an array that cannot be read"),
        ("ask(); ask()", "said nothing about ddim_step within 0.5 s"),
        ("ask(); sys.stdout.write('x' * 10**8)", "a line of more than 8388608 bytes at ddim_step"),
        ("q = ask(); answer([0] * 10**6)", "more than 131072 values in one line at ddim_step"),
        ("ask(); say('[' * 10**5)", "not a JSON object at ddim_step"),
        ("ask(); say('\\x1b[2J')", "not a JSON object at ddim_step"),
        ("q = ask(); say(json.dumps({'id': q['id'], 'error': chr(27) + '[2J'}))", "\\x1b[2J"),
        ("q = ask(); answer({'shape': [1], 'data': [1], 'dtype': 'U100000000'})", "numbers or short texts are read"),
        ("q = ask(); answer({'shape': [2**40], 'data': [1]})", "an array that cannot be read"),
        ("q = ask(); os.mkfifo(f := sys.argv[0] + '.f'); answer({'shape': [1], 'file': f, 'name': 'a'})", "a pipe, not a file"),
        ("q = ask(); answer({'shape': [1], 'file': '/dev/zero', 'name': 'a'})", "a device, not a file"),
    ],
)
def test_a_breach_fails_the_topic_with_one_sentence(tmp_path, body, says):
    with Program(python(tmp_path, f"say('{HELLO}')\n{body}"), timeout=20) as program:
        program._talk.timeout = 0.5 if "within" in says else 20  # a greeting takes what it takes on a busy machine
        (finding,) = program.check().findings
    assert finding.verdict == "raises" and says in finding.note and finding.note.isprintable()


@pytest.mark.parametrize(("key", "value"), [("inline", "many"), ("name", 3), ("precision", ["float64"]), ("topics", [1])])
def test_a_greeting_of_another_kind_is_one_line(tmp_path, capsys, key, value):
    hello = json.dumps({**json.loads(HELLO), key: value})
    assert main(["verify", "--exec", python(tmp_path, f"say('{hello}')")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and ("in its greeting" in err)


class Ticking:
    """A clock that goes on by a hundredth of a second whenever somebody looks at it."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 0.01
        return self.now


def test_a_program_that_calls_back_without_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(talk, "time", Ticking())
    body = f"say('{HELLO}')\nq = ask()\nwhile True:\n    say(json.dumps({{'id': q['id'], 'call': 'f0', 'args': []}})); ask()\n"
    with Program(python(tmp_path, body), timeout=10) as program, pytest.raises(ProgramError, match="without an answer about"):
        program.functions["ddim_step"](lambda: 1.0)


@pytest.mark.parametrize("end", ["ask()", "sys.exit(0)", "os._exit(7)", "time.sleep(60)"])
def test_nothing_that_a_program_started_or_wrote_is_left(tmp_path, end, monkeypatch):
    """A child that holds the output open and a folder without permissions, whatever way the program ends."""
    monkeypatch.setattr("minidit.verify.borders.process.LEAVE", 0.3)
    body = f"""import subprocess, time
child = subprocess.Popen(["sleep", "60"])
open(r"{tmp_path}/child", "w").write(str(child.pid))
say('{HELLO}')
{end}
"""
    with Program(python(tmp_path, body), timeout=5) as program:
        folder = Path(program._folder.name)
        (folder / "mine").mkdir(mode=0o000)
    assert not folder.exists()
    state = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    deadline = time.monotonic() + 5
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_refusal_is_no_breach_and_the_program_lives_on(tmp_path):
    body = f"say('{HELLO}')\nwhile True:\n    say(json.dumps({{'id': ask()['id'], 'error': f'no, says {{os.getpid()}}'}}))\n"
    with Program(python(tmp_path, body)) as program:
        told = set()
        for probe in TOPICS["ddim_step"].probes():
            with pytest.raises(ValueError, match="no, says") as error:
                program.functions["ddim_step"](*probe.args)
            told.add(str(error.value))
    assert len(told) == 1  # one process answered all


def test_a_program_may_call_back_a_function_that_it_was_given(tmp_path):
    body = f"""say('{HELLO}')
q = ask(); f, x = q["args"]
say(json.dumps({{"id": q["id"], "call": f["call"], "args": [x]}}))
twice = ask()["result"]
say(json.dumps({{"id": q["id"], "call": f["call"], "args": [twice]}}))
say(json.dumps({{"id": q["id"], "answer": ask()["result"]}}))
ask()
"""
    with Program(python(tmp_path, body)) as program:
        assert np.array_equal(program.functions["ddim_step"](lambda x: 2 * x, np.array([1.0, 3.0])), [4.0, 12.0])


def test_large_arrays_travel_in_files_and_come_back_in_files(tmp_path):
    """The program hands back the very file that it was given, under the same name."""
    body = f"""say('{HELLO}')
q = ask(); a = q["args"][0]["w"]
assert "data" not in a and os.path.getsize(a["file"]) > 8 * 5000
say(json.dumps({{"id": q["id"], "answer": [a, q["args"][1]]}}))
ask()
"""
    large, small = np.arange(5000.0).reshape(50, 100), np.array([np.nan, -np.inf, 0.1])
    with Program(python(tmp_path, body)) as program:
        back = program.functions["ddim_step"]({"w": large}, small)
        folder = program._folder.name
    assert np.array_equal(back[0], large) and np.array_equal(back[1], small, equal_nan=True)
    assert not Path(folder).exists()


def test_what_cannot_be_started_is_told(capsys):
    assert main(["verify", "--exec", "./no-such-program"]) == 2
    assert capsys.readouterr().err == "minidit: ./no-such-program cannot be started: No such file or directory\n"


def test_the_document_shows_lines_that_are_json():
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    blocks = re.findall(r"```json\n(.*?)```", text, re.S)
    assert len(blocks) == 3 and all(json.loads(line) for block in blocks for line in block.splitlines())
