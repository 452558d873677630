"""Captions as numbers of words: "Red apple, noto" is the row [red, apple, noto, 0, 0, …] of a vocabulary.

    0    behind the last word        1    a word that the vocabulary does not hold        2, 3, …    its words        (N.15)

A word is a run of letters and digits, in lower case; hyphens, apostrophes and points inside it belong to it. Order and
punctuation are the only other things that a caption has: the order is kept, punctuation is not.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidit.data.checks import DataError

WORD = re.compile(r"[^\W_]+(?:[-'.][^\W_]+)*")
UNKNOWN = 1
MOST_WORDS = 20_000  # of a vocabulary: the most frequent ones, the others are unknown
LONGEST = 64  # words of a caption that are read
ALIKE = ("sc", "sz", "ck", "iy", "fv", "uo")  # letters that are written for each other
FEWEST_LETTERS = 0.6  # likeness of a word that is suggested for another, as difflib measures it


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return WORD.findall(text.casefold().replace("’", "'"))


@dataclass(frozen=True)
class Vocabulary:
    """words : the known ones, of numbers 2, 3, …   length : words of a row. Raises DataError for words that are none."""

    words: tuple[str, ...]
    length: int

    def __post_init__(self) -> None:
        if not 1 <= self.length <= LONGEST or not 1 <= len(self.words) <= MOST_WORDS:
            raise DataError(f"a vocabulary of {len(self.words)} words for captions of {self.length} is out of range")
        if len(set(self.words)) != len(self.words):
            raise DataError("a vocabulary holds a word twice")
        strange = next((w for w in self.words if words_of(w) != [w]), None)
        if strange is not None:
            raise DataError(f"{strange!r:.80} is not a word of a vocabulary")

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """The vocabulary of some captions: their most frequent words in alphabetical order, and the length of the longest."""
        captions = [words_of(text) for text in texts]
        counts = Counter(word for caption in captions for word in caption)
        frequent = sorted(counts, key=lambda word: (-counts[word], word))[:MOST_WORDS]
        return cls(tuple(sorted(frequent)), min(LONGEST, max(map(len, captions), default=1)))

    def __len__(self) -> int:
        """How many numbers there are: those of the words, of padding and of the unknown word."""
        return len(self.words) + 2

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of every known word."""
        return {word: k + 2 for k, word in enumerate(self.words)}

    def rows(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Captions as rows : (N, length). Words beyond the length are cut off."""
        rows = np.zeros((len(texts), self.length), np.int64)
        for row, text in zip(rows, texts, strict=True):
            numbers = [self.numbers.get(word, UNKNOWN) for word in words_of(text)[: self.length]]
            row[: len(numbers)] = numbers  # (N.15)
        return rows

    def text(self, row: Iterable[int]) -> str:
        """The words of a row; "?" for one that is unknown."""
        return " ".join("?" if k == UNKNOWN else self.words[k - 2] for k in row if k)

    def texts(self, rows: ArrayLike) -> list[str]:
        """The words of every row."""
        return [self.text(row) for row in np.asarray(rows)]

    def prompts(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Texts that a person wrote as rows, and a remark on each word that is unknown: such words are left out.

        Raises DataError for a text without a known word, and for one that is longer than the captions were.
        """
        kept, remarks = [], list[str]()
        for text in texts:
            words = words_of(text)
            strange = [word for word in words if word not in self.numbers]
            remarks += [f"{text!r}: {self.unknown(word)}" for word in strange]
            known = [word for word in words if word in self.numbers]
            if not known:
                raise DataError(f"prompt {text!r}: " + ("; ".join(map(self.unknown, strange)) or "holds no word"))
            if len(known) > self.length:
                raise DataError(f"prompt {text!r}: has {len(known)} words, the model reads {self.length}: leave some out")
            kept.append(" ".join(known))
        return self.rows(kept), remarks

    def unknown(self, word: str) -> str:
        """What to say of a word that the model has never seen, with the known one that is most like it."""
        near = likely(word, self.words)
        return f"the model does not know {word!r}" + (f", did you mean {near!r}?" if near else "")


def likely(word: str, words: Sequence[str]) -> str:
    """The word that was probably meant: the one of fewest mistakes, then the one that difflib finds most alike; "" for none."""
    close = difflib.get_close_matches(word, words, 20, FEWEST_LETTERS)
    wrong = {other: mistakes_in(word, other) for other in close}
    some = [other for other in close if wrong[other] <= (max(1, len(word) / 3) if other[0] == word[0] else 1)]
    return min(some, key=lambda other: wrong[other], default="")


def mistakes_in(word: str, other: str) -> float:
    """How many letters are wrong, missing, too many or exchanged with their neighbours; of those that sound alike, half."""
    table = {(i, j): float(max(i, j)) for i in range(len(word) + 1) for j in range(len(other) + 1) if not (i and j)}
    for i, a in enumerate(word, 1):
        for j, b in enumerate(other, 1):
            wrong = 0.0 if a == b else 0.5 if any(a in sound and b in sound for sound in ALIKE) else 1.0
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + wrong)
            if i > 1 and j > 1 and a == other[j - 2] and word[i - 2] == b:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(word), len(other)]
