"""How many pictures or clips every class has, or how many words the captions have, in one or two lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minidit.data.captions import LONGEST, MOST_WORDS, UNKNOWN, Vocabulary
from minidit.data.dataset import Dataset

FEW = 10  # pictures; of a class with fewer little can be learned
UNEQUAL = 10  # times as many pictures in the largest class as in the smallest
LINE = 120  # characters of a line that lists every class
NAMES = 5  # classes that a longer line names


def class_lines(data: Dataset) -> list[str]:
    """The classes of a set with their counts, and a warning if some are small or if they are very unequal."""
    if data.labels is None:
        return []
    if data.vocabulary is not None:
        return _caption_lines(data.labels, data.vocabulary)
    counts = np.bincount(data.labels, minlength=data.num_classes)
    order = np.argsort(-counts, kind="stable")
    listed = ", ".join(f"{name} {n:,}" for name, n in zip(data.class_names, counts.tolist(), strict=True))
    most, least = order[0], order[-1]
    if counts[most] == counts[least] and (len(listed) > LINE or len(counts) > 1):
        lines = [f"{_classes(len(counts))} of {counts[most]:,} {data.noun}s" + ("" if len(counts) == 1 else " each")]
    elif len(listed) <= LINE:
        lines = [f"{_classes(len(counts))}: {listed}"]
    else:
        lines = [f"{_classes(len(counts))} of {_counted(data, least, counts)} to {_counted(data, most, counts)} {data.noun}s, "
                 f"median {np.median(counts):,.0f}"]  # fmt: skip
    few = [k for k in order[::-1] if counts[k] < FEW]
    warnings = []
    if few:
        names = ", ".join(_counted(data, k, counts) for k in few[:NAMES]) + (", …" if len(few) > NAMES else "")
        warnings.append(f"{_classes(len(few))} with fewer than {FEW} {data.noun}s: {names}")
    if counts[most] >= UNEQUAL * max(1, counts[least]):
        times = "" if not counts[least] else f" {counts[most] / counts[least]:,.0f} times"
        pair = f"{data.class_names[most]} has{times} as many {data.noun}s as {data.class_names[least]}"
        warnings.append(pair if times else f"{data.class_names[least]} has no {data.noun}s")
    return lines + (["warning: " + "; ".join(warnings)] if warnings else [])


def _caption_lines(labels: NDArray[np.int64], vocabulary: Vocabulary) -> list[str]:
    """The captions with the number of their words, and a warning if many are not in the vocabulary, or may have been cut off."""
    lengths, unknown = (labels > 0).sum(axis=1), int((labels == UNKNOWN).sum())
    distinct = len(np.unique(labels, axis=0))
    least, most = int(lengths.min()), int(lengths.max())
    length = f"{least} to {most} words" if least < most else "1 word" if most == 1 else f"{most} words"
    kinds = "all the same" if distinct == 1 else f"{distinct:,} different ones"
    lines = [f"captions: {kinds}, of {length} each, with {len(vocabulary.words):,} different words"]
    cut = int((lengths == LONGEST).sum())
    warnings = [f"{unknown:,} times a word stands there that is not one of the {MOST_WORDS:,} most frequent"] * (unknown > 0)
    warnings += [f"{cut:,} captions have {LONGEST} words or more, of which the first {LONGEST} are read"] * (cut > 0)
    return lines + (["warning: " + "; ".join(warnings)] if warnings else [])


def _classes(n: int) -> str:
    return "1 class" if n == 1 else f"{n:,} classes"


def _counted(data: Dataset, k: int, counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    return f"{counts[k]:,} ({data.class_names[k]})"
