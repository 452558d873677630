"""How good the kit is: every known mistake put into the reference, offered as a target, and what the kit says about it.

    detected   some topic fails
    named      every failing topic is explained by that mistake and no other
    alike      otherwise: what it cannot be told from
    clean      right answers, of the reference and of each dialect, in which nothing may be found

Pairs are drawn by seed among those that share a topic and do not hide each other: detected, and named where both ids come out.
`minidit verify --bank docs/deviations.md` writes the page; `minidit verify --bank` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from minidit.verify.bank import DEVIATIONS
from minidit.verify.bank.dialects import ASPECTS, CONTINUOUS_ASPECTS, DIALECTS, TOKEN_ASPECTS, Dialect, sharing
from minidit.verify.core.finding import Answers, Finding, Names, as_answer, ask
from minidit.verify.core.judge import Judge, ids, rivals
from minidit.verify.core.reference import AnyTopic, Deviation, Reference
from minidit.verify.core.search import examine
from minidit.verify.topics import TOPICS

Asked = dict[str, Answers]


@dataclass(frozen=True)
class Row:
    """What the kit says about a target with these mistakes in it."""

    ids: tuple[str, ...]
    detected: tuple[str, ...]  # the topics that fail
    named: bool
    explanations: tuple[str, ...] = ()  # of failing topics, each "M02" or "M02 M34"
    unexplained: tuple[str, ...] = ()  # failing topics without any

    @property
    def blame(self) -> str:
        """The explanations instead of the name."""
        what = [" or ".join(self.explanations)] if self.explanations else []
        return "; ".join(what + [f"no name in {', '.join(self.unexplained)}"] * bool(self.unexplained)) or "nothing"


@dataclass
class Table:
    """All rows, and the shares that the kit is held to."""

    singles: list[Row] = field(default_factory=list)
    pairs: list[Row] = field(default_factory=list)
    clean: dict[str, list[str]] = field(default_factory=dict)  # "" and each dialect -> topics in which something was found

    @staticmethod
    def share(rows: Sequence[Row], *, named: bool) -> float:
        """Of these mistakes, how many are detected (or named), 0..1."""
        return sum(r.named if named else bool(r.detected) for r in rows) / max(len(rows), 1)

    @property
    def totals(self) -> list[str]:
        """The bars in sentences."""

        def line(what: str, rows: Sequence[Row]) -> str:
            detected, named = self.share(rows, named=False), self.share(rows, named=True)
            return f"{len(rows)} {what}: {detected:.1%} detected, {named:.1%} named"

        fired = [f"{name or 'the reference'} ({', '.join(topics)})" for name, topics in self.clean.items() if topics]
        return [
            line("mistakes", self.singles), line("drawn pairs", self.pairs),
            f"{len(self.clean)} right targets (the reference, each dialect): {', '.join(fired) or 'nothing'} found",
        ]  # fmt: skip

    def __str__(self) -> str:
        nameless = [f"not named: {' + '.join(r.ids)}: {r.blame}" for r in self.singles + self.pairs if not r.named]
        return "\n".join(self.totals + nameless)


class Bench:
    """Wrong references as targets; their answers and the clean reference's reach are made once."""

    def __init__(self, topics: Iterable[AnyTopic] | None = None, bank: Iterable[Deviation] | None = None) -> None:
        self.topics = list(TOPICS.values() if topics is None else topics)
        self.bank = list(DEVIATIONS.values() if bank is None else bank)
        self.judge = Judge()

    def touched(self, deviation: Deviation) -> list[AnyTopic]:
        """The topics whose answers run through what this mistake changes."""
        return [t for t in self.topics if self.judge.meets((deviation,), t)]

    def offered(self, deviations: Sequence[Deviation]) -> list[AnyTopic]:
        """What the owner of such an implementation would offer: all topics of the groups concerned."""
        groups = {t.group for d in deviations for t in self.touched(d)}
        return [t for t in self.topics if t.group in groups]

    def answers(self, deviations: Sequence[Deviation]) -> Asked:
        """The answers of the reference with these mistakes; topics that none of them reaches give the right ones."""
        R = Reference(deviations)
        out: Asked = {}
        reached = {t.name for d in deviations for t in self.touched(d)}
        for t in self.offered(deviations):
            if t.name in reached:
                out[t.name] = ask(t.by(R), t)
            else:
                out[t.name] = [as_answer(p, self.judge.expected(t, p)) for p in t.probes()]
        return out

    def findings(self, deviations: Sequence[Deviation], asked: Asked | None = None) -> list[Finding]:
        asked = self.answers(deviations) if asked is None else asked
        return examine([TOPICS[name] for name in asked], asked, self.bank, self.judge)

    def row(self, deviations: Sequence[Deviation], asked: Asked | None = None) -> Row:
        failed = [f for f in self.findings(deviations, asked) if not f.passed]
        sets = list(dict.fromkeys(ids(names) for f in failed for names in f.candidates))
        blank = [f.topic.name for f in failed if not f.candidates]
        alone = all(len(f.candidates) == 1 for f in failed)
        named = bool(failed) and not blank and alone and set().union(*sets) == {d.id for d in deviations}
        explanations = tuple(" ".join(sorted(s)) for s in sets)
        return Row(tuple(d.id for d in deviations), tuple(f.topic.name for f in failed), named, explanations, tuple(blank))

    def draw(self, seed: int, number: int) -> list[tuple[tuple[Deviation, Deviation], Asked]]:
        """Pairs that meet in a topic and whose common answers are those of neither alone, nor the right ones."""
        reach = {d.id: {t.name for t in self.touched(d)} for d in self.bank}
        meeting = [(a, b) for a, b in combinations(self.bank, 2) if reach[a.id] & reach[b.id] and not rivals(a, b)]
        order = np.random.default_rng(seed).permutation(len(meeting))
        out: list[tuple[tuple[Deviation, Deviation], Asked]] = []
        for k in order:
            pair = meeting[int(k)]
            asked = self.answers(pair)
            if not any(self._same(asked, names) for names in ((), pair[:1], pair[1:])):
                out.append((pair, asked))
            if len(out) == number:
                break
        return out

    def _same(self, asked: Asked, names: Names) -> bool:
        """Whether a reference with these mistakes gives all of the answers: then nothing tells it from the pair."""
        return all(
            self.judge.explains(TOPICS[name], answers, names, self.judge.tolerance(TOPICS[name], answers))
            for name, answers in asked.items()
        )


