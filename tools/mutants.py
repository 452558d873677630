"""Mutation testing: is every line of the mathematics held by a test that fails when the line is wrong?

    python tools/mutants.py                         1,000 places drawn with seed 0; resumes where it was stopped
    python tools/mutants.py --again                 runs the survivors once more (after tests were written)
    python tools/mutants.py --page docs/mutants.md  writes the result; no mutant is run that has a result already

Mutations are those of cosmic-ray (pip install -e '.[mutants]'), which also mutates decorated functions, and so is the
database, so that `cr-report` and `cr-html` read it. A *place* is a spot of the text and an operator that applies there
(a binary operator, a number, a comparison, a decorator, …); places are drawn uniformly, and one of the place's mutations. So
an addition, which can become ten other operators, counts once and not ten times. Every file has ten places or all it has.
Not drawn: what does not compile, and what is the same program once annotations and docstrings are gone and the `*` of a
signature, which is no operator, is not looked at.

A mutant is run in a copy of the checkout against the tests of its room (tests/diffusion for diffusion/, tests/test_optim.py
for optim.py) and all tests anywhere that cite an equation whose home is the file:

    1. those that call the mutated function, fastest first and with few examples, until one fails;
    2. where all pass, the same with as many examples as the suite draws; and all tests of the room where the change is outside
       the body of a function, or in one that runs while tests are imported.

It is killed when a test fails, when the tests cannot be imported, or when one takes many times its time. Each run is a fork of
one warm process, which has imported everything but the package. A result stays valid until the function or class around
the change is edited; tests that become weaker are not noticed, so delete the database after such a change.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cosmic_ray.plugins
import hypothesis
import hypothesis.extra.numpy
import mpmath  # noqa: F401  (imported here once, for all forks)
import numpy as np
import PIL.Image  # noqa: F401
import pytest
import scipy.special  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).resolve().parents[1]
SCOPE = ("diffusion", "ops", "nn", "models", "optim.py", "random.py")
LEAST = 10  # places of a small file
FEW = 8  # examples of the first round
REASONS = ROOT / "docs" / "mutants.toml"


# ------------------------------------------------------------------------------------------------ drawing mutants


@dataclass(frozen=True)
class Mutant:
    """One changed file. id : a hash of the definition around the change and of the change, so that an edit means a new run."""

    id: str
    path: str
    operator: str
    occurrence: int
    start: tuple[int, int]
    end: tuple[int, int]
    original: str
    text: str

    @property
    def spec(self) -> MutationSpec:
        return MutationSpec(
            module_path=Path(self.path), operator_name=self.operator, occurrence=self.occurrence,
            start_pos=self.start, end_pos=self.end,
        )  # fmt: skip


def program(text: str) -> str:
    """What a text does: its tree without annotations, docstrings, and the marks between kinds of arguments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arguments):
            node.args, node.posonlyargs, node.kwonlyargs = node.posonlyargs + node.args + node.kwonlyargs, [], []
            node.defaults, node.kw_defaults = node.defaults + [d for d in node.kw_defaults if d is not None], []
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0].value = ast.Constant(None)
    return ast.dump(tree)


def hashed(*key: Any) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:32]


@functools.cache
def definitions(text: str) -> list[tuple[int, int, int]]:
    """(first line, last line, first line of the body) of all definitions and statements; the body of a function only."""
    tree, found = ast.parse(text), []
    for node in [*tree.body, *(n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef)))]:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        body = node.body[0].lineno if isinstance(node, ast.FunctionDef) else sys.maxsize
        found.append((first, node.end_lineno or 0, body))
    return found


def around(text: str, line: int) -> tuple[int, str, bool]:
    """(first line, source, whether the line is in the body of a function) of the innermost definition around a line.

    Decorators and defaults belong to the definition, but not to the body. Outside of all definitions it is the statement.
    """
    first, last, body = max(d for d in definitions(text) if d[0] <= line <= d[1])
    return first, "\n".join(text.splitlines()[first - 1 : last]), line >= body


def places(text: str) -> dict[tuple[Any, ...], list[tuple[str, int, Any, Any]]]:
    """(start, end, family of operators) -> the mutations that cosmic-ray knows there."""
    nodes, found = list(ast_nodes(get_ast(text))), defaultdict(list)
    for name in cosmic_ray.plugins.operator_names():
        operator = cosmic_ray.plugins.get_operator(name)
        if operator.arguments():
            continue
        spots = [spot for node in nodes for spot in operator().mutation_positions(node)]
        for occurrence, (start, end) in enumerate(spots):
            found[start, end, name.partition("/")[2].partition("_")[0]].append((name, occurrence, start, end))
    return found


