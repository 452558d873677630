"""The conversation with a program: one JSON object per line on two pipes, within budgets of bytes, values and seconds.

    talk = Talk("mine", to, source, folder)
    hello = talk.greeting()                 the topics that the program answers
    talk.ask("ddim_step", args)             one question; the program may call the functions among its arguments

Small arrays stand in the line, large ones in safetensors files. A breach of the protocol (docs/protocol.md) is a ProgramError.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minidit.backend import Array
from minidit.checkpoint.files import open_safetensors, write_arrays
from minidit.incoming import Refusal, regular_file, short
from minidit.verify.cases import topics_named
from minidit.verify.core.values import ValueFormError, packed, unpacked
from minidit.verify.topics import TOPICS

PROTOCOL = 1
INLINE = 4096  # entries of the largest array that stands in a line, unless the program wants another number
MAX_LINE = 2**23  # bytes of one line of the program
MAX_NUMBERS = 2**17  # values in one line: more belong in a file
MAX_FOLDER = 2**28  # bytes of one file of the program, and of all in the folder of the session
MAX_CALLS = 2**14  # calls back during one question
MAX_CALLED = 2**22  # numbers in the arrays of all these calls: the kit notes them
MAX_NAME = 100  # characters of a name in the greeting
MAX_ASIDE = 2**16  # bytes of the program's standard error that are shown

Functions = dict[str, Callable[..., Any]]  # the name of a function in a question -> the function
Message = dict[str, Any]


class ProgramError(Exception):
    """The program broke the protocol: it ended, sent something else, or kept silent. One printable line."""

    def __init__(self, message: str) -> None:  # no ValueError: that would be a refusal, which may be the right answer
        super().__init__(short(message))


class Silence(ProgramError):
    """The program did not say, or not read, anything within its time."""


@dataclass
class Talk:
    """Questions and answers between the kit and a program.

    name: of the program, in errors; to, source: its input and output; folder: where files of arrays lie; timeout: seconds for
    an answer; ended: how the program ended, for errors; aside: what the program writes to its standard error, and what is done
    with it (it is read only while the kit waits).
    """

    name: str
    to: int
    source: int
    folder: Path
    timeout: float = 60.0
    ended: Callable[[], str] = lambda: "closed its output"
    aside: int | None = None
    show: Callable[[bytes], None] = lambda chunk: None
    inline: int = INLINE
    questions: int = 0
    files: int = 0
    buffer: bytearray = field(default_factory=bytearray)

    def greeting(self) -> Message:
        """Greets, and returns the program's own greeting, checked."""
        self.say({"protocol": PROTOCOL, "folder": str(self.folder), "inline": INLINE, "topics": list(TOPICS)})
        hello = self.hear(time.monotonic() + self.timeout, "the greeting")
        if hello.get("protocol") != PROTOCOL:
            raise ProgramError(f"{self.name} speaks protocol {_glimpse(hello.get('protocol'))}, this is {PROTOCOL}")
        topics = hello.get("topics")
        if not isinstance(topics, list) or not topics or not all(isinstance(t, str) and len(t) <= MAX_NAME for t in topics):
            raise ProgramError(f"{self.name} names no topics in its greeting")
        topics_named(topics)  # raises ValueError with a suggestion
        for key, kind in (("inline", int), ("name", str), ("precision", str), ("dialect", str)):
            value = hello.get(key, kind())
            if not isinstance(value, kind) or isinstance(value, bool) or len(str(value)[: MAX_NAME + 1]) > MAX_NAME:
                raise ProgramError(f"{self.name}: {key} in its greeting is {_glimpse(value)}")
        self.inline = hello.get("inline", INLINE)
        return hello

    def ask(self, topic: str, args: tuple[Any, ...]) -> Any:
        """The program's answer. Raises ProgramError for a breach of the protocol, ValueError for a refusal."""
        self.questions += 1
        functions: Functions = {}
        sent = self._packed(list(args), functions)
        self.say({"id": self.questions, "topic": topic, "args": sent})
        deadline, calls, room = time.monotonic() + self.timeout, 0, MAX_CALLED
        while True:
            try:
                message = self.hear(deadline, topic)
            except Silence as silence:  # its time may end while it calls
                late = f"{self.name} calls back without an answer about {topic} within {self.timeout:g} s"
                raise Silence(late if calls else str(silence)) from None
            if message.get("id") != self.questions:
                number = _glimpse(message.get("id"))
                raise ProgramError(f"{self.name} answered question {number} when asked {self.questions} ({topic})")
            if "call" in message:  # the program asks back: a denoiser, for example, is a function of the kit
                calls += 1
                if time.monotonic() > deadline or calls > MAX_CALLS:
                    within = f"{self.timeout:g} s" if calls <= MAX_CALLS else f"{MAX_CALLS} calls"
                    raise ProgramError(f"{self.name} calls back without an answer about {topic} within {within}")
                reply, numbers = self._called(message, functions)
                if (room := room - numbers) < 0:
                    raise ProgramError(f"{self.name} passes more than {MAX_CALLED} numbers to the functions of {topic}")
                self.say({"id": self.questions, **reply})
            elif "error" in message:
                raise Refusal(message["error"])
            elif "answer" in message:
                return self._unpacked(message["answer"])
            else:
                raise ProgramError(f"{self.name}: a line without answer, error or call: {_glimpse(message)}")

    def _called(self, message: Message, functions: Functions) -> tuple[Message, int]:
        """(the reply to a call of one of the question's functions, how many numbers were passed to it)."""
        name = message["call"]
        if not isinstance(name, str) or name not in functions:
            raise ProgramError(f"{self.name} calls {_glimpse(name)}, which the question does not hold")
        numbers = 0
        try:
            args = [self._unpacked(a) for a in message.get("args", [])]
            numbers = sum(getattr(a, "size", 1) for a in args)
            if numbers > MAX_CALLED:
                return {}, numbers
            return {"result": self._packed(functions[name](*args), functions)}, numbers
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}, numbers

    # ------------------------------------------------------------------------------------------------ lines

    def say(self, message: Message) -> None:
        """Sends one line."""
        content = memoryview(json.dumps(message, ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n")
        deadline = time.monotonic() + self.timeout
        while content:
            if not self._ready(self.to, deadline, write=True):
                raise Silence(f"{self.name} did not read its input within {self.timeout:g} s")
            try:
                content = content[os.write(self.to, content[:65536]) :]
            except BlockingIOError:  # the pipe has less room than a whole piece
                continue
            except BrokenPipeError:
                raise ProgramError(f"{self.name} {self.ended()}") from None

    def hear(self, deadline: float, about: str) -> Message:
        """The next line of the program, a JSON object."""
        start = 0
        while (end := self.buffer.find(b"\n", start)) < 0:
            start = len(self.buffer)
            if start > MAX_LINE:
                raise ProgramError(f"{self.name}: a line of more than {MAX_LINE} bytes at {about}")
            if not self._ready(self.source, deadline):
                raise Silence(f"{self.name} said nothing about {about} within {self.timeout:g} s")
            chunk = os.read(self.source, 1 << 16)
            if not chunk:
                raise ProgramError(f"{self.name} {self.ended()} at {about}")
            self.buffer += chunk
        raw = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        if raw.count(b",") > MAX_NUMBERS:
            raise ProgramError(f"{self.name}: more than {MAX_NUMBERS} values in one line at {about}: put arrays into files")
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise ProgramError(f"{self.name}: not a JSON object at {about}: {raw[:80].decode(errors='replace')!r}")
        return message

    def _ready(self, pipe: int, deadline: float, write: bool = False) -> bool:
        """Waits for one of the pipes until the deadline, and shows meanwhile what comes aside. Whether the pipe is ready."""
        while True:
            sources = [] if write else [pipe]
            if self.aside is not None:
                sources.append(self.aside)
            ready, room, _ = select.select(sources, [pipe] if write else [], [], max(0.0, deadline - time.monotonic()))
            if self.aside in ready:
                chunk = os.read(self.aside or 0, 1 << 16)
                self.show(chunk)
                self.aside = self.aside if chunk else None
            if pipe in ready or pipe in room:
                return True
            if time.monotonic() >= deadline:
                return False

    # ------------------------------------------------------------------------------------------------ values

    def _packed(self, value: Any, functions: Functions) -> Any:
        """A value as JSON; all its large arrays go into one new file, its functions into `functions`."""
        large: dict[str, Any] = {}
        path = str(self.folder / f"{self.questions}-{self.files}.safetensors")
        self.files += 1

        def keep(array: Any) -> dict[str, str]:
            large[name := f"a{len(large)}"] = array
            return {"file": path, "name": name}

        def call(function: Callable[..., Any]) -> str:
            functions[name := f"f{len(functions)}"] = function
            return name

        out = packed(value, keep, call, self.inline)
        if large:
            self._check_folder()
            write_arrays(path, large, {})
        return out

    def _unpacked(self, value: Any) -> Any:
        """A value that the program sent."""
        try:
            return unpacked(value, self._fetched)
        except (ValueFormError, RecursionError) as error:
            raise ProgramError(str(error)) from None

    def _fetched(self, file: str, name: str) -> Array:
        """One array of a file of the program."""
        self._check_folder()
        if regular_file(file, ValueFormError) > MAX_FOLDER:
            raise ValueFormError(f"{file} holds more than {MAX_FOLDER} bytes")
        arrays, _ = open_safetensors(file)
        if name not in arrays:
            raise ValueFormError(f"{file} holds no array {name}")
        array: Array = arrays[name].read()
        return array

    def _check_folder(self) -> None:
        """Raises ValueFormError where the files of the session take more than they may."""
        if sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(self.folder)) > MAX_FOLDER:
            raise ValueFormError(f"{self.folder} holds more than {MAX_FOLDER} bytes")


def _glimpse(value: Any) -> str:
    """The beginning of a value of the program, as JSON."""
    text = f"{value!r:.300}" if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 120 else f"{text[:120]} …"
