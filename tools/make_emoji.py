"""Writes minidit/data/sets/emoji.npz: every emoji that is drawn in three styles, 32 × 32 pixels, with its English name.

    npm install @iconify-json/noto @iconify-json/twemoji @iconify-json/fluent-emoji-flat emojibase-data
    pip install resvg-py
    python tools/make_emoji.py node_modules [minidit/data/sets/emoji.npz]

Pictures are rendered four times as large, on white, and averaged down. Each style has a palette of 256 colours of its own, which
with LZMA makes a third of the bytes of full colours; the script prints what the palette costs. An emoji is taken if all three
styles draw it; of its five skin tones those that all three draw. Couples of two tones are left out.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

from minidit.data import npz

OUT = Path(__file__).parent.parent / "minidit" / "data" / "sets" / "emoji.npz"
STYLES = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji-flat"}  # the word in a caption -> the package
SIZE, FINER = 32, 4
Emoji = tuple[str, int, int, str]  # name, skin tone (0: none), sub-group of Unicode, code points


def code(text: str) -> str:
    """Code points without the selector of emoji presentation, which not every package writes."""
    return "-".join(point for point in text.lower().split("-") if point != "fe0f")


class Style:
    """The drawings of one package."""

    def __init__(self, folder: Path) -> None:
        icons = json.loads((folder / "icons.json").read_text())
        self.icons, self.aliases = icons["icons"], icons.get("aliases", {})
        self.side = icons.get("height", 16)
        self.names = {code(k): v for k, v in json.loads((folder / "chars.json").read_text()).items()}

    def picture(self, key: str) -> np.ndarray:
        """(SIZE, SIZE, 3) uint8, on white."""
        name = self.names[key]
        name = self.aliases[name]["parent"] if name not in self.icons else name
        icon = self.icons[name]
        w, h = icon.get("width", self.side), icon.get("height", self.side)
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}">{icon["body"]}</svg>'
        side = SIZE * FINER
        png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side)
        drawn = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        whole = Image.new("RGBA", (side, side), "white")
        whole.alpha_composite(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
        return np.asarray(whole.convert("RGB").reduce(FINER))


def emojis(folder: Path, styles: dict[str, Style]) -> list[Emoji]:
    """Those that all styles draw, plain ones first, in the order of Unicode."""
    data: list[dict[str, Any]] = json.loads((folder / "emojibase-data" / "en" / "data.json").read_text())
    subgroups = {e["hexcode"]: e.get("subgroup", -1) for e in data}

    def drawn(hexcode: str) -> bool:
        return all(code(hexcode) in style.names for style in styles.values())

    plain, toned = [], []
    for e in data:
        if subgroups[e["hexcode"]] < 0 or not drawn(e["hexcode"]):
            continue
        name = e["label"].lower().replace(": ", ", ").replace("“", "").replace("”", "").replace("’", "'")
        plain.append((name, 0, subgroups[e["hexcode"]], code(e["hexcode"])))
        for skin in e.get("skins", []):
            if isinstance(skin["tone"], int) and drawn(skin["hexcode"]):
                toned.append((name, skin["tone"], subgroups[e["hexcode"]], code(skin["hexcode"])))
    return plain + toned


def quantised(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, S, S, 3)  ->  (N, S, S) places in a palette, (256, 3)."""
    sheet = Image.fromarray(pictures.reshape(-1, SIZE, 3))
    few = sheet.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    palette = np.asarray(few.getpalette(), np.uint8).reshape(-1, 3)
    return np.asarray(few).reshape(len(pictures), SIZE, SIZE), np.pad(palette, ((0, 256 - len(palette)), (0, 0)))


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """names (E,), subgroups (E,); of every picture emoji (M,), its number, and tone (M,); per style places and palette."""
    styles = {word: Style(folder / "@iconify-json" / package) for word, package in STYLES.items()}
    chosen = emojis(folder, styles)
    plain = [e for e in chosen if not e[1]]
    number = {e[0]: i for i, e in enumerate(plain)}
    assert len(number) == len(plain), "two emoji have one name"
    out = {
        "names": np.array([e[0] for e in plain]), "subgroups": np.array([e[2] for e in plain], np.uint8),
        "emoji": np.array([number[e[0]] for e in chosen], np.uint16), "tone": np.array([e[1] for e in chosen], np.uint8),
    }  # fmt: skip
    for word, style in styles.items():
        pictures = np.stack([style.picture(e[3]) for e in chosen])
        out[word], out[f"{word}_palette"] = quantised(pictures)
        error = ((out[f"{word}_palette"][out[word]].astype(float) - pictures) ** 2).mean()
        print(f"{word}: {len(pictures)} pictures, the palette costs {10 * np.log10(255**2 / error):.1f} dB PSNR")
    return out


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    npz.write(sys.argv[2] if len(sys.argv) > 2 else OUT, arrays(Path(sys.argv[1])), zipfile.ZIP_LZMA)
