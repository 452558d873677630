"""Foreign answers as arrays of the kit's own, and in words what came where no numbers did.

    owned(answer)        copies on the host: what a target does with its buffers afterwards changes nothing
    describe(answer)     "a tuple of 2", "an array (3, 2)", "None"
    right_part(…)        "its first entry would be right"
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidit.autograd import value
from minidit.backend import Array, to_host

LONGEST = 100_000  # entries that are read from a generator
NOTHING = "None"  # the kind of what a function without return gives
DEEPEST = 4  # attributes of attributes of an object
ORDINALS = ("first", "second", "third", "fourth", "fifth")
PRECISIONS = ("bfloat16", "float16", "float32")  # coarsest first


@dataclass(frozen=True)
class Odd:
    """What is no answer: its kind in words, and its parts in words, each of which may be the right answer."""

    kind: str
    parts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.kind


# ------------------------------------------------------------------------------------------------ copies


def owned(answer: Any, depth: int = 0) -> Any:
    """An answer of any nesting, every array in it a copy on the host; an Odd in the place of whatever holds no numbers."""
    try:
        return _owned(answer, depth)
    except Exception as error:  # whatever a foreign object does when it is read
        return Odd(f"{_kind(answer)} that cannot be read ({type(error).__name__}: {error!s:.80})")


def _owned(answer: Any, depth: int) -> Any:
    if answer is None or isinstance(answer, Odd):
        return answer if isinstance(answer, Odd) else Odd(NOTHING)
    if isinstance(answer, (bool, int, float, str, np.generic)):
        return answer
    if isinstance(answer, Mapping):
        return {key: owned(entry, depth) for key, entry in answer.items()}
    if isinstance(answer, (tuple, list)):
        return (tuple if isinstance(answer, tuple) else list)(owned(entry, depth) for entry in answer)
    if is_array(answer):
        return _numbers(array_of(answer))
    if isinstance(answer, (Iterator, range)):
        entries = [owned(entry, depth) for entry in itertools.islice(answer, LONGEST)]
        return entries if isinstance(answer, range) else Odd(_kind(answer), {"list(…) of it": entries})
    return Odd(_kind(answer), {} if depth > DEEPEST else _attributes(answer, depth + 1))


def is_array(answer: Any) -> bool:
    """Whether this is an array of some library."""
    return any(hasattr(answer, name) for name in ("__array__", "__dlpack__", "__cuda_array_interface__")) or hasattr(
        value(answer), "dtype"
    )


def array_of(answer: Any) -> Array:
    """An array of any library as a NumPy array of its own memory; bfloat16 of torch, which NumPy lacks, as float32."""
    if hasattr(answer, "detach"):  # a tensor of torch, whatever its device, and whether it requires a gradient or not
        answer = answer.detach().cpu()
        return np.array((answer.float() if str(answer.dtype) == "torch.bfloat16" else answer).numpy())
    plain = value(answer)
    return np.array(to_host(plain) if hasattr(plain, "__cuda_array_interface__") else plain)


def _numbers(array: Array) -> Array:
    """An array of Python numbers as one of float64."""
    return array.astype(np.float64) if array.dtype == object else array


def _kind(answer: Any) -> str:
    """What an object is, in words."""
    if isinstance(answer, Iterator):
        return "a generator"
    return "a function" if isinstance(answer, type(_kind)) else f"an object of type {type(answer).__name__}"


def _attributes(answer: Any, depth: int) -> dict[str, Any]:
    """The attributes of an object that are no methods, by name."""
    names = [*getattr(answer, "__dict__", ()), *getattr(type(answer), "__slots__", ())]
    public = {n: getattr(answer, n) for n in names if not n.startswith("_")}
    return {f"its attribute {n}": owned(a, depth) for n, a in public.items() if not callable(a)}


def precision_of(answer: Any) -> str:
    """The coarsest floating type among the arrays of an answer, also of one that is not yet owned."""
    return coarsest(name.rpartition(".")[2] for name in _types(answer)) or "float64"


def coarsest(names: Iterable[str]) -> str:
    """The coarsest of these precisions; "" where none is named."""
    known = set(names)
    return next((p for p in PRECISIONS if p in known), "")


def _types(answer: Any) -> Iterator[str]:
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, (tuple, list)):
        for entry in answer:
            yield from _types(entry)
    else:
        yield str(getattr(value(answer), "dtype", ""))


# ------------------------------------------------------------------------------------------------ in words


def is_list(answer: Any) -> bool:
    """Whether this is a tuple or list that holds more than numbers: one answer beside another."""
    return isinstance(answer, (tuple, list)) and not all(isinstance(a, (int, float, np.number)) for a in answer)


def few(names: Iterable[Any], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    first = sorted(map(str, names))
    return ", ".join(first[:shown]) + (f" and {len(first) - shown} more" if len(first) > shown else "")


def describe(answer: Any) -> str:
    """The form of an answer in a few words."""
    if answer is None or isinstance(answer, Odd):
        return str(answer)
    if isinstance(answer, Mapping):
        return f"a dictionary of {len(answer)}" + (f" ({few(answer)})" if answer else "")
    if is_list(answer):
        return f"a {'tuple' if isinstance(answer, tuple) else 'list'} of {len(answer)}"
    if isinstance(answer, str):
        return f"the text {answer[:40]!r}"
    shape = np.shape(answer)
    return f"an array {shape}" if shape else "a number"


def right_part(answer: Any, is_right: Callable[[Any], bool]) -> tuple[bool, str]:
    """(whether one of the parts of an answer of the wrong form is what was asked for, in words which one; "" without parts)."""
    if isinstance(answer, Odd):
        if answer.kind == NOTHING and not answer.parts:
            return False, "does the function return something?"
        parts = dict(answer.parts)
    elif isinstance(answer, Mapping):
        parts = {f"its entry {key!r}": entry for key, entry in answer.items()}
    elif is_list(answer):
        names = [ORDINALS[k] if k < len(ORDINALS) else f"{k + 1}th" for k in range(len(answer))]
        parts = {f"its {name} entry": entry for name, entry in zip(names, answer, strict=True)}
    else:
        return False, ""
    right = next((name for name, part in parts.items() if is_right(part)), "")
    return bool(right), f"{right or 'none of its parts'} would be right" if parts else ""
