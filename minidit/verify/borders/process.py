"""Programs in any language: one JSON object per line on their stdin and stdout (docs/protocol.md).

    with Program("./mine") as program:
        print(program.check())

The program says which topics it answers, then answers one question at a time. Small arrays stand in the line, large ones in
safetensors files. A crash, a wrong line or a silence ends the topic with one clear sentence; the next topic starts afresh.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from minidit.incoming import printable
from minidit.verify.borders.talk import MAX_ASIDE, Message, ProgramError, Silence, Talk
from minidit.verify.cases import answered, judged
from minidit.verify.report import Report

SILENCES = 3  # topics at which it may be silent before the others are left out
LEAVE = 2.0  # seconds for the program to leave by itself
PATIENCE = 10.0  # seconds for the guard to end everything that it started
GUARD = Path(__file__).with_name("guard.py")


class Program:
    """A program that speaks the protocol, as a target: `functions` maps the topics that it answers to callables.

    command: as in a shell, split into words without one; timeout: seconds for one answer, and for the greeting. Raises
    ValueError where it cannot be started or greets wrongly.
    """

    def __init__(self, command: str, *, timeout: float = 60.0) -> None:
        self.words, self.timeout = shlex.split(command), timeout
        if not self.words:
            raise ValueError("--exec needs a command")
        self._folder = tempfile.TemporaryDirectory(prefix="minidit-verify-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._silences = 0  # topics at which it was silent
        self._shown = 0  # bytes of its standard error so far
        try:
            hello = self._start()
        except BaseException as error:
            self.close()
            if isinstance(error, ProgramError):
                raise ValueError(str(error)) from None
            raise
        self.name = printable(hello.get("name", Path(self.words[0]).name))
        self.precision: str | None = hello.get("precision")
        self.dialect: str | None = hello.get("dialect")
        self.functions = {name: self._function(name) for name in hello["topics"]}

    def check(
        self, *, topics: str | Iterable[str] | None = None, dialect: str | None = None, precision: str | None = None
    ) -> Report:
        """The report on this program; what it declared in its greeting holds where nothing else is declared."""
        chosen = answered(self.functions, topics, self.name)
        return judged(self.functions, chosen, dialect or self.dialect, precision or self.precision, self.name)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the program (the end of its input is its sign to leave) and removes the files."""
        try:
            self._stop()
        finally:
            self._folder.cleanup()

    # ------------------------------------------------------------------------------------------------ talk

    def _function(self, topic: str) -> Callable[..., Any]:
        """The program's answers to one topic as a function; after a breach of the protocol it only repeats what happened."""
        breach: list[str] = []

        def answer(*args: Any) -> Any:
            if self._silences == SILENCES and not breach:
                breach.append(f"{self.words[0]} is not asked any more: it kept silent at {SILENCES} topics")
            if breach:
                raise ProgramError(breach[0])
            try:
                if self._process is None:
                    self._start()
                return self._talk.ask(topic, args)
            except ProgramError as error:
                self._silences += isinstance(error, Silence)
                breach.append(str(error))
                self._stop()
                raise

        return answer

    def _start(self) -> Message:
        """Starts the program under its guard, and returns its greeting."""
        home = Path(self._folder.name, "tmp")  # what the program forgets there is removed with the folder
        home.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(home), "TEMP": str(home), "TMP": str(home)}
        (news, tell), (held, self._leash) = os.pipe(), os.pipe()
        guard = [sys.executable, "-I", "-S", str(GUARD), str(tell), str(held), self._folder.name]
        try:
            process = self._process = subprocess.Popen(
                [*guard, *self.words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                start_new_session=True, pass_fds=(tell, held), env=environment,
            )  # fmt: skip
        finally:
            os.close(tell)
            os.close(held)
        with open(news, "rb") as pipe:
            problem = pipe.read()  # nothing, if the program was started
        if problem:
            raise ProgramError(f"{self.words[0]} cannot be started: {os.strerror(int(problem))}")
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        os.set_blocking(process.stdin.fileno(), False)
        self._talk = Talk(
            self.words[0], process.stdin.fileno(), process.stdout.fileno(), Path(self._folder.name), self.timeout,
            self._end, process.stderr.fileno(), self._show,
        )  # fmt: skip
        return self._talk.greeting()

    def _stop(self) -> None:
        """Lets the program leave; then its guard ends what is left."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._ending(process, LEAVE)
        finally:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._leash, b".")
            os.close(self._leash)
            self._ending(process, PATIENCE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own session; the guard's number stays taken until here
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    def _end(self) -> str:
        """How the program ended, in words."""
        assert self._process is not None
        ending = self._ending(self._process, LEAVE)
        if ending is None:
            return "closed its output"
        exited, number = ending.si_code == os.CLD_EXITED, ending.si_status
        return f"ended with exit status {number}" if exited else f"ended with {signal.Signals(number).name}"

    def _ending(self, process: subprocess.Popen[bytes], seconds: float) -> os.waitid_result | None:
        """How a program ended, within these seconds; meanwhile its standard error is read. Its number stays taken."""
        end, aside = time.monotonic() + seconds, process.stderr
        while True:
            ending = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            sources = [] if aside is None else [aside]
            if select.select(sources, [], [], 0 if ending else 0.01)[0] and aside is not None:
                chunk = os.read(aside.fileno(), 1 << 16)
                self._show(chunk)
                aside = aside if chunk else None
            elif ending or time.monotonic() > end:
                return ending
            if time.monotonic() > end:
                return ending

    def _show(self, chunk: bytes) -> None:
        """What the program writes to its standard error goes to ours, the first MAX_ASIDE bytes of it, without escapes."""
        text = chunk[: max(0, MAX_ASIDE - self._shown)].decode(errors="replace")
        lines = [printable(line) for line in text.split("\n")]
        if self._shown <= MAX_ASIDE < self._shown + len(chunk):
            lines.append(f"({self.words[0]}: more than {MAX_ASIDE} bytes, the rest is not shown)\n")
        self._shown += len(chunk)
        with contextlib.suppress(AttributeError, OSError, ValueError):  # our own may be closed
            sys.stderr.write("\n".join(lines))
            sys.stderr.flush()
