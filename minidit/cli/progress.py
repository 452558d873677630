"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

SECONDS = 10.0  # between two plain lines
EVERY = 10  # steps between two looks at the loss


class Progress:
    """`tell(phase, record, steps)` after every step; `note(text)` for a line of its own."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.phase, self.bar = quiet, "", None
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
        if "loss" in record and step % EVERY == 0:  # seldom: to look at a number on a GPU is to wait for it
            self.average += 0.15 * (float(record["loss"]) - self.average)
        if self.bar is not None:
            self.bar.update(1)
            if "loss" in record and step % EVERY == 0:
                self.bar.set_postfix_str(f"loss {self.average:.4f}", refresh=False)
            return
        now = time.monotonic()
        if now - self.last > SECONDS or step == steps:
            self.last = now
            left = (now - self.began) / max(1, step - self.first + 1) * (steps - step)
            loss = f", loss {self.average:.4f}" if "loss" in record else ""
            print(f"{phase}: {step}/{steps}{loss}, {now - self.began:.0f} s, {left:.0f} s to go", file=sys.stderr, flush=True)

    def steps(self, phase: str) -> Any:
        """A function (done, total) for a recipe's `progress` argument."""
        return lambda done, total: self.tell(phase, {"step": done}, total)

    def note(self, text: str) -> None:
        self.close()
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar, self.phase = None, ""


def _bar(phase: str, steps: int, initial: int) -> Any:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its thread would forbid forking the workers
    return tqdm(total=steps, initial=initial, desc=phase, unit="step", file=sys.stderr, mininterval=0.2, dynamic_ncols=True)
