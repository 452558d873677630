"""The machine code of the kernels between products: loads of 16 bytes, nothing spilled, no slow divisions. Needs nvdisasm."""

import re

import pytest

from benchmarks.sass import disassembler, instructions, nvrtc

COLUMNS = ["add_bias", "bias_gelu", "gelu_backward", "column_sum", "gated_residual", "gated_residual_backward"]
MISSING = "no compiler for CUDA, or no nvdisasm (pip install 'minidit[cuda-test]')"
pytestmark = pytest.mark.skipif(nvrtc() is None or disassembler() is None, reason=MISSING)


def loads(names):
    """How many loads there are of every width in bits."""
    widths = [re.search(r"\.(64|128|U16)\b", name) for name in names if name.startswith("LDG")]
    return {w: sum((m[1] if m else "32") == w for m in widths) for w in ("U16", "32", "64", "128")}


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90"])
@pytest.mark.parametrize("kernel", COLUMNS)
def test_kernels_of_columns_load_sixteen_bytes_at_once_and_spill_nothing(kernel, arch):
    names = instructions("elementwise", kernel, arch, STORAGE="bf16", VEC=8)
    assert not [name for name in names if name.startswith(("LDL", "STL"))]
    widths = loads(names)
    assert widths["128"] >= 2 and widths["U16"] == widths["32"] == widths["64"] == 0


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_gelu_takes_two_special_instructions_per_number_and_few_others(arch):
    names = instructions("elementwise", "bias_gelu", arch, STORAGE="bf16", VEC=8)
    numbers = 8 * sum(name.startswith("STG") for name in names)  # every store writes eight
    assert sum(name.startswith("MUFU") for name in names) == 2 * numbers
    assert len([name for name in names if name != "NOP"]) < 14 * numbers


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("storage, VEC, STEPS, ROW_WARPS", [
    ("bf16", 4, 3, 1), ("bf16", 8, 3, 1), ("bf16", 4, 9, 1), ("bf16", 8, 2, 4), ("float", 4, 3, 1), ("float", 4, 8, 1),
])  # fmt: skip
def test_a_row_of_layer_norm_stays_in_registers(storage, VEC, STEPS, ROW_WARPS, arch):
    for kernel in ("layer_norm", "layer_norm_backward"):
        residual = int(kernel == "layer_norm")
        variant = {"STORAGE": storage, "VEC": VEC, "STEPS": STEPS, "ROW_WARPS": ROW_WARPS, "RESIDUAL": residual}
        names = instructions("normalise", kernel, arch, **variant)
        assert not [name for name in names if name.startswith(("LDL", "STL"))]
        wide = loads(names)["128" if VEC * (2 if storage == "bf16" else 4) == 16 else "64"]
        assert wide >= 4 * STEPS and loads(names)["U16"] == 0