def draw(texts: dict[str, str], sample: int, seed: int) -> tuple[list[Mutant], Counter[str]]:
    """path -> text; the mutants of the drawn places, and how many places each file has (those that are none left out)."""
    plain = {path: program(text) for path, text in texts.items()}
    order = []
    for path, text in texts.items():
        for (start, end, family), choices in places(text).items():
            first, source, _ = around(text, start[0])  # an edit elsewhere in the file moves a place and does not change its turn
            place = (path, source.split("\n")[0], start[0] - first, start[1], end[0] - first, end[1], family)
            order.append((hashed(seed, *place), path, choices))
    order.sort(key=lambda entry: entry[0])
    mutants, number = [], Counter(path for _, path, _ in order)
    drawn: Counter[str] = Counter()
    for key, path, choices in order:
        if len(mutants) >= sample and drawn[path] >= LEAST:
            continue
        random.Random(key).shuffle(choices)
        for name, occurrence, start, end in choices:
            text = mutate_code(texts[path], cosmic_ray.plugins.get_operator(name)(), occurrence)
            try:
                same = text is None or program(text) == plain[path]
            except SyntaxError:
                continue
            if not same:
                first, source, _ = around(texts[path], start[0])
                mark = hashed(path, source, start[0] - first, *change(texts[path], text))
                mutants.append(Mutant(mark, path, name, occurrence, start, end, texts[path], text))
                drawn[path] += 1
                break
        else:
            number[path] -= 1
    return mutants, number


# ------------------------------------------------------------------------------------------------ running tests in a fork


class Session:
    """A pytest plugin: these tests in this order with so many examples; who failed, how long each took, what each called."""

    def __init__(self, wanted: list[str] | None, examples: int | None, watch: str = "", usual: Any = None) -> None:
        self.wanted, self.examples, self.watch, self.usual = wanted, examples, watch, usual
        self.failed: list[str] = []
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, list[str]] = {}
        self.cites: dict[str, list[str]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.wanted is not None:
            found = {item.nodeid: item for item in items}
            items[:] = [found[name] for name in self.wanted if name in found]
        for item in items:
            self.cites[item.nodeid] = [i for mark in item.iter_markers("spec") for i in mark.args]
            test = getattr(item, "obj", None)
            own = getattr(test, "_hypothesis_internal_use_settings", None)
            if own is not None:
                n = own.max_examples if self.examples is None else min(own.max_examples, self.examples)
                phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
                quick = hypothesis.settings(own, max_examples=n, derandomize=True, database=None, phases=phases)
                getattr(test, "__func__", test)._hypothesis_internal_use_settings = quick

    @pytest.hookimpl(hookwrapper=True)
    def pytest_collection(self) -> Any:
        seen: set[Any] = set()
        if self.watch:
            sys.settrace(lambda frame, event, arg: seen.add(frame.f_code))
        yield
        if self.watch:
            sys.settrace(None)
            self.calls["import"] = self._ours(seen)

    def _ours(self, seen: set[Any]) -> list[str]:
        """file:line of the functions of the package among those that were called."""
        names = [(c.co_filename.removeprefix(self.watch), c) for c in seen if c.co_filename.startswith(self.watch)]
        return [f"{name}:{c.co_firstlineno}" for name, c in names if c.co_name != "<module>"]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: Any) -> Any:
        seen: set[Any] = set()
        if self.watch:
            sys.settrace(lambda frame, event, arg: seen.add(frame.f_code))
        if self.usual is not None:
            signal.alarm(15 + int(30 * self.usual[item.nodeid]))  # ends the process: an endless loop
        yield
        signal.alarm(0)
        if self.watch:
            sys.settrace(None)
            self.calls[item.nodeid] = self._ours(seen)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid} (cannot be imported)")


def in_fork(copy: Path, files: list[str], session: Session, *, limit: float, stop: bool = True) -> dict[str, Any] | None:
    """The session's findings, run in a child process; None if it took longer than `limit` seconds or died."""
    answer = copy / "answer.json"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.chdir(copy)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.path[:0] = [str(copy)]
            if stop:
                sys.dont_write_bytecode = True
            flags = ["-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider", "--tb=no", "--rootdir", str(copy)]
            code = pytest.main([*flags, *(["-x"] if stop else []), *files], plugins=[session])
            found = {k: getattr(session, k) for k in ("failed", "seconds", "calls", "cites")}
            answer.with_suffix(".part").write_text(json.dumps({"code": int(code), **found}))
            os.replace(answer.with_suffix(".part"), answer)
        finally:
            os._exit(0)
    ends = time.monotonic() + limit
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)
    return json.loads(answer.read_text()) if answer.exists() else None


