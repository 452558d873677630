"""Programs in any language: one JSON object per line on their stdin and stdout (docs/protocol.md).

    with Program("./mine") as program:
        print(program.check())

The program says which topics it answers, then answers one question at a time. Small arrays stand in the line, large ones in
safetensors files. A crash, a wrong line or a silence ends the topic with one clear sentence; the next topic starts afresh.
"""

from __future__ import annotations

import contextlib
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

from minidit.backend import Array
from minidit.checkpoint.files import open_safetensors, write_arrays
from minidit.incoming import printable
from minidit.verify.cases import answered, judged, topics_named
from minidit.verify.core.values import ValueFormError, packed, unpacked
from minidit.verify.report import Report
from minidit.verify.topics import TOPICS

PROTOCOL = 1
INLINE = 4096  # entries of the largest array that stands in a line, unless the program wants another number
MAX_LINE = 2**23  # bytes of one line of the program
MAX_NUMBERS = 2**17  # values in one line: more belong into a file
MAX_FOLDER = 2**31  # bytes that the files of one session may take
LEAVE = 2.0  # seconds for the program to leave by itself


class ProgramError(Exception):
    """The program broke the protocol: it ended, sent something else, or kept silent. One printable line."""

    def __init__(self, message: str) -> None:  # no ValueError: that would be a refusal, which may be the right answer
        super().__init__(printable(message))


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
        self._files = 0
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
                if time.monotonic() > deadline:
                    raise ProgramError(f"{self.words[0]} calls back without an answer about {topic} within {self.timeout:g} s")
                self._say({"id": self._files, **self._called(message, calls)})
            elif "error" in message:
                raise ValueError(printable(message["error"]))
            elif "answer" in message:
                return self._unpacked(message["answer"])
            else:
                raise ProgramError(f"{self.words[0]}: a line without answer, error or call: {json.dumps(message)[:120]}")

    def _called(self, message: dict[str, Any], calls: dict[str, Callable[..., Any]]) -> dict[str, Any]:
        if not isinstance(message["call"], str) or message["call"] not in calls:
            raise ProgramError(f"{self.words[0]} calls {message['call']!r}, which the question does not hold")
        try:
            result = calls[message["call"]](*[self._unpacked(a) for a in message.get("args", [])])
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
        if not isinstance(topics, list) or not topics or not all(isinstance(name, str) for name in topics):
            raise ProgramError(f"{self.words[0]} names no topics in its greeting")
        topics_named(topics)  # raises ValueError with a suggestion
        for key, kind in (("inline", int), ("name", str), ("precision", str), ("dialect", str)):
            if not isinstance(hello.get(key, kind()), kind):
                raise ProgramError(f"{self.words[0]}: {key} in its greeting is {hello[key]!r}")
        self._inline = hello.get("inline", INLINE)
        return hello

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        _ending(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session, children that stayed included: only what was started here
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
            if len(self._buffer) > MAX_LINE:
                raise ProgramError(f"{self.words[0]}: a line of more than {MAX_LINE} bytes at {about}")
        raw, _, self._buffer = self._buffer.partition(b"\n")
        if raw.count(b",") > MAX_NUMBERS:
            raise ProgramError(f"{self.words[0]}: more than {MAX_NUMBERS} values in one line at {about}: put arrays into files")
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise ProgramError(f"{self.words[0]}: not a JSON object at {about}: {raw[:80].decode(errors='replace')!r}")
        return message

    def _end(self) -> str:
        assert self._process is not None
        ending = _ending(self._process)
        if ending is None:
            return "closed its output"
        exited, number = ending.si_code == os.CLD_EXITED, ending.si_status
        return f"ended with exit status {number}" if exited else f"ended with {signal.Signals(number).name}"

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


    def _unpacked(self, value: Any) -> Any:
        """A value that the program sent."""
        try:
            return unpacked(value, self._fetched)
        except (ValueFormError, RecursionError) as error:
            raise ProgramError(str(error)) from None

    def _fetched(self, file: str, name: str) -> Array:
        """One array of a file in the session's folder."""
        folder = Path(self._folder.name)
        if sum(os.lstat(entry).st_size for entry in os.scandir(folder)) > MAX_FOLDER:
            raise ValueFormError(f"{folder} holds more than {MAX_FOLDER} bytes")
        arrays, _ = open_safetensors(file)
        if name not in arrays:
            raise ValueFormError(f"{file} holds no array {name}")
        array: Array = arrays[name].read()
        return array


def _ending(process: subprocess.Popen[bytes]) -> os.waitid_result | None:
    """How a program ended, within LEAVE seconds. Its number stays taken, so that its whole group can still be ended."""
    end, ending = time.monotonic() + LEAVE, None
    while ending is None and time.monotonic() < end:
        ending = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        time.sleep(0 if ending else 0.01)
    return ending