def found_in_as_answers(base: Sequence[Deviation], bank: Sequence[Deviation], topics: Sequence[AnyTopic]) -> list[str]:
    """The topics in which something is found though the answers are right by these conventions: none, in a good kit."""
    judge, R = Judge(base), Reference(base)
    asked = {t.name: ask(t.by(R), t) for t in topics}
    others = [d for d in bank if d not in base]
    return [f.topic.name for f in examine(topics, asked, others, judge) if f.verdict != "equal"]


def bank_table(*, seed: int = 0, pairs: int = 40, progress: Callable[[int, int], None] = lambda done, total: None) -> Table:
    """Every mistake of the bank, `pairs` drawn pairs, and right answers. progress(done, total): called after each of them."""
    bench, table = Bench(), Table()
    bases: dict[str, Names] = {"": ()} | {name: d.deviations for name, d in DIALECTS.items()}
    total = len(bases) + len(bench.bank) + pairs
    for done, (name, base) in enumerate(bases.items(), 1):
        table.clean[name] = found_in_as_answers(base, bench.bank, bench.topics)
        progress(done, total)
    for done, d in enumerate(bench.bank, len(bases) + 1):
        table.singles.append(bench.row((d,)))
        progress(done, total)
    drawn = bench.draw(seed, pairs)
    for done, (both, asked) in enumerate(drawn, total - len(drawn) + 1):
        table.pairs.append(bench.row(both, asked))
        progress(done, total)
    return table


def text(table: Table) -> str:
    """The table for a terminal: one line per mistake, then the totals."""
    rows = []
    for r in table.singles:
        verdict = "named" if r.named else "found" if r.detected else "HIDDEN"
        rows.append(f"{verdict:6} {r.ids[0]:5} {DEVIATIONS[r.ids[0]].name:32} {', '.join(r.detected)}")
    return "\n".join([*rows, "", str(table)])


HEAD = """# The bank of mistakes

Made by `minidit verify --bank docs/deviations.md`: every mistake is put into the reference, the result is offered as
somebody's implementation, and this is what the kit says. Ids M.. are those of the catalogue; X.. are mistakes that
no public thread shows; C.. are conventions that are no mistake anywhere.
"""
COLUMNS = ("id", "name", "what it does", "right", "SPEC", "revealed by", "named", "habit of", "seen in")


def page(table: Table) -> str:
    """docs/deviations.md: what each mistake does, what is right, which topics reveal it, which dialects share it."""
    cells = []
    for r in table.singles:
        d = DEVIATIONS[r.ids[0]]
        named = "yes" if r.named else r.blame
        cells.append((d.id, d.name, d.wrong, d.right, d.spec, ", ".join(r.detected), named, ", ".join(sharing(d.id)), d.seen))
    pairs = [(" + ".join(r.ids), ", ".join(r.detected), "yes" if r.named else r.blame) for r in table.pairs]
    return "\n".join([
        HEAD, *(f"- {line}" for line in table.totals), "", "## Dialects", "", *dialect_rows(), "",
        *aspect_rows(ASPECTS), "", *aspect_rows(CONTINUOUS_ASPECTS), "", *aspect_rows(TOKEN_ASPECTS), "",
        "## Mistakes", "", *rows_of(COLUMNS, cells),
        "", "## Drawn pairs", "", *rows_of(("pair", "revealed by", "named"), pairs),
    ]) + "\n"  # fmt: skip


def dialect_rows() -> list[str]:
    def ids_of(d: Dialect) -> str:
        return ", ".join(d.habits) + (f"; in some options also {', '.join(d.also)}" if d.also else "")

    return [f"- **{d.name}** ({d.versions}): {d.says} ({ids_of(d)})" for d in DIALECTS.values()]


def aspect_rows(aspects: Sequence[str]) -> list[str]:
    """What every dialect does that these aspects concern."""
    concerned = {name: d.conventions for name, d in DIALECTS.items() if aspects[0] in d.conventions}
    return rows_of(("aspect", *concerned), [[a, *(does[a] for does in concerned.values())] for a in aspects])


def rows_of(head: Sequence[str], cells: Iterable[Sequence[str]]) -> list[str]:
    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in row) + " |"

    return [line(head), "|---" * len(head) + "|", *map(line, cells)]
