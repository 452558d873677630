"""The machine code of attention in bfloat16, in the variants that the package asks for: by NVRTC, and nvdisasm where it is."""

import re
from collections import Counter

import pytest
from kernels.test_cuda_compile import DEVICES, compiled, known

from benchmarks.sass import disassembler, instructions, nvrtc
from minidit.kernels.cuda_attention_bf16 import owners_of, strips_of, tile_of
from minidit.kernels.cuda_launch import ceil, options, source

ARCHS = [arch for arch in DEVICES if arch != "sm_120" or (nvrtc() is not None and known(arch))]
CASES = [(arch, K, 256) for arch in ARCHS for K in (24, 64, 72)] + [("sm_80", 128, 256), ("sm_90", 128, 256), ("sm_90", 64, 64)]
FORWARD, BACKWARD = "attention_bf16", "attention_bf16_backward"
pytestmark = pytest.mark.skipif(nvrtc() is None, reason="no compiler for CUDA (pip install 'minidit[cuda-test]')")


def variants(arch, K, N):
    """[(kernel, its macros)] as the package asks for them on such a device"""
    shared = DEVICES[arch] << 10
    warps, high = owners_of(K, N, shared)
    backward = {"HEAD": K, "HIGH": high, "WARPS": warps, "TILE": tile_of(K, N, warps, high, shared)}
    return [(FORWARD, {"HEAD": K, "HIGH": strips_of(K, N)}), (BACKWARD, backward)]


@pytest.mark.parametrize("mask", [0, 1])
@pytest.mark.parametrize(("arch", "K", "N"), CASES)
def test_registers_hold_what_a_warp_owns(arch, K, N, mask, tmp_path):
    """Nothing is spilled. Forward, three blocks fit."""
    for kernel, defines in variants(arch, K, N):
        _, log = compiled(source(f"{kernel}.cu"), [*options({**defines, "MASK": mask}), f"-arch={arch}"], tmp_path)
        part = re.split("Compiling entry function '", log)
        (text,) = (p for p in part if p.startswith(f"{kernel}'"))
        assert int(re.search(r"(\d+) bytes spill stores", text)[1]) == 0, defines
        widest = 64 - 8 * mask if arch == "sm_120" else 80 - 16 * mask
        assert int(re.search(r"Used (\d+) registers", text)[1]) <= (168 if kernel == FORWARD and widest >= K else 255)


@pytest.mark.skipif(disassembler() is None, reason="nvdisasm is not installed (pip install 'minidit[cuda-test]')")
@pytest.mark.parametrize(("arch", "K", "N"), CASES)
def test_tiles_come_sixteen_bytes_at_once_and_go_to_tensor_cores_by_ldmatrix(arch, K, N):
    for kernel, defines in variants(arch, K, N):
        names = Counter(instructions(kernel, kernel, arch, **defines))
        count = {n: sum(names[x] for x in names if x.startswith(n)) for n in ("HMMA.16816", "LDGSTS", "STG.E.128")}
        assert names["LDSM.16.M88.4"] and names["LDSM.16.MT88.4"] and count["STG.E.128"]
        assert count["LDGSTS"] == names["LDGSTS.E.BYPASS.128"] > 0
        assert not names["LDG.E.U16"] and not names["STG.E.U16"] and not names["STS.U16"]
        high, wide = defines["HIGH"], 32 if defines["HIGH"] == 2 else 64  # strips of a warp, keys of a tile
        if kernel == FORWARD:
            assert count["HMMA.16816"] == high * wide // 16 * (2 * ceil(K, 16) + K // 8)
