"""The sizes of a convolution: how many windows fit on a padded picture."""

from __future__ import annotations

Padding = int | tuple[int, int]  # lines of zeros on every side, or (before, after) on both axes


def lines(padding: Padding) -> tuple[int, int]:
    """Lines of zeros before the first and after the last row and column."""
    return (padding, padding) if isinstance(padding, int) else padding


def count(n: int, kernel: int, stride: int, padding: Padding) -> int:
    """The number of windows along an axis of n pixels."""
    return (n + sum(lines(padding)) - kernel) // stride + 1
