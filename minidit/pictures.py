"""Arrays become pictures: grids, strips and animations.

    u = round(255 (x + 1)/2),   x clipped to [-1, 1], ties to even              value -> byte   (E.8)

Images are (B, C, H, W) on the host, C = 1 (grey) or 3: float in [-1, 1], or uint8, which is not changed. Of clips (B, C, T, H, W)
a grid shows all frames from left to right. The same input gives the same bytes of a file. Pillow is imported only where needed.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidit.frames import frames_of
from minidit.outgoing import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Array = Any
PAPER, INK, MUTED = (255, 255, 255), (28, 28, 28), (102, 102, 102)  # greys: text adds no colour
ACROSS = 10  # pictures in a row of a grid that nobody arranged
FINE = 3  # lines and letters are drawn this many times larger, then reduced: smooth edges
GREEK = str.maketrans({"α": "alpha", "β": "beta", "ε": "eps", "η": "eta", "θ": "theta", "μ": "mu", "σ": "sigma", "√": "sqrt ",
                       "−": "-", "–": "-", "—": "-", "×": "x", "·": "*", "→": "->", "≤": "<=", "≥": ">=",
                       "\u0302": "hat", "\u0304": "bar"})


def to_uint8(x: Array) -> Array:
    """Values in [-1, 1] as bytes: round((x + 1)/2 · 255), ties to even, clipped (E.8). uint8 is not changed.

    x : float, any shape  ->  uint8, the same shape.   Raises ValueError where x is not finite.
    """
    x = np.asarray(x)
    if x.dtype == np.uint8:
        return x
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"a picture has {np.count_nonzero(~np.isfinite(x))} values that are not finite")
    return np.rint((np.clip(x, -1, 1) + 1) / 2 * 255).astype(np.uint8)                    # (E.8)


# ------------------------------------------------------------------------------------------------ grids


def grid(images: Array, columns: int, *, scale: int | None = None, gap: int = 2, row_labels: Sequence[str] | None = None,
         column_labels: Sequence[str] | None = None, title: str | None = None) -> Picture:
    """Images in rows of `columns`, each pixel a square of scale × scale (None: large enough to see).

    images : (B, C, H, W), C = 1 or 3, or clips (B, C, T, H, W), whose frames are T columns;  labels : one per row or column.
    Raises ValueError for other shapes.
    """
    from PIL import Image

    images = np.asarray(images)
    if images.ndim == 5 and 0 not in images.shape:
        images, columns = frames_of(images), columns * images.shape[2]
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"a grid needs images (B, C, H, W) or clips (B, C, T, H, W) with C = 1 or 3, got {images.shape}")
    if columns < 1:
        raise ValueError(f"a grid needs at least one column, got {columns}")
    b, _, h, w = images.shape
    columns, rows = min(columns, b), -(-b // columns)
    for name, labels, n in (("row", row_labels, rows), ("column", column_labels, columns)):
        if labels is not None and len(labels) != n:
            raise ValueError(f"{len(labels)} {name} labels for {n} {name}s")
    scale = scale or max(1, round(56 / max(h, w)))
    tiles = np.broadcast_to(to_uint8(images).transpose(0, 2, 3, 1), (b, h, w, 3)).repeat(scale, 1).repeat(scale, 2)
    th, tw = tiles.shape[1:3]
    row_texts = [text_mask(r) for r in row_labels or ()]
    column_texts = _fitting(column_labels or (), tw + gap)
    heading = text_mask(title, 15) if title else None
    left = max((m.width for m in row_texts), default=-8) + 8
    top = max((m.height for m in column_texts), default=-2) + 2
    above = heading.height + 6 if heading else 0
    width = max(left + columns * (tw + gap) + gap, heading.width + 2 * gap if heading else 0)
    sheet = Image.new("RGB", (width, above + top + rows * (th + gap) + gap), PAPER)
    if heading:
        sheet.paste(INK, (left + gap, 2), heading)
    for i, mask in enumerate(row_texts):
        sheet.paste(MUTED, (left - 6 - mask.width, above + top + gap + i * (th + gap) + (th - mask.height) // 2), mask)
    for j, mask in enumerate(column_texts):
        sheet.paste(MUTED, (left + gap + j * (tw + gap) + (tw - mask.width) // 2, above + top - mask.height), mask)
    for n, tile in enumerate(tiles):
        i, j = divmod(n, columns)
        sheet.paste(Image.fromarray(tile), (left + gap + j * (tw + gap), above + top + gap + i * (th + gap)))
    return sheet


def strip(frames: Array, labels: Sequence[str] | None = None, *, scale: int | None = None, title: str | None = None) -> Picture:
    """Frames from left to right: one column per frame, one row per sample.

    frames : (S, C, H, W) or (S, n, C, H, W);  labels : one per frame
    """
    frames = np.asarray(frames)
    if frames.ndim == 4:
        frames = frames[:, None]
    if frames.ndim != 5:
        raise ValueError(f"a strip needs frames (S, C, H, W) or (S, n, C, H, W), got {frames.shape}")
    s, n = frames.shape[:2]
    return grid(frames.swapaxes(0, 1).reshape(n * s, *frames.shape[2:]), s, scale=scale, column_labels=labels, title=title)


def side_by_side(pictures: Sequence[Picture], captions: Sequence[str] | None = None, *, gap: int = 16) -> Picture:
    """Pictures in a row, tops aligned, each below its caption."""
    return _joined([_captioned(p, c) for p, c in zip(pictures, captions or [""] * len(pictures), strict=True)], gap, across=True)


def stack(pictures: Sequence[Picture], captions: Sequence[str] | None = None, *, gap: int = 10) -> Picture:
    """Pictures one below the other, left edges aligned, each below its caption."""
    return _joined([_captioned(p, c) for p, c in zip(pictures, captions or [""] * len(pictures), strict=True)], gap, across=False)


def alike(pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures on sheets of one size, the largest, as an animation needs them."""
    size = max(p.width for p in pictures), max(p.height for p in pictures)
    return [p if p.size == size else _on_sheet(p, size) for p in pictures]


