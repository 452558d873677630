"""Damaged inputs for every reader: each is read, or refused by one printable line that names the file, within a second.

    python tools/fuzz.py --seconds 60                     every reader in turn, as many inputs as fit
    python tools/fuzz.py --seconds 600 --only npz,torch   some of them
    python tools/fuzz.py --coverage torch --seconds 60    guided by coverage (pip install atheris)

Bad is: another exception than ValueError, an error without the file's name or with control characters, more than SECONDS of CPU
time or MEMORY, and an end of the whole process. Such inputs are kept in build/fuzz, one for each place in the code.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the package, and the writer of torch zips that its tests have

if "--coverage" in sys.argv:  # what is imported now is watched
    with importlib.import_module("atheris").instrument_imports(include=["minidit"]):
        from tools.fuzz_targets import Target, targets
else:
    from tools.fuzz_targets import Target, targets

SECONDS = 1.0  # of CPU time for one input
HANG = 10  # seconds of wall time after which a reader is interrupted
MEMORY = 2**29  # bytes of address space that one input may add
KEPT = ROOT / "build" / "fuzz"


class Hang(BaseException):
    """A reader was interrupted. No reader catches this."""


@dataclass
class Tally:
    """What came of the inputs: how many were tried and read, and for each place in the code the first bad one."""

    tried: int = 0
    read: int = 0
    bad: dict[str, str] = field(default_factory=dict)  # a place -> what happened there
    slowest: float = 0.0


def judged(target: Target, path: Path) -> tuple[str, str, bool, float]:
    """(place, what is bad, whether it was read, seconds) of the input at a path; two empty texts if all is well."""
    start = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, HANG)
    error: BaseException | None = None
    try:
        target.read(path)
    except (Exception, Hang) as raised:
        error = raised
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.process_time() - start
    why = "" if error is None else why_bad(error, target.names or path.name)
    if not why and seconds > SECONDS:
        why = f"{seconds:.1f} s"
    place = f"{target.name}: {where(error)}" if why else ""
    return place, why, error is None, seconds


def why_bad(error: BaseException, name: str) -> str:
    """What is wrong with an error, or nothing."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, MemoryError):
            return "MemoryError: more memory than one input may take"
        chain = chain.__cause__ or chain.__context__
    text = f"{type(error).__name__}: {str(error)[:200]!r}"
    if not (isinstance(error, ValueError) or type(error).__name__ == "ProgramError"):
        return text
    if not str(error).isprintable():
        return f"not printable: {text}"
    return "" if name in str(error) else f"without the name {name}: {text}"


def where(error: BaseException | None) -> str:
    """The last line of the package in a traceback: one finding for each."""
    if error is None:
        return "slow"
    frames = [f for f in traceback.extract_tb((error.__cause__ or error).__traceback__) if "minidit" in f.filename]
    last = frames[-1] if frames else None
    return f"{Path(last.filename).name}:{last.lineno}" if last else type(error).__name__


def damaged(target: Target, r: random.Random) -> bytes:
    """One of the seeds after one to three mutations; sometimes two seeds spliced."""
    data = r.choice(target.seeds)
    if r.random() < 0.05:
        other = r.choice(target.seeds)
        return data[: r.randrange(len(data) + 1)] + other[r.randrange(len(other) + 1) :]
    for _ in range(r.choice((1, 1, 1, 2, 3))):
        with contextlib.suppress(Exception):  # a mutation of what is damaged already
            data = r.choice(target.mutations)(r, data)
    return data


def try_one(target: Target, data: bytes, folder: Path, tally: Tally, keep: Path | None) -> None:
    place = folder / "input"
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    path = target.prepare(place)
    path.write_bytes(data)
    key, why, was_read, seconds = judged(target, path)
    tally.tried += 1
    tally.read += was_read
    tally.slowest = max(tally.slowest, seconds)
    if why and key not in tally.bad:
        tally.bad[key] = why
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{target.name}-{len(tally.bad)}{path.suffix}").write_bytes(data)


@contextlib.contextmanager
def limits() -> Iterator[Path]:
    """A folder for the inputs; inside the block the address space is limited and a hang is interrupted."""

    def interrupt(*_: object) -> None:
        raise Hang(f"more than {HANG} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    former = signal.signal(signal.SIGALRM, interrupt)
    with tempfile.TemporaryDirectory(prefix="minidit-fuzz-", ignore_cleanup_errors=True) as folder:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
        try:
            yield Path(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
            signal.signal(signal.SIGALRM, former)


def fuzz(target: Target, *, seed: int, inputs: int = 10**9, seconds: float = 1e9, keep: Path | None = None) -> Tally:
    """Tries inputs until either runs out. The same seed and number give the same inputs."""
    tally, end, r = Tally(), time.monotonic() + seconds, random.Random(f"{target.name} {seed}")
    with limits() as folder:
        for data in target.seeds:  # an undamaged input must be read
            try_one(target, data, folder, tally, keep)
            if tally.read != tally.tried and not target.seeds_may_fail:
                tally.bad[f"{target.name}: seed"] = "an undamaged input is not read"
        while tally.tried < inputs and time.monotonic() < end:
            try_one(target, damaged(target, r), folder, tally, keep)
    return tally


def in_a_child(work: Callable[[], int]) -> int:
    """What work returns in a forked process; below 0, the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 125
        try:
            code = min(100, work())
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def report(target: Target, tally: Tally) -> int:
    print(f"{target.name:12} {tally.tried:7} tried, {tally.read:6} read, slowest {tally.slowest:.2f} s, {len(tally.bad)} bad")
    for place, why in tally.bad.items():
        print(f"    {place}  {why}")
    return len(tally.bad)


def guided(target: Target, seconds: int) -> None:
    """Atheris chooses the damage by what it makes the package run."""
    atheris = importlib.import_module("atheris")
    tally = Tally()
    corpus = tempfile.mkdtemp(prefix="minidit-corpus-")
    for k, data in enumerate(target.seeds):
        Path(corpus, f"seed-{k}").write_bytes(data)
    with limits() as folder:

        def one(data: bytes) -> None:
            try_one(target, data, folder, tally, KEPT)
            if tally.tried % 1000 == 0:
                report(target, tally)

        atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=65536", "-rss_limit_mb=4096", corpus], one)
        atheris.Fuzz()


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all readers together (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of readers, separated by commas")
    parser.add_argument("--coverage", metavar="READER", help="one reader, guided by coverage (needs atheris)")
    args = parser.parse_args(words)
    known = {t.name: t for t in targets()}
    chosen = [args.coverage] if args.coverage else args.only.split(",") if args.only else list(known)
    for name in chosen:
        if name not in known:
            parser.error(f"no reader {name!r}; there are {', '.join(known)}")
    if args.coverage:
        guided(known[args.coverage], int(args.seconds))
        return 0
    ended: list[str] = []
    for name in chosen:
        target, share = known[name], args.seconds / len(chosen)
        code = in_a_child(lambda: report(target, fuzz(target, seed=args.seed, seconds=share, keep=KEPT)))  # noqa: B023
        if code:
            ended.append(f"{name} ({code if code > 0 else signal.Signals(-code).name})")
    print(f"bad: {', '.join(ended)}; inputs in {KEPT}" if ended else "all is well")
    return int(bool(ended))


if __name__ == "__main__":
    sys.exit(main())
