"""Progress on stderr: a bar on a terminal, otherwise a plain line now and then."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from minidit.shown import in_time

if TYPE_CHECKING:
    from tqdm import tqdm

    from minidit.runs.phases import Run

SECONDS = 10.0  # between two plain lines
SHORT = 2.0  # seconds of work that needs no plain line
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
EVERY = 10  # updates between two reads of the loss, which are those that metrics.jsonl records
LABELS = {
    "loss": "loss {:.4f}", "held_out_loss": "held out {:.4f}", "grad_norm": "gradient {:.3g}", "img_per_s": "{:,.0f} pictures/s",
}  # fmt: skip
ON_A_BAR = ("loss", "held_out_loss", "img_per_s")  # the most important first: a narrow terminal cuts the end
FORM = "{desc}: {percentage:3.0f}% |{bar:6}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Progress:
    """`tell(phase, record, steps)` after every update; `note(text)` for a line of its own; `steps(what)` for any other work."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.phase = quiet, ""
        self.bar: tqdm[Any] | None = None
        self.terminal = sys.stderr.isatty()
        self.numbers: dict[str, str] = {}
        self.began, self.last, self.first = 0.0, 0.0, 1
        self.step, self.total = 0, 0

    def tell(self, phase: str, record: dict[str, Any], steps: int) -> None:
        """After an update, or a part of other work. The numbers shown are those that were recorded, not averages."""
        if self.quiet:
            return
        step = record["step"]
        if (phase, steps) != (self.phase, self.total) or step < self.step:  # other work, or the same once more
            self.close()
            self.phase, self.total, self.began, self.first, self.numbers = phase, steps, time.monotonic(), step, {}
            self.last = self.began + SHORT - SECONDS if "loss" not in record else -math.inf
            if self.terminal:
                self.bar = _bar(phase, steps, step - 1)
        self.step = step
        if step % EVERY == 0 or step in (self.first, steps):  # rarely: reading a number on a GPU waits for it
            self.numbers |= {name: text.format(float(record[name])) for name, text in LABELS.items() if name in record}
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join(self.numbers[k] for k in ON_A_BAR if k in self.numbers), refresh=False)
            self.bar.update(step - self.bar.n)
            if step >= steps:
                self.bar.refresh()  # else what was drawn last stays there until other work begins
            return
        now = time.monotonic()
        if now - self.last > SECONDS or (step == steps and self.last > self.began + SHORT - SECONDS) or "held_out_loss" in record:
            self.last = now
            say(", ".join([f"{phase}: {step}/{steps}", *self.numbers.values(), *self._times(now, step, steps)]))

    def _times(self, now: float, step: int, steps: int) -> list[str]:
        """The time since the phase began, and that to its end once it can be guessed."""
        passed, parts = now - self.began, step - self.first
        left = [f"{in_time(passed / parts * (steps - step))} to go"] if parts and step < steps else []
        return [in_time(passed), *left]

    def steps(self, phase: str) -> Callable[[int, int], None]:
        """A function (done, total) for the `progress` argument of a function that takes steps."""
        return lambda done, total: self.tell(phase, {"step": done}, total)

    def part(self, what: str, done: int, total: int) -> None:
        """Tells of work that is no phase, such as the writing of a cache."""
        self.tell(what, {"step": done}, total)

    def note(self, text: str) -> None:
        if not self.quiet:
            self.clear()
            say(text)

    def clear(self) -> None:
        """Takes a bar from the line where it is, until it moves on."""
        if self.bar is not None:
            self.bar.clear()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar, self.phase = None, ""


def say(text: str) -> None:
    """Prints a line on stderr. A terminal that is gone must not end what it watched."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def leaving(way_on: str, progress: Progress) -> Iterator[None]:
    """Work after which nothing would be lost: if it is interrupted, the last line says what there is and how to go on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        progress.close()
        say(f"\nminidit: interrupted; {way_on}")
        raise SystemExit(130 if isinstance(stop, KeyboardInterrupt) else stop.code) from None


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
    return tqdm(total=steps, initial=initial, desc=phase, file=Deaf(), mininterval=0.2, dynamic_ncols=True,
                bar_format=FORM)  # fmt: skip


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
            self._leave("stopped, no update is lost", self.run.work)
        self.progress.clear()
        if self.run.ranks.first:
            say("stopping when this update is saved (again: at once)")
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