def _on_sheet(picture: Picture, size: tuple[int, int]) -> Picture:
    from PIL import Image

    sheet = Image.new("RGB", size, PAPER)
    sheet.paste(picture, (0, 0))
    return sheet


def _joined(pictures: Sequence[Picture], gap: int, *, across: bool) -> Picture:
    from PIL import Image

    if not pictures:
        raise ValueError("no pictures to put together")
    sizes = np.array([p.size for p in pictures])
    along, beside = (0, 1) if across else (1, 0)
    total = [0, 0]
    total[along], total[beside] = int(sizes[:, along].sum()) + gap * (len(pictures) - 1), int(sizes[:, beside].max())
    sheet, at = Image.new("RGB", (total[0], total[1]), PAPER), [0, 0]
    for picture, size in zip(pictures, sizes, strict=True):
        sheet.paste(picture, (at[0], at[1]))
        at[along] += int(size[along]) + gap
    return sheet


def _captioned(picture: Picture, caption: str) -> Picture:
    from PIL import Image

    if not caption:
        return picture
    mask = text_mask(caption)
    sheet = Image.new("RGB", (max(picture.width, mask.width + 4), picture.height + mask.height + 4), PAPER)
    sheet.paste(INK, (2, 2), mask)
    sheet.paste(picture, (0, mask.height + 4))
    return sheet


def text_mask(text: str, size: int = 13) -> Picture:
    """A line of text as a mask. The built-in font has ASCII only, so Greek letters and signs are spelled out."""
    from PIL import Image, ImageDraw, ImageFont

    plain = unicodedata.normalize("NFKD", text).translate(GREEK).encode("ascii", "ignore").decode()
    font = ImageFont.load_default(size * FINE)
    mask = Image.new("L", (math.ceil(font.getlength(plain) / FINE) * FINE + FINE, math.ceil(size * 1.3) * FINE), 0)
    ImageDraw.Draw(mask).text((0, round(size * 0.1) * FINE), plain, fill=255, font=font)
    return mask.reduce(FINE)


def _fitting(labels: Sequence[str], width: int) -> list[Picture]:
    """Labels in the largest size at which each fits its column, but at least 9, to be readable."""
    for size in range(13, 9, -1):
        masks = [text_mask(label, size) for label in labels]
        if all(m.width <= width for m in masks):
            return masks
    return [text_mask(label, 9) for label in labels]


# ------------------------------------------------------------------------------------------------ files


def save_png(path: str | Path, image: Picture | Array, about: str = "") -> Path:
    """Writes the picture as PNG, with one channel if it has no colour.   about : its description inside the file

    Of an array, (C, H, W) or as `grid` takes them, it is the grid, ten in a row.
    """
    from PIL.PngImagePlugin import PngInfo

    if not hasattr(image, "save"):
        image = np.asarray(image)
        image = grid(image[None] if image.ndim == 3 else image, ACROSS)
    content, words = BytesIO(), PngInfo()
    if about:
        words.add_itxt("Description", about)
    (_grey(image) or image).save(content, "PNG", compress_level=9, pnginfo=words)
    return write_atomically(path, content.getvalue())


def save_gif(path: str | Path, frames: Sequence[Picture], *, ms: int = 80, hold: int = 1500) -> Path:
    """Writes an endless animation, `ms` milliseconds per frame, `hold` for the last one, with one palette for all frames.

    Grey frames keep every level; colours are reduced to 256 without dithering, which would flicker.
    """
    from PIL import Image

    if not frames or len({f.size for f in frames}) != 1:
        raise ValueError(f"an animation needs frames of one size, got {sorted({f.size for f in frames})}")
    greys = [_grey(f) for f in frames]
    if all(greys):
        images = [g for g in greys if g is not None]
    else:
        sample = [f.convert("RGB") for f in frames[:: max(1, len(frames) // 24)]] + [frames[-1].convert("RGB")]
        palette = _joined(sample, 0, across=False).quantize(256)
        images = [f.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    content = BytesIO()
    durations = [ms] * (len(images) - 1) + [hold]
    images[0].save(content, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return write_atomically(path, content.getvalue())


def _grey(image: Picture) -> Picture | None:
    """The picture in one channel, or None if it has colours."""
    if image.mode == "L":
        return image
    r, g, b = image.convert("RGB").split()
    return r if r.tobytes() == g.tobytes() == b.tobytes() else None
