"""Every CUDA source compiles for sm_80, sm_89, sm_90 and sm_120 in the variants that the twins ask for: by NVRTC or by nvcc.

By NVRTC, whose assembler says so, also without any number that leaves its register for memory.
"""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import standin.cache

from benchmarks.sass import nvrtc
from minidit.kernels.cuda_attention_bf16 import adjoint_bytes
from minidit.kernels.cuda_launch import FOLDER, KERNEL, options, source
from minidit.kernels.cuda_normalise import held_in_registers

FILES = sorted(p.stem for p in FOLDER.glob("*.cu"))
PLAIN = [{"STORAGE": s, "VEC": v} for s, v in (("float", 1), ("float", 4), ("bf16", 1), ("bf16", 4), ("bf16", 8))]
HEADS = [{"HEAD": 64, "FACTORS": f, "STORAGE": s, "VEC": 4} for s, f in (("float", 0), ("float", 1), ("float", 2), ("bf16", 2))]
HEADS += [{"HEAD": h, "FACTORS": 0, "STORAGE": "float", "VEC": v} for h, v in ((7, 1), (32, 4), (72, 4), (128, 4))]
FORWARD = [{"HEAD": h, "HIGH": n} for h, n in ((8, 1), (24, 2), (64, 1), (64, 2), (72, 2), (128, 1))]
BACKWARD = [
    {"HEAD": h, "HIGH": n, "WARPS": w} for h, n, w in ((8, 1, 4), (24, 2, 8), (64, 1, 8), (64, 2, 8), (72, 2, 8), (128, 1, 8))
]
FORWARD += [{"HEAD": h, "HIGH": 2, "MASK": 1} for h in (64, 72)]
BACKWARD += [{"HEAD": h, "HIGH": 2, "WARPS": 8, "MASK": 1} for h in (64, 72)]
BACKWARD += [{"HEAD": 64, "HIGH": 2, "WARPS": 8, "TILE": 128, "MASK": m} for m in (0, 1)]
ROWS = [held_in_registers(D, 8) | {"STORAGE": "bf16", "RESIDUAL": 1} for D in (384, 768, 1024, 1152)]
DEVICES = {"sm_80": 163, "sm_89": 99, "sm_90": 227, "sm_120": 99}  # kilobytes of shared memory per block
VARIANTS = {
    "attention": HEADS,
    "attention_bf16": FORWARD,
    "attention_bf16_backward": BACKWARD,
    "normalise": PLAIN + ROWS,
    "update": [{"VEC": 1}, {"VEC": 4}],
}


def variants(name, arch):
    """Those that the package asks for on such a device: a block of the adjoint of attention fits into its shared memory."""
    for d in VARIANTS.get(name, PLAIN):
        fits = "WARPS" not in d or adjoint_bytes(d["HEAD"], d["WARPS"], d["HIGH"], d.get("TILE", 64)) <= DEVICES[arch] << 10
        if fits:
            yield d


def known(arch):
    """Whether the compiler at hand knows an architecture. NVRTC knows sm_120 from 12.8 on."""
    if nvrtc() is None:
        return arch != "sm_120" or f"compute_{arch[3:]}" in subprocess.run(["nvcc", "-h"], capture_output=True, text=True).stdout
    count = ctypes.c_int()
    nvrtc().nvrtcGetNumSupportedArchs(ctypes.byref(count))
    archs = (ctypes.c_int * count.value)()
    nvrtc().nvrtcGetSupportedArchs(archs)
    return int(arch[3:]) in archs


def nvrtc_version():
    major, minor = ctypes.c_int(), ctypes.c_int()
    assert nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) == 0
    return f"NVRTC {major.value}.{minor.value}, {Path(nvrtc()._name).stat().st_size} bytes"


def compile_by_nvrtc(text, flags):
    """(the messages of a compilation that failed or "", what the assembler says of registers)"""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None) == 0
    failed = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags)))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    if not failed:
        assert library.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0 and size.value > 0
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return (log.value.decode(), "") if failed else ("", log.value.decode())


def compile_by_nvcc(text, flags, folder):
    (folder / "kernel.cu").write_text(text)
    command = ["nvcc", "-cubin", "-o", folder / "kernel.cubin", *flags, folder / "kernel.cu"]
    run = subprocess.run(command, capture_output=True, text=True)
    return (run.stderr, "") if run.returncode else ("", run.stdout + run.stderr)


def compiled(text, flags, folder):
    """(messages, registers) as above. What compiled once is not compiled again by the same compiler."""
    flags = [*flags, "--ptxas-options=-v"]
    if nvrtc() is not None:
        by, compile_it = nvrtc_version(), lambda: compile_by_nvrtc(text, flags)
    elif shutil.which("nvcc"):
        by, compile_it = standin.cache.version_of("nvcc"), lambda: compile_by_nvcc(text, flags, folder)
    else:
        pytest.skip("no compiler for CUDA: pip install 'minidit[cuda-test]'")

    def compile_or_raise(path):
        messages, log = compile_it()
        if messages:
            raise SyntaxError(messages)
        path.write_text(log)

    try:
        return "", standin.cache.kept(".registers", compile_or_raise, text, *flags, by).read_text()
    except SyntaxError as error:
        return str(error), ""


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90", "sm_120"])
@pytest.mark.parametrize("name", FILES)
def test_every_kernel_compiles_without_a_gpu_and_spills_nothing(name, arch, tmp_path):
    if (nvrtc() is not None or shutil.which("nvcc")) and not known(arch):
        pytest.skip(f"this compiler does not know {arch}")
    for defines in list(variants(name, arch))[0 if nvrtc() is not None else -1 :]:
        messages, log = compiled(source(f"{name}.cu"), [*options(defines), f"-arch={arch}"], tmp_path)
        assert not messages, defines
        assert set(re.findall(r"(\d+) bytes spill (?:stores|loads)", log)) == {"0"}, defines
        stacks = re.findall(r"function '(\w+)'(?:(?!function).)*?(\d+) bytes stack", log, re.DOTALL)
        assert {kernel for kernel, size in stacks if size != "0"} <= {"next_rates"}, defines  # powers, by one thread


def test_a_kernel_that_is_wrong_is_refused(tmp_path):
    text = source("update.cu").replace("*square", "*cube", 1).replace("float* square", "float* cubic")
    assert "error" in compiled(text, [*options({}), "-arch=sm_90"], tmp_path)[0]


def test_a_kernel_that_spills_is_seen(tmp_path):
    text = source("update.cu").replace("__launch_bounds__(256, 3)", "__launch_bounds__(256, 8)", 1)
    assert "__launch_bounds__(256, 8)" in text
    _, log = compiled(text, [*options({"VEC": 4}), "-arch=sm_90"], tmp_path)
    assert re.search(r"[1-9]\d* bytes spill stores", log)


@pytest.mark.parametrize("name", FILES)
def test_the_sources_need_no_toolkit_and_sum_no_floats_by_atomics(name):
    text = source(f"{name}.cu")
    assert "#include" not in text and KERNEL.findall(text)
    assert "atomicAdd" not in text  # the order of such sums is the order of the threads, and the bits change from run to run
