"""Programs in any language: one JSON object per line on their stdin and stdout (docs/protocol.md).

    with Program("./mine") as program:
        print(program.check())

The program says which topics it answers, then answers one question at a time. Small arrays stand in the line, large ones in
safetensors files. A crash, a wrong line or a silence ends the topic with one clear sentence; the next topic starts afresh.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from minidit.checkpoint.files import read_arrays, write_arrays
from minidit.verify.cases import answered, judged, topics_named
from minidit.verify.core.values import ValueFormError, packed, unpacked
from minidit.verify.report import Report
from minidit.verify.topics import TOPICS

PROTOCOL = 1
INLINE = 4096  # entries of the largest array that stands in a line, unless the program wants another number


class ProgramError(Exception):
    """The program broke the protocol: it ended, sent something else, or kept silent."""


class Program:
    """A program that speaks the protocol, as a target: `functions` maps the topics that it answers to callables.

    command: as in a shell, split into words without one; timeout: seconds for one answer, and for the greeting. Raises
    ValueError where it cannot be started or greets wrongly.
    """

    def __init__(self, command: str, *, timeout: float = 60.0) -> None:
        self.words, self.timeout = shlex.split(command), timeout
        if not self.words:
            raise ValueError("--exec needs a command")
        self._folder = tempfile.TemporaryDirectory(prefix="minidit-verify-")
        self._process: subprocess.Popen[bytes] | None = None
        self._files = 0
        try:
            hello = self._start()
        except BaseException as error:
            self.close()
            if isinstance(error, ProgramError):
                raise ValueError(str(error)) from None
            raise
        self.name = str(hello.get("name", Path(self.words[0]).name))
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
        self._stop()
        self._folder.cleanup()

    # ------------------------------------------------------------------------------------------------ talk

    def _function(self, topic: str) -> Callable[..., Any]:
        """The program's answers to one topic as a function; after a breach of the protocol it only repeats what happened."""
        breach: list[str] = []

        def answer(*args: Any) -> Any:
            if breach:
                raise ProgramError(breach[0])
            try:
                return self._ask(topic, args)
            except ProgramError as error:
                breach.append(str(error))
                self._stop()
                raise

        return answer

    def _ask(self, topic: str, args: tuple[Any, ...]) -> Any:
        if self._process is None:
            self._start()
        calls: dict[str, Callable[..., Any]] = {}
        self._files += 1
        self._say({"id": self._files, "topic": topic, "args": self._packed(list(args), calls)})
        deadline = time.monotonic() + self.timeout
        while True:
            message = self._hear(deadline, topic)
            if message.get("id") != self._files:
                raise ProgramError(f"{self.words[0]} answered question {message.get('id')!r} when asked {self._files} ({topic})")
            if "call" in message:  # the program asks back: a denoiser, for example, is a function of the kit
                self._say({"id": self._files, **self._called(message, calls)})
            elif "error" in message:
                raise ValueError(str(message["error"]))
            elif "answer" in message:
                return _unpacked(message["answer"])
            else:
                raise ProgramError(f"{self.words[0]}: a line without answer, error or call: {json.dumps(message)[:120]}")

    def _called(self, message: dict[str, Any], calls: dict[str, Callable[..., Any]]) -> dict[str, Any]:
        if message["call"] not in calls:
            raise ProgramError(f"{self.words[0]} calls {message['call']!r}, which the question does not hold")
        try:
            result = calls[message["call"]](*[_unpacked(a) for a in message.get("args", [])])
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {"result": self._packed(result, calls)}

    def _start(self) -> dict[str, Any]:
        try:
            self._process = subprocess.Popen(
                self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise ProgramError(f"{self.words[0]} cannot be started: {error.strerror}") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from, self._buffer = self._process.stdin.fileno(), self._process.stdout.fileno(), b""
        os.set_blocking(self._to, False)
        self._inline = INLINE
        self._say({"protocol": PROTOCOL, "folder": self._folder.name, "inline": INLINE, "topics": list(TOPICS)})
        hello = self._hear(time.monotonic() + self.timeout, "the greeting")
        if hello.get("protocol") != PROTOCOL:
            raise ProgramError(f"{self.words[0]} speaks protocol {hello.get('protocol')!r}, this is {PROTOCOL}")
        topics = hello.get("topics")
        if not isinstance(topics, list) or not topics:
            raise ProgramError(f"{self.words[0]} names no topics in its greeting")
        topics_named(topics)  # raises ValueError with a suggestion
        self._inline = int(hello.get("inline", INLINE))
        return hello

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: only what this object started
            process.wait()

    def _say(self, message: dict[str, Any]) -> None:
        content = json.dumps(message, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        deadline = time.monotonic() + self.timeout
        while content:
            if not select.select([], [self._to], [], max(0.0, deadline - time.monotonic()))[1]:
                raise ProgramError(f"{self.words[0]} did not read its input within {self.timeout:g} s")
            try:
                content = content[os.write(self._to, content[:65536]) :]
            except BrokenPipeError:
                raise ProgramError(f"{self.words[0]} {self._end()}") from None

    def _hear(self, deadline: float, about: str) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if not select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ProgramError(f"{self.words[0]} said nothing about {about} within {self.timeout:g} s")
            chunk = os.read(self._from, 1 << 16)
            if not chunk:
                raise ProgramError(f"{self.words[0]} {self._end()} at {about}")
            self._buffer += chunk
        raw, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(raw)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise ProgramError(f"{self.words[0]}: not a JSON object at {about}: {raw[:80].decode(errors='replace')!r}")
        return message

    def _end(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(2)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"ended with {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"

    # ------------------------------------------------------------------------------------------------ values

    def _packed(self, value: Any, calls: dict[str, Callable[..., Any]]) -> Any:
        """A value as JSON; all its large arrays go into one new file, its functions into `calls`."""
        large: dict[str, Any] = {}
        path = str(Path(self._folder.name) / f"{self._files}-{len(os.listdir(self._folder.name))}.safetensors")

        def keep(array: Any) -> dict[str, str]:
            large[name := f"a{len(large)}"] = array
            return {"file": path, "name": name}

        def call(function: Callable[..., Any]) -> str:
            calls[name := f"f{len(calls)}"] = function
            return name

        out = packed(value, keep, call, self._inline)
        if large:
            write_arrays(path, large, {})
        return out


def _unpacked(value: Any) -> Any:
    try:
        return unpacked(value, lambda file, name: read_arrays(file)[0][name])
    except ValueFormError as error:
        raise ProgramError(str(error)) from None
