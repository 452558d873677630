"""Rows of a table.

    y_b = table[index_b]    ->    table̅_k = Σ_{b : index_b = k} ȳ_b                                     (A.24)
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, scatter_add, xp_of
from minidit.kernels import cuda


@primitive(cuda=cuda.embedding)
def embedding(table: Array, *, index: Array) -> tuple[Array, Vjp]:
    """table : (K, D), index : ints (...)  ->  (..., D). A row that is taken twice gets both gradients."""

    def vjp(y_bar: Array) -> tuple[Any]:
        table_bar = xp_of(table).zeros_like(table)
        scatter_add(table_bar, index, y_bar)
        return (table_bar,)

    return table[index], vjp  # (A.24)
