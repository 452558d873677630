"""What a run survives: kills, stops, writes that fail, damaged states, two processes in one folder, children that live on.

    python -m benchmarks.faults                         # everything: 200 kills; about half an hour on two cores
    python -m benchmarks.faults --only stops disks      # these rows anew, in today's results
    python -m benchmarks.faults --quick --only kills    # only: does it run?
    python -m benchmarks.faults --page                  # docs/faults.md from the latest results

Every trial runs the real command on a tiny run, disturbs it, and runs the command that goes on. The run then has to have the
bits of one that nothing disturbed. Exit status 1 if a trial did not survive.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.faulty.kills import Trial, kill_plans, spread, stop_plans
from benchmarks.faulty.pairs import fork_plans, pair_plans
from benchmarks.faulty.runs import EVERY, ROOT, Scenario, scenarios
from benchmarks.faulty.writes import change_plans, damage_plans, disk_plans, limited, place_plans, sizes
from benchmarks.machine import machine

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "faults.md"
Plans = Iterator[tuple[Any, ...]]
GROUPS = {  # --only NAME -> (a row of the table, its trials of `found`, n of them)
    "kills": ("SIGKILL, to the command or to its group, at any change or any time", lambda found, n: kill_plans(found, n)),
    "stops": ("SIGINT, SIGTERM, SIGHUP, one or two of them, at any change", lambda found, n: stop_plans(found, n // 5)),
    "changes": ("EIO, ENOSPC or EDQUOT at any change, once or from then on", lambda found, n: change_plans(found, n * 2 // 5)),
    "sizes": ("no file larger than N bytes (RLIMIT_FSIZE)", lambda found, n: size_plans(found[0], n // 8)),
    "disks": ("a disk (tmpfs) of N bytes", lambda found, n: disk_plans(found[0], n // 16)),
    "places": ("a folder that is read-only, or somebody else's", lambda found, n: place_plans(found)),
    "damages": ("states cut, emptied, with a bit flipped, a folder in their place", lambda found, n: damage_plans(found[0])),
    "pairs": ("a second process in the folder, later or at the same moment", lambda found, n: pair_plans(found[0], n // 16)),
    "forks": ("a child that outlives the killed command", lambda found, n: fork_plans(found[0], n // 20)),
}  # fmt: skip


def size_plans(scenario: Scenario, n: int) -> Plans:
    """Limits around the size of every file, and steps up to the largest."""
    for size in spread(sizes(scenario, 20), n):
        yield limited, scenario, size


def measured(place: Path, groups: list[str], n: int, workers: int) -> list[dict[str, Any]]:
    """The rows of the table, each with the trials that did not survive."""
    found, rows = scenarios(place), []
    for group in groups:
        name, plans = GROUPS[group]
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(work, scenario, place / f"{group}-{k}", *more)
                    for k, (work, scenario, *more) in enumerate(plans(found, n))]  # fmt: skip
            trials: list[Trial] = [job.result() for job in jobs]
        rows.append(row(group, name, trials))
        print(line(rows[-1]), flush=True)
        for failure in rows[-1]["failures"]:
            print("   ", failure["what"], "|", "; ".join(failure["faults"])[:600], flush=True)
    return rows


def row(group: str, name: str, trials: list[Trial]) -> dict[str, Any]:
    bits = [t for t in trials if any(fault.endswith((" differs", " is missing", " is more")) for fault in t.faults)]
    over = [t for t in trials if t.what.startswith("overwrite")]
    return {
        "group": group, "name": name, "tried": len(trials), "survived": sum(not t.faults for t in trials),
        "lost_updates": max((t.lost for t in trials), default=0), "differing": len(bits), "overwriting": len(over),
        "failures": [{"what": t.what, "faults": t.faults} for t in trials if t.faults],
    }  # fmt: skip


def line(r: dict[str, Any]) -> str:
    return f"{r['name']:70s} {r['tried']:4d} tried, {r['survived']:4d} survived, {r['differing']} with other bits"


def page(result: dict[str, Any]) -> str:
    """The page of a result."""
    about, rows = result["machine"], [r for r in result["rows"] if r["tried"]]
    tried, survived = (sum(r[key] for r in rows) for key in ("tried", "survived"))
    table = "\n".join(f"| {r['name']} | {r['tried']} | {r['survived']} | {r['lost_updates']} | {r['differing']} |" for r in rows)
    failures = [f"- {f['what']}: {'; '.join(f['faults'])[:300]}" for r in rows for f in r["failures"]]
    return TEXT.format(
        date=about["date"][:10], cores=about["cores"], table=table, tried=tried, survived=survived, every=EVERY,
        over=sum(r["overwriting"] for r in rows),
        fuzz="[`tools/fuzz.py`](fuzzing.md)" if (ROOT / "docs" / "fuzzing.md").exists() else "`tools/fuzz.py`",
        failures="None." if not failures else "\n".join(failures),
    )  # fmt: skip


TEXT = """# What a run survives

