"""`minidit completion bash|zsh`: a script that completes commands, options and words, without starting Python at every key."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidit.cli.parser import Parser

SETS = ("digits", "fashion", "emoji", "shapes", "clips")  # words for --data, besides the names of files
SCRIPT = """\
# Completion of minidit for {shell}. In ~/.{shell}rc:  eval "$(minidit completion {shell})"
{before}_minidit() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    else
        case "$command $previous" in
{values}
        *) case "$command $word" in
{options}
            esac;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _minidit minidit
"""
BEFORE = {"bash": "", "zsh": "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"}


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "shell", choices=sorted(BEFORE), help='for which shell; in its start file: eval "$(minidit completion SHELL)"'
    )


def run(args: argparse.Namespace) -> int:
    print(script(args.shell), end="")
    return 0


def script(shell: str) -> str:
    """The script for one shell."""
    from minidit.cli import COMMANDS, build_parser

    values, options = [], []
    for command in COMMANDS:
        parser = next(p for p in build_parser(command, [command, "--help-all"])._parsers() if p.prog == f"minidit {command}")
        names: list[str] = []
        places: list[str] = []
        for action in parser._actions:
            names += action.option_strings
            if words := words_of(action):
                if action.option_strings:
                    patterns = "|".join(f'"{command} {name}"' for name in action.option_strings)
                    values.append(f'        {patterns}) words="{" ".join(words)}";;')
                else:
                    places += words
        options.append(f'            "{command} -"*) words="{" ".join(names)}";;')
        if places:
            options.append(f'            "{command} "*) words="{" ".join(places)}";;')
    lines = {"values": "\n".join(values), "options": "\n".join(options)}
    return SCRIPT.format(shell=shell, before=BEFORE[shell], commands=" ".join(COMMANDS), **lines)


def words_of(action: argparse.Action) -> list[str]:
    """The words that an option may have: its choices, or those between braces in its help."""
    if action.choices:
        return [str(choice) for choice in action.choices]
    braces = re.fullmatch(r"\{(.*)\}", action.metavar) if isinstance(action.metavar, str) else None
    return braces[1].split(",") if braces else list(SETS) if action.dest == "data" and action.option_strings else []
