"""Rows of a table.

    y_b = table[index_b]    ->    table̅_k = Σ_{b : index_b = k} ȳ_b                                     (A.24)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, scatter_add, xp_of
from minidit.kernels import cuda


def check_rows(name: str, index: Array, rows: int) -> None:
    """Raises ValueError for a row out of range: NumPy would take -1 as the last row. Nothing is checked on a GPU, because the
    host would have to wait for it."""
    if isinstance(index, np.ndarray) and index.size and not 0 <= int(index.min()) <= int(index.max()) < rows:
        raise ValueError(f"{name}: index {index.min()} .. {index.max()}, the rows are 0 .. {rows - 1}")


@primitive(cuda=cuda.embedding)
def embedding(table: Array, *, index: Array) -> tuple[Array, Vjp]:
    """table : (K, D), index : ints (...)  ->  (..., D). A row that is taken twice gets both gradients. Raises ValueError
    for an index out of range, on the host."""
    check_rows("embedding", index, len(table))

    def vjp(y_bar: Array) -> tuple[Any]:
        table_bar = xp_of(table).zeros_like(table)
        scatter_add(table_bar, index, y_bar)
        return (table_bar,)

    return table[index], vjp  # (A.24)
