"""Progress on stderr: a bar on a terminal, otherwise a plain line now and then."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm

    from minidit.runs.phases import Run

SECONDS = 10.0  # between two plain lines
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
EVERY = 10  # updates between two reads of the loss


class Progress:
    """`tell(phase, record, steps)` after every update; `note(text)` for a line of its own."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.phase = quiet, ""
        self.bar: tqdm[Any] | None = None
        self.terminal = sys.stderr.isatty()
        self.average, self.began, self.last = 0.0, 0.0, 0.0

    def tell(self, phase: str, record: dict[str, Any], steps: int) -> None:
        if self.quiet:
            return
        if phase != self.phase:
            self.close()
            self.phase, self.began, self.last = phase, time.monotonic(), 0.0
            self.first, self.average = record["step"], float(record.get("loss", 0.0))
            if self.terminal:
                self.bar = _bar(phase, steps, record["step"] - 1)
        step = record["step"]
        if "loss" in record and (step % EVERY == 0 or steps < 2 * EVERY):  # rarely: reading a number on a GPU waits for it
            self.average += 0.15 * (float(record["loss"]) - self.average)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            if "loss" in record and step % EVERY == 0:
                self.bar.set_postfix_str(f"loss {self.average:.4f}", refresh=False)
            return
        now = time.monotonic()
        if now - self.last > SECONDS or step == steps:
            self.last = now
            left = (now - self.began) / max(1, step - self.first + 1) * (steps - step)
            loss = f", loss {self.average:.4f}" if "loss" in record else ""
            say(f"{phase}: {step}/{steps}{loss}, {now - self.began:.0f} s, {left:.0f} s to go")

    def steps(self, phase: str) -> Callable[[int, int], None]:
        """A function (done, total) for the `progress` argument of a function that takes steps."""
        return lambda done, total: self.tell(phase, {"step": done}, total)

    def part(self, what: str, done: int, total: int) -> None:
        """Tells of work that is no phase, such as the writing of a cache."""
        self.tell(what, {"step": done}, total)

    def note(self, text: str) -> None:
        self.close()
        if not self.quiet:
            say(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar, self.phase = None, ""


def say(text: str) -> None:
    """Prints a line on stderr. A terminal that is gone must not end what it watched."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


class Deaf:
    """stderr for a bar, which is not disturbed by a terminal that is gone."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:  # fileno, isatty, encoding
        return getattr(sys.stderr, name)


def _bar(phase: str, steps: int, initial: int) -> tqdm[Any]:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its thread would prevent forking the workers
    return tqdm(total=steps, initial=initial, desc=phase, unit="step", file=Deaf(), mininterval=0.2, dynamic_ncols=True)


class stop_gently:
    """The first Ctrl-C, SIGTERM or SIGHUP saves the state of the phase and exits with 128 + its number.

    The second Ctrl-C or SIGTERM exits at once. SIGHUP never does: a terminal that closes after a Ctrl-C waits for the state.
    SIGUSR1 is the signal that mpiexec and Slurm pass on to all ranks before they end a job: it stops gently too.
    """

    def __init__(self, run: Run, progress: Progress) -> None:
        self.run, self.progress, self.number = run, progress, signal.SIGINT

    def __enter__(self) -> None:
        wanted = [s for s in STOPS if signal.getsignal(s) is not signal.SIG_IGN]  # nohup ignores SIGHUP, and so do we
        self.old = {s: signal.signal(s, self.ask) for s in wanted}

    def ask(self, number: int, frame: FrameType | None) -> None:
        for s in self.old:
            signal.signal(s, signal.SIG_IGN if s == getattr(signal, "SIGHUP", None) else signal.SIG_DFL)
        self.number = signal.Signals(number)
        if self.run.loop is None:  # between two phases every file is complete
            self._leave("stopped", self.run.work)
        self.progress.close()
        if self.run.ranks.first:
            say("stopping after this update (again: at once)")
        self.run.loop.stop = True

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        from minidit.runs.phase import Stopped

        for s, handler in self.old.items():
            signal.signal(s, handler)
        if isinstance(error, Stopped):
            self._leave(str(error), error.phase)

    def _leave(self, message: str, phase: str) -> NoReturn:
        self.progress.close()
        command = "eval" if phase == "judge" else "train --resume"
        if self.run.ranks.first:
            say(f"minidit: {message}; continue with: minidit {command} {self.run.folder}")
        raise SystemExit(128 + self.number)
