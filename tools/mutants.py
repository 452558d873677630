"""Mutation testing: is every line of the mathematics held by a test that fails when the line is wrong?

    python tools/mutants.py                         1,000 places drawn with seed 0; resumes where it was stopped
    python tools/mutants.py --minutes 5             stops after five minutes
    python tools/mutants.py --again                 runs once more what survived or ran out of time (after tests were written)
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
import json
import os
import sqlite3
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult
from mutation.draw import Mutant, change, draw, hashed, remembered
from mutation.page import report
from mutation.trial import Tests, checkout_copy

ROOT = Path(__file__).resolve().parents[1]
SCOPE = ("diffusion", "ops", "nn", "models", "optim.py", "random.py")


def results_of(db: WorkDB) -> dict[str, WorkResult]:
    return {item.job_id: result for item, result in db.completed_work_items}


def run(mutants: list[Mutant], copy: Path, paths: list[str], db: WorkDB, memory: Path, minutes: float) -> None:
    """Gives the mutants without a result their result, as many as the time allows; they are run in the copy."""
    began, alive = time.monotonic(), 0
    known, have = {item.job_id for item in db.work_items}, results_of(db)
    db.add_work_items(WorkItem.single(m.id, m.spec) for m in mutants if m.id not in known)
    todo = [m for m in mutants if m.id not in have]
    if not todo:
        return
    tests, ready = Tests(copy, paths, memory), time.monotonic()
    print(f"{len(todo)} mutants, {sum(map(len, tests.pool.values()))} pairs of file and test", flush=True)
    for n, m in enumerate(todo, 1):
        killed, facts = tests.judge(m)
        outcome = TestOutcome.KILLED if killed else TestOutcome.SURVIVED
        was, now = change(m.original, m.text)
        db.set_result(m.id, WorkResult(WorkerOutcome.NORMAL, json.dumps(facts), outcome, f"{m.path}\n-{was}\n+{now}"))
        alive += not killed
        if not killed:
            print(f"survived  {m.path}:{m.start[0]}\n    - {was}\n    + {now}", flush=True)
        late = time.monotonic() - began > 60 * minutes
        if n % 25 == 0 or n == len(todo) or late:
            print(f"{n} of {len(todo)}, {alive} survived, {(time.monotonic() - ready) / n:.2f} s each", flush=True)
        if late:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, default=1000, help="places to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", type=Path, default=ROOT / "build" / "mutants.sqlite")
    parser.add_argument("--only", default="", help="only files whose path contains this")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many; the next call goes on")
    parser.add_argument("--again", action="store_true", help="run survivors and timeouts once more")
    parser.add_argument("--page", type=Path, help="write the result here")
    args = parser.parse_args()
    args.database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, use_db(str(args.database), WorkDB.Mode.create) as db:
        copy = checkout_copy(ROOT, Path(folder).resolve())
        paths = [p for name in SCOPE for p in sorted((copy / "minidit").glob(f"{name}/*.py" if "." not in name else name))]
        texts = {str(p.relative_to(copy)): p.read_text() for p in paths}
        drawn = args.database.with_suffix(".drawn")
        key = hashed(texts, args.sample, args.seed)
        mutants, number = remembered(drawn, key, lambda: draw(texts, args.sample, args.seed))
        mutants = [m for m in mutants if args.only in m.path]
        if args.again:
            with sqlite3.connect(args.database) as raw:
                raw.execute("DELETE FROM work_results WHERE test_outcome = 'SURVIVED' OR output LIKE '%timeout%'")
        run(mutants, copy, list(texts), db, args.database.with_suffix(".tests"), args.minutes)
        page, good = report(mutants, number, results_of(db), f"python tools/mutants.py --sample {args.sample} --seed {args.seed}")
    if args.page:
        args.page.write_text(page)
    print("\n".join(page.splitlines()[2:4]))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
