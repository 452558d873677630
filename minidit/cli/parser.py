"""A parser with short usage, help on two levels, and one-line errors that say what was probably meant."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from collections.abc import Callable, Sequence
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
        """A message of argparse in plain words: what was wrong, what is right, and what was probably meant."""
        if moved := self._moved():
            return moved
        if match := re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            return self._no_command(match[1], re.findall(r"[^\s,']+", match[2]))
        if match := re.match(r"argument (\S+): (.*)", message):
            return self._wrong_value(match[1], match[2])
        if message.startswith("the following arguments are required: "):
            return self._missing()
        if message.startswith("unrecognized arguments: "):
            wrong = message.split(": ", 1)[1].split()[0]
            return self._unknown(wrong) if wrong.startswith("-") else self._too_many(wrong)
        return message

    def _moved(self) -> str:
        """What to say where options that only a command has stand before it, with the right order; else ""."""
        own, words = self._option_string_actions, list(self.words)
        below = [a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        if not below or not words or not words[0].startswith("-") or words[0].split("=")[0] in own:
            return ""
        places = [k for k, word in enumerate(words) if word in below[0]]
        if not places:
            alone = all(word.startswith("-") for word in words)
            return "" if alone else "options stand after the command's name: minidit COMMAND …"
        k = next((k for k in places if not words[k - 1].startswith("-")), places[0])  # not the value of --data demo
        right = shlex.join(["minidit", words[k], *words[:k], *words[k + 1 :]])
        return f"options stand after the command's name, did you mean {right}?"

    def _no_command(self, wrong: str, known: Sequence[str]) -> str:
        """What to say of a command that there is not."""
        from minidit.keywords import meant

        ours = next((ours for ours, theirs in COMMANDS.items() if wrong.lower() in theirs.split()), "")
        hint = f", did you mean minidit {ours}?" if ours else meant(wrong, known)
        return f"there is no command {wrong!r}{hint or '; minidit --help lists them'}"

    def _wrong_value(self, name: str, what: str) -> str:
        """What to say of an option or a word with a value that it cannot have, too few values, or one too many."""
        from minidit.keywords import meant

        names = name.split("/")  # -n/--n: the one that was typed
        typed = {word.split("=")[0] for word in self.words}
        flag = next((n for n in names if n in typed), names[-1]) if name.startswith("-") else name.upper()
        if match := re.match(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", what):
            known = re.findall(r"[^\s,']+", match[2])
            others = [a.option_strings[-1] for a in self._actions if a.option_strings and match[1] in (a.choices or ())]
            hint = f", did you mean {others[0]} {match[1]}?" if others else meant(match[1], known, likeness=0.5)
            return f"{flag} {match[1]!r} is not one of {', '.join(known)}{hint}"
        if match := re.match(r"invalid (int|float) value: (.*)", what):
            return f"{flag} {match[2]} is not a {'whole ' if match[1] == 'int' else ''}number"
        if match := re.match(r"expected (one|\d+|at least one) arguments?", what):
            number = {"one": "a value", "at least one": "at least one value"}.get(match[1], f"{match[1]} values")
            return f"{flag} needs {number}: {self._usage(flag)}"
        if what.startswith("ignored explicit argument"):
            return f"{flag} takes no value"
        return f"{flag}: {what}"

    def _usage(self, flag: str) -> str:
        """An option with its values; with the value that was meant, where that begins with a dash and was taken for an option."""
        action = self._option_string_actions[flag]
        for word, after in itertools.pairwise(self.words):
            if word in action.option_strings and after.startswith("-") and after not in self._option_string_actions:
                return f"{flag}={after}, with = before a value that begins with a dash"
        words = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
        name = action.metavar or words
        values = [name] * (action.nargs if isinstance(action.nargs, int) else 1) if isinstance(name, str) else name
        return " ".join([flag, *values, *(["…"] if action.nargs == "+" else [])])

    def _unknown(self, wrong: str) -> str:
        """What to say of an option that there is not."""
        from minidit.keywords import alike

        known = {o.lstrip("-"): o for a in self._every_action() for o in a.option_strings}
        name = wrong.split("=")[0].lstrip("-")
        ours_for = [ours for ours, theirs in ELSEWHERE.items() if name in theirs.split() and ours.split()[0] in known.values()]
        near = ours_for or [known[word] for word in alike(name, known, likeness=0.7)]
        hint = f", did you mean {near[0]}?" if near else f"; {self._command().prog} --help lists the options"
        return f"unknown option {wrong}{hint}"

    def _too_many(self, wrong: str) -> str:
        """What to say of a word that is neither an option nor its value."""
        hints = [hint for parser in self._parsers() if (hint := parser.stray(wrong))]
        if hints:
            return f"{wrong!r} belongs to no option, did you mean {hints[0]}?"
        return f"{wrong!r} is one word too many: {self._command().usage}"

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

    def _command(self) -> Parser:
        """The parser of the command that is called; this one, if there is none."""
        commands = {parser.prog.split()[-1]: parser for parser in self._parsers()[1:]}
        return next((commands[word] for word in self.words if word in commands), self)  # a later one is a value: --data demo

    def _every_action(self) -> list[argparse.Action]:
        return [action for parser in self._parsers() for action in parser._actions]


class HelpAll(argparse.Action):
    """--help-all: the help with every option."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help="show rare options as well")

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> NoReturn:
        parser.print_help()
        parser.exit()
