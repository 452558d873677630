"""`minidit verify`: checks an implementation and names its mistakes.

Exit status: 0 everything right (or as expected by the file of --expect), 1 something wrong (or unexpected), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidit.outgoing import check_writable, write_text

if TYPE_CHECKING:
    from minidit.verify.core.reference import AnyTopic

COUNTING = (
    "Timesteps count as arrays do: t is 0..T-1, alpha_bar[t] belongs to t, and s = -1 is the data, where ᾱ = 1. "
    "SPEC.md and papers count rungs from 1: their rung t is t - 1 here."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `minidit verify`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "minidit verify mine.py                 functions in a file, named like the topics\n"
        "minidit verify package.module:object   a mapping, a module, a class or an object\n"
        "minidit verify torch mine:DiT          a torch module of the official names, or torch functions\n"
        "minidit verify diffusers               the installed diffusers: schedulers and DiT\n"
        "minidit verify diffusers DDIMScheduler timestep_spacing=trailing    one scheduler with its options\n"
        "minidit verify --exec ./mine           a program in any language (docs/protocol.md)\n"
        "minidit verify q_sample                one topic (or D.1, an equation): its arguments, its law, how to ask\n"
        "minidit verify M02                     one mistake: what it does, what is right, who makes it\n"
        "minidit verify --bank                  every known mistake: whether it is found and named"
    )
    parser.add_argument(
        "target", nargs="*", metavar="TARGET", help="what to verify; or a topic, an equation, the id of a mistake"
    )
    parser.add_argument("--exec", metavar="COMMAND", dest="program", help="a program that speaks the protocol")
    parser.add_argument("--topics", metavar="A,B", help="only these topics or groups")
    parser.add_argument("--dialect", metavar="NAME", help="whose conventions count as right (--list names them)")
    parser.add_argument("--precision", choices=["float64", "float32", "bfloat16", "float16"], help="what the target computes in")
    parser.add_argument("--timeout", metavar="S", type=float, default=60.0, help="seconds that a program may take per question")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON (-: to stdout, instead of the text)")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the report as a page")
    parser.add_argument("--expect", metavar="FILE", type=Path, help="fail on an unexpected failure or an unexpected pass only")
    parser.add_argument("--write-expect", metavar="FILE", type=Path, help="write the results as the expected ones")
    parser.add_argument("--list", action="store_true", help="the topics with their signatures, and the dialects")
    parser.add_argument("--bank", nargs="?", const="", metavar="FILE", help="the table of all mistakes (FILE: also as a page)")


def run(args: argparse.Namespace) -> int:
    """Does what the flags ask for; returns the exit status."""
    from minidit import verify

    for out in (args.json if str(args.json) != "-" else None, args.html, args.write_expect, args.bank):
        if out:
            check_writable(out)
    if args.list:
        print(listing(args.topics))
        return 0
    if args.bank is not None:
        return bank(args.bank)
    if len(args.target) == 1 and re.fullmatch(r"[MmXxCc]\d+[a-z]?", args.target[0]):
        print(mistake(args.target[0]))
        return 0
    if len(args.target) == 1 and (page := about(args.target[0])):
        print(page)
        return 0
    topics = [name.strip() for name in args.topics.split(",") if name.strip()] if args.topics else None
    if args.program and args.target:
        raise ValueError("either a TARGET or --exec, not both")
    options: dict[str, Any] = {"topics": topics, "dialect": args.dialect, "precision": args.precision}
    if args.program:
        with verify.process.Program(args.program, timeout=args.timeout) as program:
            report = program.check(**options)
    else:
        target, name = target_of(args.target)
        report = verify.check(target, **options)
        report.target = name
        for passed_over, topic in passed_over_by(target).items():
            print(f"note: {passed_over} was not checked: if it is what {topic} means, call it {topic}", file=sys.stderr)
    return published(report, args)


def passed_over_by(target: Any) -> dict[str, str]:
    """The functions of a module that answer to no topic but are called nearly so: name -> topic."""
    from types import ModuleType

    from minidit.verify.elsewhere import topics_meant
    from minidit.verify.topics import TOPICS

    if not isinstance(target, ModuleType):
        return {}
    own = [n for n, f in vars(target).items() if callable(f) and getattr(f, "__module__", "") == target.__name__ and n[0] != "_"]
    return {name: topic for name, topic in topics_meant(n for n in own if n not in TOPICS).items() if topic not in own}


def target_of(words: list[str]) -> tuple[Any, str]:
    """(target, its name) from the words of the command line."""
    from minidit import verify
    from minidit.verify.core.targets import instance, load
    from minidit.verify.elsewhere import topics_meant

    if not words:
        raise ValueError("name what to verify: a file, module:object, torch module:object, diffusers, or --exec COMMAND; --list")
    if words[0] == "torch" and len(words) == 2:
        return verify.torch.target(load(words[1])), f"torch {words[1]}"
    if words[0] == "diffusers" and len(words) > 1:
        return verify.diffusers.named(words[1:]), f"{verify.diffusers.version()} {' '.join(words[1:])}"
    if len(words) > 1:
        raise ValueError(f"one target at a time: {' '.join(words)!r} are {len(words)}")
    if words[0] == "diffusers":
        return verify.diffusers.target(), verify.diffusers.version()
    if words[0] == "torch":
        raise ValueError("name the torch object as well: minidit verify torch module:object")
    try:
        return instance(load(words[0])), words[0]
    except ValueError as error:
        near = topics_meant(words).get(words[0])
        lists = "" if near or re.search("[.:]", words[0]) else " (a file ends in .py; minidit verify --list names the topics)"
        raise ValueError(f"{error}{f'; minidit verify {near} shows that topic' * bool(near)}{lists}") from error


def published(report: Any, args: argparse.Namespace) -> int:
    """Prints and writes a report; returns the exit status."""
    from minidit.verify.expect import surprises, write_expectation

    unexpected = surprises(args.expect, report) if args.expect else []
    if str(args.json) == "-":
        print(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        print(report.text(colour=coloured()))
        if args.json:
            write_text(args.json, json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n")
    if args.html:
        from minidit.html.verdicts import write_verdicts

        write_verdicts(args.html, report.as_dict())
    if args.write_expect:
        write_expectation(args.write_expect, report)
        return 0
    if args.expect:
        print(*(unexpected or ["as expected"]), sep="\n", file=sys.stderr)
        return 1 if unexpected else 0
    return 0 if report.ok else 1


def coloured() -> bool:
    """Whether stdout is a terminal that wants colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def listing(names: str | None) -> str:
    """Every topic with its equation, arguments and answer; then the dialects."""
    from minidit.verify import DIALECTS
    from minidit.verify.cases import topics_named

    rows: list[str] = [COUNTING, ""]
    group = ""
    for topic in topics_named(names.split(",") if names else None):
        if topic.group != group:
            group = topic.group
            rows += ["", group] if len(rows) > 2 else [group]
        rows += [f"  {topic.spec:6} {topic.name}", f"         takes {topic.takes}", f"         gives {topic.gives}"]
    if not names:
        rows += ["", "dialects"]
        rows += [f"  {d.name:14} {d.versions}: {d.says} ({', '.join(d.habits) or 'no deviation'})" for d in DIALECTS.values()]
    return "\n".join(rows)


