"""The command `minidit`: one file per sub-command, imported when it is called, so that `--help` is instant.

Exit codes: 0 done, 1 a failure while running, 2 wrong usage, configuration or data, 130 interrupted. Errors are one line;
`--debug` shows the traceback. Under mpiexec rank 0 speaks for all, and a rank that fails ends them all.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from minidit.cli.parser import HelpAll, Parser
from minidit.incoming import short
from minidit.training.launch import give_way, launch

COMMANDS = {
    "demo": "train a tiny autoencoder and a DiT on real pictures, sample, and show everything (minutes)",
    "train": "train on your own pictures or on an embedded set",
    "sample": "draw pictures from a trained run, or from the shipped weights",
    "eval": "measure a run: class accuracy, Fréchet distance, precision and recall, neighbours",
    "verify": "check an implementation (yours, in any framework or language) and name its mistakes",
    "vectors": "test vectors for any language: write them, check them",
    "encode": "pictures to the latents or tokens of a model, and back",
    "report": "one page about a run, or about several side by side; its numbers as CSV or for TensorBoard",
    "convert": "show a file of weights, or write the same network in another project's grammar",
    "info": "versions, devices, BLAS, presets and networks with their parameters and MACs",
    "bench": "kernel launches of a training update on a GPU, with and without the fast twins",
    "spec": "the equations, their code and their tests",
    "rungs": "the rungs that a short sampler visits, and their names in other projects",
    "completion": "a script for bash or zsh that completes commands, options and words",
}


TOGETHER = {"demo", "train", "sample", "eval"}  # the commands that several ranks share; the others are rank 0's


def build_parser(only: str | None, words: Sequence[str] = ()) -> Parser:
    """The parser; only the sub-command that is used gets its options (importing them all would take longer than running)."""
    from minidit.version import __version__

    parser = Parser(
        prog="minidit",
        description="Diffusion transformers from scratch on NumPy and CuPy arrays.",
        epilog="first steps:\n"
        "  minidit sample --labels 0-9      pictures from the shipped weights, at once\n"
        "  minidit demo --quick             train, sample and measure in a minute\n"
        "  minidit train --data PICTURES    your own: a folder, whose sub-folders are classes\n"
        "  minidit COMMAND --help           the options of a command",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minidit {__version__}")
    parser.words, parser.usage = words, "minidit COMMAND [options]"
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog="minidit", title="commands")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == only:
            sub.words = words
            importlib.import_module(f"minidit.cli.{name}").add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if sub.rare or sub.complete:
            sub.add_argument("--help-all", action=HelpAll)
        sub.finish()
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
    if arguments[:1] == ["help"]:  # minidit help train
        arguments = [*arguments[1:2], "--help"]
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
            parser = build_parser(only, arguments)
            if not arguments:
                parser.exit(2, parser.format_help())
            args = parser.parse_args(arguments)
        if launch().size > 1 and only in TOGETHER:
            importlib.import_module("minidit.training.ranks").ranks()
            args.quiet |= me > 0
        with warnings.catch_warnings():  # numbers that are not finite have a message of their own
            warnings.filterwarnings("ignore", r"(overflow|invalid value|divide by zero) encountered", RuntimeWarning)
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
        usage = isinstance(error, (ValueError, TypeError, FileNotFoundError, NotADirectoryError))
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