def checkout_copy(folder: Path) -> Path:
    """A private copy of what is under version control, and what is new beside it."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


class Tests:
    """Which tests belong to a file, what they call, how long they take: found by running them once, unchanged."""

    def __init__(self, copy: Path, files: list[str]) -> None:
        self.copy, self.killed = copy, Counter[str]()
        homes = self._homes()
        looked = in_fork(copy, ["tests", "--collect-only"], Session(None, FEW), limit=300, stop=False)
        assert looked is not None and looked["code"] == 0, "the tests cannot be collected"
        self.pool: dict[str, list[str]] = {}
        for path in files:
            room = path.removeprefix("minidit/").split("/")
            mirror = f"tests/{room[0]}/" if len(room) > 1 else f"tests/test_{room[0]}"
            self.pool[path] = [
                n for n, ids in looked["cites"].items() if n.startswith(mirror) or any(path in homes.get(i, ()) for i in ids)
            ]
        names = sorted({name for pool in self.pool.values() for name in pool})
        watch = Session(names, FEW, watch=f"{copy}/minidit/")
        ran = in_fork(copy, self._files(names), watch, limit=1800, stop=False)
        if ran is None or ran["code"] not in (0, 1):
            raise SystemExit("the tests do not run before anything is mutated")
        if ran["failed"]:  # such a test can kill nothing: it fails anyway
            print("left out, they fail on the unchanged text:", *ran["failed"], sep="\n  ")
        self.pool = {path: [n for n in pool if n not in ran["failed"]] for path, pool in self.pool.items()}
        self.seconds = ran["seconds"]
        self.callers: dict[str, set[str]] = defaultdict(set)
        for name, calls in ran["calls"].items():
            for call in calls:
                self.callers[call].add(name)

    def _homes(self) -> dict[str, set[str]]:
        """Equation -> the files of its homes, as SPEC.md says."""
        code = (
            "import json; from pathlib import Path; from minidit.html.spec import read; s = read(Path('.'));"
            "print(json.dumps({e.id: ['minidit/' + p.path for p in (*e.homes, *e.also)] for e in s.entries.values()}))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=self.copy, capture_output=True, text=True, check=True)
        return {k: set(v) for k, v in json.loads(done.stdout).items()}

    @staticmethod
    def _files(names: list[str]) -> list[str]:
        return sorted({name.partition("::")[0] for name in names})

    def judge(self, mutant: Mutant) -> tuple[bool, dict[str, Any]]:
        """(killed, by whom and after how many seconds)."""
        began = time.monotonic()
        first, _, inside = around(mutant.original, mutant.start[0])
        callers = self.callers.get(f"{mutant.path.removeprefix('minidit/')}:{first}", set())
        everywhere = not inside or "import" in callers or not callers
        worth = {n: (-min(self.killed[n], 3) / (0.05 + self.seconds[n]), self.seconds[n]) for n in self.pool[mutant.path]}
        fastest = sorted(worth, key=lambda n: worth[n])
        reached = [n for n in fastest if n in callers]
        near = [n for n in reached if n.partition("::")[0] == reached[0].partition("::")[0]]  # one file to import
        rest = [n for n in reached if n not in near]
        rounds = [(near, FEW), (rest, FEW), (fastest if everywhere else reached, None)]
        target = self.copy / mutant.path
        stamp = target.stat()
        by = ""
        try:
            target.write_text(mutant.text)
            for names, examples in rounds:
                if not names:
                    continue
                patience = 60 + 10 * sum(self.seconds[n] for n in names)
                found = in_fork(self.copy, self._files(names), Session(names, examples, usual=self.seconds), limit=patience)
                by = "timeout" if found is None else found["failed"][0] if found["failed"] else ""
                by = by or ("pytest stopped" if found and found["code"] not in (0, 5) else "")
                if by:
                    self.killed[by] += 1
                    break
        finally:
            target.write_text(mutant.original)
            os.utime(target, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        return bool(by), {"by": by, "seconds": round(time.monotonic() - began, 2)}


# ------------------------------------------------------------------------------------------------ the report


def change(was_text: str, now_text: str) -> tuple[str, str]:
    """The lines that differ: (was, is), stripped."""
    was, now = was_text.splitlines(), now_text.splitlines()
    head = next(i for i, pair in enumerate(zip([*was, ""], [*now, ""], strict=False)) if pair[0] != pair[1])
    tail = 0
    while tail < min(len(was), len(now)) - head and was[-1 - tail] == now[-1 - tail]:
        tail += 1
    pick = lambda lines: " ".join(line.strip() for line in lines[head : len(lines) - tail])
    return pick(was), pick(now)


def reasons() -> dict[tuple[str, str, str], str]:
    """(file, was, is) -> why it is the same."""
    entries = tomllib.loads(REASONS.read_text())["equivalent"] if REASONS.exists() else []
    return {(e["file"], e["was"], e["is"]): e["why"] for e in entries}


def report(mutants: list[Mutant], number: Counter[str], results: dict[str, WorkResult], command: str) -> tuple[str, bool]:
    """The page, and whether enough were killed and every survivor has a reason."""
    done = [m for m in mutants if m.id in results]
    killed = {m.id for m in done if results[m.id].test_outcome == TestOutcome.KILLED}
    facts = {m.id: json.loads(results[m.id].output or "{}") for m in done}
    minutes, share = sum(f["seconds"] for f in facts.values()) / 60, len(killed) / max(1, len(done))
    late = sum(f["by"] == "timeout" for f in facts.values())
    known, open_ones = reasons(), 0
    lines = [
        "# Mutants", "",
        f"{len(killed)} of {len(done)} mutants killed: **{100 * share:.1f} %**, {late} of them by the time limit; "
        f"{len(done) - len(killed)} survived and are explained below.", "",
        f"    {command}", "",
        f"{time.strftime('%Y-%m-%d')}, {minutes:.0f} minutes on one core, cosmic-ray {version('cosmic-ray')}, Python "
        f"{sys.version.split()[0]}, NumPy {np.__version__}. What is drawn and how it is run: `tools/mutants.py`.", "",
        "| file | places | drawn | killed | survived |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for path in sorted(number):
        own = [m for m in done if m.path == path]
        lines.append(f"| `{path}` | {number[path]} | {len(own)} | {sum(m.id in killed for m in own)} "
                     f"| {sum(m.id not in killed for m in own) or ''} |")  # fmt: skip
    lines += [f"| together | {sum(number.values())} | {len(done)} | {len(killed)} | {len(done) - len(killed)} |", ""]
    kinds = Counter(m.operator.partition("/")[2].partition("_")[0] for m in done)
    lines += ["Kinds: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()) + ".", "", "## Survivors", ""]
    for m in sorted((m for m in done if m.id not in killed), key=lambda m: (m.path, m.start)):
        was, now = change(m.original, m.text)
        why = known.get((m.path, was, now))
        open_ones += why is None
        lines += [f"`{m.path}:{m.start[0]}`", "", f"    - {was}", f"    + {now}", "", why or "**Not explained.**", ""]
    if len(done) < len(mutants):
        lines += [f"{len(mutants) - len(done)} of the drawn mutants have not been run.", ""]
    return "\n".join(lines), share >= 0.95 and not open_ones and len(done) == len(mutants)


def version(name: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(name)


def results_of(db: WorkDB) -> dict[str, WorkResult]:
    return {item.job_id: result for item, result in db.completed_work_items}


def run(mutants: list[Mutant], copy: Path, db: WorkDB) -> None:
    """Gives every mutant without a result its result; they are run in the copy."""
    known = {item.job_id for item in db.work_items}
    db.add_work_items(WorkItem.single(m.id, m.spec) for m in mutants if m.id not in known)
    todo = [m for m in mutants if m.id not in results_of(db)]
    if not todo:
        return
    tests, began, alive = Tests(copy, sorted({m.path for m in todo})), time.monotonic(), 0
    print(f"{len(todo)} mutants, {sum(map(len, tests.pool.values()))} pairs of file and test", flush=True)
    for n, m in enumerate(todo, 1):
        killed, facts = tests.judge(m)
        outcome = TestOutcome.KILLED if killed else TestOutcome.SURVIVED
        was, now = change(m.original, m.text)
        db.set_result(m.id, WorkResult(WorkerOutcome.NORMAL, json.dumps(facts), outcome, f"{m.path}\n-{was}\n+{now}"))
        alive += not killed
        if not killed:
            print(f"survived  {m.path}:{m.start[0]}\n    - {was}\n    + {now}", flush=True)
        if n % 25 == 0 or n == len(todo):
            print(f"{n} of {len(todo)}, {alive} survived, {(time.monotonic() - began) / n:.2f} s each", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, default=1000, help="places to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", type=Path, default=ROOT / "build" / "mutants.sqlite")
    parser.add_argument("--only", default="", help="only files whose path contains this")
    parser.add_argument("--again", action="store_true", help="run the survivors once more")
    parser.add_argument("--page", type=Path, help="write the result here")
    args = parser.parse_args()
    args.database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, use_db(str(args.database), WorkDB.Mode.create) as db:
        copy = checkout_copy(Path(folder).resolve())
        paths = [p for name in SCOPE for p in sorted((copy / "minidit").glob(f"{name}/*.py" if "." not in name else name))]
        mutants, number = draw({str(p.relative_to(copy)): p.read_text() for p in paths}, args.sample, args.seed)
        mutants = [m for m in mutants if args.only in m.path]
        if args.again:
            with sqlite3.connect(args.database) as raw:
                raw.execute("DELETE FROM work_results WHERE test_outcome = 'SURVIVED'")
        run(mutants, copy, db)
        page, good = report(mutants, number, results_of(db), f"python tools/mutants.py --sample {args.sample} --seed {args.seed}")
    if args.page:
        args.page.write_text(page)
    print("\n".join(page.splitlines()[2:4]))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
