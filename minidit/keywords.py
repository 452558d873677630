"""Keywords of public functions: signatures that show every option, and a suggestion for a misspelt one.

    @spelled_out(Sampling)                  `**changes` in the signature are shown as the fields of Sampling
    def sample(…, **changes): …             sample(…, stpes=3): sample has no option 'stpes', did you mean 'steps'?
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
V = TypeVar("V")
BEGUN = 4  # suggestions that begin as a name does
BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def alike(name: str, known: Iterable[str], most: int = 1, likeness: float = 0.6) -> list[str]:
    """The known names that were probably meant: one with other capitals, else a few that begin so, else the most alike."""
    plain, wrong = {word: word.lower() for word in known}, name.lower()
    if same := [word for word in plain if plain[word] == wrong]:
        return difflib.get_close_matches(name, same, 1, 0.0)
    begun = [word for word in plain if len(wrong) > 2 and plain[word].startswith(wrong)]
    likely = [] if begun else difflib.get_close_matches(wrong, plain.values(), most, likeness)
    return begun[:BEGUN] or [word for text in dict.fromkeys(likely) for word in plain if plain[word] == text][:most]


def meant(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The names that were probably meant, as the end of a sentence; "" where none is like it."""
    near = alike(name, known, likeness=likeness)
    return f", did you mean {' or '.join(map(repr, near))}?" if near else ""


def refuse_unknown(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises TypeError, with a suggestion, for a keyword that a function does not have."""
    known = list(known)
    for word in given:
        if word not in known:
            raise TypeError(f"{name} has no option {word!r}{meant(word, known) or '; it has ' + ', '.join(known)}")


def spelled_out(source: Callable[..., Any] | None = None, name: str = "") -> Callable[[F], F]:
    """A decorator of a function whose **keywords are the options of `source` (a function, or a class: its fields)."""

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        first = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {p.name for p in first}
        passed = inspect.signature(source).parameters.values() if source is not None else ()
        more = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in passed if p.kind in BY_NAME and p.name not in taken]
        more = [p for p in more if p.name != "self"]
        known = [p.name for p in first if p.kind in BY_NAME and p.name != "self"] + [p.name for p in more]

        @functools.wraps(function)
        def checked(*args: Any, **keywords: Any) -> Any:
            refuse_unknown(name or function.__name__, keywords, known)
            return function(*args, **keywords)

        vars(checked)["__signature__"] = own.replace(parameters=[*first, *more])  # inspect and help() look there
        return cast(F, checked)

    return decorate


def suggesting(cls: C) -> C:
    """A decorator of a dataclass whose constructor answers a misspelt keyword with a suggestion."""
    type.__setattr__(cls, "__init__", spelled_out(name=cls.__name__)(vars(cls)["__init__"]))
    return cls


def level_of_caller() -> int:
    """The `stacklevel` at which a warning names the first line outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    return level


class UnknownName(KeyError):
    """A name that a table does not have."""

    def __str__(self) -> str:
        return str(self.args[0])


class Named(dict[str, V]):
    """A table of things with names, which answers a misspelt name with a suggestion."""

    def __missing__(self, name: str) -> V:
        raise UnknownName(f"there is no {name!r}{meant(str(name), self) or ', there are ' + ', '.join(self)}")


def check_kind(what: str, thing: object, kind: type, examples: str) -> None:
    """Raises TypeError, with examples, for an argument of another kind."""
    if not isinstance(thing, kind):
        raise TypeError(f"{what} must be a {kind.__name__}, such as {examples}, not {thing!r}")


def check_config(network: object, config: object, kind: type, table: str = "") -> None:
    """Raises TypeError unless a network is built from its configuration; `table` is where some have names."""
    if not isinstance(config, kind):
        what = f'its name {config!r}: {table}["{config}"]' if isinstance(config, str) and table else repr(config)
        raise TypeError(f"{type(network).__name__} takes a {kind.__name__}, not {what}")
