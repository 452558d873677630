"""The command `minidit`: one file per sub-command, imported when it is called, so that `--help` is instant.

Exit codes: 0 done, 1 a failure while running, 2 wrong usage, configuration or data, 130 interrupted. Errors are one line;
`--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

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
    with lenient() as (out, err):
        with ended_in_order():
            code = _run(arguments)
        out.flush()
        if out.failure and not out.quiet:
            print(f"minidit: not everything could be printed: {out.failure}", file=err)
    return code or int(bool(out.failure))


def _run(arguments: list[str]) -> int:
    from minidit.incoming import short

    only = next((a for a in arguments if not a.startswith("-")), None)
    try:
        args = build_parser(only, arguments).parse_args(arguments)
        code: int = importlib.import_module(f"minidit.cli.{args.command}").run(args)
        return code
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("\nminidit: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if "--debug" in arguments:
            raise
        usage = isinstance(error, (ValueError, TypeError, FileNotFoundError))
        unclear = not str(error) or isinstance(error, (KeyError, AssertionError))
        text = f"{type(error).__name__}: {error}" if unclear else str(error)
        print(f"minidit: {short(' '.join(text.split()))}", file=sys.stderr)
        return 2 if usage else 1
