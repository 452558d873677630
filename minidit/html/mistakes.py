"""The known mistakes as cards: their names, what is wrong, what is right, and who made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from minidit.html.page import escape


class Mistake(NamedTuple):
    """One entry of the bank; spec: the equation that it breaks, seen: where it was met."""

    id: str
    name: str
    spec: str
    wrong: str
    right: str
    seen: str


def card(m: Mistake, link: Callable[[str], str], *, anchor: bool = False) -> str:
    """One mistake; anchor: it stands at its own address."""
    address = link(m.spec)
    equation = f'<a href="{escape(address)}">{escape(m.spec)}</a>' if address else escape(m.spec)
    where = f' id="{escape(m.id)}"' if anchor else ""
    number = f'<a href="mistakes.html#{escape(m.id)}"><span class="id">{escape(m.id)}</span></a>'
    seen = f"<dt>made by</dt><dd>{escape(m.seen)}</dd>" if m.seen not in ("", "class") else ""
    return (
        f'<div class="card"{where}><h4>{number} <code>{escape(m.name)}</code></h4><dl><dt>wrong</dt><dd>{escape(m.wrong)}</dd>'
        f"<dt>right</dt><dd>{escape(m.right)} ({equation})</dd>{seen}</dl></div>"
    )


def cards(mistakes: Iterable[Mistake], link: Callable[[str], str], *, anchors: bool = False) -> str:
    return '<div class="cards">' + "".join(card(m, link, anchor=anchors) for m in mistakes) + "</div>"
