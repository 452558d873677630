"""Fields of a configuration: one word of a few, and what the comment behind a field says about it.

    conditioning: str = one_of("adaln_zero", VARIANTS)  # where the condition enters

The comment is the field's documentation. `--help` shows it, with the words and the default.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any

from minidit.keywords import meant

COMMENTED = re.compile(r"    (\w+): [^#]*?(?:#\s*(.*\S)\s*)?")


def one_of(default: str, words: Iterable[str]) -> str:
    """The default of a field that holds one of `words`: its class calls `check_words`, where other values are checked."""
    return field(default=default, metadata={"words": tuple(words)})


def words_of(f: Field[Any]) -> tuple[str, ...]:
    """The words that a field may hold; () if it is no field of words."""
    return tuple(f.metadata.get("words", ()))


def check_words(config: Any) -> None:
    """Raises ValueError, with a suggestion, unless the fields of words of a dataclass hold one of theirs."""
    for f in fields(config):
        if words := words_of(f):
            check_word(f.name, getattr(config, f.name), words)


def check_word(name: str, word: object, words: Collection[str]) -> None:
    """Raises ValueError, with a suggestion, unless `word` is one of `words`."""
    if str(word) not in words:
        raise ValueError(f"{name} {word!r} is not one of {', '.join(words)}{meant(str(word), words)}")


def comments_of(cls: type) -> dict[str, str]:
    """Field -> the comment on its line, of a dataclass and those that it inherits from; without one it keeps the older one's."""
    comments: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if "__annotations__" in owner.__dict__:
            comments |= _comments_in(owner)
    return comments


def _comments_in(cls: type) -> dict[str, str]:
    """Those in the text of one class; {} if its file cannot be read."""
    try:
        lines = Path(sys.modules[cls.__module__].__file__ or "").read_text("utf-8").splitlines()
        first = lines.index(next(line for line in lines if re.match(rf"class {cls.__name__}\b", line))) + 1
    except (OSError, StopIteration, KeyError):
        return {}
    comments = {}
    for line in lines[first:]:
        if line and not line.startswith(" "):
            break
        match = COMMENTED.fullmatch(line)
        if match and match[2] and match[1] in cls.__annotations__:
            comments[match[1]] = match[2]
    return comments