Measured on {date} on {cores} cores by `python -m benchmarks.faults`; this page is written by the same command with `--page`.

A trial starts the real command (`minidit train`, `train --resume RUN --steps MORE`, `train --overwrite`, `eval`) on a tiny run
with an autoencoder, a denoiser and a judge, with two worker processes, and disturbs it. Then it checks that

- the latest state, the weights and everything that a report shows can be read, and no process is left;
- the latest state is the last one that was saved: at most the updates since then, here {every}, are made again;
- a command that failed said so in one line: the file, the cause and the way on;
- an overwritten run is whole until the new one has its first state;
- the next command ends with the bits of a run that nothing disturbed: weights, states, configuration, grids, pictures and
  `metrics.jsonl` (without `wall_s` and `img_per_s`, which a clock says); no temporary, no lock and no other file remains.

A change is a call that makes, writes, flushes, moves or deletes something in the run's folder, or an update of a training. The
trials are spread over all changes of all four commands.

| fault | tried | survived | most updates made again | runs with other bits |
|---|---|---|---|---|
{table}

Together {tried} trials, {survived} survived; {over} of them disturbed a run that replaced another one.

## What was not survived

{failures}

## What this does not measure

- A power failure. Files are flushed (`fsync`) before they are moved into place, and their folder afterwards.
  No trial cuts the power.
- Network file systems. Where a file system has no locks, the file `.lock` itself is the lock.
- Systems other than Linux.
- GPUs: what is saved is the same, but no trial ran on one.

Damaged and hostile files of other people are tried by {fuzz}.
"""


def latest_result() -> dict[str, Any]:
    """The result with the latest date."""
    paths = sorted(RESULTS.glob("faults-*.json"))
    if not paths:
        raise SystemExit("there is no result yet: run python -m benchmarks.faults")
    content: dict[str, Any] = json.loads(paths[-1].read_text())
    return content


def recorded(rows: list[dict[str, Any]]) -> Path:
    """Writes today's results; rows that were not measured again stay."""
    path = RESULTS / f"faults-{datetime.date.today().isoformat()}.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    by_group = {r["group"]: r for r in [*before, *rows]}
    kept = [by_group[group] for group in GROUPS if group in by_group]
    path.write_text(json.dumps({"machine": machine(), "rows": kept}, indent=1) + "\n")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs; the other faults in proportion (default 200)")
    parser.add_argument("--quick", action="store_true", help="20 kills, and nothing is recorded")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="some rows")
    parser.add_argument("--workers", type=int, default=2, help="trials at the same time (default 2)")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.relative_to(ROOT)} from the latest result and stop")
    args = parser.parse_args()
    if args.page:
        PAGE.write_text(page(latest_result()))
        return 0
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    place.chmod(0o755)  # another user looks at the pictures
    rows = measured(place, args.only, 20 if args.quick else args.kills, args.workers)
    if not args.quick:
        print(recorded(rows))
    failed = sum(r["tried"] - r["survived"] for r in rows)
    if not failed:
        shutil.rmtree(place, ignore_errors=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
