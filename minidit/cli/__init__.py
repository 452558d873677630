"""The command `minidit`: one file per sub-command, imported when it is called, so that `--help` is instant.

Exit codes: 0 done, 1 a failure while running, 2 wrong usage, configuration or data, 130 interrupted. Errors are one line;
`--debug` shows the traceback. Under mpiexec rank 0 speaks for all, and a rank that fails ends them all.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from minidit.incoming import short
from minidit.training.launch import give_way, launch

COMMANDS = {
    "demo": "train a tiny autoencoder and a DiT on real pictures, sample, and show everything (minutes)",
    "train": "train on your own pictures or on an embedded set",
    "sample": "draw pictures from a trained run, or from the shipped weights",
    "eval": "measure a run: class accuracy, Fréchet distance, precision and recall, neighbours",
    "verify": "check an implementation (yours, in any framework or language) and name its mistakes",
    "vectors": "test vectors for any language: write them, check them",
    "report": "write report.html for a run folder, or a page that compares several",
    "convert": "show a file of weights, or write the same network in another project's grammar",
    "info": "versions, devices, BLAS, presets with their parameters and MACs",
    "bench": "kernel launches of a training update on a GPU, with and without the fast twins",
    "spec": "the equations, their code and their tests",
    "rungs": "the rungs that a short sampler visits, and their names in other projects",
}


TOGETHER = {"demo", "train", "sample", "eval"}  # the commands that several ranks share; the others are rank 0's


class Parser(argparse.ArgumentParser):
    """One-line errors with a suggestion."""

    words: Sequence[str] = ()  # the whole command line: some flags depend on others

    def error(self, message: str) -> NoReturn:
        if "argument COMMAND: invalid choice" in message:
            wrong = message.split("'")[1]
            near = difflib.get_close_matches(wrong, COMMANDS, 1)
            message = f"there is no {wrong!r}" + (f", did you mean {near[0]!r}?" if near else "")
        elif message.startswith("unrecognized arguments: -"):
            wrong = message.split(": ", 1)[1].split()[0]
            known = [o for a in self._every_action() for o in a.option_strings]
            near = difflib.get_close_matches(wrong.split("=")[0], known, 1)
            message = f"unknown option {wrong}" + (f", did you mean {near[0]}?" if near else "")
        self.exit(2, f"{self.prog}: {message}\n")

    def _every_action(self) -> list[argparse.Action]:
        actions = list(self._actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    actions += parser._actions
        return actions


def build_parser(only: str | None, words: Sequence[str] = ()) -> Parser:
    """The parser; only the sub-command that is used gets its options (importing them all would take longer than running)."""
    from minidit.version import __version__

    parser = Parser(
        prog="minidit",
        description="Diffusion transformers from scratch on NumPy and CuPy arrays.",
        epilog="minidit demo                       a run from real pictures to sampled ones\n"
        "minidit sample --labels 0-9        pictures from the shipped weights, at once",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minidit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == only:
            sub.words = words
            importlib.import_module(f"minidit.cli.{name}").add_arguments(sub)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    from minidit.cli.streams import ended_in_order, lenient

    arguments = sys.argv[1:] if arguments is None else arguments
    with lenient() as (out, err), ended_in_order():
        code = _on_this_rank(arguments)
        out.flush()
        if out.failure and not out.quiet:
            print(f"minidit: not everything could be printed: {out.failure}", file=err)
    return _ended(code) or int(bool(out.failure))


def _on_this_rank(arguments: list[str]) -> int:
    """Runs the command line as far as it is this rank's; returns the exit code."""
    only, me = next((a for a in arguments if not a.startswith("-")), None), launch().me
    if not me:
        return _run(only, arguments)
    if only not in TOGETHER:
        return 0
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return _run(only, arguments, me)


def _run(only: str | None, arguments: list[str], me: int = 0) -> int:
    """Runs the command line on rank `me`; returns the exit code."""
    try:
        with contextlib.redirect_stderr(sys.stdout) if me else contextlib.nullcontext():
            args = build_parser(only, arguments).parse_args(arguments)
        if launch().size > 1 and only in TOGETHER:
            importlib.import_module("minidit.training.ranks").ranks()
            args.quiet |= me > 0
        code: int = importlib.import_module(f"minidit.cli.{args.command}").run(args)
        return code
    except SystemExit as stop:
        if stop.code:
            give_way()
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return _failed(130, "interrupted", "\nminidit: ")
    except Exception as error:
        if "--debug" in arguments:
            raise
        usage = isinstance(error, (ValueError, TypeError, FileNotFoundError))
        unclear = not str(error) or isinstance(error, (KeyError, AssertionError))
        text = f"{type(error).__name__}: {error}" if unclear else str(error)
        return _failed(2 if usage else 1, short(" ".join(text.split())))


def _failed(code: int, text: str, before: str = "minidit: ") -> int:
    """Prints a message on stderr, with the number of a rank that is not the first; returns the exit code."""
    give_way()
    me = launch().me
    print(f"{before}rank {me}: {text}" if me else before + text, file=sys.stderr)
    return code


def _ended(code: int) -> int:
    """The exit code; if it is that of a failure, the other ranks do not wait for this one."""
    if code and "minidit.training.ranks" in sys.modules:
        sys.modules["minidit.training.ranks"].end(code)
    return code
