"""A parser with short usage, help on two levels, and one-line errors that say what was probably meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

ELSEWHERE = {  # our option -> its names in other programs, and others by which people look for it
    "--lr": "learning-rate", "--steps": "epochs max-steps iterations num-steps num-inference-steps", "--batch-size": "batch",
    "--out": "output output-dir output-file name", "--data": "dataset images", "--guidance": "cfg-scale cfg scale",
    "-n": "num-samples num count", "--size": "image-size resolution", "--hidden-size": "width", "--num-heads": "heads",
    "--depth": "layers", "--device cuda": "gpu cuda", "--precision bf16": "fp16 bf16", "--labels": "class classes label",
    "--resume": "continue checkpoint", "--debug": "verbose", "--quiet": "silent", "--threads": "workers num-workers",
    "--flip": "augment", "--skip-bad": "skip-unreadable", "--overwrite": "force", "--network": "preset", "--prompt": "text",
}  # fmt: skip


COMMANDS = {  # our command -> what people type for it
    "report RUN RUN": "compare diff", "sample": "generate draw infer inference test predict",
    "info": "list presets version models weights shipped sets words captions networks",
    "eval": "evaluate measure score fid", "train": "fit run learn", "train --resume RUN": "resume continue", "verify": "check",
    "train --init RUN": "finetune fine-tune", "report RUN --csv FILE": "export csv metrics", "spec": "equation equations book",
    "report RUN --tensorboard DIR": "tensorboard", "report RUN": "show plot view", "sample --out film.gif": "gif animate film",
}  # fmt: skip


def near(wrong: str, known: Iterable[str], mark: str = "", likeness: float = 0.6) -> str:
    """ ", did you mean …?" if one of the known words is like the wrong one."""
    import difflib  # only after a mistake

    known = list(known)
    longer = [k for k in known if len(wrong) > 3 and k.startswith(wrong)]
    close = longer or difflib.get_close_matches(wrong, known, 1, likeness)
    return f", did you mean {mark}{close[0]}{mark}?" if close else ""


class Parser(argparse.ArgumentParser):
    """The parser of `minidit`, or of one command.

    words : the whole command line: some flags depend on others, and --help-all shows the rare ones as well
    """

    words: Sequence[str] = ()
    rare = 0  # options that are not shown, and would be with --help-all
    stray: Callable[[str], str] = staticmethod(lambda word: "")  # what a word that belongs to no option probably means

    def __init__(self, *names: Any, **options: Any) -> None:
        super().__init__(*names, **{"allow_abbrev": False, **options})  # --n is no short form of --no-rising-guidance

    @property
    def complete(self) -> bool:
        """Whether the help is to show rare options as well."""
        return "--help-all" in self.words

    def seldom(self, group: Any, *flags: str, help: str, **options: Any) -> None:
        """Adds an option that few people need: --help does not show it, --help-all does."""
        self.rare += not self.complete
        group.add_argument(*flags, help=help if self.complete else argparse.SUPPRESS, **options)

    def finish(self) -> None:
        """What the help says around the options: a short usage line, and how many are not shown."""
        names = []
        for action in self._get_positional_actions():
            name = str(action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else action.dest.upper()))
            names.append((f"[{name}]" if action.nargs in ("?", "*") else name) + (" …" if action.nargs in ("*", "+") else ""))
        self.usage = " ".join([self.prog, *names, "[options]"])
        if self.rare:
            self.epilog = f"{self.rare} more options, which few people need: {self.prog} --help-all"

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {self._clearer(message)}\n")

    def _clearer(self, message: str) -> str:
        """A message of argparse, with what was probably meant."""
        if choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            known = re.findall(r"[^\s,']+", choice[2])
            if "argument COMMAND" in message:
                meant = next((ours for ours, theirs in COMMANDS.items() if choice[1] in theirs.split()), "")
                return f"there is no {choice[1]!r}" + (
                    f", did you mean minidit {meant}?" if meant else near(choice[1], known, "'")
                )
            others = [a.option_strings[-1] for a in self._every_action() if a.option_strings and choice[1] in (a.choices or ())]
            elsewhere = f", did you mean {others[0]} {choice[1]}?" if others else ""
            return message + (elsewhere or near(choice[1], known, likeness=0.5))
        if message.startswith("the following arguments are required: "):
            return self._missing()
        if message.startswith("unrecognized arguments: "):
            wrong = message.split(": ", 1)[1].split()[0]
            if not wrong.startswith("-"):
                hints = [hint for parser in self._parsers() if (hint := parser.stray(wrong))]
                return f"{wrong!r} belongs to no option" + (f", did you mean {hints[0]}?" if hints else "")
            return self._unknown(wrong)
        return message

    def _unknown(self, wrong: str) -> str:
        """What to say of an option that there is not."""
        known = [o for a in self._every_action() for o in a.option_strings]
        name = wrong.split("=")[0]
        ours_for = [ours for ours, theirs in ELSEWHERE.items() if name[2:] in theirs.split() and ours.split()[0] in known]
        return f"unknown option {wrong}" + (f", did you mean {ours_for[0]}?" if ours_for else near(name, known))

    def _missing(self) -> str:
        """What to say where a word is missing that the command needs; before a command any option is a wrong one."""
        needed = [a for a in self._get_positional_actions() if a.nargs not in ("?", "*")]
        options = [word for word in self.words if word.startswith("-")]
        if any(isinstance(a, argparse._SubParsersAction) for a in needed) and options:
            return self._unknown(options[0])
        return "; ".join(f"{a.metavar or a.dest.upper()} is missing" + (f" ({a.help})" if a.help else "") for a in needed)

    def _parsers(self) -> list[Parser]:
        """This one, and those of its commands."""
        below = [p for a in self._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
        return [self, *below]

    def _every_action(self) -> list[argparse.Action]:
        return [action for parser in self._parsers() for action in parser._actions]


class HelpAll(argparse.Action):
    """--help-all: the help with every option."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help="show rare options as well")

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> NoReturn:
        parser.print_help()
        parser.exit()
