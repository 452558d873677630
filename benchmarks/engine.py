"""The client of an engine: another process that answers one request at a time. Two engines never work at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from benchmarks.machine import memory

ROOT = Path(__file__).resolve().parents[1]


class EngineError(RuntimeError):
    """An engine could not do what was requested: not installed, out of memory, out of time."""


@dataclass(frozen=True)
class Kind:
    """How an engine is started."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    root: Path = ROOT  # the checkout whose text runs

    @property
    def torch(self) -> bool:
        return self.module == "benchmarks.torch_engine"

    def on(self, *arguments: str) -> Kind:
        """This kind with more arguments."""
        return replace(self, arguments=(*self.arguments, *arguments))


KINDS = {
    k.name: k
    for k in (
        Kind("minidit", "benchmarks.minidit_engine"),
        Kind("minidit-threads", "benchmarks.minidit_engine", ("--kind", "thread")),
        Kind("minidit-pieces", "benchmarks.minidit_engine", ("--accumulate", "2")),
        Kind("minidit-plain", "benchmarks.minidit_engine", environment={"MINIDIT_KERNELS": "off"}),
        Kind("eager", "benchmarks.torch_engine"),
        # the compiler's pool of processes would stay and count as memory of the engine
        Kind("compile", "benchmarks.torch_engine", ("--compile",), {"TORCHINDUCTOR_COMPILE_THREADS": "1"}),
    )
}
SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # otherwise JAX takes most of a GPU's memory at its first use
AUTO = {"MINIDIT_CUDNN": "auto", "MINIDIT_CUBLASLT": "auto"}  # attention by cuDNN, epilogues of cublasLt: where they are faster
GPU_KINDS = {
    k.name: k.on("--device", "cuda")
    for k in (
        Kind("minidit", "benchmarks.minidit_engine", environment=AUTO),
        Kind("minidit-own", "benchmarks.minidit_engine"),  # attention by the package's own kernel
        Kind("minidit-eager", "benchmarks.minidit_engine", ("--eager",), AUTO),
        Kind("minidit-plain", "benchmarks.minidit_engine", ("--eager",), {"MINIDIT_KERNELS": "off"}),
        Kind("eager", "benchmarks.torch_engine"),
        Kind("compile", "benchmarks.torch_engine", ("--compile",)),
        Kind("compile-graphs", "benchmarks.torch_engine", ("--compile", "--graphs")),
        Kind("eager-bf16", "benchmarks.torch_engine", ("--stream", "bf16")),  # a residual stream in bfloat16, as ours
        Kind("compile-bf16", "benchmarks.torch_engine", ("--compile", "--stream", "bf16")),
        Kind("checks", "benchmarks.gpu_checks", environment=SHARING),
    )
}


class Engine:
    """`with Engine(kind, python) as engine: engine.ask("steps", k=3)`. Raises EngineError with the error of that process."""

    def __init__(self, kind: Kind, python: str, timeout: float = 600) -> None:
        self.kind, self.python, self.timeout = kind, python, timeout

    def __enter__(self) -> Self:
        path = {"PYTHONPATH": os.pathsep.join(filter(None, (str(self.kind.root), os.environ.get("PYTHONPATH"))))}
        self.process = subprocess.Popen(
            [self.python, "-m", self.kind.module, *self.kind.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.kind.root,
            env={**os.environ, **path, **self.kind.environment},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # the engine ends at the end of its input
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def ask(self, call: str, **arguments: Any) -> Any:
        self.send(call, **arguments)
        return self.answer(call)

    def send(self, call: str, **arguments: Any) -> None:
        """Sends a request without waiting; `answer` must follow, other engines may be asked in between."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # the process is dead: `answer` finds out
            self.process.stdin.write(json.dumps({"call": call, **arguments}) + "\n")
            self.process.stdin.flush()

    def answer(self, call: str) -> Any:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], self.timeout)
        if not ready:
            self.process.kill()  # else it would go on working while others are timed
            raise EngineError(f"{self.kind.name}: no answer to {call} within {self.timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise EngineError(f"{self.kind.name}: the process ended with code {self.process.wait()} in {call}")
        answer = json.loads(line)
        if "error" in answer:
            print(*answer["traceback"].splitlines()[-5:], sep="\n", file=sys.stderr)
            if answer.get("last"):  # its device is unusable: it ends by itself
                self.process.wait(30)
            raise EngineError(f"{self.kind.name}: {answer['error'].splitlines()[0]}")
        return answer["ok"]

    def memory(self) -> dict[str, float] | None:
        return memory(self.process.pid)
