"""Which of the dictionaries in a training checkpoint are the weights: the averaged ones, with which samples are drawn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minidit.checkpoint.files import CheckpointError, Lazy

AVERAGED = re.compile(r"(^|[._])(ema|averaged?|shadow)($|[._])")  # in the name of a state or in the prefix of its arrays
RAW = ("state_dict", "model")  # of several states without an average the first of these is taken


def is_state(value: Any) -> bool:
    """Whether this is a dictionary that holds an array, as a state_dict does."""
    return isinstance(value, dict) and any(isinstance(a, Lazy) for a in value.values())


def chosen(names: Iterable[str], path: str | Path) -> str:
    """The averaged one of several states, else the usual one. Raises CheckpointError where the names do not decide."""
    names = list(names)
    averaged = [n for n in names if AVERAGED.search(n)]
    raw = [n for n in RAW if n in names] or names
    if len(averaged) == 1 or (not averaged and (len(names) == 1 or raw[0] in RAW)):
        return (averaged or raw)[0]
    raise CheckpointError(f"{path}: holds several networks ({', '.join(averaged or names)}): save one of them alone")


def arrays_in(saved: Any, path: str | Path) -> tuple[dict[str, Lazy], list[str]]:
    """(name -> Lazy, names of everything else) from a state, or from a training checkpoint that holds one.

    Of several states the averaged one is taken: published samples were drawn with it.
    """
    others: list[str] = []
    states = [k for k, v in saved.items() if isinstance(k, str) and is_state(v)] if isinstance(saved, dict) else []
    if states and (not is_state(saved) or any(AVERAGED.search(n) for n in states)):
        name = chosen(states, path)
        others = [str(k) for k in saved if k != name]
        saved = saved[name]
    if isinstance(saved, dict):
        arrays = {str(k): a for k, a in saved.items() if isinstance(a, Lazy)}
        if arrays:
            return arrays, others + [str(k) for k, a in saved.items() if not isinstance(a, Lazy)]
    raise CheckpointError(f"{path}: holds no arrays with names")


def without_prefix(arrays: Mapping[str, Lazy], marks: Iterable[str], path: str | Path) -> tuple[dict[str, Lazy], list[str]]:
    """(the arrays of the one network whose first mark is found, without its prefix; the names of the others).

    Training frameworks put a prefix before every name, and several networks (the averaged one) may stand side by side.
    """
    prefixes = {n[: -len(mark)] for mark in marks for n in arrays if n.endswith(mark) and n[: -len(mark)][-1:] in ("", ".")}
    if not prefixes or "" in prefixes:
        return dict(arrays), []
    prefix = chosen(sorted(prefixes), path) if len(prefixes) > 1 else prefixes.pop()
    inside = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    return inside, [n for n in arrays if not n.startswith(prefix)]
