"""Pictures that show themselves: what a pipeline draws is an array, and a notebook shows it as pictures with captions.

    x = pipeline.sample("shirt,bag")      (2, C, H, W) floats in [-1, 1]; x[0], x[:8] are pictures too
    x - x.mean()                          whatever is computed from them is a plain array
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidit import shown
from minidit.frames import in_strips
from minidit.pictures import grid, to_uint8

MOST = 64  # pictures that a notebook shows
ACROSS = 10  # in a row
SMALLEST = 64  # width in pixels of the screen, about


class Pictures(np.ndarray[Any, Any]):
    """Pictures (B, C, H, W), one picture (C, H, W), or clips (B, C, T, H, W), in [-1, 1] or bytes, with their captions if any.

    Raises ValueError for other shapes, and unless there is one caption per picture.
    """

    captions: tuple[str, ...]

    def __new__(cls, x: Any, captions: Sequence[str] = ()) -> Pictures:
        self = np.asarray(x).view(cls)
        if not self.showable:
            raise ValueError(f"pictures are (B, C, H, W), clips (B, C, T, H, W), with C = 1 or 3; got {self.shape}")
        if captions and len(captions) != len(self.batch):
            raise ValueError(f"{len(captions)} captions for {len(self.batch)} pictures")
        self.captions = tuple(captions)
        return self

    def __array_finalize__(self, source: Any) -> None:
        self.captions = ()  # a part of the pictures has its own

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else array

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        if isinstance(part, Pictures) and self.captions and self.ndim > 3:
            first = index[0] if isinstance(index, tuple) and index else index
            try:
                names = np.atleast_1d(np.asarray(self.captions, object)[first])
            except (IndexError, TypeError):  # an index that means another axis
                return part
            if part.showable and len(names) == len(part.batch):
                part.captions = tuple(map(str, names))
        return part

    @property
    def showable(self) -> bool:
        """Whether these can be shown: a reshaped part may not be."""
        channels = self.shape[0] if self.ndim == 3 else self.shape[1] if self.ndim in (4, 5) else 0
        return channels in (1, 3) and 0 not in self.shape and self.dtype.kind in "fu"

    @property
    def batch(self) -> np.ndarray[Any, Any]:
        """The pictures as a plain array with a batch axis."""
        plain = np.asarray(self)
        return plain[None] if self.ndim == 3 else plain

    def __repr__(self) -> str:
        if not self.showable or not np.isfinite(self.batch).all():
            return np.array_repr(np.asarray(self))
        one = " × ".join(map(str, self.batch.shape[1:]))
        named = f": {shown.words(self.captions, 4)}" if self.captions else ""
        return f"Pictures({len(self.batch)} of {one}, {float(self.min()):.2f} to {float(self.max()):.2f}{named})"

    def _repr_png_(self) -> bytes | None:
        """All of them as one sheet."""
        if not self.showable or not np.isfinite(self.batch).all():
            return None
        x = self.batch[:MOST]
        return _png(grid(x, columns=len(x) if len(x) <= 10 else -(-len(x) // -(-len(x) // 10))))

    def _repr_html_(self) -> str | None:
        """Each above its caption."""
        if not self.showable or not np.isfinite(self.batch).all():
            return None
        x, names = in_strips(self.batch[:MOST]), self.captions or [""] * len(self.batch)
        scale = max(1, round(SMALLEST / self.shape[-1]))
        size = x.shape[-1] * scale, x.shape[-2] * scale
        figures = [shown.picture(_png(_sheet(one)), name, size) for one, name in zip(x, names, strict=False)]
        rest = len(self.batch) - len(x)
        figures_in_rows = shown.row(*figures, width=ACROSS * (max(size[0], 64) + shown.GAP))
        return shown.card("", figures_in_rows, f"<div>and {rest} more</div>" if rest else "")


def _sheet(x: np.ndarray[Any, Any]) -> Any:
    """x : (C, H, W)  ->  the picture, pixel by pixel."""
    from PIL import Image

    levels = to_uint8(x)
    return Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, -1)))


def _png(picture: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
