"""Damaged inputs for every reader: each is read, or refused by one printable line that names the file, within a second.

    python tools/fuzz.py --seconds 60                     every reader in turn, as many inputs as fit
    python tools/fuzz.py --seconds 600 --only npz,torch   some of them
    python tools/fuzz.py --coverage --seconds 600         guided by coverage (pip install atheris)
    python tools/fuzz.py --record --seconds 3600          added to the counts in build/fuzz; goes on where the last ended
    python tools/fuzz.py --page                           docs/fuzzing.md from these counts

Bad is what tools/fuzz_judge.py calls bad, and an end of the whole process. Such inputs are kept in build/fuzz/inputs, one for
each place in the code. The same seed gives the same inputs; --record continues with new ones.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the package, and the writer of torch zips that its tests have

if "--coverage" in sys.argv:  # what is imported now is watched
    with importlib.import_module("atheris").instrument_imports(include=["minidit"]):
        from tools.fuzz_targets import targets
else:
    from tools.fuzz_targets import targets
from tools.fuzz_judge import MEMORY, Tally, damaged, fuzz, prepared, try_one  # noqa: E402
from tools.fuzz_page import COUNTS, add_counts, read_counts, write_page  # noqa: E402
from tools.fuzz_target import Target  # noqa: E402

KEPT = ROOT / "build" / "fuzz" / "inputs"
SLICES = ((12_000, 30.0), (6000, 4.0), (0, 1.0))  # inputs per second of CPU -> seconds of CPU for one batch of a reader


def in_a_child(work: Callable[[], Tally]) -> Tally:
    """What work returns in a forked process; where that process ends otherwise, a tally of one bad input."""
    with tempfile.NamedTemporaryFile() as file:
        pid = os.fork()
        if pid == 0:
            try:
                Path(file.name).write_text(json.dumps(work().as_dict()))
            finally:
                sys.stdout.flush()
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text = Path(file.name).read_text()
    if code < 0 or not text:
        name = signal.Signals(-code).name if code < 0 else "an exit"
        return Tally(1, bad={f"the whole process: {name}": "it ended"})
    return Tally(**json.loads(text))


def report(target: Target, tally: Tally) -> int:
    """Prints one line for a reader, and one for each bad place; returns their number."""
    rate = tally.tried / max(tally.seconds, 1e-9)
    print(f"{target.name:20} {tally.tried:8} tried, {tally.read:7} read, {rate:6.0f} per s, slowest {tally.slowest:.2f} s, "
          f"{len(tally.bad)} bad", flush=True)  # fmt: skip
    for place, why in tally.bad.items():
        print(f"    {place}  {why}", flush=True)
    return len(tally.bad)


def guided(target: Target, seconds: float, seed: int) -> Tally:
    """Atheris chooses the damage, by our mutations, for what it makes the package run."""
    import random

    place = tempfile.mkdtemp(prefix="minidit-corpus-", dir=tempfile.gettempdir())
    for k, data in enumerate(target.seeds):
        Path(place, f"seed-{k}").write_bytes(data)
    tallied = Path(place, "tally.json")

    def child() -> Tally:
        atheris = importlib.import_module("atheris")
        tally = Tally()
        began = time.process_time()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libFuzzer's own lines

        with prepared(target, 8 * MEMORY) as path:  # libFuzzer takes memory, too

            def one(data: bytes) -> None:
                try_one(target, data, path, tally, KEPT)
                if tally.tried % 200 == 0:
                    tally.seconds = time.process_time() - began
                    tallied.write_text(json.dumps(tally.as_dict()))

            def mutate(data: bytes, most: int, number: int) -> bytes:
                r = random.Random(number)
                return damaged(Target(**{**vars(target), "seeds": [data]}), r)[:most]

            size = 4 * max(map(len, target.seeds)) + 4096
            words = [sys.argv[0], f"-max_total_time={max(1, round(seconds))}", f"-max_len={size}", f"-seed={seed + 1}",
                     "-rss_limit_mb=0", "-timeout=30", place]  # fmt: skip
            atheris.Setup(words, one, custom_mutator=mutate)
            atheris.Fuzz()
        return tally

    try:
        in_a_child(child)  # libFuzzer ends its process itself
        return Tally(**json.loads(tallied.read_text())) if tallied.exists() else Tally()
    finally:
        for file in Path(place).iterdir():
            file.unlink()
        Path(place).rmdir()


def recorded(chosen: list[Target], seconds: float, seed: int, coverage: bool) -> dict[str, Tally]:
    """Batches of every reader in turn until the time is over, each added to the counts as it ends."""
    end, now = time.monotonic() + seconds, {t.name: Tally() for t in chosen}
    while time.monotonic() < end:
        for target in chosen:
            began = time.monotonic()
            entry = read_counts()["readers"].get(target.name, {"batches": 0, "tally": Tally().as_dict()})
            batch, before = entry["batches"], Tally(**entry["tally"])
            share = next(s for rate, s in SLICES if before.tried >= rate * before.seconds)
            if coverage:
                tally = guided(target, min(seconds / len(chosen), end - began), seed + batch)
            else:
                words = f"{seed} {batch}"
                tally = in_a_child(lambda: fuzz(target, seed=words, cpu=share, seconds=20 * share, keep=KEPT))  # noqa: B023
            now[target.name].add(tally)
            add_counts(target.name, tally, seed, time.monotonic() - began, coverage)
            if time.monotonic() > end:
                break
    return now


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all readers together (default 60)")
    parser.add_argument("--inputs", type=int, default=10**9, help="for each reader, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of readers, separated by commas")
    parser.add_argument("--coverage", action="store_true", help="guided by coverage (needs atheris)")
    parser.add_argument("--record", action="store_true", help=f"add to {COUNTS.relative_to(ROOT)}")
    parser.add_argument("--page", action="store_true", help="write docs/fuzzing.md and stop")
    args = parser.parse_args(words)
    if args.page:
        print(write_page())
        return 0
    known = {t.name: t for t in targets()}
    names = args.only.split(",") if args.only else list(known)
    for name in names:
        if name not in known:
            parser.error(f"no reader {name!r}; there are {', '.join(known)}")
    chosen, share = [known[n] for n in names], args.seconds / len(names)
    if args.record:
        tallies = recorded(chosen, args.seconds, args.seed, args.coverage)
    elif args.coverage:
        tallies = {t.name: guided(t, share, args.seed) for t in chosen}
    else:
        tallies = {
            t.name: in_a_child(lambda: fuzz(t, seed=args.seed, inputs=args.inputs, seconds=share, keep=KEPT))  # noqa: B023
            for t in chosen
        }
    ended = [t.name for t in chosen if report(t, tallies[t.name])]
    tried = sum(t.tried for t in tallies.values())
    print(f"{tried} inputs; " + (f"bad: {', '.join(ended)}; inputs in {KEPT}" if ended else "all is well"))
    return int(bool(ended))


if __name__ == "__main__":
    sys.exit(main())
