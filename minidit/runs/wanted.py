"""What a model is asked to draw: classes by number or name, or captions.

    "shirt,bag" -> [6, 8]        "red heart, noto" -> a row of the numbers of its words
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidit.data import parse_labels
from minidit.data.captions import Vocabulary
from minidit.keywords import level_of_caller

Labels = list[int] | NDArray[np.int64]  # classes, or rows of captions
Wanted = str | int | Sequence[str] | Sequence[int] | NDArray[np.int64]


def classes_of(K: int, names: Sequence[str], wanted: Wanted | None, n: int | None) -> list[int] | None:
    """Classes of K from numbers, or from texts; None: each in turn, 16 unless n is given; n : repeated in turn to so many.

    None for K = 0, an unconditional model, which takes no labels: ValueError if any are given.
    """
    if not K:
        if wanted is not None:
            raise ValueError(f"labels {wanted!r}: the model is unconditional and takes none")
        return None
    if wanted is None:
        chosen, n = list(range(K)), n or 16
    else:
        names = tuple(names) or tuple(map(str, range(K)))
        asked: list[Any] = [wanted] if isinstance(wanted, str) else np.atleast_1d(np.asarray(wanted, object)).tolist()
        chosen = [k for one in asked for k in (parse_labels(one, names) if isinstance(one, str) else [int(one)])]
    return chosen if n is None or not chosen else [chosen[i % len(chosen)] for i in range(n)]


def rows_of(vocabulary: Vocabulary, wanted: Wanted, n: int | None) -> NDArray[np.int64]:
    """Rows of captions : (n, length); rows are left as they are. Unknown words are left out, with a warning."""
    if not isinstance(wanted, str) and (rows := np.atleast_1d(np.asarray(wanted))).dtype.kind in "iu":
        return rows
    rows, remarks = vocabulary.prompts([str(text) for text in np.atleast_1d(np.asarray(wanted, object))])
    for remark in remarks:
        warnings.warn(remark, stacklevel=level_of_caller())
    return rows if n is None or not len(rows) else rows[np.arange(n) % len(rows)]