def about(word: str) -> str:
    """The pages of a topic, or of the topics about an equation; "" for any other word, and for what is a file or a folder here.

    Raises ValueError for an equation that no topic asks about.
    """
    from minidit.verify import TOPICS

    if Path(word).exists() or Path(f"{word}.py").exists():
        return ""
    identifier = word.upper() if re.fullmatch(r"[A-Za-z]\.\d+", word) else ""
    topics = [t for t in TOPICS.values() if t.name == word or t.spec == identifier]
    if identifier and not topics:
        raise ValueError(f"no topic asks about {identifier}; minidit verify --list shows the topics, minidit spec the equations")
    return "\n\n".join(map(page_of, topics))


def page_of(topic: AnyTopic) -> str:
    """What a topic asks for, by which equation it is judged, and how to ask it."""
    call = f"{topic.name}({', '.join(topic.parameters)})"
    names = [p.name for p in topic.probes()]
    rows = {
        "write": f"def {call}: ...", "takes": topic.takes, "gives": topic.gives, "right": topic.equation,
        "questions": ", ".join(names), "ask": f"minidit verify mine.py --topics {topic.name}     mine.py holds your {topic.name}",
        "one question": f'import minidit as md; md.verify.question("{topic.name}", "{names[0]}")',
        "equation": f"minidit spec {topic.spec}",
    }  # fmt: skip
    rows |= {"counting": COUNTING} if {"t", "s", "T"} & {*topic.parameters} and "0..T-1" in topic.takes else {}
    return "\n".join(
        [f"{topic.spec} {topic.name}, a topic of the group {topic.group}", *(f"  {k:12} {v}" for k, v in rows.items())]
    )


