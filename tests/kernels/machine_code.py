"""Machine code without a GPU: a kernel compiled by NVRTC, what the assembler says of it, and its instructions by nvdisasm."""

import ctypes
import importlib.util
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from kernels.test_cuda_compile import nvrtc

from minidit.kernels.cuda_launch import options, source


def disassembler():
    """nvdisasm of the toolkit, or of its wheel; None without either."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [p for folder in (spec.submodule_search_locations if spec else ()) for p in Path(folder).glob("*/bin/nvdisasm")]
    return shutil.which("nvdisasm") or next(map(str, wheels), None)


@cache
def built(file, arch, defines):
    """(the machine code, what the assembler says about registers).   defines : ((name, value), …)"""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    flags = [f.encode() for f in (*options(dict(defines)), f"-arch={arch}", "--ptxas-options=-v")]
    assert library.nvrtcCreateProgram(ctypes.byref(program), source(f"{file}.cu").encode(), b"kernel.cu", 0, None, None) == 0
    assert library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags)) == 0
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcGetCUBINSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    library.nvrtcGetCUBIN(program, code)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return code.raw, log.value.decode()


def instructions(file, kernel, arch, **defines):
    """The names of a kernel's instructions, in order."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(built(file, arch, tuple(defines.items()))[0])
        cubin.flush()
        text = subprocess.run([disassembler(), "-c", cubin.name], capture_output=True, text=True, check=True).stdout
    body = next(part for part in re.split(r"\n\.text\.", text)[1:] if part.startswith(f"{kernel}:"))
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", body)
