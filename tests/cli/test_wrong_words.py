"""Every wrong command line is answered in one line that a newcomer understands: what is wrong, and what is right."""

import argparse
import re
import shlex

import pytest
from small import begun, run_config

from minidit.cli import COMMANDS, build_parser, main
from minidit.runs.presets import PRESETS, networks

ARGPARSE = re.compile(r"argument |invalid|expected|unrecognized|choose from|ignored")  # words of its own messages


def parser_of(command):
    return next(a for a in build_parser(command, [command])._actions if a.dest == "command").choices[command]


def answer(capsys, *words):
    """What is printed for a wrong command line, which is one line."""
    assert main(list(map(str, words))) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("minidit") and err.count("\n") == 1 and not ARGPARSE.search(err), err
    return err.split(": ", 1)[1].rstrip()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_says_what_value_it_needs(command, capsys):
    """Without a value, with too few, with letters for a number, with an unknown word, with a value that it does not take."""
    needed = [{"completion": "bash", "vectors": "list"}.get(command, "x") for a in parser_of(command)._actions if a.nargs is None
              and not a.option_strings]  # fmt: skip
    for action in parser_of(command)._actions:
        flag = (action.option_strings or [""])[-1]
        if not flag or isinstance(action, argparse._HelpAction) or action.nargs in ("?", "+"):
            continue
        start = [command, *needed, flag]
        if action.nargs == 0:
            assert answer(capsys, *start[:-1], f"{flag}=1") == f"{flag} takes no value"
            continue
        number = action.nargs or 1
        assert re.match(rf"{flag} needs (a value|{number} values): {flag} \S", answer(capsys, *start))
        said = answer(capsys, *start, *["-nonsense"] * number)
        assert f"{flag}=-nonsense" in said
        if action.choices and action.type is None:
            assert f"{flag} 'nonsense' is not one of {', '.join(map(str, action.choices))}" in answer(capsys, *start, "nonsense")
        elif action.type in (int, float):
            kind = "whole number" if action.type is int else "number"
            assert answer(capsys, *start, *["nonsense"] * number) == f"{flag} 'nonsense' is not a {kind}"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_word_too_many_is_answered_with_the_usage_and_an_unknown_option_with_the_help(command, capsys):
    words = {"completion": ["bash"], "vectors": ["list", "a"], "sample": ["a"], "encode": ["a", "b"], "convert": ["a", "b"],
             "eval": ["a"], "info": ["a"]}.get(command, [])  # fmt: skip
    if all(a.nargs not in ("*", "+") for a in parser_of(command)._actions if not a.option_strings):
        said = answer(capsys, command, *words, "zzz")
        assert said == f"'zzz' is one word too many: {parser_of(command).usage}"
    needed = ["x"] if command in ("eval", "report", "encode", "convert") else words
    assert answer(capsys, command, *needed, "--qqqq") == f"unknown option --qqqq; minidit {command} --help lists the options"


@pytest.mark.parametrize("wrong, right", [
    ("--steps 5 sample", "minidit sample --steps 5"), ("--seed=5 sample --labels bag", "minidit sample --seed=5 --labels bag"),
    ("--quiet sample", "minidit sample --quiet"), ("-n 3 sample", "minidit sample -n 3"),
    ("--data demo train", "minidit train --data demo"), ("--prompt 'red heart' sample", "minidit sample --prompt 'red heart'"),
])  # fmt: skip
def test_options_before_the_command_are_answered_with_the_right_order(wrong, right, capsys):
    assert answer(capsys, *shlex.split(wrong)) == f"options stand after the command's name, did you mean {right}?"


def test_options_before_a_word_that_is_no_command_are_answered_too(capsys):
    assert answer(capsys, "--steps", "5", "smaple") == "options stand after the command's name: minidit COMMAND …"


@pytest.mark.parametrize("command, said", [
    ("sample --sampler ddpm --solver ab2", "--solver ab2 takes no fresh noise, and --sampler ddpm draws some: leave out one"),
    ("sample --eta 1 --solver heun", "--solver heun takes no fresh noise, and --eta 1 draws some: leave out one of them"),
    ("sample --path straight --spacing karras", "--spacing karras: only a ladder has rungs to space, and the path straight has"),
    ("sample --path straight --shift 0", "shift 0 must be above 0 (1: the times as they are)"),
    ("sample --path straight --shift -1", "shift -1 must be above 0"),
    ("sample --state best", "--state best: name the run that it belongs to: minidit sample RUN --state best"),
    ("sample words", "words: there is no such run, did you mean --weights words?"),
    ("sample --weights fashon", "did you mean 'fashion'?"),
    ("train --threads -1", "--threads -1 must be at least 0 (0: all cores)"),
    ("train 3", "'3' is one word too many: minidit train [options]"), ("train --flip=yes", "--flip takes no value"),
    ("sample --no-rising-guidance=1", "--no-rising-guidance takes no value"),
    ("rungs --T 0", "--T 0 must be at least 1"), ("rungs --spacing karas", "did you mean 'karras'?"),
    ("vectors exprt", "ACTION 'exprt' is not one of export, check, list, did you mean 'export'?"),
    ("verify nosuch", "there is no module 'nosuch' (a file ends in .py; minidit verify --list names the topics)"),
    ("convert fashon", "did you mean 'fashion'?"), ("bench --launches --network demmo", "did you mean 'demo'?"),
    ("Train", "there is no command 'Train', did you mean 'train'?"),
])  # fmt: skip
def test_what_cannot_be_is_said_in_the_words_of_the_command_line(command, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in answer(capsys, *command.split())
    assert not list(tmp_path.iterdir())


TAKE_RUNS = ["report", "eval", "sample", "encode digits", "train --resume", "train --data digits --init", "info", "convert"]


@pytest.mark.parametrize("command", TAKE_RUNS)
@pytest.mark.parametrize("wrong", ["runs/kats", "kats", "runs/CATS-2", "cats-2"])
def test_every_command_finds_the_run_that_was_meant(command, wrong, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cats-2", "dogs"):
        begun(tmp_path / "runs" / name, run_config())
    if not wrong.endswith("ts"):
        assert answer(capsys, *command.split(), wrong).endswith("did you mean runs/cats-2?")
    else:
        (tmp_path / "runs/cats-2").rename(tmp_path / "runs/cats")
        assert answer(capsys, *command.split(), wrong).endswith("did you mean runs/cats?")


@pytest.mark.parametrize("command", ["report", "eval", "encode digits", "train --resume", "sample"])
def test_where_no_run_is_like_it_those_that_there_are_are_named(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cats", "dogs"):
        begun(tmp_path / "runs" / name, run_config())
    said = answer(capsys, *command.split(), "runs/nothing")
    assert said == "runs/nothing: there is no such run; there are runs/cats, runs/dogs"
    for k in range(9):
        begun(tmp_path / "runs" / f"mice{k}", run_config())
    assert answer(capsys, *command.split(), "nothing").endswith("runs/mice3, and 5 more")


@pytest.mark.parametrize("flag, known", [("--preset", PRESETS), ("--network", networks())])
def test_every_name_with_one_letter_left_out_is_suggested(flag, known, capsys, tmp_path):
    for name in known:
        said = answer(capsys, "train", "--data", tmp_path, flag, name[:-2] + name[-1])
        assert "did you mean " in said