def mistake(identifier: str) -> str:
    """One mistake: what it does, what is right, where it was seen, which topics reveal it, which dialects share it."""
    from minidit.verify import DEVIATIONS, TOPICS
    from minidit.verify.bank.dialects import sharing
    from minidit.verify.core.judge import Judge

    wanted, known = identifier.lower(), {i.lower(): d for i, d in DEVIATIONS.items()}
    family = [d for i, d in known.items() if i == wanted or (i[:-1] == wanted and i[-1].isalpha())]
    if not family:
        raise ValueError(f"there is no mistake {identifier!r}{_meant(identifier, list(DEVIATIONS))}")
    judge, parts = Judge(), []
    for d in family:
        reach = [t for t in TOPICS.values() if judge.meets((d,), t)]
        shows = [t.name for t in reach if _differs(judge, t, d)]
        rows = {
            "breaks": d.spec, "wrong": d.wrong, "right": d.right, "seen in": d.seen or "no public thread known",
            "revealed by": ", ".join(shows) or "no topic", "a habit of": ", ".join(sharing(d.id)) or "no dialect",
        }  # fmt: skip
        parts.append("\n".join([str(d), *(f"  {key:12} {text}" for key, text in rows.items())]))
    return "\n\n".join(parts)


def _meant(identifier: str, known: list[str]) -> str:
    """The end of a sentence: the id with two digits (M2 is M02), the other forms of one row (M01d), or where the ids end."""
    form = identifier[-1] if identifier[-1].isalpha() else ""
    row = f"{identifier[0].upper()}{int(identifier[1:].removesuffix(form)):02d}"
    same = [i for i in known if i[:3] == row and (not form or i == row + form)] or [i for i in known if i[:3] == row]
    if same and len(row) == 3:
        return f", did you mean {' or '.join(same)}?"
    of_kind = sorted(i for i in known if i[0] == row[0])
    return f": those with {row[0]} are {of_kind[0]} to {of_kind[-1]}"


def _differs(judge: Any, topic: Any, deviation: Any) -> bool:
    """Whether some question of the topic has a different answer with this mistake."""
    from minidit.verify.core.compare import TOLERANCE
    from minidit.verify.core.finding import as_answer

    for probe in topic.probes():
        wrong = as_answer(probe, judge.expected(topic, probe, (deviation,)))
        if judge.gap(topic, wrong).error > TOLERANCE["float64"] * topic.tol:
            return True
    return False


def bank(file: str) -> int:
    """Prints the table of all mistakes; writes it to `file` as a page, if there is one."""
    from minidit.cli.progress import Progress
    from minidit.verify.table import bank_table, page, text

    progress = Progress()
    table = bank_table(progress=progress.steps("mistakes"))
    progress.close()
    print(text(table))
    if file:
        write_text(file, page(table))
    return 0
