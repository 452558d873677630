"""The machine code of the kernels between products: loads of 16 bytes, nothing spilled, no slow divisions. Needs nvdisasm."""

import ctypes
import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from kernels.test_cuda_compile import nvrtc

from minidit.kernels.cuda_launch import options, source


def disassembler():
    """nvdisasm of the toolkit, or of its wheel."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [p for folder in (spec.submodule_search_locations if spec else ()) for p in Path(folder).glob("*/bin/nvdisasm")]
    return shutil.which("nvdisasm") or next(map(str, wheels), None)


COLUMNS = ["add_bias", "bias_gelu", "gelu_backward", "column_sum", "gated_residual", "gated_residual_backward"]
pytestmark = pytest.mark.skipif(nvrtc() is None or disassembler() is None, reason="no NVRTC, or no nvdisasm")


@cache
def cubin(file, defines, arch):
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    flags = [*options(dict(defines)), f"-arch={arch}"]
    nvrtc().nvrtcCreateProgram(ctypes.byref(program), source(f"{file}.cu").encode(), b"kernel.cu", 0, None, None)
    assert nvrtc().nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags))) == 0
    nvrtc().nvrtcGetCUBINSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    nvrtc().nvrtcGetCUBIN(program, code)
    nvrtc().nvrtcDestroyProgram(ctypes.byref(program))
    return code.raw


def instructions(folder, file, kernel, arch, **defines):
    """The names of a kernel's instructions, in order."""
    path = folder / "kernel.cubin"
    path.write_bytes(cubin(file, tuple(defines.items()), arch))
    text = subprocess.run([disassembler(), "-c", path], capture_output=True, text=True, check=True).stdout
    body = next(part for part in re.split(r"\n\.text\.", text)[1:] if part.startswith(f"{kernel}:"))
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", body)


def loads(names):
    """How many loads there are of every width in bits."""
    widths = [re.search(r"\.(64|128|U16)\b", name) for name in names if name.startswith("LDG")]
    return {w: sum((m[1] if m else "32") == w for m in widths) for w in ("U16", "32", "64", "128")}


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90"])
@pytest.mark.parametrize("kernel", COLUMNS)
def test_kernels_of_columns_load_sixteen_bytes_at_once_and_spill_nothing(kernel, arch, tmp_path):
    names = instructions(tmp_path, "elementwise", kernel, arch, STORAGE="bf16", VEC=8)
    assert not [name for name in names if name.startswith(("LDL", "STL"))]
    widths = loads(names)
    assert widths["128"] >= 2 and widths["U16"] == widths["32"] == widths["64"] == 0


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_gelu_takes_two_special_instructions_per_number_and_few_others(arch, tmp_path):
    names = instructions(tmp_path, "elementwise", "bias_gelu", arch, STORAGE="bf16", VEC=8)
    numbers = 8 * sum(name.startswith("STG") for name in names)  # every store writes eight
    assert sum(name.startswith("MUFU") for name in names) == 2 * numbers
    assert len([name for name in names if name != "NOP"]) < 14 * numbers


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("storage, VEC, STEPS, ROW_WARPS", [
    ("bf16", 4, 3, 1), ("bf16", 8, 3, 1), ("bf16", 4, 9, 1), ("bf16", 8, 2, 4), ("float", 4, 3, 1), ("float", 4, 8, 1),
])  # fmt: skip
def test_a_row_of_layer_norm_stays_in_registers(storage, VEC, STEPS, ROW_WARPS, arch, tmp_path):
    for kernel in ("layer_norm", "layer_norm_backward"):
        variant = {"STORAGE": storage, "VEC": VEC, "STEPS": STEPS, "ROW_WARPS": ROW_WARPS}
        names = instructions(tmp_path, "normalise", kernel, arch, **variant)
        assert not [name for name in names if name.startswith(("LDL", "STL"))]
        wide = loads(names)["128" if VEC * (2 if storage == "bf16" else 4) == 16 else "64"]
        assert wide >= 4 * STEPS and loads(names)["U16"] == 0
