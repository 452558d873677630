"""Source text as HTML: Python with colours, and equation ids, which become links."""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator

from minidit.html.page import escape

Link = Callable[[str], str]  # an equation id -> the address of its entry, or "" if there is none
Segment = tuple[str, str]  # (class of the token or "", text)

ID = re.compile(r"(?<![\w.])[A-Z]\.\d+(?![\w.]*\w)")
FOREIGN = re.compile(r"(?:eqs?\.|[Aa]ppendix|App\.|[Ss]ections?|[Tt]heorem|[Ll]emma|[Tt]able|[Ff]ig\.)\s*\(?$")


def linked(text: str, link: Link) -> str:
    """Plain text, escaped, with links on equation ids, but not on the "Appendix B.2" of a paper."""
    def one(match: re.Match[str]) -> str:
        foreign = FOREIGN.search(match.string[: match.start()])
        address = "" if foreign else link(match[0])
        return f'<a href="{escape(address)}">{match[0]}</a>' if address else match[0]

    return ID.sub(one, escape(text))


def kind_of(token: tokenize.TokenInfo, before: str) -> str:
    """The class of a token: k keyword, s string, c comment, n number, f a name being defined, d decorator; "" for the rest."""
    name = tokenize.tok_name[token.type]
    if name == "COMMENT":
        return "c"
    if name == "STRING" or name.startswith("FSTRING"):
        return "s"
    if name == "NUMBER":
        return "n"
    if token.string == "@" and not token.line[: token.start[1]].strip():
        return "d"
    if name == "NAME":
        return "k" if keyword.iskeyword(token.string) else "f" if before in ("def", "class") else "d" if before == "@" else ""
    return ""


def tokens_of(text: str) -> Iterator[tuple[int, int, int, str]]:
    """(row, first column, last column, class) of each coloured part of Python; a string over many rows gives one per row."""
    rows, before = text.splitlines(), ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = kind_of(token, before if before != "@" or token.line.lstrip().startswith("@") else "")
        before = token.string
        for row in range(token.start[0], token.end[0] + 1) if kind else ():
            a = token.start[1] if row == token.start[0] else 0
            yield row, a, token.end[1] if row == token.end[0] else len(rows[row - 1]), kind


def segments(text: str, python: bool = True) -> list[list[Segment]]:
    """Each line of a source file as coloured segments."""
    rows = text.splitlines()
    out: list[list[Segment]] = [[] for _ in rows]
    ends = [0] * len(rows)
    for row, a, b, kind in tokens_of(text) if python else ():
        i = row - 1
        out[i] += [("", rows[i][ends[i] : a]), (kind, rows[i][a:b])]
        ends[i] = b
    for i, row_text in enumerate(rows):
        out[i].append(("", row_text[ends[i] :]))
    return [[s for s in line if s[1]] for line in out]


def coloured(line: Iterable[Segment], indent: int, link: Link) -> str:
    """One line as HTML without its first `indent` spaces; ids in comments and strings become links."""
    out = []
    for kind, text in line:
        cut = min(indent, len(text) - len(text.lstrip(" ")))
        indent, text = (0 if cut < len(text) else indent - cut), text[cut:]
        inner = linked(text, link) if kind in ("c", "s") else escape(text)
        out.append(f"<i class={kind}>{inner}</i>" if kind else inner)  # short: a page has ten thousand of them
    return "".join(out)
