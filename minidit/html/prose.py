"""Text as HTML: the Markdown that SPEC.md uses, and Python source with colours.

Only a small part of Markdown is known: paragraphs, `###` headings, lists, tables, fences, `code`, **bold**, *emphasis*,
[links](https://…), $inline$ and $$display$$ formulas, and equation ids, which become links.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator

from minidit.html.formula import displayed, mathml
from minidit.html.page import escape, table

Link = Callable[[str], str]  # an equation id -> the address of its entry, or "" if there is none
Segment = tuple[str, str]  # (class of the token or "", text)

ID = re.compile(r"(?<![\w.])[A-Z]\.\d+(?![\w.]*\w)")
INLINE = re.compile(r"`(?P<code>[^`]+)`|\$(?P<math>[^$]+)\$|\[(?P<text>[^\]]+)\]\((?P<url>(?:https?://|#)[^)\s]+)\)"
                    r"|\*\*(?P<bold>[^*]+)\*\*|(?<!\w)\*(?P<em>[^*\s][^*]*)\*(?!\w)")
BELOW = re.compile(r"(?<!\w)([^\W\d_][\u0300-\u036f]*)_(?:([A-Za-z0-9]{1,3})(?!\w)|\{([^{}]+)\})")  # x_0, ᾱ_{t-1}: letter, index
FOREIGN = re.compile(r"(?:eqs?\.|[Aa]ppendix|App\.|[Ss]ections?|[Tt]heorem|[Ll]emma|[Tt]able|[Ff]ig\.)\s*\(?$")


# ------------------------------------------------------------------------------------------------ Markdown


def linked(text: str, link: Link) -> str:
    """Plain text, escaped, with links on equation ids, but not on the "Appendix B.2" of a paper."""
    def one(match: re.Match[str]) -> str:
        foreign = FOREIGN.search(match.string[: match.start()])
        address = "" if foreign else link(match[0])
        return f'<a href="{escape(address)}">{match[0]}</a>' if address else match[0]

    return ID.sub(one, escape(text))


def plain(text: str, link: Link) -> str:
    """Text without Markdown, with its ids linked and its indices as subscripts."""
    return BELOW.sub(r"\1<sub>\2\3</sub>", linked(text, link))


def inline(text: str, link: Link) -> str:
    out, end = [], 0
    for m in INLINE.finditer(text):
        out.append(plain(text[end : m.start()], link))
        end = m.end()
        if m["code"]:
            out.append(f"<code>{escape(m['code'])}</code>")
        elif m["math"]:
            out.append(mathml(m["math"]))
        elif m["url"]:
            out.append(f'<a href="{escape(m["url"])}">{escape(m["text"])}</a>')
        else:
            tag = "strong" if m["bold"] else "em"
            out.append(f"<{tag}>{inline(m['bold'] or m['em'], link)}</{tag}>")
    return "".join(out) + plain(text[end:], link)


def blocks(text: str) -> Iterator[list[str]]:
    """The text cut into blocks of lines: at empty lines, before headings and fences, and where a table or a list begins."""
    block: list[str] = []
    lines = text.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=False):
        if block and block[0].startswith("```"):
            block.append(line)
            if line.startswith("```"):
                yield block
                block = []
            continue
        if block and (not line.strip() or begins(line, below, block[0]) or block[0].startswith("#")):
            yield block
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield block


def begins(line: str, below: str, head: str) -> bool:
    """Whether a line begins a new block, given the line below it and the first line of the current block."""
    table_begins = line.startswith("|") and below.startswith("|-")
    item = r"[-*] |\d+\. "
    return line.startswith(("```", "#")) or table_begins or bool(re.match(item, line) and not re.match(item, head))


def items_of(lines: list[str]) -> Iterator[str]:
    """The items of a list, their continuation lines joined."""
    item = ""
    for line in lines:
        if m := re.match(r"(?:[-*]|\d+\.) (.*)", line):
            if item:
                yield item
            item = m[1]
        else:
            item += " " + line.strip()
    yield item


def cells_of(line: str) -> list[str]:
    return [c.strip().replace(r"\|", "|") for c in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def markdown(text: str, link: Link) -> str:
    out = []
    for block in blocks(text):
        head, whole = block[0], "\n".join(block)
        if head.startswith("```"):
            out.append(f"<pre><code>{escape(chr(10).join(block[1:]).removesuffix('```').rstrip())}</code></pre>")
        elif m := re.fullmatch(r"(#+) (.*)", head):
            level = max(2, len(m[1]))
            out.append(f"<h{level}>{inline(m[2], link)}</h{level}>")
        elif head.startswith("|") and len(block) > 1 and block[1].startswith("|-"):
            rows = [[inline(c, link) for c in cells_of(line)] for line in block[2:]]
            out.append(table(cells_of(head), rows, label=" · ".join(cells_of(head))))
        elif re.match(r"[-*] |\d+\. ", head):
            tag = "ol" if head[0].isdigit() else "ul"
            out.append(f"<{tag}>" + "".join(f"<li>{inline(i, link)}</li>" for i in items_of(block)) + f"</{tag}>")
        else:
            for i, part in enumerate(re.split(r"\$\$(.+?)\$\$", whole, flags=re.DOTALL)):
                if i % 2:
                    out.append(f'<div class="equation" tabindex="0">{displayed(part)}</div>')
                elif part.strip():
                    out.append(f"<p>{inline(part.strip(), link)}</p>")
    return "\n".join(out)


# ------------------------------------------------------------------------------------------------ code


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
        out.append(f'<span class="{kind}">{inner}</span>' if kind else inner)
    return "".join(out)
