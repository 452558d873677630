"""Judges readers: feeds one damaged input after the other, and notes what came of them.

Bad is: another exception than the project's own, an error without the file's name or with control characters, more than SECONDS
of CPU time or MEMORY, and a reader that hangs. One input is written to memory (/dev/shm) where there is such a place.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.fuzz_target import Target

SECONDS = 1.0  # of CPU time for one input
HANG = 10  # seconds of wall time after which a reader is interrupted
MEMORY = 2**27  # bytes of address space that one input may add: twice the 64 MB that a reader states for hostile files
FAST = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


class Hang(BaseException):
    """A reader was interrupted. No reader catches this."""


@dataclass
class Tally:
    """What came of the inputs: how many were tried and read, and for each place in the code the first bad one."""

    tried: int = 0
    read: int = 0
    seconds: float = 0.0  # of CPU time, the mutations included
    slowest: float = 0.0  # seconds of CPU time for one input
    peak: int = 0  # bytes that the process grew by, at most
    bad: dict[str, str] = field(default_factory=dict)  # a place -> what happened there

    def add(self, other: Tally) -> None:
        """Joins another tally of the same reader."""
        self.tried, self.read, self.seconds = self.tried + other.tried, self.read + other.read, self.seconds + other.seconds
        self.slowest, self.peak = max(self.slowest, other.slowest), max(self.peak, other.peak)
        self.bad = {**other.bad, **self.bad}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judged(target: Target, path: Path, data: bytes | None = None) -> tuple[str, str, bool, float]:
    """(place, what is bad, whether it was read, seconds) of the input at a path, or in memory; two empty texts if all is well."""
    start = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, HANG)
    error: BaseException | None = None
    try:
        target.read(path if data is None else data)
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


def try_one(target: Target, data: bytes, path: Path, tally: Tally, keep: Path | None) -> None:
    """Tries one input at a prepared path."""
    if target.in_memory:
        key, why, was_read, seconds = judged(target, path, data)
    else:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # in a third of the time that Path takes
        os.write(number, data)
        os.close(number)
        key, why, was_read, seconds = judged(target, path)
    tally.tried += 1
    tally.read += was_read
    tally.slowest = max(tally.slowest, seconds)
    if why and key not in tally.bad:
        tally.bad[key] = why
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{target.name}-{len(list(keep.iterdir()))}{path.suffix}").write_bytes(data)


@contextlib.contextmanager
def prepared(target: Target, memory: int = MEMORY) -> Iterator[Path]:
    """Where the inputs of a reader go; inside the block the address space is limited and a hang is interrupted."""

    def interrupt(*_: object) -> None:
        raise Hang(f"more than {HANG} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    former = signal.signal(signal.SIGALRM, interrupt)
    with tempfile.TemporaryDirectory(prefix="minidit-fuzz-", dir=FAST, ignore_cleanup_errors=True) as folder:
        place = Path(folder, "input")
        place.mkdir()
        path = target.prepare(place)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, before[1]))
        try:
            yield path
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
            signal.signal(signal.SIGALRM, former)


def fuzz(
    target: Target, *, seed: object, inputs: int = 10**9, seconds: float = 1e9, cpu: float = 1e9, keep: Path | None = None
) -> Tally:
    """Tries inputs until one of the three runs out. The same seed and number give the same inputs."""
    tally, end, r = Tally(), time.monotonic() + seconds, random.Random(f"{target.name} {seed}")
    began, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with prepared(target) as path:
        for data in target.seeds:  # an undamaged input must be read
            try_one(target, data, path, tally, keep)
            if tally.read != tally.tried and not target.seeds_may_fail:
                tally.bad[f"{target.name}: seed"] = "an undamaged input is not read"
        while tally.tried < inputs and time.monotonic() < end and time.process_time() < began + cpu:
            try_one(target, damaged(target, r), path, tally, keep)
    tally.seconds = time.process_time() - began
    tally.peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) * 1024
    return tally
