"""Machine code of the CUDA kernels without a GPU: compiled by NVRTC, taken apart by nvdisasm, counted loop by loop.

Both come as wheels (pip install 'minidit[cuda-test]'); no driver is needed. The tests of the machine code read it here, too.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from minidit.kernels.cuda_launch import FOLDER, options

INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*)")
LABEL = re.compile(r"^(\.L_\w+):", re.MULTILINE)
TARGET = re.compile(r"`\((\.L_\w+)\)")
MEMORY = ("LD", "ST", "RED", "ATOM", "HMMA", "BAR")  # what a block of instructions that is an exception does not have
Defines = tuple[tuple[str, Any], ...]


@cache
def nvrtc() -> Any:
    """The library of an installed wheel (CUDA 12 or 13), or None."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            if "builtins" not in path.name and "alt" not in path.name:
                return ctypes.CDLL(str(path))
    return None


def disassembler() -> str | None:
    """nvdisasm of the toolkit, or of its wheel; None without either."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [p for f in (spec.submodule_search_locations or () if spec else ()) for p in Path(f).glob("*/bin/nvdisasm")]
    return shutil.which("nvdisasm") or next(map(str, wheels), None)


def text_at(file: str, commit: str = "") -> str:
    """cuda/<file>.cu with its headers put in, as it is or as it was at a commit. Raises OSError where git has no such file."""

    def read(name: str) -> str:
        if not commit:
            return (FOLDER / name).read_text()
        command = ["git", "-C", str(FOLDER), "show", f"{commit}:./{name}"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise OSError(f"{name} at {commit}: {run.stderr.strip()}")
        return run.stdout

    def whole(name: str, seen: set[str]) -> str:
        seen.add(name)
        lines = []
        for line in read(name).splitlines():
            if line.startswith('#include "'):
                name = line.split('"')[1]
                lines += [] if name in seen else [whole(name, seen)]
            elif line != "#pragma once":
                lines.append(line)
        return "\n".join(lines)

    return whole(f"{file}.cu", set())


@cache
def compiled(text: str, arch: str, defines: Defines) -> tuple[bytes, str]:
    """(the machine code, what the assembler says about registers). Raises ValueError with the messages of the compiler."""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    flags = [f.encode() for f in (*options(dict(defines)), f"-arch={arch}", "--ptxas-options=-v")]
    library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    failed = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    if failed:
        raise ValueError(f"NVRTC, {arch}: {log.value.decode()}")
    library.nvrtcGetCUBINSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    library.nvrtcGetCUBIN(program, code)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return code.raw, log.value.decode()


def built(file: str, arch: str, defines: Defines, commit: str = "") -> tuple[bytes, str]:
    """`compiled` for a file of the package, all of its kernels.   defines : ((name, value), …)"""
    return compiled(text_at(file, commit), arch, defines)


@cache
def disassembled(code: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(code)
        cubin.flush()
        run = subprocess.run([str(disassembler()), "-c", cubin.name], capture_output=True, text=True, check=True)
    return run.stdout


def body(file: str, kernel: str, arch: str, defines: Defines, commit: str = "") -> str:
    """The text of one kernel."""
    text = disassembled(built(file, arch, defines, commit)[0])
    return next(part for part in re.split(r"\n\.text\.", text)[1:] if part.startswith(f"{kernel}:"))


def instructions(file: str, kernel: str, arch: str, **defines: Any) -> list[str]:
    """The names of a kernel's instructions, in order."""
    return [m[3] for m in INSTRUCTION.finditer(body(file, kernel, arch, tuple(defines.items())))]


@dataclass(frozen=True)
class Loop:
    """A loop of a kernel: how often every instruction stands in it, without the loops that it contains and without exceptions."""

    names: Counter[str]

    def count(self, *prefixes: str) -> int:
        return sum(n for name, n in self.names.items() if name.startswith(prefixes))

    @property
    def issued(self) -> int:
        return sum(n for name, n in self.names.items() if name != "NOP")

    def wavefronts(self, name: str) -> int:
        """Passes through shared memory, 128 bytes each, of its instructions LDS, STS, LDSM or LDGSTS without bank conflicts."""
        width = {"128": 4, "64": 2}
        return sum(
            n * (4 if name in ("LDSM", "LDGSTS") else next((w for bits, w in width.items() if bits in x.split(".")), 1))
            for x, n in self.names.items() if x.split(".")[0] == name
        )  # fmt: skip


def loops(text: str, *, shortest: bool = False) -> tuple[Loop, list[Loop]]:
    """(what stands outside of every loop, the loops) of a kernel's text, along the longest way through each, or the shortest.

    A block that a branch jumps over and that neither reads nor writes memory nor multiplies on tensor cores is taken for an
    exception (a row that ends inside a tile, a softmax that is shifted again) and never gone through. Slow paths of divisions and
    of shuffles, which follow the last exit, are no loops.
    """
    code = parsed(text)
    end = next((i for i, x in enumerate(code) if x.name == "EXIT" and not x.guarded), len(code) - 1)
    spans = sorted({(x.target, i) for i, x in enumerate(code[:end]) if 0 <= x.target < i}, key=lambda s: s[1] - s[0])
    owner = [next((s for s in spans if s[0] <= i <= s[1]), None) for i in range(end + 1)]

    def walked(span: tuple[int, int] | None) -> Loop:
        first, last = span or (0, end)
        return Loop(Counter(code[i].name for i in way(code, first, last, shortest) if owner[i] == span))

    return walked(None), [walked(span) for span in sorted(spans)]


@dataclass(frozen=True)
class Instruction:
    name: str
    target: int  # of a branch, the index of an instruction, or -1
    guarded: bool  # by a predicate: it may do nothing


def parsed(text: str) -> list[Instruction]:
    place: dict[str, int] = {}
    found: list[tuple[str, str, bool]] = []
    for line in text.splitlines():
        if m := LABEL.match(line):
            place[m[1]] = len(found)
        elif m := INSTRUCTION.search(line):
            target = TARGET.search(m[4]) if m[3].startswith(("BRA", "CALL.REL")) else None
            found.append((m[3], target[1] if target else "", bool(m[2] or (target and m[4][: target.start()].strip()))))
    return [Instruction(name, place[target] if target else -1, guarded) for name, target, guarded in found]


def way(code: list[Instruction], first: int, last: int, shortest: bool) -> list[int]:
    """The longest way from one instruction to another, or the shortest, never backwards."""
    cost, before = {first: 0}, dict[int, int]()
    for i in range(first, last):
        if i not in cost:
            continue
        x = code[i]
        between = code[i + 1 : x.target] if x.guarded and x.target > i else []
        exception = bool(between) and not any(y.name.startswith(MEMORY) or 0 <= y.target <= i for y in between)
        goes_on = not exception and (x.guarded or not (x.name == "EXIT" or x.target >= 0))
        for j in ([i + 1] if goes_on else []) + ([x.target] if i < x.target <= last else []):
            longer = cost[i] + 1
            if j not in cost or (longer < cost[j] if shortest else longer > cost[j]):
                cost[j], before[j] = longer, i
    taken = [last]
    while taken[-1] != first:
        taken.append(before[taken[-1]])
    return taken[::-1]
