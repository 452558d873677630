"""Classes as people write them: "0-9", "shirt,bag", "3", "bag,0-2"."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidit.data.checks import DataError


def numbered(labels: NDArray[Any], *others: NDArray[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(labels 0..K-1, class names) of classes that are numbers only: each class is called by its number.

    A number that nobody has (0, where the numbers begin at 1) makes no class: an untrained class would be drawn like the others.
    others : labels of the same classes elsewhere, which count as well
    """
    numbers = np.unique(np.concatenate([np.unique(a) for a in (labels, *others)]))
    return np.searchsorted(numbers, labels).astype(np.int64), tuple(str(n) for n in numbers)


def parse_labels(text: str, class_names: Sequence[str]) -> list[int]:
    """The labels of a comma-separated list of names (in any case), numbers and ranges a-b (both ends included), in that order.

    A name wins over a number: where classes are called "10" and "2", the text "2" is the class of that name.
    Raises DataError, which lists the names, for anything else.
    """
    if not class_names:
        raise DataError(f"no class {text!r}: this data set has no classes")
    if text.strip() in class_names:  # a name that holds a comma itself
        return [_only(text.strip(), list(class_names))]
    return [label for word in text.split(",") for label in _labels_of(word.strip(), class_names)]


def _labels_of(word: str, class_names: Sequence[str]) -> list[int]:
    names = list(class_names)
    if word in names:
        return [_only(word, names)]
    same = [i for i, name in enumerate(names) if name.casefold() == word.casefold()]
    if len(same) == 1:
        return same
    numbers = re.fullmatch(r"([0-9]+)(?:\s*-\s*([0-9]+))?", word, re.ASCII)
    if numbers and len(word) < 40:
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if first <= last < len(names):
            return list(range(first, last + 1))
        if last < first < len(names):
            raise DataError(f"labels {word!r} go down: write {last}-{first}")
    raise DataError(_unknown(word, names))


def _only(word: str, names: list[str]) -> int:
    """The label of the class of that name. Raises DataError where two have it."""
    labels = [i for i, name in enumerate(names) if name == word]
    if len(labels) > 1:
        raise DataError(f"{len(labels)} classes are called {word!r}: use their numbers {', '.join(map(str, labels))}")
    return labels[0]


def _unknown(word: str, names: list[str]) -> str:
    plain = [n.casefold() for n in names]
    whole = [n for n in plain if word.casefold() in re.findall(r"[\w-]+", n)]
    near = whole or difflib.get_close_matches(word.casefold(), plain, n=1)
    hint = f" (did you mean {names[plain.index(near[0])]!r}?)" if near else ""
    numbered = (name if name == str(i) else f"{i} {name}" for i, name in enumerate(names[:20]))
    known = ", ".join(numbered) + (" ..." if len(names) > 20 else "")
    return f"no class {word!r}{hint}; the {len(names)} classes are: {known}"
