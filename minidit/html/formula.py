"""LaTeX as MathML that browsers draw correctly.

latex2mathml converts; seven of its results are repaired. Browsers ignore `mathvariant`: bold, blackboard and script letters
become Unicode characters. A browser sizes a pair of fences alike only inside one row: an exponent on a closing fence moves to the
whole row, and a fence that has no size of its own gets that of its letter. A slash gets no space around it, negative spaces get a
width, columns are aligned by a style, and log x gets a thin space.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
import xml.etree.ElementTree as ET

UNKNOWN = {  # commands that the converter does not know -> ones that it does
    r"\arg": r"\operatorname{arg}", r"\begin{aligned}": r"\begin{align*}", r"\end{aligned}": r"\end{align*}"}
FENCES = {  # the converter leaves them as they are after \Big
          r"\{": "{", r"\}": "}", r"\|": "‖", r"\Vert": "‖", r"\lVert": "‖", r"\rVert": "‖", r"\vert": "|", r"\lfloor": "⌊",
          r"\rfloor": "⌋", r"\lceil": "⌈", r"\rceil": "⌉", r"\langle": "⟨", r"\rangle": "⟩"}
VARIANTS = {"bold": "BOLD", "bold-italic": "BOLD ITALIC", "double-struck": "DOUBLE-STRUCK", "script": "SCRIPT",
            "fraktur": "FRAKTUR", "sans-serif": "SANS-SERIF", "monospace": "MONOSPACE"}
SPACES = {"negativethinmathspace": "-0.167em", "negativemediummathspace": "-0.222em", "negativethickmathspace": "-0.278em"}
MARKS = re.compile(r"\\[{}]|(?P<gap>\\q?quad(?![A-Za-z]))|(?P<open>\{|\\(?:left|begin)(?![A-Za-z]))"
                   r"|(?P<close>\}|\\(?:right|end)(?![A-Za-z]))")
BARS = ("¯", "‾", "ˉ", "―")
UPRIGHT = set("|‖{}")  # fences that the converter lets a browser stretch even without \left and \right
OPENING, CLOSING = "([{⌊⌈⟨", ")]}⌋⌉⟩"


class FormulaError(ValueError):
    """LaTeX that cannot be turned into MathML."""


def mathml(tex: str, display: bool = False) -> str:
    """LaTeX as a <math> element. Raises FormulaError, with the formula, for LaTeX that cannot be turned into MathML."""
    for name, known in UNKNOWN.items():
        tex = re.sub(rf"{re.escape(name)}(?![A-Za-z])", known.replace("\\", r"\\"), tex)
    convert = importlib.import_module("latex2mathml.converter").convert
    try:
        text = str(convert(tex.strip(), display="block" if display else "inline"))
    except Exception as error:  # the library raises a dozen kinds
        raise FormulaError(f"cannot turn {tex!r} into MathML: {error!r}") from error
    text = re.sub(r">(\\[^<]+)</mo>", lambda m: f">{FENCES.get(m[1], m[1])}</mo>", text)
    if unknown := re.search(r"\\[^<\s]+", text):
        raise FormulaError(f"cannot turn {tex!r} into MathML: {unknown[0]} is unknown")
    try:
        root = ET.fromstring(re.sub(r' xmlns="[^"]*"', "", text))
    except ET.ParseError as error:
        raise FormulaError(f"cannot turn {tex!r} into MathML: {error}") from error
    for node in list(root.iter()):
        repair(node)
        hang_on_fences(node)
        set_apart(node)
    return ET.tostring(root, encoding="unicode")


def pieces(tex: str) -> list[str]:
    """A formula cut where a narrow page may break it: at \\quad and \\qquad outside of braces, fences and environments."""
    parts, start, depth = [], 0, 0
    for m in MARKS.finditer(tex):
        if m["gap"] and depth == 0:
            parts.append(tex[start : m.start()])
            start = m.end()
        depth += bool(m["open"]) - bool(m["close"])
    return [piece for piece in (*parts, tex[start:]) if piece.strip()]


def displayed(tex: str) -> str:
    """A formula on a line of its own: one <math> element per piece."""
    return "".join(mathml(piece, display=True) for piece in pieces(tex))


def repair(node: ET.Element) -> None:
    """Styled letters, the sign ∼, slashes, columns and negative spaces of one element."""
    variant = VARIANTS.get(node.attrib.get("mathvariant", ""))
    if variant:
        del node.attrib["mathvariant"]
        node.text = "".join(styled(c, variant) for c in node.text or "")
    if node.tag == "mi" and node.text == "~":
        node.tag, node.text = "mo", "∼"
    if node.tag == "mo" and node.text == "/":
        node.attrib.update(lspace="0", rspace="0")
    if node.tag == "mo" and node.text in UPRIGHT and not {"stretchy", "minsize"} & node.attrib.keys():
        node.attrib["stretchy"] = "false"  # else the opening one grows with its row, the closing one under an exponent does not
    if "columnalign" in node.attrib and node.tag == "mtd":
        node.attrib["style"] = f"text-align: {node.attrib.pop('columnalign')}"
    if node.tag == "mover" and len(node) == 2 and node[1].text in BARS:
        node[1].attrib["class"] = "bar"  # the page draws it as wide as its letter
    if node.tag == "mspace":
        node.attrib["width"] = SPACES.get(node.attrib.get("width", ""), node.attrib.get("width", "0"))


def styled(letter: str, variant: str) -> str:
    """The Unicode character for a letter or digit in a style; the letter itself if there is none."""
    name = unicodedata.name(letter, "").replace("LATIN ", "").replace("GREEK ", "").replace(" LETTER", "")
    for candidate in (f"MATHEMATICAL {variant} {name}", f"{variant} {name}", f"BLACK-LETTER {name}"):
        try:
            return unicodedata.lookup(candidate)
        except KeyError:
            continue
    return letter


def hang_on_fences(row: ET.Element) -> None:
    """In a row … ( … )^2 …: the exponent's base becomes the whole row ( … ) instead of its last fence."""
    i = 0
    while i < len(row):
        scripts = row[i]
        fence = scripts[0] if scripts.tag in ("msup", "msub", "msubsup") and len(scripts) else None
        start = opening_of(row, i, fence.text) if fence is not None and fence.tag == "mo" else None
        if fence is not None and start is not None:
            inner = ET.Element("mrow")
            inner.extend([*row[start:i], fence])
            scripts[0] = inner
            del row[start:i]
            i = start
        i += 1


def set_apart(row: ET.Element) -> None:
    """Puts a thin space between the name of a function and the letter, number or root beside it."""
    if row.tag not in ("mrow", "math", "mtd", "mstyle", "msqrt"):
        return
    for i in range(len(row) - 1, 0, -1):
        if any(map(is_function, row[i - 1 : i + 1])) and not any(x.tag in ("mo", "mspace", "mtext") for x in row[i - 1 : i + 1]):
            row.insert(i, ET.Element("mspace", width="0.167em"))


def is_function(node: ET.Element) -> bool:
    """Whether the element is a name like log, perhaps with an index or a power."""
    name = node[0] if node.tag in ("msub", "msup", "msubsup") and len(node) else node
    return name.tag == "mi" and len(name.text or "") > 1


def opening_of(row: ET.Element, end: int, closing: str | None) -> int | None:
    """The index of the opening fence that belongs to the closing one at `end`; None if that is no fence or has no partner."""
    if not closing or closing not in CLOSING:
        return None
    depth = 1
    for i in range(end - 1, -1, -1):
        text = row[i].text if row[i].tag == "mo" else None
        depth += (text or "x") in CLOSING
        depth -= (text or "x") in OPENING
        if depth == 0:
            return i
    return None
